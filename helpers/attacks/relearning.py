"""The relearning attack: fine-tune on forget text and see whether the knowledge comes back (DSG, Fig. 5)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.finetuning import FineTuning
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Clamp
from helpers.engine.steps import Passes, as_used
from helpers.measures.drift import residual_drift
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.text.batches import Rows
from helpers.text.corpora import Document
from helpers.text.questions import Question, question_text

NO_TEXTS: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Relearning:
    """Full fine-tuning on rows of forget text by next-token loss.

    Attributes:
        rows: token ids, each row beginning with BOS: packed [rows, row_length], or a document a row.
        epochs: passes over the rows.
        learning_rate: of AdamW (Muhamed et al.: 1e-5).
        batch_rows: rows a step.
        seed: of the rows' order.
        passes: how a step is gone through.
        asked_after: the epochs after which the questions are asked, none for every one; always after the last.
    """

    rows: Rows
    epochs: int
    learning_rate: float
    batch_rows: int
    seed: int
    passes: Passes
    asked_after: tuple[int, ...] = ()

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-len(self.rows) // self.batch_rows)

    def steps(self, model, intervention: Clamp | None = None) -> Iterator[tuple[Any, float]]:
        """Every step of the attack (`fine_tuned`), with an intervention in place while it trains if given."""
        how = (self.learning_rate, self.batch_rows, self.seed, self.passes)
        trained = fine_tuned(model, self.rows, *how, intervention)
        return islice(trained, self.epochs * self.epoch_steps)

    def asks_after(self, step: int) -> bool:
        """Whether the questions are asked after so many steps."""
        epoch, rest = divmod(step, self.epoch_steps)
        return not rest and (not self.asked_after or epoch in self.asked_after or epoch == self.epochs)


class Relearned(NamedTuple):
    """What one attack on one edit did.

    Attributes:
        accuracies: arm, seed, learning_rate, epoch (0 is before the attack), role, n, right, accuracy, low, high.
        losses: arm, seed, learning_rate, step, loss (nats per token of that step's rows, before the step).
        drift: `residual_drift` on every text from the weights before to those after, with arm, seed, learning_rate and
            text; no intervention is in place where it is measured.
    """

    accuracies: pd.DataFrame
    losses: pd.DataFrame
    drift: pd.DataFrame


def relearned(
    knowledge: Knowledge,
    edited: Edited,
    label: str,
    attack: Relearning,
    in_training: bool,
    texts: Mapping[str, Tensor] = NO_TEXTS,
) -> Relearned:
    """What comes back before and along one attack on one edit, for every arm that this training serves.

    The arms: an edit without an intervention is its weights ('<label>'). An intervention may be off while fine-tuning
    and on when the questions are asked ('<label> at test time'), on in both ('<label> also in training'), or off in
    both ('<label>, hook removed').

    Args:
        label: what figures call the edit.
        in_training: whether the intervention is in place while fine-tuning.
        texts: packed rows by name, on which the drift of the residual is measured.

    Raises:
        FloatingPointError: the training diverged (`fine_tuned`).
    """
    hook = edited.intervention
    names = [label] if hook is None else [f"{label} at test time", f"{label}, hook removed"]
    if in_training:
        names = [f"{label} also in training"]
    model, losses, asked = edited.model, [], [_answers(knowledge, edited.model, hook, names, 0)]
    dtype = huggingface(model).dtype
    for step, (student, loss) in enumerate(attack.steps(edited.model, hook if in_training else None), 1):
        losses.append((step, loss))
        if attack.asks_after(step):
            model = as_used(student, dtype)
            asked.append(_answers(knowledge, model, hook, names, step // attack.epoch_steps))
    who = {"seed": attack.seed, "learning_rate": attack.learning_rate}
    tokens = knowledge.batch_tokens
    moved = [residual_drift(edited.model, model, rows, tokens).assign(text=text) for text, rows in texts.items()]
    named = {"arm": names[0], **who}
    return Relearned(
        accuracy(pd.concat(asked).assign(**who), ["arm", "seed", "learning_rate", "epoch", "role"]),
        pd.DataFrame(losses, columns=["step", "loss"]).assign(**named),
        pd.concat([pd.DataFrame(), *moved], ignore_index=True).assign(**named),
    )


def _answers(knowledge: Knowledge, model, hook: Clamp | None, names: Sequence[str], epoch: int) -> pd.DataFrame:
    """Counts of right answers of every arm that a training serves, by one state of its weights."""
    answers = knowledge.answers_of(model)
    found = [answers.unedited] if hook is None else [answers.edited(hook)]
    if len(names) == 2:
        found.append(answers.unedited)
    # no loss is measured here, and 0 stands in its place
    arms = [knowledge.tabulate(p, 0.0).assign(arm=arm) for arm, p in zip(names, found, strict=True)]
    return pd.concat(arms).assign(epoch=epoch)


def check_attack_text(attack: Sequence[Document], forget_subject: str, evaluated: Sequence[Question]) -> None:
    """Make sure that the attack fine-tunes on forget text, and on none of the questions it is judged by.

    Raises:
        ValueError: there is no text, a document is of another subject (such as the retain corpus), or one holds the
            text of an evaluation question.
    """
    if not attack:
        raise ValueError("the relearning corpus is empty")
    wrong = sorted({document.subject for document in attack} - {forget_subject})
    if wrong:
        raise ValueError(f"the relearning corpus must be forget text ({forget_subject!r}), it holds {wrong}")
    questions = [q.question for q in evaluated] + [question_text(q) for q in evaluated]
    leaked = sum(any(text in document.text for text in questions) for document in attack)
    if leaked:
        raise ValueError(f"{leaked} documents of the relearning corpus hold questions that the attack is judged by")


def fine_tuned(
    model,
    rows: Rows,
    learning_rate: float,
    batch_rows: int,
    seed: int,
    passes: Passes,
    intervention: Clamp | None = None,
) -> Iterator[tuple[Any, float]]:
    """Full fine-tuning by next-token loss, step by step and without end; the model given is left as it is.

    Args:
        rows: token ids of forget text.
        passes: how a step is gone through.
        intervention: in place while training (DSG 'during training'), or None.

    Yields:
        the float32 model after each step, one that goes on changing, and the loss (nats per token) that the step began
        with.

    Raises:
        FloatingPointError: the loss is no number any more, with the step at which.
    """
    training = FineTuning(model, rows, learning_rate, batch_rows, seed, passes, intervention)
    while True:
        loss = training.step()
        yield training.student, loss
