"""Excess of hot tokens over what benign text of that length has, in standard deviations: order does not matter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from helpers.engine.interventions import Gate, after_bos
from helpers.methods.gates.rule import BENIGN, Examples, GateRule
from helpers.methods.look import Look


@dataclass(frozen=True)
class ExcessGate(Gate):
    """A gate by z = (H - qL) / sqrt(q (1 - q) L), of H hot tokens among L after BOS.

    Attributes:
        rate: q, the share of hot tokens in benign text.
    """

    rate: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and 0 < self.rate < 1):
            raise ValueError(
                f"an excess needs a finite threshold and 0 < rate < 1, got {self.threshold!r}, {self.rate!r}"
            )

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64, in standard deviations; 0 for a row with no token after BOS."""
        counted = after_bos(mask)
        hot, tokens = (evidence & counted).sum(dim=1).double(), counted.sum(dim=1).double()
        return (hot - self.rate * tokens) / (self.rate * (1 - self.rate) * tokens.clamp(min=1)).sqrt()


@dataclass(frozen=True)
class Excess(GateRule):
    """Open where there are more hot tokens than chance puts into a benign prompt of that length.

    Harmless tokens that make a prompt k times as long divide rho by about k, and this score by the root of k.
    """

    name, look = "excess count", Look("#CC79A7", "D")
    source = "ours"

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """The rate in benign prompts, kept off 0 by a half of one token among all of them."""
        share, tokens = examples.hot_share(BENIGN), sum(len(row) - 1 for row in examples.rows[BENIGN])
        return {"rate": min(max(share, 0.5 / tokens), 1 - 0.5 / tokens)}

    def gate(self, sae, threshold: float, **fitted: Any) -> ExcessGate:
        """A gate with this rate."""
        return ExcessGate(threshold, **fitted)
