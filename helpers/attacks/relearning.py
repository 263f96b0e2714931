"""The relearning attack: fine-tune on forget text and see whether the knowledge comes back (DSG, Fig. 5)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pandas as pd
import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import clone, final_state, huggingface
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import read_loss
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.text.batches import Batch
from helpers.text.corpora import Document
from helpers.text.questions import Question, question_text


@dataclass(frozen=True)
class Relearning:
    """Full fine-tuning on packed forget rows by next-token loss.

    Attributes:
        rows: token ids [rows, row_length].
        epochs: passes over the rows.
        learning_rate: of AdamW (Muhamed et al.: 1e-5).
        batch_rows: rows a step.
        seed: of the rows' order.
    """

    rows: Tensor
    epochs: int
    learning_rate: float
    batch_rows: int
    seed: int

    def on(self, model, intervention: Clamp | None = None) -> Iterator:
        """The model after each epoch (`relearn`), with an intervention in place while it trains if given."""
        return relearn(model, self.rows, self.epochs, self.learning_rate, self.batch_rows, self.seed, intervention)


def relearned(knowledge: Knowledge, edited: Edited, label: str, attack: Relearning, in_training: bool) -> pd.DataFrame:
    """Accuracy before and after every epoch of one attack on one edit, for every arm that this training serves.

    The arms: an edit without an intervention is its weights ('<label>'). An intervention may be off while fine-tuning
    and on when the questions are asked ('<label> at test time'), on in both ('<label> also in training'), or off in
    both ('<label>, hook removed').

    Args:
        label: what figures call the edit.
        in_training: whether the intervention is in place while fine-tuning.

    Returns:
        arm, seed, epoch (0 is before the attack), role (forget, near, side), n, right, accuracy, low, high.
    """
    hook = edited.intervention
    names = [label] if hook is None else [f"{label} at test time", f"{label}, hook removed"]
    if in_training:
        names = [f"{label} also in training"]
    rows = []
    for epoch, model in enumerate(chain([edited.model], attack.on(edited.model, hook if in_training else None))):
        answers = knowledge.answers_of(model)
        found = [answers.unedited] if hook is None else [answers.edited(hook)]
        if len(names) == 2:
            found.append(answers.unedited)
        # no loss is measured here, and 0 stands in its place
        rows += [knowledge.tabulate(p, 0.0).assign(arm=arm, epoch=epoch) for arm, p in zip(names, found, strict=True)]
    return accuracy(pd.concat(rows).assign(seed=attack.seed), ["arm", "seed", "epoch", "role"])


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


def relearn(
    model,
    rows: Tensor,
    epochs: int,
    learning_rate: float,
    batch_rows: int,
    seed: int,
    intervention: Clamp | None = None,
) -> Iterator:
    """Full fine-tuning on packed rows by next-token loss; the model given is left as it is.

    Args:
        rows: token ids [rows, row_length] of forget text.
        intervention: in place while training (DSG 'during training'), or None.

    Yields:
        the fine-tuned model after each epoch: one model that goes on changing, to be used before the next is drawn.
    """
    student = clone(model)
    optimiser = torch.optim.AdamW(huggingface(student).parameters(), lr=learning_rate)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(rows), generator=draw).split(batch_rows):
            ids = rows[chosen].to(student.device)
            batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(len(ids)))
            lm_loss(student, batch, intervention).backward()
            optimiser.step()
            optimiser.zero_grad()
        yield student


def lm_loss(model, batch: Batch, intervention: Clamp | None) -> Tensor:
    """Next-token loss of a batch in nats per token, differentiable, with the intervention in place if given."""
    losses = read_loss(model, final_state(model, batch, intervention), batch).sum(dim=0)
    return losses[0] / losses[1]
