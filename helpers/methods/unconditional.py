"""The control of Khoriaty et al. 2025: the same features lowered at every token, without any condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from helpers.engine.interventions import Add
from helpers.methods.clamping import ClampMethod, Values
from helpers.methods.look import Look
from helpers.methods.method import HIGHEST_ALIGNMENT

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@dataclass(frozen=True)
class Unconditional(ClampMethod):
    """The n best features by the strict rule are lowered by c at every token after BOS, whether they fire or not.

    Paper: released runs with an action `add`, c as for the clamps, absolute; at layer 20 there.
    """

    name, look = "unconditional add", Look("#8C8C8C", "v")
    source = "Khoriaty et al. 2025, released runs"
    rule, table = "clamp_prime", "unconditional"
    chosen_by = HIGHEST_ALIGNMENT
    actions, without = ("add",), ("fires_above",)

    def set_to(self, lab: Lab, ids: tuple[int, ...]) -> Add:
        """What is added to each feature."""
        return Add(cast(Values, super().set_to(lab, ids)))

    def where(self) -> Literal["always"]:
        """At every token."""
        return "always"
