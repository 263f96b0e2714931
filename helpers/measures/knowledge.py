"""What a model still knows: known questions of every subject, and the loss on neutral text, under any edit of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import (
    Sweep,
    is_right,
    known_questions,
    mean_loss,
    read_batches,
    read_letters,
    read_loss,
    row_batches,
)
from helpers.measures.metrics import halves, letter_histogram
from helpers.profiles import CacheSettings
from helpers.text.batches import Batch, Rows
from helpers.text.questions import LETTERS, ORIGINAL_ORDER, Question, prompt_tokens

HALF_SEED = 0
# Questions asked at once, at most, where only the first known ones are wanted.
CHUNK = 32


@dataclass(frozen=True)
class Knowledge:
    """Known questions in their original order, as in the papers, and neutral rows for the loss.

    Attributes:
        model: the unedited model, which answers all these questions right.
        questions: by subject.
        roles: of each subject: 'forget', 'near' or 'side'.
        neutral_rows: packed token ids [rows, row_length].
        layer: the layer after which interventions act.
        cache: how much of the residuals each of the two sweeps keeps.
    """

    model: Any
    questions: dict[str, list[Question]]
    roles: dict[str, str]
    neutral_rows: Tensor
    layer: int
    prompt_format: str
    batch_tokens: int
    cache: CacheSettings

    @cached_property
    def asked(self) -> list[Question]:
        """All questions in one list, subject by subject."""
        return [q for questions in self.questions.values() for q in questions]

    @cached_property
    def answers(self) -> Sweep:
        """p(A..D) of every question with the residual kept."""
        return self._sweep_of(self.model)

    @cached_property
    def losses(self) -> Sweep:
        """Next-token loss of every neutral row with the residual kept."""
        return Sweep(self.model, self._batched(self.neutral_rows), self.layer, read_loss, self.cache)

    def _batched(self, rows: Rows) -> Iterator[Batch]:
        return row_batches(self.model, rows, self.batch_tokens)

    @cached_property
    def _asked_batches(self) -> list[Batch]:
        rows = prompt_tokens(self.model.tokenizer, self.asked, ORIGINAL_ORDER, self.prompt_format)
        return list(self._batched(rows))

    def only(self, half: int) -> "Knowledge":
        """The same with one half of the questions of each subject."""
        kept = {
            subject: [q for q, h in zip(questions, halves(len(questions), HALF_SEED), strict=True) if h == half]
            for subject, questions in self.questions.items()
        }
        return replace(self, questions=kept)

    def under(self, edits: Sequence[Edited]) -> list[pd.DataFrame]:
        """What is left under each edit: a row per subject and half (see `tabulate`).

        Interventions on the unedited model are computed together, for they share its residual; other weights each by
        themselves, and gone before the next are made.
        """
        shared = [e.intervention is not None and not e.is_of_other_weights(self.model) for e in edits]
        clamps = [e.intervention for e, shares in zip(edits, shared, strict=True) if shares and e.intervention]
        tables = iter(self._under_each(clamps) if clamps else [])
        return [next(tables) if shares else self._alone(e) for e, shares in zip(edits, shared, strict=True)]

    def _under_each(self, interventions: Sequence[Clamp]) -> list[pd.DataFrame]:
        answers = self.answers.edited_by_each(interventions)
        added = self.losses_added(interventions)
        return [self.tabulate(p, loss) for p, loss in zip(answers, added, strict=True)]

    def _alone(self, edited: Edited) -> pd.DataFrame:
        if not edited.is_of_other_weights(self.model):
            return self.tabulate(self.answers.unedited, 0.0)
        edited = replace(edited)  # an edit keeps the model that it has made, so here a copy makes it and goes with it
        losses = read_batches(edited.model, self._batched(self.neutral_rows), read_loss, edited.intervention)
        return self.tabulate(self.answers_under(edited), mean_loss(losses) - mean_loss(self.losses.unedited))

    def losses_added(self, interventions: Sequence[Clamp]) -> list[float]:
        """Nats per token that each intervention adds to the next-token loss on the neutral rows."""
        before = mean_loss(self.losses.unedited)
        return [mean_loss(losses) - before for losses in self.losses.edited_by_each(interventions)]

    def answers_of(self, model) -> Sweep:
        """p(A..D) of every question by whatever weights; other than the model's are to be read before they change."""
        return self.answers if model is self.model else self._sweep_of(model)

    def _sweep_of(self, model) -> Sweep:
        return Sweep(model, self._asked_batches, self.layer, read_letters, self.cache)

    def answers_under(self, edited: Edited) -> Tensor:
        """p(A..D) of every question under one edit, [questions, 4]."""
        return read_under(self.answers, self._asked_batches, edited)

    def tabulate(self, probabilities: Tensor, loss_added: float) -> pd.DataFrame:
        """Counts per subject and half of the questions.

        Returns:
            subject, role (forget, near, side), half (0 to choose settings on, 1 to report), n, right, said_A..said_D
            (how often each letter was the answer), letter_mass (sum over questions of the probability that any letter
            is said at all), loss_added (nats per token, the same in every row).
        """
        right = is_right(probabilities[:, None], self.asked, ORIGINAL_ORDER)[:, 0].numpy()
        mass = probabilities.sum(dim=-1).double().numpy()
        said, rows, start = probabilities.argmax(dim=-1).numpy(), [], 0
        for subject, questions in self.questions.items():
            of_half = halves(len(questions), HALF_SEED)
            for half in (0, 1):
                chosen = start + np.flatnonzero(of_half == half)
                letters = dict(
                    zip([f"said_{x}" for x in LETTERS], letter_histogram(said[chosen]).tolist(), strict=True)
                )
                counts = {"n": len(chosen), "right": int(right[chosen].sum())}
                sums = {**counts, **letters, "letter_mass": float(mass[chosen].sum())}
                rows.append({"subject": subject, "role": self.roles[subject], "half": half, **sums})
            start += len(questions)
        return pd.DataFrame(rows).assign(loss_added=loss_added)


def read_under(sweep: Sweep, batched: Sequence[Batch], edited: Edited) -> Tensor:
    """What a sweep over some prompts reads, under an edit: from its kept residual, or anew where weights differ."""
    if edited.is_of_other_weights(sweep.model):
        return read_batches(edited.model, batched, sweep.read, edited.intervention)
    return sweep.unedited if edited.intervention is None else sweep.edited(edited.intervention)


def knowledge_under(knowledge: Knowledge, edited: Edited) -> pd.DataFrame:
    """What is left under one edit (`Knowledge.under`): a row per subject and half."""
    return knowledge.under([edited])[0]


def known_ids(model, questions: list[Question], prompt_format: str, batch_tokens: int, limit: int) -> dict[str, list]:
    """Which questions of a subject the model knows: those it answers right under all 24 orders of their choices.

    Args:
        limit: ask the questions in their order until so many are known; 0 asks all.

    Returns:
        'asked' and 'known', ids in the questions' order; with a limit, 'asked' ends at the last known one, or holds all
        questions where fewer are known.
    """
    if not limit:
        found = known_questions(model, questions, prompt_format, batch_tokens)
        return {"asked": [q.id for q in questions], "known": [q.id for q in found]}
    found, asked = [], 0
    while len(found) < limit and asked < len(questions):
        n = min(CHUNK, limit - len(found))  # so many at least are needed
        found += known_questions(model, questions[asked : asked + n], prompt_format, batch_tokens)
        asked += n
    known = [q.id for q in found[:limit]]
    ids = [q.id for q in questions]
    return {"asked": ids[: ids.index(known[-1]) + 1] if len(known) == limit else ids, "known": known}
