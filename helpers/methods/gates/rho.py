"""Muhamed et al. 2025: the share of hot tokens, here with a threshold set on questions in the format of use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helpers.engine.interventions import Gate
from helpers.methods.gates.rule import BENIGN, NEAR, GateRule
from helpers.methods.look import Look


@dataclass(frozen=True)
class Rho(GateRule):
    """Open where the share of hot tokens is high; order does not matter, and harmless tokens lower it."""

    name, look = "rho", Look("#8C564B", "<")
    source = "Muhamed et al. 2025, section 4"

    def gate(self, sae, threshold: float, **fitted: Any) -> Gate:
        """The engine's own."""
        return Gate(threshold)


@dataclass(frozen=True)
class RhoNear(Rho):
    """The same with so high a threshold that the near domain is spared too: what costs nothing to try first."""

    name, look = "rho above near", Look("#8C6BB1", "v")
    source = "ours"
    spares = (BENIGN, NEAR)
