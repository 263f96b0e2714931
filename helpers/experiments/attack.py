"""Notebook 06: fine-tuning the knowledge back (Muhamed et al. 2025, Fig. 5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import pandas as pd
from torch import Tensor

from helpers.attacks.relearning import relearn
from helpers.engine.interventions import Clamp
from helpers.experiments.exam import ClampSetting, Exam
from helpers.measures.metrics import accuracy
from helpers.methods.rmu import with_weights
from helpers.profiles import RelearningSettings


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


def relearning_curves(
    exam: Exam, sae, attack: Attack, dsg: ClampSetting, rmu_weights: dict[str, Tensor]
) -> pd.DataFrame:
    """Accuracy before and after every epoch of one attack, for every arm.

    The arms: RMU's weights; DSG with its hook off while fine-tuning and on at the exam ('at test time'), on in both
    ('also in training'), and the weights of 'at test time' examined without the hook ('hook removed').

    Returns:
        arm, seed, epoch (0 is before the attack), role (forget, near, side), n, right, accuracy, low, high.
    """
    clamp, unlearned = dsg.clamp(sae), with_weights(exam.model, rmu_weights)
    rows: list[pd.DataFrame] = []
    for epoch, model in enumerate(chain([unlearned], attack.on(unlearned))):
        rows.append(_counts(exam, exam.answers_of(model).unedited).assign(arm="RMU", epoch=epoch))
    for epoch, model in enumerate(chain([exam.model], attack.on(exam.model))):
        answers = exam.answers_of(model)
        rows.append(_counts(exam, answers.edited(clamp)).assign(arm="DSG at test time", epoch=epoch))
        rows.append(_counts(exam, answers.unedited).assign(arm="DSG, hook removed", epoch=epoch))
    for epoch, model in enumerate(chain([exam.model], attack.on(exam.model, clamp))):
        edited = exam.answers_of(model).edited(clamp)
        rows.append(_counts(exam, edited).assign(arm="DSG also in training", epoch=epoch))
    return accuracy(pd.concat(rows).assign(seed=attack.seed), ["arm", "seed", "epoch", "role"])


def _counts(exam: Exam, probabilities: Tensor) -> pd.DataFrame:
    """The exam's table of these answers; no loss is measured here, and 0 stands in its place."""
    return exam.tabulate(probabilities, 0.0)
