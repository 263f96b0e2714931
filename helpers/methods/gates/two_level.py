"""Two levels: the domain and the hazard, each by features of its own, and both must speak."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from helpers.engine.columns import Columns, chosen_columns
from helpers.engine.features import mean_activations
from helpers.engine.interventions import Gate
from helpers.methods.gates.rule import BENIGN, HAZARD, NEAR, Examples, GateRule, gate_scores_of, threshold_of
from helpers.methods.gates.window import WindowGate, check_window, largest_mean
from helpers.methods.look import Look
from helpers.profiles import Count, Profile


@dataclass(frozen=True)
class TwoLevelGate(Gate):
    """A gate by the window with most tokens of the hazard, in sequences whose windows are hot enough for its domain.

    Attributes:
        sae: whose features they are.
        features: that fire on the hazard and not on its near domain.
        domain: the threshold for the guard's own features.
        tokens: of a window.
    """

    sae: Any = field(repr=False)
    features: tuple[int, ...]
    domain: float
    tokens: int

    @cached_property
    def _columns(self) -> Columns:
        return chosen_columns(self.sae, self.features)

    def evidence(self, residual: Tensor, hot: Tensor) -> Tensor:
        """[batch, seq, 2] bool: whether a feature of the guard, and whether one of the hazard, fires."""
        return torch.stack([hot, (self._columns.encode(residual) > 0).any(dim=-1)], dim=-1)

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64 in [0, 1]; 0 outside the domain."""
        domain, hazard = (largest_mean(evidence[..., level], mask, self.tokens) for level in (0, 1))
        return torch.where(domain > self.domain, hazard, 0.0)


@dataclass(frozen=True)
class TwoLevel(GateRule):
    """Open where one window is of the domain and one of what tells the hazard from the near domain.

    The reproduction's two levels are shares of the whole prompt; a window keeps both from being diluted.
    """

    hazard_features: Count
    tokens: Count
    false_alarms: float

    name, look = "two levels", Look("#D55E00", "P")
    source = "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed; with windows: ours"
    spares = (BENIGN, NEAR)

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """With the profile's window, number of features and false alarms."""
        settings = profile.gates
        return cls(settings.hazard_features, settings.window, settings.false_alarms)

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """The hazard's features and the domain's threshold, which is the window gate's own."""
        check_window(self.tokens, examples)
        domain = threshold_of(
            gate_scores_of(WindowGate(0.0, self.tokens), examples, BENIGN), self.false_alarms, "quantile"
        )
        features = telling_features(examples, self.hazard_features)
        return {"features": [int(i) for i in features], "domain": domain, "tokens": self.tokens}

    def gate(self, sae, threshold: float, **fitted: Any) -> TwoLevelGate:
        """A gate with these features and this threshold of the domain."""
        return TwoLevelGate(threshold, sae, tuple(fitted["features"]), fitted["domain"], fitted["tokens"])


def telling_features(examples: Examples, n: int) -> np.ndarray:
    """The n features whose mean activation on the hazard's prompts lies furthest above that on all other prompts.

    In standard deviations within either kind, so that a feature that fires a little but always counts.

    Raises:
        ValueError: fewer than n features lie above.
    """
    hazard, others = (
        mean_activations(examples.model, examples.sae, rows, examples.batch_tokens)
        for rows in (examples.rows[HAZARD], [*examples.rows[NEAR], *examples.rows[BENIGN]])
    )
    spread = np.sqrt((hazard.var(axis=0) + others.var(axis=0)) / 2)
    above = np.divide(hazard.mean(axis=0) - others.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
    ranked = np.argsort(-above, kind="stable")[:n]
    if (above[ranked] <= 0).any():
        raise ValueError(f"{n} features that tell the hazard are asked for, {int((above > 0).sum())} do: ask for fewer")
    return ranked
