"""The one training loop of all methods that change weights: same rows, same draws, same optimiser, only losses differ.

A method says which weights move (`student`), what is minimised (`objective`), and which weights come out (`weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface
from helpers.engine.steps import Passes, Steps, master_copy
from helpers.methods.method import Method
from helpers.profiles import Count, Positive, settings_table
from helpers.text.batches import Batch, packed_batch

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

# (student, forget rows, retain rows) -> the loss of one step, a mean over rows.
Objective = Callable[[Any, Batch, Batch], Tensor]
# Longer gradients are shortened: one bad batch of a loss that is driven up must not decide the whole training.
LONGEST_GRADIENT = 1.0


@settings_table
class Grid:
    """What the table of every trained method holds: every learning rate with every number of steps.

    Settings that differ in their steps only are stops of one training.
    """

    learning_rates: tuple[Positive, ...]
    steps: tuple[Count, ...]
    batch_rows: Count


@dataclass(frozen=True)
class TrainedMethod(Method):
    """A method whose setting is weights, trained on packed forget and retain rows.

    Attributes:
        steps: optimiser steps; at each one batch of forget rows and one of retain rows is seen.
        batch_rows: rows of each kind a step.
        learning_rate: of AdamW.
        seed: draws the rows, and whatever else the method draws.
    """

    steps: Count = field(kw_only=True)
    batch_rows: Count = field(kw_only=True)
    learning_rate: Positive = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)

    trains: ClassVar[bool] = True
    table: ClassVar[str]

    @classmethod
    def over(cls, of: Grid, **varied: Sequence[Any]) -> list[Self]:
        """A setting for every value of the fields named, every learning rate and number of steps, in that order."""
        values = product(*varied.values(), of.learning_rates, of.steps)
        fields = (*varied, "learning_rate", "steps")
        return [cls(**dict(zip(fields, of_one, strict=True)), batch_rows=of.batch_rows) for of_one in values]

    def student(self, model) -> Any:
        """A copy of the model in float32 whose weights to be trained ask for gradients: here all of them."""
        return master_copy(model)

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """What is minimised, given the frozen model and all forget rows."""
        raise NotImplementedError

    def needs(self, lab: Lab) -> tuple[Any, ...]:
        """What else of a lab the objective needs; nothing by default."""
        return ()

    def weights(self, student: Any) -> dict[str, Tensor]:
        """The trained weights by the names that the original has for them."""
        return {name: p.detach() for name, p in huggingface(student).named_parameters() if p.requires_grad}

    @property
    def course(self) -> Self:
        """The same training, to whatever step."""
        return replace(self, steps=1)

    @property
    def course_words(self) -> str:
        """The setting in a few words without its steps, which a training to several of them has in common."""
        return self.words.removesuffix(f", {self.steps} steps")

    def apply(self, lab: Lab) -> Edited:
        """The unedited model with the trained weights."""
        texts = (lab.model, lab.forget_rows, lab.retain_rows)
        how = (*self.needs(lab), Passes.of(lab.profile.model))
        course = (lab.fingerprint([self.course, *texts, *how]), partial(Training, *texts, self.course, *how))

        def make() -> dict[str, Tensor]:
            return lab.latest(*course).until(self.steps)

        return Edited(lab.model, weights=lab.trained(train, *texts, self, *how, make=make))


class Training:
    """A training that stops at a step, is read, and goes on; the model given is left as it is.

    Args:
        forget_rows, retain_rows: token ids [rows, row_length].
        needs: what the method's objective needs beside them, and at last how a step is gone through (`Passes`).

    Raises:
        ValueError: forget and retain rows are the same.
    """

    def __init__(self, model, forget_rows: Tensor, retain_rows: Tensor, setting: TrainedMethod, *needs: Any) -> None:
        if forget_rows.shape == retain_rows.shape and torch.equal(forget_rows, retain_rows):
            raise ValueError(
                f"forget and retain rows are the same text: {setting.label} would be told to change and to keep it"
            )
        *more, self._passes = needs
        self._model, self._setting, self._rows = model, setting, (forget_rows, retain_rows)
        self._objective = partial(setting.objective, model, forget_rows, *more)
        self._begin()

    def _begin(self) -> None:
        setting = self._setting
        self._student = setting.student(self._model)
        self._loss = self._objective()
        who, dtype = f"{setting.label}, {setting.course_words}", huggingface(self._model).dtype
        self._steps = Steps(self._student, dtype, setting.learning_rate, self._passes, who, LONGEST_GRADIENT)
        self._draw = torch.Generator().manual_seed(setting.seed)

    def until(self, steps: int) -> dict[str, Tensor]:
        """The weights after so many steps, in the model's dtype on the CPU; begun anew where it is further already.

        Raises:
            FloatingPointError: the loss is no finite number; the step is named.
        """
        if steps < self._steps.done:
            self._begin()
        while self._steps.done < steps:
            self._steps.step(partial(self._parts, self._drawn()))
        dtype = huggingface(self._model).dtype
        return {name: w.to("cpu", dtype, copy=True) for name, w in self._setting.weights(self._student).items()}

    def _drawn(self) -> list[Tensor]:
        n = self._setting.batch_rows
        return [rows[torch.randint(len(rows), (n,), generator=self._draw)] for rows in self._rows]

    def _parts(self, drawn: list[Tensor], passes: Passes) -> list[Callable[[], Tensor]]:
        n, at_once = self._setting.batch_rows, passes.rows(drawn[0].shape[1])
        parted = zip(*(rows.split(at_once) for rows in drawn), strict=True)
        return [partial(self._share_of_loss, forget, retain, len(forget) / n) for forget, retain in parted]

    def _share_of_loss(self, forget: Tensor, retain: Tensor, share: float) -> Tensor:
        device = self._student.device
        return share * self._loss(self._student, packed_batch(forget, device), packed_batch(retain, device))


def train(model, forget_rows: Tensor, retain_rows: Tensor, setting: TrainedMethod, *needs: Any) -> dict[str, Tensor]:
    """The weights of one setting, trained from the first step (`Training`)."""
    return Training(model, forget_rows, retain_rows, setting, *needs).until(setting.steps)
