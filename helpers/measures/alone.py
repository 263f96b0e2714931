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
    does it spare one side-effect subject after the other, how much loss does it add?

    Args:
        value: in units of activation, with its sign.
        side_lost: how many questions of any one side-effect subject it may lose.

    Returns:
        feature, forget_lost (questions), side_lost (the most that one of the side-effect subjects loses that it was
        asked, the last of which is the first that loses too many; missing where forget_lost is 0), loss_added (nats per
        token on neutral text; missing where side_lost is, or is too large).
    """
    table = pd.DataFrame({"feature": np.asarray(features, dtype=int), "side_lost": np.nan, "loss_added": np.nan})
    clamps = pd.Series([Clamp(sae, [feature], value) for feature in table["feature"]], dtype=object)
    table.insert(1, "forget_lost", 0)
    for subject in _subjects(knowledge, "forget"):
        table["forget_lost"] += _lost(knowledge, subject, clamps)
    table.loc[table["forget_lost"] > 0, "side_lost"] = 0
    for subject in _subjects(knowledge, "side"):
        left = table["side_lost"] <= side_lost
        table.loc[left, "side_lost"] = np.maximum(table["side_lost"][left], _lost(knowledge, subject, clamps[left]))
    kept = table["side_lost"] <= side_lost
    if kept.any():
        table.loc[kept, "loss_added"] = knowledge.losses_added(clamps[kept].tolist())
    return table


def _subjects(knowledge: Knowledge, role: str) -> list[str]:
    return [subject for subject in knowledge.questions if knowledge.roles[subject] == role]


def _lost(knowledge: Knowledge, subject: str, clamps: pd.Series) -> np.ndarray:
    """How many questions of a subject are wrong under each clamp, [clamps]."""
    asked = replace(knowledge, questions={subject: knowledge.questions[subject]})
    if not asked.asked or clamps.empty:
        return np.zeros(len(clamps), dtype=int)
    edited = asked.answers.edited_by_each(clamps.tolist())
    return np.array([int((~is_right(p[:, None], asked.asked, ORIGINAL_ORDER)).sum()) for p in edited])
