"""One file a gate: when a guard touches a sequence, how that is set on questions, name, look and source."""

from collections.abc import Mapping
from types import MappingProxyType

from helpers.methods.gates.cusum import Cusum
from helpers.methods.gates.detector import Detector
from helpers.methods.gates.excess import Excess
from helpers.methods.gates.rho import Rho, RhoNear
from helpers.methods.gates.rule import GateRule
from helpers.methods.gates.segments import Segments
from helpers.methods.gates.two_level import RunningTwoLevel, TwoLevel
from helpers.methods.gates.window import Window

__all__ = ["GATES", "GateRule", "gate_of"]

# By the name that the tables of a profile and a guard's field use. A new gate is a file and a line here.
GATES: Mapping[str, type[GateRule]] = MappingProxyType({
    "rho": Rho,
    "rho_near": RhoNear,
    "window": Window,
    "segments": Segments,
    "cusum": Cusum,
    "excess": Excess,
    "two_level": TwoLevel,
    "running_two_level": RunningTwoLevel,
    "detector": Detector,
})  # fmt: skip


def gate_of(name: str) -> type[GateRule]:
    """A gate by its name. Raises ValueError for an unknown one; the known ones are listed."""
    if name not in GATES:
        raise ValueError(f"gate {name!r} is unknown, the known ones are: {', '.join(GATES)}")
    return GATES[name]
