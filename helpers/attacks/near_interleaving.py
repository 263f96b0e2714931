"""Interleaving with words of the near domain, which a detector that tells the two apart takes for evidence against."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.attacks.interleaving import Interleaving


@dataclass(frozen=True)
class NearInterleaving(Interleaving):
    """Made for gates that weigh features: where far words only dilute a stretch, near ones lower it.

    Its table names the kind of filler, `near` in the profiles here.
    """

    name, table = "near interleaving", "near_interleaving"
    source = "ours, against the linear detector of notebook 13"

    @property
    def words(self) -> str:
        """As '2 near words between words'."""
        return f"{self.between} {self.filler} word{'s' * (self.between > 1)} between words"
