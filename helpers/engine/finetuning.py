"""Next-token training of all weights on rows of text: the relearning attack's, and that of a target of MUSE."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from helpers.engine.forward import final_state, huggingface
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import read_loss, row_batches
from helpers.engine.steps import Passes, Steps, master_copy
from helpers.text.batches import Batch, Rows


class FineTuning:
    """A training that goes on step by step; the model given is left as it is.

    Args:
        rows: token ids, gone through in a random order, and then all again in another.
        learning_rate: of AdamW.
        batch_rows: rows a step.
        seed: of the order.
        passes: how a step is gone through.
        intervention: in place while training, or None.

    Attributes:
        student: the float32 model that is trained.
        steps: the optimiser's.
    """

    def __init__(
        self,
        model,
        rows: Rows,
        learning_rate: float,
        batch_rows: int,
        seed: int,
        passes: Passes,
        intervention: Clamp | None = None,
    ) -> None:
        self.student = master_copy(model)
        who, dtype = f"fine-tuning, rate {learning_rate:g}", huggingface(model).dtype
        self.steps = Steps(self.student, dtype, learning_rate, passes, who)
        self._rows, self._intervention = rows, intervention
        self._order = (batch_rows, seed)
        self._drawn = _drawn(len(rows), *self._order)

    def step(self) -> float:
        """One step; gives the loss (nats per token of its rows) that it began with.

        Raises:
            FloatingPointError: the loss is no number any more, with the step at which.
        """
        chosen = next(self._drawn)
        rows = self._rows[chosen].tolist() if isinstance(self._rows, Tensor) else [self._rows[i] for i in chosen]
        predicted = sum(len(row) - 1 for row in rows)
        share = partial(lm_loss, self.student, intervention=self._intervention, predicted=predicted)
        return self.steps.step(
            lambda passes: [partial(share, batch) for batch in row_batches(self.student, rows, passes.tokens)]
        )

    def resume(self, state: dict[str, Tensor], done: int) -> None:
        """Go on where a training of the same arguments was after `done` steps, with the state of its `steps`."""
        self.steps.restore(state, done)
        self._drawn = islice(_drawn(len(self._rows), *self._order), done, None)


def _drawn(n: int, batch_rows: int, seed: int) -> Iterator[list[int]]:
    """Which rows each step takes."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(n, generator=draw).split(batch_rows):
            yield chosen.tolist()


def lm_loss(model: Any, batch: Batch, intervention: Clamp | None, predicted: int | None = None) -> Tensor:
    """Next-token loss of a batch in nats per token, differentiable, with the intervention in place if given.

    Args:
        predicted: the tokens that the mean is over where the batch is a part of something; None for its own.
    """
    losses = read_loss(model, final_state(model, batch, intervention), batch).sum(dim=0)
    return losses[0] / (losses[1] if predicted is None else predicted)
