"""Farrell et al. 2024: the static edit with features found by attribution and filtered by what each costs alone."""

from __future__ import annotations

from dataclasses import dataclass

from helpers.methods.clamping import ClampMethod
from helpers.methods.look import Look
from helpers.methods.selection import ATTRIBUTION


@dataclass(frozen=True)
class AttributionClamp(ClampMethod):
    """Each of the n best features by attribution is set to -c where it fires itself.

    They are found on half 0 of the known questions (`Lab.attributed`), so asked about all of them the method is
    flattered; half 1 says what it does. Paper: up to 26 features of gemma-2b-it, one after the other, c 20 and 25.
    """

    name, look = "attribution clamp", Look("#8A8D0F", r"$\clubsuit$")
    source = "Farrell, Lau, Conmy 2024, gemma-2b-it: features by attribution"
    rule, table = ATTRIBUTION, "attribution_clamp"
    from_text = False
