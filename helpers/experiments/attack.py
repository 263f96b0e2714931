"""Notebook 06: fine-tuning the knowledge back (Muhamed et al. 2025, Fig. 5)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from helpers.baselines.rmu import with_weights
from helpers.experiments.exam import ClampSetting, Exam
from helpers.interventions import Clamp
from helpers.metrics import accuracy
from helpers.profiles import RelearningSettings
from helpers.relearning import relearn

ARMS = {
    "RMU": "RMU's weights, fine-tuned",
    "DSG at test time": "hook off while fine-tuning, on at the exam",
    "DSG also in training": "hook on in both",
    "DSG, hook removed": "the same weights as 'at test time', examined without the hook",
}


@dataclass(frozen=True)
class Attack:
    """The fine-tuning attack: packed forget rows, how they are learned, and the seed of their order."""

    rows: Tensor
    epochs: int
    learning_rate: float
    batch_rows: int
    seed: int

    def on(self, model, intervention: Clamp | None = None) -> Iterator:
        """The model after each epoch (`relearn`)."""
        return relearn(model, self.rows, self.epochs, self.learning_rate, self.batch_rows, self.seed, intervention)


def attacks(rows: Tensor, settings: RelearningSettings) -> list[Attack]:
    """One attack a seed."""
    sizes = (settings.epochs, settings.learning_rate, settings.batch_rows)
    return [Attack(rows[: settings.rows], *sizes, seed) for seed in settings.seeds]


def relearning_scores(
    exam: Exam, sae, attack: Attack, dsg: ClampSetting, rmu_weights: dict[str, Tensor]
) -> pd.DataFrame:
    """The exam before and after every epoch of one attack, for every arm of `ARMS`.

    Returns:
        arm, seed, epoch (0 is before the attack) and the exam's columns.
    """
    clamp, unlearned = dsg.clamp(sae), with_weights(exam.model, rmu_weights)
    tables = [
        _row("RMU", attack, 0, exam.score_model(unlearned)),
        _row("DSG at test time", attack, 0, exam.score_model(exam.model, clamp)),
        _row("DSG also in training", attack, 0, exam.score_model(exam.model, clamp)),
        _row("DSG, hook removed", attack, 0, exam.score_model(exam.model)),
    ]
    for epoch, model in enumerate(attack.on(unlearned), start=1):
        tables.append(_row("RMU", attack, epoch, exam.score_model(model)))
    for epoch, model in enumerate(attack.on(exam.model), start=1):
        tables.append(_row("DSG at test time", attack, epoch, exam.score_model(model, clamp)))
        tables.append(_row("DSG, hook removed", attack, epoch, exam.score_model(model)))
    for epoch, model in enumerate(attack.on(exam.model, clamp), start=1):
        tables.append(_row("DSG also in training", attack, epoch, exam.score_model(model, clamp)))
    return pd.concat(tables, ignore_index=True)


def _row(arm: str, attack: Attack, epoch: int, table: pd.DataFrame) -> pd.DataFrame:
    labels = pd.DataFrame({"arm": arm, "seed": attack.seed, "epoch": epoch}, index=table.index)
    return pd.concat([labels, table], axis=1)


def relearning_curves(scores: Sequence[pd.DataFrame], half: int) -> pd.DataFrame:
    """Accuracy per arm, seed, epoch and role on one half of the questions, with intervals."""
    table = pd.concat(scores, ignore_index=True)
    return accuracy(table[table["half"] == half], ["arm", "seed", "epoch", "role"])
