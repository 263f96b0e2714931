"""A sparse linear detector on SAE features, asked at every token: the idea of ARIA (arXiv 2609.16229).

Only that paper's abstract was read, so what is here is ours in every detail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, tensor

from helpers.engine.columns import Columns, chosen_columns
from helpers.engine.features import mean_activations
from helpers.engine.interventions import Gate
from helpers.methods.gates.rule import BENIGN, HAZARD, NEAR, Examples, GateRule
from helpers.methods.gates.two_level import telling_features
from helpers.methods.gates.window import check_window, largest_mean
from helpers.methods.look import Look
from helpers.profiles import Count, Profile


@dataclass(frozen=True)
class DetectorGate(Gate):
    """A gate by the window in which a weighted sum of feature activations is largest.

    Attributes:
        sae: whose features they are.
        features, weights: of the sum, equally many.
        tokens: of a window.
    """

    sae: Any = field(repr=False)
    features: tuple[int, ...]
    weights: tuple[float, ...]
    tokens: int

    def __post_init__(self) -> None:
        if len(self.features) != len(self.weights) or not np.isfinite([self.threshold, *self.weights]).all():
            raise ValueError(f"{len(self.features)} features need as many finite weights and a finite threshold")

    @cached_property
    def _columns(self) -> Columns:
        return chosen_columns(self.sae, self.features)

    def evidence(self, residual: Tensor, hot: Tensor) -> Tensor:
        """[batch, seq]: the weighted sum at each token."""
        activations = self._columns.encode(residual)
        return activations @ tensor(self.weights, dtype=activations.dtype, device=activations.device)

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64."""
        return largest_mean(evidence, mask, self.tokens)


@dataclass(frozen=True)
class Detector(GateRule):
    """Open where a logistic regression finds the hazard in a window: hazard against near domain and benign alike."""

    n_features: Count
    tokens: Count

    name, look = "linear detector", Look("#0072B2", "X")
    source = "idea of ARIA, arXiv 2609.16229, from its abstract alone; the rest ours"
    spares = (BENIGN, NEAR)

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """With the profile's window and number of features."""
        return cls(profile.gates.detector_features, profile.gates.window)

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """Features that tell the hazard, and their weights on mean activations of prompts."""
        check_window(self.tokens, examples)
        features = telling_features(examples, self.n_features)
        seen = {role: mean_activations(examples.model, examples.sae, rows, examples.batch_tokens)[:, features]
                for role in (HAZARD, NEAR, BENIGN) if len(rows := examples.rows[role])}  # fmt: skip
        x = np.concatenate([*seen.values()])
        y = np.concatenate([np.full(len(means), role == HAZARD) for role, means in seen.items()])
        probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)).fit(x, y)
        # in units of activation, so that no token needs to be scaled; what is the same at every token is left out
        weights = probe[-1].coef_[0] / probe[0].scale_
        return {"features": features.tolist(), "weights": weights.tolist(), "tokens": self.tokens}

    def gate(self, sae, threshold: float, **fitted: Any) -> DetectorGate:
        """A gate with these features and weights."""
        return DetectorGate(threshold, sae, tuple(fitted["features"]), tuple(fitted["weights"]), fitted["tokens"])
