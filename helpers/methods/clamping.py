"""What all clamps share: features by a rule, a strength in clamp units, and what may be set by hand in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from helpers.engine.edited import Edited
from helpers.engine.interventions import Add, Clamp, Gate
from helpers.methods.method import Method
from helpers.profiles import Count, Profile, Strength, settings_table

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

Feature = Annotated[int, Field(ge=0)]
Values = float | tuple[float, ...]


@settings_table
class Grid:
    """A clamp's table in a profile: every number of features with every strength.

    Attributes:
        n_features: how many of the best features by the method's rule are set.
        strengths: how far below zero they are set, in clamp units.
    """

    n_features: tuple[Count, ...]
    strengths: tuple[Strength, ...]


@dataclass(frozen=True)
class ClampMethod(Method):
    """A method that sets the n best features to -c; what a feature is set to, where and when is the method's own.

    Attributes:
        n_features: how many of the best features by the method's rule.
        strength: c in clamp units (the profile's `clamp_unit`; absolute in the papers).
        features: ids in place of those that the rule ranks best.
        value: what they are set to, in units of activation and with its sign: one number or one per feature; in place
            of the strength.
        fires_above: a feature fires where its activation is larger than this.
        bos: whether BOS is touched too.
        rule: the rule that ranks the features (`methods.selection.selections`).
        table: the key of the method's table in a profile, and `tables` the class that says what stands in it.
    """

    n_features: Count
    strength: Strength
    features: tuple[Feature, ...] | None = field(default=None, kw_only=True)
    value: Values | None = field(default=None, kw_only=True)
    fires_above: Strength = field(default=0.0, kw_only=True)
    bos: bool = field(default=False, kw_only=True)

    rule: ClassVar[str]
    table: ClassVar[str]
    tables: ClassVar[type[Grid]] = Grid

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of features with every strength, of the method's own table."""
        sizes = profile.grid_of(cls.table, cls.tables)
        return cls.over(sizes.n_features, sizes.strengths)

    @classmethod
    def over(cls, n_features: tuple[int, ...], strengths: tuple[float, ...], **more: Any) -> list[Self]:
        """A setting for every number of features and every strength; `more` is the same in all of them."""
        return [cls(n, strength, **more) for n, strength in product(n_features, strengths)]

    @classmethod
    def narrowed(cls, profile: Profile, given: Mapping[str, Any]) -> list[Self]:
        """As of every method; features set by hand are counted, and a value set by hand needs no strength."""
        for one, other in (("strength", "value"), ("features", "n_features")):
            if one in given and other in given:
                raise ValueError(f"{one} and {other} are both set, and each says what the other does: give one of them")
        implied: dict[str, Any] = {"n_features": len(given["features"])} if "features" in given else {}
        implied |= {"strength": 0.0} if "value" in given else {}
        return super().narrowed(profile, {**given, **implied})

    @property
    def words(self) -> str:
        """The setting in a few words: '20 features x5'."""
        return f"{self.n_features:g} features x{self.strength:g}"

    def apply(self, lab: Lab) -> Edited:
        """The clamp of the chosen features on the unedited model."""
        ids = self.chosen(lab)
        set_to, where, gate = self.set_to(lab, ids), self.where(), self.gate(lab, ids)
        more: dict[str, Any] = {"decoders": self.decoders(lab, ids), "fires_above": self.fires_above, "bos": self.bos}
        return Edited(lab.model, Clamp(lab.sae, ids, set_to, where, gate, **more))

    def chosen(self, lab: Lab) -> tuple[int, ...]:
        """Ids of the features, best first."""
        return lab.ranked(self.rule, self.n_features) if self.features is None else self.features

    def set_to(self, lab: Lab, ids: tuple[int, ...]) -> Values | Add:
        """What the features are set to, in units of activation: what was set by hand, else -strength clamp units."""
        return self.value if self.value is not None else -self.strength * lab.clamp_unit

    def where(self) -> Literal["own", "any", "always"]:
        """Where a feature is set, as in `Clamp`."""
        return "own"

    def gate(self, lab: Lab, ids: tuple[int, ...]) -> Gate | None:
        """Which sequences are touched; None for all."""
        return None

    def decoders(self, lab: Lab, ids: tuple[int, ...]) -> tuple[int, ...] | None:
        """Features whose decoder rows carry the change; None for the features' own."""
        return None
