"""How a method looks in every figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """A colour that matplotlib knows, and a marker.

    Attributes:
        reference: it is of what the methods are measured against, so it is drawn larger, above them and joined to none.
    """

    colour: str
    marker: str
    reference: bool = False
