"""Muhamed et al. 2025, Dynamic SAE Guardrails: a clamp at the hot tokens of sequences that have enough of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from helpers.engine.features import hot_fractions
from helpers.engine.interventions import Gate
from helpers.methods.clamping import ClampMethod
from helpers.methods.clamping import Grid as ClampGrid
from helpers.methods.gates import GATES, gate_of
from helpers.methods.gates.rule import examples_of, fitted_and_scored, lowest_threshold
from helpers.methods.look import Look
from helpers.profiles import Fraction, Percentile, settings_table

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@settings_table
class Grid(ClampGrid):
    """The method's table in a profile: `gate_percentile` of rho on retain text is the gate's threshold."""

    gate_percentile: Percentile


@dataclass(frozen=True)
class DSG(ClampMethod):
    """Where any of the n most important features fires, all are set to -c, in sequences whose rho exceeds tau.

    Paper: n 20 (10 to 30), c 500 (10 to 500, Table 3), absolute; tau the 95th percentile of rho on retain text.

    Attributes:
        threshold: tau; None takes the profile's percentile of rho on framed retain text.
        gated_by: another gate by its name in `GATES`, set on the questions of half 0; None is the paper's.
    """

    threshold: Fraction | None = field(default=None, kw_only=True)
    gated_by: str | None = field(default=None, kw_only=True)

    name, look = "DSG", Look("#E69F00", "^")
    source = "Muhamed et al. 2025, section 4 and Table 1"
    rule, table, tables = "importance", "dsg", Grid
    without = ("fires_above",)  # every gate is set on what fires above 0

    def __post_init__(self) -> None:
        if self.gated_by is not None:
            gate_of(self.gated_by)
            if self.threshold is not None:
                raise ValueError(f"gated_by {self.gated_by!r} sets its own threshold: give no threshold beside it")

    def where(self) -> Literal["any", "own"]:
        """All chosen features at every hot token."""
        return "any"

    def gate(self, lab: Lab, ids: tuple[int, ...]) -> Gate:
        """Open where more than a share tau of the tokens are hot, or as another gate says.

        Raises:
            ValueError: another gate cannot be set here.
        """
        if self.gated_by is not None:
            return lab.once(gate_set_by, self.gated_by, ids)
        return Gate(lab.once(gate_threshold_of, ids) if self.threshold is None else self.threshold)

    @property
    def label(self) -> str:
        """Guards with other gates are told apart in figures."""
        return self.name if self.gated_by is None else f"{self.name}, {gate_of(self.gated_by).name}"

    @classmethod
    def looks(cls) -> dict[str, Look]:
        """How the guards look with each gate."""
        return {cls.name: cls.look} | {f"{cls.name}, {gate.name}": gate.look for gate in GATES.values()}

    def ablation(self, lab: Lab) -> list[DSGAblation]:
        """The two ideas switched on and off at every strength of the grid, at this setting's features and threshold."""
        ids = self.chosen(lab)
        tau = self.gate(lab, ids).threshold if self.gated_by is None else None
        fixed = {"features": ids, "threshold": tau}
        strengths = lab.profile.grid_of(self.table, Grid).strengths
        return [
            DSGAblation(**vars(self) | fixed | {"strength": strength, "gated": gated, "spread": spread})
            for gated in (True, False)
            for spread in (True, False)
            for strength in strengths
        ]


@dataclass(frozen=True)
class DSGAblation(DSG):
    """DSG with an idea switched off.

    Attributes:
        gated: whether the gate decides which sequences are touched; without it all are.
        spread: whether all features are set at hot tokens; without it each one where it fires itself.
    """

    gated: bool = field(default=True, kw_only=True)
    spread: bool = field(default=True, kw_only=True)

    @property
    def label(self) -> str:
        """The ideas that are on."""
        clamped = "all features at hot tokens" if self.spread else "each feature where it fires"
        return f"{'gate' if self.gated else 'no gate'}, {clamped}"

    def where(self) -> Literal["any", "own"]:
        """As `spread` says."""
        return "any" if self.spread else "own"

    def gate(self, lab: Lab, ids: tuple[int, ...]) -> Gate | None:  # type: ignore[override]  # DSG itself has one
        """None where the gate is switched off."""
        return super().gate(lab, ids) if self.gated else None


def gate_set_by(lab: Lab, name: str, features: tuple[int, ...]) -> Gate:
    """A gate of `GATES` for some features, set on the questions of half 0 as the profile's `[gates]` says."""
    settings, found = lab.profile.gates, learned_gate(lab, name, features)
    threshold = lowest_threshold(found["scores"], settings.false_alarms, settings.calibration)
    return gate_of(name).of(lab.profile).gate(lab.sae, threshold, **found["fitted"])


def learned_gate(lab: Lab, name: str, features: tuple[int, ...]) -> dict[str, Any]:
    """What a gate of `GATES` learned of half 0, and its scores there (`fitted_and_scored`)."""
    rule, examples = gate_of(name).of(lab.profile), lab.once(examples_of, features)
    return lab.stage(f"gate-{name.replace('_', '-')}-{len(features)}", fitted_and_scored, rule, examples)


def gate_threshold_of(lab: Lab, features: tuple[int, ...]) -> float:
    """Tau for some features in a lab: the profile's percentile of rho on framed retain text."""
    percentile = lab.profile.grid_of(DSG.table, Grid).gate_percentile
    how = (lab.framed_retain, percentile, lab.profile.model.batch_tokens)
    return lab.stage(f"gate-threshold-{len(features)}", gate_threshold, lab.model, lab.sae, features, *how)


def gate_threshold(model, sae, features: tuple[int, ...], rows: list, percentile: float, batch_tokens: int) -> float:
    """DSG's tau: a percentile (95) of rho over retain rows (token ids)."""
    return float(np.percentile(hot_fractions(model, sae, features, rows, batch_tokens), percentile))
