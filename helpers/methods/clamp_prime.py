"""Khoriaty et al. 2025, Clamp Prime: the static edit with features that hardly ever fire on anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from helpers.engine.interventions import Add
from helpers.methods.clamping import ClampMethod, Values
from helpers.methods.clamping import Grid as ClampGrid
from helpers.methods.look import Look
from helpers.methods.method import HIGHEST_ALIGNMENT
from helpers.profiles import Profile, settings_table

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@settings_table
class Grid(ClampGrid):
    """The method's table in a profile: `proportional` names the variants, [false, true] both."""

    proportional: tuple[bool, ...]


@dataclass(frozen=True)
class ClampPrime(ClampMethod):
    """Each of the n best features by the strict rule is set to -c where it fires itself.

    Paper: n 5, 10, 20 and c 0 to 100, chosen 300, absolute; the same c for all, or 'proportional'.

    Attributes:
        proportional: each feature gets its own share of the strength (`rate_weights`).
    """

    proportional: bool = field(default=False, kw_only=True)

    name, look = "Clamp Prime", Look("#56B4E9", "s")
    proportional_name, proportional_look = "Clamp Prime, proportional", Look("#009E73", "P")
    source = "Khoriaty et al. 2025, section 3"
    rule, table, tables = "clamp_prime", "clamp_prime", Grid
    chosen_by = HIGHEST_ALIGNMENT
    actions = ("clamp", "clamp_cond")

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """For every number of features and variant all strengths; at 0 the variants are one, which stands once."""
        sizes = profile.grid_of(cls.table, Grid)
        return [
            cls(n, strength, proportional=proportional)
            for n in sizes.n_features
            for proportional in sizes.proportional
            for strength in sizes.strengths
            if strength > 0 or not proportional
        ]

    @classmethod
    def narrowed(cls, profile: Profile, given: Mapping[str, Any]) -> list[Self]:
        """As of every clamp; the variants are not chosen among: it is the plain one if not otherwise said."""
        if "proportional" in given and "value" in given:
            raise ValueError("proportional and value are both set, and each says what the other does: give one of them")
        return super().narrowed(profile, {"proportional": False, **given})

    @property
    def label(self) -> str:
        """The variants are told apart in figures."""
        return self.proportional_name if self.proportional else self.name

    @classmethod
    def looks(cls) -> dict[str, Look]:
        """How both variants look."""
        return {cls.name: cls.look, cls.proportional_name: cls.proportional_look}

    def set_to(self, lab: Lab, ids: tuple[int, ...]) -> Values | Add:
        """-c for all features, or each one's share of it."""
        value = super().set_to(lab, ids)
        if not self.proportional or self.value is not None:
            return value
        forget, _ = lab.firing_rates()
        return tuple(
            cast(float, value) * weight for weight in rate_weights(forget["firing_rate"].to_numpy()[list(ids)])
        )


def rate_weights(firing_rates: np.ndarray) -> tuple[float, ...]:
    """'Proportional' weights of some features: the firing rate on forget text over its mean among them (mean 1).

    The paper's rule is not published. Its weights fall along the ranking, which is by firing rate on forget text, hence
    this guess; theirs have a mean of 1.2 to 2.2, so that their proportional clamps are also stronger ones.
    """
    rates = np.asarray(firing_rates, dtype=float)
    return tuple((rates / rates.mean()).tolist())
