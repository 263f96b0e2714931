"""What one feature alone does to the questions and to text: by this features are filtered (Farrell et al.)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from helpers.engine.interventions import Clamp
from helpers.engine.scoring import is_right
from helpers.measures.knowledge import Knowledge
from helpers.text.questions import ORIGINAL_ORDER


def lost_alone(knowledge: Knowledge, sae, features: Sequence[int], value: float, side_lost: int) -> pd.DataFrame:
    """What each feature loses when it alone is set to a value where it fires.

    A feature goes on to the next and dearer question only if it passed the one before: does it lose a forget question,
    does it spare the side-effect subjects, how much loss does it add?

    Args:
        value: in units of activation, with its sign.
        side_lost: how many questions of any one side-effect subject it may lose.

    Returns:
        feature, forget_lost (questions), side_lost (the most that one side-effect subject loses; missing where
        forget_lost is 0), loss_added (nats per token on neutral text; missing where side_lost is, or is too large).
    """
    table = pd.DataFrame({"feature": np.asarray(features, dtype=int), "side_lost": np.nan, "loss_added": np.nan})
    table.insert(1, "forget_lost", _most_lost(_only(knowledge, "forget"), sae, table["feature"], value))
    able = table["forget_lost"] > 0
    table.loc[able, "side_lost"] = _most_lost(_only(knowledge, "side"), sae, table["feature"][able], value)
    kept = table["side_lost"] <= side_lost
    if kept.any():
        clamps = [Clamp(sae, [feature], value) for feature in table["feature"][kept]]
        table.loc[kept, "loss_added"] = knowledge.losses_added(clamps)
    return table


def _only(knowledge: Knowledge, role: str) -> Knowledge:
    """The same with the subjects of one role."""
    return replace(knowledge, questions={s: q for s, q in knowledge.questions.items() if knowledge.roles[s] == role})


def _most_lost(knowledge: Knowledge, sae, features: pd.Series, value: float) -> np.ndarray:
    """How many questions each feature loses of the subject that loses most, [features]; 0 where nothing is asked."""
    if not knowledge.asked or features.empty:
        return np.zeros(len(features), dtype=int)
    edited = knowledge.answers.edited_by_each([Clamp(sae, [feature], value) for feature in features])
    wrong = np.array([~is_right(p[:, None], knowledge.asked, ORIGINAL_ORDER)[:, 0].numpy() for p in edited])
    ends = np.cumsum([len(questions) for questions in knowledge.questions.values()])[:-1]
    return np.array([of.sum(axis=1) for of in np.split(wrong, ends, axis=1)]).max(axis=0)
