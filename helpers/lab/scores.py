"""What a sweep found: settings, each with what is left of the knowledge under it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from helpers.methods.method import Method


@dataclass(frozen=True, eq=False)
class Scored:
    """One setting of a sweep.

    Attributes:
        setting: what was applied.
        label: its method's name in figures.
        facts: its intervention as JSON, nothing where it changes weights only.
        table: `Knowledge.tabulate`.
    """

    setting: Method
    label: str
    facts: dict[str, Any]
    table: pd.DataFrame


class Scores(tuple):
    """The scored settings of a sweep in their order; made of `Scored`."""

    __slots__ = ()

    def of(self, *methods: type[Method]) -> "Scores":
        """Those of some methods."""
        return Scores(one for one in self if isinstance(one.setting, methods))

    def by_method(self) -> dict[str, "Scores"]:
        """Those of each method, by its label, in their order."""
        return {label: Scores(one for one in self if one.label == label) for label in self.labels}

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the methods, each once."""
        return tuple(dict.fromkeys(one.label for one in self))

    @property
    def settings(self) -> Sequence[Method]:
        """The settings themselves."""
        return [one.setting for one in self]

    def __add__(self, other: tuple) -> "Scores":
        return Scores((*self, *other))
