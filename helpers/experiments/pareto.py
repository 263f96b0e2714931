"""Notebooks 03 and 05: sweeps over static clamps and RMU, and settings chosen on one half and reported on the other."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.experiments.exam import ROLES, ClampSetting, Exam, best_features, points
from helpers.measures.metrics import best_setting, unlearning_score
from helpers.methods.rmu import RMU, train_rmu, with_weights
from helpers.profiles import RMUSettings

PAPER_PROTOCOL = "chosen and reported on the same questions"
HELD_OUT = "chosen on one half, reported on the other"


def clamp_grid(
    method: str, features: np.ndarray, numbers: Sequence[int], strengths: Sequence[float], unit: float
) -> list[ClampSetting]:
    """Clamps of the n best features where each fires itself, in every sequence, for every n and strength.

    Farrell's static clamps and Khoriaty's Clamp Prime differ only in the rule that ranked the features.
    """
    return [ClampSetting(method, best_features(features, n), s, unit, "own", None) for n in numbers for s in strengths]


def rmu_settings(settings: RMUSettings, seed: int) -> list[RMU]:
    """Every setting of RMU's grid."""
    grid = product(settings.layers, settings.steering, settings.alphas)
    rest = (settings.steps, settings.batch_rows, settings.learning_rate, seed)
    return [RMU(layer, steering, alpha, *rest) for layer, steering, alpha in grid]


def rmu_scores(exam: Exam, forget_rows: Tensor, retain_rows: Tensor, settings: Sequence[RMU]) -> pd.DataFrame:
    """Train RMU at every setting and take the exam with its weights: layer, steering, alpha and the exam's columns."""
    return pd.concat([_rmu_table(exam, forget_rows, retain_rows, s) for s in settings], ignore_index=True)


def _rmu_table(exam: Exam, forget_rows: Tensor, retain_rows: Tensor, setting: RMU) -> pd.DataFrame:
    # a function of its own, so that one setting's model is gone before the next one's is made
    trained = with_weights(exam.model, train_rmu(exam.model, forget_rows, retain_rows, setting))
    table = exam.score_model(trained)
    labels = {"method": "RMU", "layer": setting.layer, "steering": setting.steering, "alpha": setting.alpha}
    return pd.concat([pd.DataFrame([labels] * len(table)), table], axis=1)


def labelled_points(scores: pd.DataFrame, half: int | None = None) -> pd.DataFrame:
    """`points` with the columns that every method has.

    Returns:
        method, setting (its labels in words), n_features and strength (empty for RMU), and what `points` measures.
    """
    table = points(scores, half)
    labels = pd.DataFrame({"method": table["method"], "setting": table.apply(setting_name, axis=1)})
    for size in ("n_features", "strength"):
        labels[size] = table[size].astype(float) if size in table else np.nan
    return pd.concat(
        [labels, table[[c for c in table if c.startswith(("forget_", "near_", "side_", "loss_"))]]], axis=1
    )


def setting_name(row: pd.Series) -> str:
    """A setting in a few words: '20 features x5' or 'layer 2, steering 3, alpha 30'."""
    if "alpha" in row:
        return f"layer {row['layer']:g}, steering {row['steering']:g}, alpha {row['alpha']:g}"
    return f"{row['n_features']:g} features x{row['strength']:g}"


def held_out(scores_by_method: dict[str, pd.DataFrame], floor: float) -> pd.DataFrame:
    """The best setting of each method, by the papers' protocol and by an honest one.

    A setting is chosen for the lowest forget accuracy at a side-effect accuracy of at least `floor`; the papers choose
    and report on the same questions, the honest protocol chooses on half 0 and reports on half 1.

    Returns:
        method, protocol, setting, and the accuracies with their intervals; setting is 'none' and the rest empty where
        no setting reaches the floor.
    """
    rows, columns = [], ["method", "protocol", "setting"]
    for method, scores in scores_by_method.items():
        for protocol, choose, report in ((PAPER_PROTOCOL, None, None), (HELD_OUT, 0, 1)):
            chosen = labelled_points(scores, choose)
            best = best_setting(chosen["forget_accuracy"].tolist(), chosen["side_accuracy"].tolist(), floor)
            if best is None:
                rows.append({"method": method, "protocol": protocol, "setting": "none"})
                continue
            reported = labelled_points(scores, report).iloc[best].to_dict()
            rows.append({**reported, "method": method, "protocol": protocol})
    measured = [f"{role}_{what}" for role in ROLES for what in ("accuracy", "low", "high", "n")]
    return pd.DataFrame(rows, columns=[*columns, *measured, "loss_added"]).astype(dict.fromkeys(measured, float))


def score_table(points_table: pd.DataFrame, floor: float) -> pd.DataFrame:
    """SAEBench's unlearning score of every method: method, settings (how many were tried), unlearning_score."""
    rows = [
        (m, len(t), unlearning_score(t["forget_accuracy"].tolist(), t["side_accuracy"].tolist(), floor))
        for m, t in points_table.groupby("method", sort=False)
    ]
    return pd.DataFrame(rows, columns=["method", "settings", "unlearning_score"])


def choose(scores: pd.DataFrame, floor: float) -> tuple[int, str]:
    """Which setting to take on to further experiments, chosen on half 0 of the questions, and by which rule.

    The rule is the lowest forget accuracy at a side-effect accuracy of at least `floor`; where no setting reaches the
    floor, the largest difference between side-effect and forget accuracy. The rule's words tell which it was.
    """
    table = points(scores, half=0)
    best = best_setting(table["forget_accuracy"].tolist(), table["side_accuracy"].tolist(), floor)
    if best is not None:
        return best, f"lowest forget accuracy at side effects >= {floor}"
    return int((table["side_accuracy"] - table["forget_accuracy"]).idxmax()), (
        f"no setting keeps side effects >= {floor}: largest difference of side-effect and forget accuracy"
    )
