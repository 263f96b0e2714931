"""What a gate of a guard is: which sequences are touched, and how that is set on questions in the format of use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from helpers.engine.features import token_activations
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import gate_scores
from helpers.methods.look import Look
from helpers.profiles import Profile
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

Calibration = Literal["quantile", "conformal"]
HAZARD, NEAR, BENIGN, TEXT = "forget", "near", "side", "text"


@dataclass(frozen=True)
class Examples:
    """Questions of half 0 as they are asked, on which a gate is set; half 1 is what is reported.

    Attributes:
        model, sae: the unedited model and the SAE.
        features: of the guard, so that a token is hot where any of them fires.
        rows: prompts as token rows, by role: `HAZARD`, `NEAR`, `BENIGN`; and `TEXT`, the guard's retain text, documents
            that are asked as questions are.
    """

    model: Any
    sae: Any
    features: tuple[int, ...]
    rows: Mapping[str, Rows]
    batch_tokens: int

    def hot(self, role: str) -> list[Tensor]:
        """Of every row of a role whether each token after BOS is hot, [tokens] bool."""
        found = token_activations(self.model, self.sae, self.features, self.rows[role], self.batch_tokens)
        return [(row[1:] > 0).any(dim=-1) for row in found]

    def hot_share(self, role: str) -> float:
        """The share of hot tokens among all tokens after BOS of a role's prompts."""
        return float(torch.cat(self.hot(role)).double().mean())


@dataclass(frozen=True)
class GateRule(ABC):
    """How a kind of gate is set; an instance is one setting.

    Attributes:
        name: what figures call the gate.
        look: its colour and marker.
        source: who made it known.
        spares: the roles among which it may open by mistake no more often than it is told to.
    """

    name: ClassVar[str]
    look: ClassVar[Look]
    source: ClassVar[str]
    spares: ClassVar[tuple[str, ...]] = (BENIGN,)

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """As the profile's table `[gates]` sets it; most have nothing to set."""
        return cls()

    def fitted(self, examples: Examples) -> dict[str, Any]:
        """What the gate has to know beside its threshold, as JSON; most know nothing.

        Raises:
            ValueError: the examples do not suffice.
        """
        return {}

    @abstractmethod
    def gate(self, sae, threshold: float, **fitted: Any) -> Gate:
        """The gate with a threshold, from what `fitted` gave."""


def fitted_and_scored(rule: GateRule, examples: Examples) -> dict[str, Any]:
    """What a gate has to know ('fitted'), and its scores of what it has to spare, by role ('scores'), as JSON.

    Raises:
        ValueError: the examples do not suffice, or there are none of any role that it spares.
    """
    roles = [role for role in rule.spares if len(examples.rows[role])]
    if not roles:
        raise ValueError(f"gate {rule.name!r} is set on questions of the roles {rule.spares}, and none is known")
    fitted = rule.fitted(examples)
    gate = rule.gate(examples.sae, 0.0, **fitted)
    return {"fitted": fitted, "scores": {role: gate_scores_of(gate, examples, role).tolist() for role in roles}}


def lowest_threshold(scores: Mapping[str, Sequence[float]], false_alarms: float, calibration: Calibration) -> float:
    """The lowest threshold that spares every role.

    Args:
        scores: of the prompts of each role that is to be spared.
        false_alarms: the share of the prompts of each role that may open the gate.
    """
    return max(threshold_of(np.array(of), false_alarms, calibration, role) for role, of in scores.items())


def calibrated(rule: GateRule, examples: Examples, false_alarms: float, calibration: Calibration) -> dict[str, Any]:
    """A gate's fields, as JSON: what it has to know and its threshold (`fitted_and_scored`, `lowest_threshold`)."""
    found = fitted_and_scored(rule, examples)
    return {"threshold": lowest_threshold(found["scores"], false_alarms, calibration), **found["fitted"]}


def gate_scores_of(gate: Gate, examples: Examples, role: str) -> np.ndarray:
    """What a gate makes of the prompts of a role, [prompts]."""
    clamp = Clamp(examples.sae, examples.features, 0.0, "any", gate)
    return gate_scores(examples.model, clamp, examples.rows[role], examples.batch_tokens)


def threshold_of(scores: np.ndarray, false_alarms: float, calibration: Calibration, role: str = "benign") -> float:
    """The threshold above which so large a share of benign scores lies.

    'quantile' is their (1 - false_alarms) quantile. 'conformal' is the k-th smallest of n, k = ceil((n + 1)(1 -
    false_alarms)): of a new prompt that is like the n, the chance to lie above it is at most `false_alarms`.

    Args:
        scores: [n].
        role: of their prompts, for the error.

    Raises:
        ValueError: there are too few scores for the conformal level.
    """
    if calibration == "quantile":
        return float(np.quantile(scores, 1 - false_alarms))
    n, least = len(scores), fewest_prompts(false_alarms)
    if n < least:
        raise ValueError(
            f"{n} prompts of role {role!r} are too few for a conformal threshold at {false_alarms:g} false alarms, "
            f"which needs {least}: ask more of them, allow more alarms, or calibrate by 'quantile'"
        )
    return float(np.sort(scores)[math.ceil((n + 1) * (1 - false_alarms)) - 1])


def fewest_prompts(false_alarms: float) -> int:
    """How many benign prompts a conformal threshold needs at least."""
    return math.ceil((1 - false_alarms) / false_alarms)


def examples_of(lab: Lab, features: tuple[int, ...]) -> Examples:
    """The known questions of half 0 of a lab, as they are asked, and its retain text."""
    rows = prompts_by_role(lab, lab.profile.model.prompt_format) | {TEXT: lab.framed_retain}
    return Examples(lab.model, lab.sae, features, rows, lab.profile.model.batch_tokens)


def prompts_by_role(lab: Lab, prompt_format: str, things: Container[str] | None = None) -> dict[str, Rows]:
    """The known questions of half 0 in a format, by role; with `things`, those that are about one of these."""
    knowledge, rows = lab.knowledge_on(0), dict[str, list]({HAZARD: [], NEAR: [], BENIGN: []})
    for subject, questions in knowledge.questions.items():
        kept = [q for q in questions if things is None or q.about in things]
        if kept:
            rows[knowledge.roles[subject]] += prompt_tokens(lab.model.tokenizer, kept, ORIGINAL_ORDER, prompt_format)
    return dict(rows)
