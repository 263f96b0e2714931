"""How a method looks in every figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """A colour that matplotlib knows, and a marker."""

    colour: str
    marker: str
