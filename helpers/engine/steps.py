"""Optimiser steps, the same wherever weights are trained: by methods, by the relearning attack, by fine-tuning.

Trained weights are float32 whatever the model's dtype is, for an update of 1e-5 would be lost in a bfloat16 weight;
products run in the model's dtype. A step that does not fit in memory is gone through in parts.
"""

import gc
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from helpers.engine.forward import clone, huggingface
from helpers.profiles import ModelSettings

# Where bitsandbytes keeps moments in 8 bits.
EIGHT_BIT_DEVICES = ("cuda", "cpu")


@dataclass(frozen=True)
class Passes:
    """How a step is gone through: what of it is in memory at once, and in which precision.

    Attributes:
        tokens: in one forward and backward pass (a row at least); larger steps are gone through in parts, whose
            gradients are summed. Changes of the result the last digits, as does the next.
        checkpointing: of a layer only what goes in is kept for the backward pass, where the layer runs once more.
        dtype: of the products, 'same' for the model's.
        optimizer: 'adamw', or 'adamw 8-bit' (`check_optimizer`).
    """

    tokens: int
    checkpointing: bool = False
    dtype: str = "same"
    optimizer: str = "adamw"

    @classmethod
    def of(cls, settings: ModelSettings) -> Self:
        """As a profile says."""
        return cls(
            settings.training_tokens, settings.gradient_checkpointing, settings.training_dtype, settings.optimizer
        )

    def rows(self, length: int) -> int:
        """How many rows of a length a pass takes."""
        return max(1, self.tokens // length)


# How a loss is parted that is gone through so; each part gives its share of it.
Parts = Callable[[Passes], Sequence[Callable[[], Tensor]]]


class Steps:
    """AdamW on those weights of a student that ask for gradients.

    Args:
        student: an nnsight model with float32 weights, which is changed (`master_copy` makes one).
        dtype: the model's, and of the products where `passes` names no other.
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
        self.done, self._who, self._passes = 0, who, passes
        self._device, self._longest = student.device.type, longest_gradient
        self._dtype = dtype if passes.dtype == "same" else getattr(torch, passes.dtype)
        self.trained = {name: p for name, p in huggingface(student).named_parameters() if p.requires_grad}
        self.optimiser = _adamw(passes.optimizer, student.device)(self.trained.values(), lr=learning_rate)
        if passes.checkpointing:
            keep_only_what_goes_in(student)

    def step(self, parts: Parts) -> float:
        """One step down the sum of the parts' losses, each of which is gone forward and backward through by itself.

        Where the device has no memory for a part, the step begins anew in smaller ones, and so do all later ones.

        Args:
            parts: the loss, parted as `Passes` says.

        Returns:
            The loss before the step.

        Raises:
            FloatingPointError: a loss is no finite number; the step is named, and is not taken.
            torch.OutOfMemoryError: there is no memory for a single row.
        """
        while (total := self._gradients(parts)) is None:
            pass
        if self._longest is not None:
            torch.nn.utils.clip_grad_norm_(self.trained.values(), self._longest)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.done += 1
        return total

    def _gradients(self, parts: Parts) -> float | None:
        """The loss, whose gradients are summed; None where there was no memory for it, and the next try takes less."""
        try:
            return self._summed(parts(self._passes))
        except torch.OutOfMemoryError:
            smaller = _smaller(self._passes, parts)
            if smaller is None:
                raise
        # only here is the exception gone, and with it what its frames hold
        self._passes = smaller
        self.optimiser.zero_grad()
        gc.collect()
        torch.cuda.empty_cache()
        how = f"goes on with {smaller.tokens} tokens at once: see model.training_tokens"
        warnings.warn(f"{self._who}: a step does not fit in the device's memory and {how}", stacklevel=3)
        return None

    def _summed(self, parts: Iterable[Callable[[], Tensor]]) -> float:
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
        return total

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on beside its losses: weights and what AdamW keeps of each, by name."""
        found = {f"weight {name}": weight.detach() for name, weight in self.trained.items()}
        for name, weight in self.trained.items():
            for what, kept in self.optimiser.state[weight].items():
                if what != "step":
                    # in 8 bits the tables of values are one tensor for all weights, and no file takes one twice
                    found[f"{what} {name}"] = kept if kept.shape == weight.shape else kept.clone()
        return found

    def restore(self, state: dict[str, Tensor], done: int) -> None:
        """Go on from the `state` of another, after so many steps (one at least)."""
        kept: dict[str, dict[str, Tensor]] = {name: {} for name in self.trained}
        for key, value in state.items():
            what, _, name = key.partition(" ")
            kept[name][what] = value
        for name, weight in self.trained.items():
            weight.data.copy_(kept[name].pop("weight"))
            moments = {what: value.to(weight.device, copy=True) for what, value in kept[name].items()}
            counted = torch.tensor(float(done)) if isinstance(self.optimiser, torch.optim.AdamW) else done
            self.optimiser.state[weight] = {"step": counted, **moments}
        self.done = done


def check_optimizer(optimizer: str, device: torch.device) -> None:
    """Make sure that an optimiser can be had on a device.

    Args:
        optimizer: 'adamw', which always can, or 'adamw 8-bit', which keeps both moments in a byte a weight each.

    Raises:
        ValueError: the package for 8 bits is missing, or has nothing for such a device.
    """
    _adamw(optimizer, device)


def _adamw(optimizer: str, device: torch.device) -> Callable[..., torch.optim.Optimizer]:
    if optimizer == "adamw":
        return torch.optim.AdamW
    otherwise = "set model.optimizer to 'adamw'"
    if device.type not in EIGHT_BIT_DEVICES:
        allowed = " and ".join(EIGHT_BIT_DEVICES)
        raise ValueError(f"optimizer {optimizer!r} runs on {allowed}, and the device is {device.type!r}: {otherwise}")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        step = f"install it (pip install '.[adam-8bit]'), or {otherwise}"
        raise ValueError(f"optimizer {optimizer!r} needs the package bitsandbytes, not here: {step}") from None
    return AdamW8bit


def _smaller(passes: Passes, parts: Parts) -> Passes | None:
    """The largest passes, by halves, that part a loss into more than these do; None where rows are single already."""
    now = len(parts(passes))
    halves = (replace(passes, tokens=passes.tokens >> n) for n in range(1, passes.tokens.bit_length()))
    return next((half for half in halves if len(parts(half)) > now), None)


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
