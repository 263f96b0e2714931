"""The largest share of hot tokens in a window, so that text before and after a hot stretch does not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from helpers.engine.interventions import Gate, after_bos
from helpers.methods.gates.rule import BENIGN, HAZARD, NEAR, Examples, GateRule
from helpers.methods.look import Look
from helpers.profiles import Count, Profile


def largest_mean(values: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """The largest mean of `values` over so many consecutive tokens after BOS; over all where there are fewer.

    Args:
        values, mask: [batch, seq]; tokens that are masked out are not there at all, so their neighbours touch.

    Returns:
        [batch] float64; 0 for a row with no token after BOS.
    """
    counted = after_bos(mask)
    lengths, places = counted.sum(dim=1), counted.cumsum(dim=1)
    sums = torch.zeros(len(values), values.shape[1] + 1, dtype=torch.float64, device=values.device)
    # column i: the sum of the first i tokens that count
    sums.scatter_add_(1, torch.where(counted, places, 0), torch.where(counted, values.double(), 0.0))
    sums = sums.cumsum(dim=1)
    whole = sums.gather(1, lengths[:, None])[:, 0] / lengths.clamp(min=1)
    if values.shape[1] < tokens:
        return whole
    means = (sums[:, tokens:] - sums[:, :-tokens]) / tokens
    full = torch.arange(tokens, sums.shape[1], device=values.device) <= lengths[:, None]
    return torch.where(lengths >= tokens, means.masked_fill(~full, -torch.inf).amax(dim=1), whole)


def check_window(tokens: int, examples: Examples) -> None:
    """Raise ValueError where a window is longer than every prompt, so that it would be no window."""
    longest = max(len(row) - 1 for role in (HAZARD, NEAR, BENIGN) for row in examples.rows[role])
    if tokens > longest:
        raise ValueError(
            f"a window of {tokens} tokens is longer than every prompt, of which the longest has {longest} after BOS: "
            f"set gates.window to at most {longest}"
        )


@dataclass(frozen=True)
class WindowGate(Gate):
    """A gate by the largest share of hot tokens among so many consecutive ones."""

    tokens: int

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64 in [0, 1]."""
        return largest_mean(evidence, mask, self.tokens)


@dataclass(frozen=True)
class Window(GateRule):
    """Open where a stretch of the sequence is hot, whatever stands around it; words between dilute it still."""

    tokens: Count

    name, look = "window", Look("#56B4E9", "s")
    source = "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed: windows of 16 to 64"

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """With the profile's window."""
        return cls(profile.gates.window)

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """The window; raises ValueError where it is longer than every prompt."""
        check_window(self.tokens, examples)
        return {"tokens": self.tokens}

    def gate(self, sae, threshold: float, **fitted: Any) -> WindowGate:
        """A gate with this window."""
        return WindowGate(threshold, **fitted)
