"""Page's CUSUM: evidence is summed along the sequence and forgotten where the sum falls below nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.engine.interventions import Gate, after_bos
from helpers.methods.gates.rule import BENIGN, HAZARD, Examples, GateRule
from helpers.methods.look import Look

# Rates nearer to 0 or 1 would let a single token decide.
CLIP = 1e-4


@dataclass(frozen=True)
class CusumGate(Gate):
    """A gate by the largest of S_t = max(0, S_(t-1) + e_t), e_t the gain of a hot token or the loss of another.

    Attributes:
        gain, loss: in nats, the first above 0 and the second below.
    """

    gain: float
    loss: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold >= 0 and self.loss < 0 < self.gain):
            raise ValueError(
                f"CUSUM needs a threshold of at least 0, a gain above 0 and a loss below 0, got {self.threshold!r}, "
                f"{self.gain!r} and {self.loss!r}"
            )

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64, at least 0."""
        steps = torch.where(evidence, self.gain, self.loss).double().masked_fill(~after_bos(mask), 0.0)
        sums = steps.cumsum(dim=1)
        # S_t is what the sum has risen above its lowest so far, the empty sum among them
        return (sums - sums.cummin(dim=1).values.clamp(max=0)).amax(dim=1)


@dataclass(frozen=True)
class Cusum(GateRule):
    """Open where hot tokens have come thick and fast: text before or after a hot stretch does not count.

    Gain and loss are the log-likelihood ratios of a hot and of another token, hazard to benign; the reproduction sums
    them over features, here a token is hot or not.
    """

    name, look = "CUSUM", Look("#009E73", "o")
    source = "Page 1954; independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed"

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """Gain and loss. Raises ValueError where hot tokens are no commoner in the hazard's prompts."""
        p, q = (min(max(examples.hot_share(role), CLIP), 1 - CLIP) for role in (HAZARD, BENIGN))
        if p <= q:
            raise ValueError(f"tokens are hot in {p:.4f} of the hazard's prompts and {q:.4f} of benign ones: no CUSUM")
        return {"gain": math.log(p / q), "loss": math.log((1 - p) / (1 - q))}

    def gate(self, sae, threshold: float, **fitted: Any) -> CusumGate:
        """A gate with this gain and loss."""
        return CusumGate(threshold, **fitted)
