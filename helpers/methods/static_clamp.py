"""Farrell et al. 2024: set features of the hazard to a negative value wherever they fire."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.methods.clamping import ClampMethod
from helpers.methods.look import Look


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
