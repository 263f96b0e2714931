"""Two levels: the domain and the hazard, each by features of its own, and both must speak."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from helpers.engine.columns import Columns, chosen_columns
from helpers.engine.features import mean_activations
from helpers.engine.interventions import Gate
from helpers.methods.gates.cusum import Cusum
from helpers.methods.gates.rule import BENIGN, HAZARD, NEAR, Examples, GateRule, calibrated
from helpers.methods.gates.window import Window
from helpers.methods.look import Look
from helpers.profiles import Count, Profile


@dataclass(frozen=True)
class TwoLevelGate(Gate):
    """A gate by the tokens at which the hazard's features fire, in sequences that a gate of its domain opens on.

    Attributes:
        sae: whose features they are.
        features: that fire on the hazard and not on its near domain.
        domain: a gate by the guard's own features, with its threshold.
        hazard: a gate whose score of the hazard's features is this one's; its own threshold is not asked.
    """

    sae: Any = field(repr=False)
    features: tuple[int, ...]
    domain: Gate
    hazard: Gate

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ValueError(f"a gate of two levels needs a finite threshold, got {self.threshold!r}")

    @cached_property
    def _columns(self) -> Columns:
        return chosen_columns(self.sae, self.features)

    def evidence(self, residual: Tensor, hot: Tensor) -> Tensor:
        """[batch, seq, 2] bool: whether a feature of the guard, and whether one of the hazard, fires."""
        return torch.stack([hot, (self._columns.encode(residual) > 0).any(dim=-1)], dim=-1)

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64; 0 outside the domain."""
        return torch.where(self.domain.opens(evidence[..., 0], mask), self.hazard.score(evidence[..., 1], mask), 0.0)


@dataclass(frozen=True)
class TwoLevel(GateRule):
    """Open where one window is of the domain and one of what tells the hazard from the near domain.

    The reproduction's two levels are shares of the whole prompt; a window keeps both from being diluted.
    """

    hazard_features: Count
    level: GateRule
    false_alarms: float

    name, look = "two levels", Look("#D55E00", "P")
    source = "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed; with windows: ours"
    spares = (BENIGN, NEAR)
    rule: ClassVar[type[GateRule]] = Window

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """With the profile's window, number of features and false alarms."""
        settings = profile.gates
        return cls(settings.hazard_features, cls.rule.of(profile), settings.false_alarms)

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """The hazard's features, and of either level what a gate of its kind knows; the domain's has its threshold."""
        domain = calibrated(self.level, examples, self.false_alarms, "quantile")
        features = telling_features(examples, self.hazard_features).tolist()
        rows = {HAZARD: examples.rows[HAZARD], NEAR: [], BENIGN: [*examples.rows[NEAR], *examples.rows[BENIGN]]}
        hazard = self.level.fitted(replace(examples, features=tuple(features), rows=rows))
        return {"features": features, "domain": domain, "hazard": hazard}

    def gate(self, sae, threshold: float, **fitted: Any) -> TwoLevelGate:
        """A gate with these features and levels."""
        domain, hazard = self.level.gate(sae, **fitted["domain"]), self.level.gate(sae, 0.0, **fitted["hazard"])
        return TwoLevelGate(threshold, sae, tuple(fitted["features"]), domain, hazard)


@dataclass(frozen=True)
class RunningTwoLevel(TwoLevel):
    """The same with a CUSUM at each level: the domain's tokens come thick and fast, and so do the hazard's."""

    name, look = "two levels, CUSUM", Look("#882255", "h")
    source = "ours"
    rule = Cusum


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
