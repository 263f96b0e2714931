"""Rho by segment: the hottest segment of a sequence, against as many segments of benign text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from helpers.engine.interventions import Gate, after_bos
from helpers.methods.gates.rule import BENIGN, TEXT, Examples, GateRule
from helpers.methods.gates.window import check_window
from helpers.methods.look import Look
from helpers.profiles import Count, Profile


def hot_counts(hot: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """Hot tokens in each stretch of so many tokens after BOS, the first one first; the last one may be shorter.

    Args:
        hot, mask: [batch, seq]; tokens that are masked out are not there at all, so their neighbours touch.

    Returns:
        [batch, segments] int64; 0 where a row has no more tokens.
    """
    counted = after_bos(mask)
    segment = (counted.cumsum(dim=1) - 1).clamp(min=0) // tokens
    counts = torch.zeros(len(hot), 1 + hot.shape[1] // tokens, dtype=torch.long, device=hot.device)
    return counts.scatter_add_(1, segment, (hot & counted).long())


@dataclass(frozen=True)
class SegmentGate(Gate):
    """A gate by how rare the hottest segment is in benign text, given how many segments the sequence has.

    Attributes:
        tokens: of a segment.
        shares: of segments of benign text that have at least 0, 1, ... `tokens` hot tokens.
    """

    tokens: int
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shares) != self.tokens + 1 or list(self.shares) != sorted(self.shares, reverse=True):
            raise ValueError(f"segments of {self.tokens} tokens need {self.tokens + 1} falling shares")

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64 in [0, 1]: the chance that as many segments of benign text are all less hot than this one."""
        hottest = hot_counts(evidence, mask, self.tokens).amax(dim=1)
        share = torch.tensor(self.shares, dtype=torch.float64, device=evidence.device)[hottest]
        segments = (after_bos(mask).sum(dim=1) + self.tokens - 1) // self.tokens
        return torch.where(segments > 0, (1 - share) ** segments, 0.0)  # nothing behind BOS is no evidence


@dataclass(frozen=True)
class Segments(GateRule):
    """Open where a segment is hotter than the hottest of as many segments of benign text.

    A segment is a stretch of fixed length from the start on: no gate sees tokens, so turns and sentences are nothing to
    it, and an attacker who writes them could choose where they end. A window's largest share grows with the length of
    harmless text; here the number of segments is taken into account, with shares from the guard's retain text, and the
    threshold spares that text as well as benign questions.
    """

    tokens: Count

    name, look = "rho by segment", Look("#999933", "p")
    source = "ours"
    spares = (BENIGN, TEXT)

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """With segments as long as the profile's window."""
        return cls(profile.gates.window)

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """Shares of segments, kept off 0 by one more that is all hot; raises ValueError where none is whole."""
        check_window(self.tokens, examples)
        counts = [
            int(part.sum()) for hot in examples.hot(TEXT) for part in hot.split(self.tokens) if len(part) == self.tokens
        ]
        if not counts:
            raise ValueError(f"no benign text has a segment of {self.tokens} tokens: lower gates.window or give longer")
        least = torch.tensor([*counts, self.tokens])[:, None] >= torch.arange(self.tokens + 1)
        return {"tokens": self.tokens, "shares": least.double().mean(dim=0).tolist()}

    def gate(self, sae, threshold: float, **fitted: Any) -> SegmentGate:
        """A gate with these segments."""
        return SegmentGate(threshold, fitted["tokens"], tuple(fitted["shares"]))
