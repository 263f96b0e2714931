"""The exam: known questions of every subject and neutral text, scored under many settings at little cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.interventions import Add, Clamp, Gate
from helpers.engine.scoring import Sweep, is_right, mean_loss, read_batches, read_letters, read_loss, row_batches
from helpers.measures.metrics import accuracy, halves, letter_histogram
from helpers.profiles import CacheSettings
from helpers.text.batches import Batch, Rows
from helpers.text.questions import LETTERS, ORIGINAL_ORDER, Question, prompt_tokens

ROLES = ("forget", "near", "side")
HALF_SEED = 0


@dataclass(frozen=True)
class ClampSetting:
    """One point of a sweep over clamps, light enough to be data: the labels of its row, and what makes its Clamp.

    Attributes:
        method: the method's name, as figures show it.
        features: ids of the chosen features, best first.
        strength: c in clamp units; the features are set to -strength * unit, or, where='always', moved by that much.
        unit: what a strength of 1 is in units of activation.
        where: as in `Clamp`.
        threshold: of the gate; None for no gate.
        weights: a factor of the strength for each feature (Khoriaty's 'proportional'); None for the same strength.
        refusal: the feature that is set in place of the chosen ones, wherever any of these fires (Refusal Clamp, with
            where='any'); None sets the chosen ones.
        fires_above: the activation above which a feature fires.
        keep_error: whether the SAE's error term stays, as in `Clamp`.
    """

    method: str
    features: tuple[int, ...]
    strength: float
    unit: float
    where: Literal["own", "any", "always"]
    threshold: float | None
    weights: tuple[float, ...] | None = None
    refusal: int | None = None
    fires_above: float = 0.0
    keep_error: bool = True

    def clamp(self, sae) -> Clamp:
        """The intervention itself. Raises ValueError for choices that `Clamp` does not allow together."""
        gate = None if self.threshold is None else Gate(self.threshold)
        features, triggers = (self.features, None) if self.refusal is None else ((self.refusal,), self.features)
        return Clamp(
            sae, features, self._value(), self.where, gate, triggers=triggers, fires_above=self.fires_above,
            keep_error=self.keep_error,
        )  # fmt: skip

    def _value(self) -> float | tuple[float, ...] | Add:
        value = -self.strength * self.unit
        values = value if self.weights is None else tuple(value * w for w in self.weights)
        return Add(values) if self.where == "always" else values

    def labels(self) -> dict[str, Any]:
        """The columns that tell this setting's rows from others."""
        return {
            "method": self.method,
            "n_features": len(self.features),
            "strength": self.strength,
            "where": self.where,
            "threshold": np.nan if self.threshold is None else self.threshold,
        }


def best_features(ranked: np.ndarray, n: int) -> tuple[int, ...]:
    """The first n ids of a ranking. Raises ValueError when it holds fewer: two settings would silently be one."""
    if len(ranked) < n:
        raise ValueError(f"{n} features are asked for, the selection rule found {len(ranked)}; ask for fewer")
    return tuple(int(i) for i in ranked[:n])


@dataclass(frozen=True)
class Exam:
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
        return self.answers_of(self.model)

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

    def only(self, half: int) -> "Exam":
        """The same exam with one half of the questions of each subject."""
        kept = {
            subject: [q for q, h in zip(questions, halves(len(questions), HALF_SEED), strict=True) if h == half]
            for subject, questions in self.questions.items()
        }
        return replace(self, questions=kept)

    def score(self, clamps: Sequence[Clamp]) -> list[pd.DataFrame]:
        """The exam under each intervention: a row per subject and half (see `tabulate`)."""
        answers = self.answers.edited_by_each(clamps)
        return [self.tabulate(p, added) for p, added in zip(answers, self.losses_added(clamps), strict=True)]

    def losses_added(self, clamps: Sequence[Clamp]) -> list[float]:
        """Nats per token that each intervention adds to the next-token loss on the neutral rows."""
        before = mean_loss(self.losses.unedited)
        return [mean_loss(losses) - before for losses in self.losses.edited_by_each(clamps)]

    def answers_of(self, model) -> Sweep:
        """p(A..D) of every question by other weights (RMU, relearning), to be read before these change again."""
        return Sweep(model, self._asked_batches, self.layer, read_letters, self.cache)

    def score_model(self, model) -> pd.DataFrame:
        """The exam taken by other weights (RMU)."""
        losses = read_batches(model, self._batched(self.neutral_rows), read_loss)
        added = mean_loss(losses) - mean_loss(self.losses.unedited)
        return self.tabulate(read_batches(model, self._asked_batches, read_letters), added)

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


def score_settings(exam: Exam, sae, settings: Sequence[ClampSetting]) -> pd.DataFrame:
    """The exam under every setting: its table with the setting's labels in front."""
    tables = exam.score([setting.clamp(sae) for setting in settings])
    return pd.concat([_labelled(s.labels(), t) for s, t in zip(settings, tables, strict=True)], ignore_index=True)


def _labelled(labels: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame([labels] * len(table)), table], axis=1)


def points(scores: pd.DataFrame, half: int | None = None) -> pd.DataFrame:
    """One row a setting, for scatter plots.

    Args:
        scores: what `score_settings` or `rmu_scores` returns; every column before `subject` is a label.
        half: 0 or 1 for one half of the questions, None for all (the papers' protocol).

    Returns:
        the labels, then for each role `<role>_accuracy`, `<role>_low`, `<role>_high`, `<role>_n`; of the forget
        questions also forget_letter (the share of the letter said most, 1 for a model that has collapsed into one) and
        forget_mass (mean probability that any letter is said); and loss_added.
    """
    labels = list(scores.columns[: scores.columns.get_loc("subject")])
    chosen = scores if half is None else scores[scores["half"] == half]
    table = chosen.groupby(labels, sort=False, dropna=False)["loss_added"].first().reset_index()
    for role in ROLES:
        pooled = accuracy(chosen[chosen["role"] == role], labels)
        for column in ("accuracy", "low", "high", "n"):
            table[f"{role}_{column}"] = pooled[column]
    said = chosen[chosen["role"] == "forget"].groupby(labels, sort=False, dropna=False)
    letters = said[[f"said_{x}" for x in LETTERS]].sum().reset_index(drop=True)
    table["forget_letter"] = letters.max(axis=1) / letters.sum(axis=1)
    table["forget_mass"] = said["letter_mass"].sum().reset_index(drop=True) / table["forget_n"]
    return table[[c for c in table if c != "loss_added"] + ["loss_added"]]
