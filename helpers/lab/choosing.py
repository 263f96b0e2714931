"""Choosing a setting, the one place: points of a sweep, the best of each method, on which questions, by which rule."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.lab.scores import Scores
from helpers.measures.metrics import SIDE_EFFECT_FLOOR, accuracy, aligned, alignment, retention, unlearning_score
from helpers.measures.metrics import best_setting as best_at_floor
from helpers.methods.method import HIGHEST_ALIGNMENT, LOWEST_FORGET, ONLY_SETTING, Method
from helpers.text.questions import LETTERS

ROLES = ("forget", "near", "side")
PAPER_PROTOCOL = "chosen and reported on the same questions"
HELD_OUT = "chosen on one half, reported on the other"
AS_SET = "as set"
ACCURACIES = [f"{role}_{what}" for role in ROLES for what in ("accuracy", "low", "high", "n")]
MEASURED = [*ACCURACIES, "forget_letter", "forget_mass", "loss_added"]
BOOTSTRAP_SEED = 0


class Choice(NamedTuple):
    """A setting, and in words by which rule it was chosen."""

    setting: Method
    rule: str


def points(scores: Scores, half: int | None = None) -> pd.DataFrame:
    """One row a setting, for scatter plots.

    Args:
        half: 0 or 1 for one half of the questions, None for all (the papers' protocol).

    Returns:
        method, setting (in words), n_features and strength (empty where a method has none); for each role
        `<role>_accuracy`, `<role>_low`, `<role>_high`, `<role>_n`, empty where no question of the role is known; of the
        forget questions also forget_letter (the share of the letter said most, 1 for a model that has collapsed into
        one) and forget_mass (mean probability that any letter is said); and loss_added.
    """
    rows = [
        {"method": one.label, "setting": one.setting.words, "n_features": _number(one.setting, "n_features"),
         "strength": _number(one.setting, "strength"), **_measured(one.table, half)}
        for one in scores
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "setting", "n_features", "strength", *MEASURED])


def _number(setting: Method, name: str) -> float:
    return float(getattr(setting, name, np.nan))


def _measured(table: pd.DataFrame, half: int | None) -> dict[str, float]:
    """The measured columns of `points`, from the counts of one setting."""
    chosen = table if half is None else table[table["half"] == half]
    measured: dict[str, float] = {}
    for role in ROLES:
        pooled = accuracy(chosen[chosen["role"] == role], ["role"])
        row = dict(pooled.iloc[0]) if len(pooled) else {}
        measured |= {f"{role}_{column}": row.get(column, np.nan) for column in ("accuracy", "low", "high", "n")}
    forget = chosen[chosen["role"] == "forget"]
    letters = forget[[f"said_{x}" for x in LETTERS]].sum()
    measured["forget_letter"] = letters.max() / (letters.sum() or np.nan)
    measured["forget_mass"] = forget["letter_mass"].sum() / measured["forget_n"]
    return measured | {"loss_added": chosen["loss_added"].iloc[0]}


def aligned_points(scores: Scores, half: int | None = None) -> pd.DataFrame:
    """`points` with retention of both sides and alignment (Khoriaty et al.).

    Known questions are all right before an edit, so every retention is measured from an accuracy of 1. The good are the
    side-effect questions, pooled by questions.
    """
    table = points(scores, half)
    good, bad = table["side_accuracy"], table["forget_accuracy"]
    return table.assign(
        good_retention=retention(good, 1.0), bad_retention=retention(bad, 1.0), alignment=alignment(good, 1.0, bad, 1.0)
    )


def choose(scores: Scores, floor: float = SIDE_EFFECT_FLOOR, rule: str | None = None, half: int | None = 0) -> Choice:
    """The setting of a sweep to take on to further experiments, chosen on half 0 of the questions by default.

    Args:
        floor: the side-effect accuracy that must be kept.
        rule: 'highest alignment'; or 'lowest forget accuracy', which means at a side-effect accuracy of at least
            `floor`, and where no setting reaches that, the largest difference of side-effect and forget accuracy.
            None takes the method's own (`Method.chosen_by`). A single setting is taken as it is, by no rule.

    Raises:
        ValueError: the sweep has no settings, no question is known that a setting could be judged by, or there are
            several settings of a method that has but one.
    """
    if not scores:
        raise ValueError("there is no setting to choose from")
    if _is_only(scores) or len(scores) == 1:
        return Choice(scores[0].setting, AS_SET)
    if (rule or scores[0].setting.chosen_by) == HIGHEST_ALIGNMENT:
        return Choice(scores[_most_aligned(scores, half)].setting, HIGHEST_ALIGNMENT)
    table = points(scores, half)
    best = best_at_floor(table["forget_accuracy"].tolist(), table["side_accuracy"].tolist(), floor)
    if best is not None:
        return Choice(scores[best].setting, f"{LOWEST_FORGET} at side effects >= {floor}")
    return Choice(
        scores[_largest(table["side_accuracy"] - table["forget_accuracy"])].setting,
        f"no setting keeps side effects >= {floor}: largest difference of side-effect and forget accuracy",
    )


def choose_each(scores: Scores, rule: str | None = None) -> dict[str, Method]:
    """Of each method of a sweep, by its label, the setting that `choose` takes."""
    return {label: choose(of, rule=rule).setting for label, of in scores.by_method().items()}


def grid_ends(setting: Method, tried: Sequence[Method]) -> dict[str, str]:
    """Which fields of a chosen setting stand at an end of what was tried, where a wider grid might do better.

    Args:
        tried: the settings it was chosen from, of one method.

    Returns:
        by name 'smallest' or 'largest', of the fields that are a number in every setting and take several values; in
        the order of the method's fields.

    Raises:
        ValueError: the setting is not among those that were tried.
    """
    if setting not in tried:
        raise ValueError(f"{setting.label}, {setting.words} is not among the {len(tried)} settings that were tried")
    found = {}
    for name in (field.name for field in fields(setting)):
        values = {getattr(other, name) for other in tried}
        if len(values) < 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            continue
        if getattr(setting, name) in (min(values), max(values)):
            found[name] = "smallest" if getattr(setting, name) == min(values) else "largest"
    return found


def grid_words(setting: Method, tried: Sequence[Method]) -> str:
    """`grid_ends` in words, to follow a method's name: 'stands at an end of its grid: alpha 300 (largest)'."""
    ends = [f"{name.replace('_', ' ')} {getattr(setting, name):g} ({end})"
            for name, end in grid_ends(setting, tried).items()]  # fmt: skip
    return f"stands at an end of its grid: {', '.join(ends)}" if ends else "stands inside its grid in every field"


def _is_only(of: Scores) -> bool:
    """Whether the settings of a method are not chosen among, because it has but one, which no floor is to hide.

    Raises:
        ValueError: there are several of such a method.
    """
    if of[0].setting.chosen_by != ONLY_SETTING:
        return False
    if len(of) > 1:
        raise ValueError(f"{of[0].label} is chosen by {ONLY_SETTING!r}, and here are {len(of)}: give one of them")
    return True


def _most_aligned(scores: Scores, half: int | None) -> int:
    return _largest(aligned_points(scores, half)["alignment"])


def _largest(values: pd.Series) -> int:
    if values.isna().all():
        raise ValueError("no setting can be chosen: no question of the forget or of the side-effect subjects is known")
    return int(values.idxmax())


def held_out(scores: Scores, floor: float = SIDE_EFFECT_FLOOR) -> pd.DataFrame:
    """The best setting of each method at a floor, by the papers' protocol and by an honest one.

    A setting is chosen for the lowest forget accuracy at a side-effect accuracy of at least `floor`; the papers choose
    and report on the same questions, the honest protocol chooses on half 0 and reports on half 1. A method's only
    setting (`ONLY_SETTING`) is reported on the same questions, at whatever side effects.

    Returns:
        method, protocol, setting, the accuracies with their intervals, forget_letter, forget_mass and loss_added as in
        `points`; setting is 'none' and the rest empty where no setting reaches the floor.
    """
    rows, columns = [], ["method", "protocol", "setting"]
    for method, of in scores.by_method().items():
        for protocol, choose_on, report_on in ((PAPER_PROTOCOL, None, None), (HELD_OUT, 0, 1)):
            table = points(of, choose_on)
            accuracies = table["forget_accuracy"].tolist(), table["side_accuracy"].tolist()
            best = 0 if _is_only(of) else best_at_floor(*accuracies, floor)
            found = {"setting": "none"} if best is None else points(of, report_on).iloc[best].to_dict()
            rows.append({**found, "method": method, "protocol": protocol})
    table = pd.DataFrame(rows, columns=[*columns, *MEASURED])
    return table.astype(dict.fromkeys(MEASURED, float))


def score_table(scores: Scores, floor: float = SIDE_EFFECT_FLOOR) -> pd.DataFrame:
    """SAEBench's unlearning score of every method: method, settings (how many were tried), unlearning_score.

    A method's only setting (`ONLY_SETTING`) scores 1 minus its forget accuracy at whatever side effects: below the
    floor the score would be 0, and say that what the others are measured against forgets nothing.
    """
    rows = []
    for method, of in scores.by_method().items():
        table = points(of)
        forget, side = table["forget_accuracy"].tolist(), table["side_accuracy"].tolist()
        score = 1 - forget[0] if _is_only(of) else unlearning_score(forget, side, floor)
        rows.append((method, len(of), score))
    return pd.DataFrame(rows, columns=["method", "settings", "unlearning_score"])


def alignment_table(scores: Scores, resamples: int) -> pd.DataFrame:
    """Each method's setting of highest alignment, by the paper's protocol and by an honest one (as `held_out`).

    Returns:
        method, protocol, setting, retentions and alignment with bootstrap intervals, accuracies with Wilson intervals,
        forget_letter, forget_mass, loss_added.
    """
    rows = []
    for method, of in scores.by_method().items():
        for protocol, choose_on, report_on in ((PAPER_PROTOCOL, None, None), (HELD_OUT, 0, 1)):
            best = _most_aligned(of, choose_on)
            point = points(of, report_on).iloc[best].to_dict()
            kept, forgotten = (before_and_after(point, role) for role in ("side", "forget"))
            interval = aligned(kept, forgotten, resamples, BOOTSTRAP_SEED)
            rows.append({**point, "method": method, "protocol": protocol, **interval})
    table = pd.DataFrame(rows)
    first = ["method", "protocol", "setting", "n_features", "strength", "alignment", "alignment_low", "alignment_high"]
    return table[[*first, *(column for column in table if column not in first)]]


def before_and_after(point: Mapping[str, float], role: str) -> np.ndarray:
    """[questions, 2] bool: known questions, all right before; which of them are right after does not matter."""
    n = int(point[f"{role}_n"])
    after = np.arange(n) < round(point[f"{role}_accuracy"] * n)
    return np.stack([np.ones(n, dtype=bool), after], axis=1)
