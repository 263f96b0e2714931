"""Farrell et al. 2024: set features of the hazard to a negative value wherever they fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.methods.clamping import ClampMethod
from helpers.methods.look import Look

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@dataclass(frozen=True)
class StaticClamp(ClampMethod):
    """Each of the n best features by Farrell's sparsity rule is set to -c where it fires itself; 0 is zero ablation.

    Paper: n 10, 20, 50 and c 1 to 100 (Fig. 5), absolute.
    """

    name, look = "static clamp", Look("#0072B2", "o")
    source = "Farrell, Lau, Conmy 2024, section 3 and Fig. 5"
    rule = "sparsity"
    table = "static_clamp"
    actions = ("clamp", "clamp_cond")


@dataclass(frozen=True)
class NextDecoder(StaticClamp):
    """Farrell's 'random decoder' control: each feature's change is written along the decoder of the next index."""

    name, look = "the next feature's decoder", Look("#8C8C8C", "x")

    def decoders(self, lab: Lab, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The next index of each; after the last feature comes the first."""
        return tuple((i + 1) % lab.sae.cfg.d_sae for i in ids)
