"""Optimiser steps, the same wherever weights are trained: by methods, by the relearning attack, by fine-tuning.

Trained weights are float32 whatever the model's dtype is, for an update of 1e-5 would be lost in a bfloat16 weight;
products run in the model's dtype. A step that does not fit in memory is gone through in parts.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from helpers.engine.forward import clone, huggingface
from helpers.profiles import ModelSettings

# What AdamW keeps of every weight.
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Passes:
    """How much of a step is in memory at once; changes memory and time, and of the result the last digits.

    Attributes:
        tokens: in one forward and backward pass (a row at least); larger steps are gone through in parts, whose
            gradients are summed.
        checkpointing: of a layer only what goes in is kept for the backward pass, where the layer runs once more.
    """

    tokens: int
    checkpointing: bool = False

    @classmethod
    def of(cls, settings: ModelSettings) -> Self:
        """As a profile says."""
        return cls(settings.training_tokens, settings.gradient_checkpointing)

    def rows(self, length: int) -> int:
        """How many rows of a length a pass takes."""
        return max(1, self.tokens // length)


class Steps:
    """AdamW on those weights of a student that ask for gradients.

    Args:
        student: an nnsight model with float32 weights, which is changed (`master_copy` makes one).
        dtype: of the products.
        passes: how a step is gone through.
        who: trains, in the words of an error.
        longest_gradient: longer ones are shortened to it; None for as they are.

    Attributes:
        done: the number of steps taken.
    """

    def __init__(
        self,
        student: Any,
        dtype: torch.dtype,
        learning_rate: float,
        passes: Passes,
        who: str,
        longest_gradient: float | None = None,
    ) -> None:
        self.done, self._who = 0, who
        self._device, self._dtype, self._longest = student.device.type, dtype, longest_gradient
        self.trained = {name: p for name, p in huggingface(student).named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(self.trained.values(), lr=learning_rate)
        if passes.checkpointing:
            keep_only_what_goes_in(student)

    def step(self, parts: Iterable[Callable[[], Tensor]]) -> float:
        """One step down the sum of the parts' losses, each of which is gone forward and backward through by itself.

        Args:
            parts: each gives its share of the loss.

        Returns:
            The loss before the step.

        Raises:
            FloatingPointError: a loss is no finite number; the step is named, and is not taken.
        """
        total = 0.0
        for part in parts:
            with torch.autocast(self._device, dtype=self._dtype, enabled=self._dtype != torch.float32):
                loss = part()
            total += loss.item()
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"{self._who}: the loss is {total} at step {self.done + 1}; lower learning_rate"
                )
            loss.backward()
        if self._longest is not None:
            torch.nn.utils.clip_grad_norm_(self.trained.values(), self._longest)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.done += 1
        return total

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on beside its losses: weights and AdamW's moments, by name."""
        found = {f"weight {name}": weight.detach() for name, weight in self.trained.items()}
        for name, weight in self.trained.items():
            for moment in MOMENTS:
                found[f"{moment} {name}"] = self.optimiser.state[weight][moment]
        return found

    def restore(self, state: dict[str, Tensor], done: int) -> None:
        """Go on from the `state` of another, after so many steps (one at least)."""
        for name, weight in self.trained.items():
            weight.data.copy_(state[f"weight {name}"])
            moments = {moment: state[f"{moment} {name}"].to(weight.device, copy=True) for moment in MOMENTS}
            self.optimiser.state[weight] = {"step": torch.tensor(float(done)), **moments}
        self.done = done


def master_copy(model) -> Any:
    """A copy of a model with float32 weights, to be trained without touching the first."""
    return clone(model, torch.float32)


def as_used(student: Any, dtype: torch.dtype) -> Any:
    """A student as it is asked: in a model's dtype, a copy where that is another than the student's."""
    return student if huggingface(student).dtype == dtype else clone(student, dtype)


def keep_only_what_goes_in(model) -> None:
    """Turn gradient checkpointing on: layers keep their input for the backward pass, and run again there."""
    network = huggingface(model)
    network.activation_checkpointing_enable()
    for layer in network.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True  # itself and not what is in it, so that nothing is dropped out
