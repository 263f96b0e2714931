"""Notebook 15: DSG's ablations (Muhamed et al. 2025, Figs. 7, 11 and 12): what each part of its setting is good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.engine.features import importance, select_by_importance
from helpers.experiments.little_text import OURS, with_reproduction
from helpers.lab.choosing import points
from helpers.lab.scores import Scores
from helpers.methods.dsg import DSG
from helpers.published import load_published

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

SEED = 0
RETAIN, PACKED = "retain text", "packed retain text"
RHO, COUNTS = "rho", "raw counts"


# --- settings one by one ----------------------------------------------------------------------------------------------


def strength_grid(scores: Scores) -> pd.DataFrame:
    """Every number of features with every strength on half 1, and below it the independent reproduction's (Fig. 11).

    Args:
        scores: of a sweep over DSG's grid.

    Returns:
        world (`OURS` or the reproduction's), benchmark, and the columns of `lab.choosing.points`.
    """
    return with_reproduction(points(scores, half=1).assign(world=OURS), "strength and features")


def over_ratios(lab: Lab, setting: DSG) -> pd.DataFrame:
    """A setting with features chosen at every p_ratio of the profile instead, on half 1 (Fig. 7).

    The gate's threshold follows the features.

    Returns:
        world, ratio_percentile, threshold (tau), shared (features that are the setting's own too), and the columns of
        `lab.choosing.points`; below it the independent reproduction's.
    """
    percentiles, own = lab.profile.ablations.ratio_percentiles, set(setting.chosen(lab))
    chosen = [features_at(lab, percentile, setting.n_features) for percentile in percentiles]
    labels = {
        "world": OURS, "ratio_percentile": percentiles, "shared": [len(own.intersection(ids)) for ids in chosen],
        "threshold": [setting.gate(lab, ids).threshold for ids in chosen],
    }  # fmt: skip
    scores = lab.sweep([replace(setting, features=ids) for ids in chosen], half=1)
    return with_reproduction(pd.concat([pd.DataFrame(labels), points(scores)], axis=1), "p_ratio")


def features_at(lab: Lab, ratio_percentile: float, n: int) -> tuple[int, ...]:
    """Ids of the n features that DSG's rule chooses at another p_ratio than the profile's, best first.

    Raises:
        ValueError: it finds fewer.
    """
    forget, retain = (importance(statistics) for statistics in lab.firing_rates())
    found = select_by_importance(forget, retain, n, ratio_percentile, lab.profile.selection.forget_percentile)
    if len(found) < n:
        raise ValueError(
            f"{n} features are asked for, p_ratio {ratio_percentile:g} leaves {len(found)}: lower "
            "ablations.ratio_percentiles, or ask for fewer"
        )
    return tuple(int(i) for i in found)


def over_thresholds(lab: Lab, setting: DSG, rho: pd.DataFrame) -> pd.DataFrame:
    """A setting with tau at every p_dyn of the profile instead, on half 1 (Fig. 7B).

    Args:
        rho: `guardrail.rho_table` of the setting's features, with the framed retain text (`RETAIN`).

    Returns:
        world, gate_percentile, threshold (tau), and the columns of `lab.choosing.points`; below it the independent
        reproduction's.
    """
    percentiles, ids = lab.profile.ablations.gate_percentiles, setting.chosen(lab)
    taus = np.percentile(rho.loc[rho["role"] == RETAIN, "rho"], percentiles).tolist()
    scores = lab.sweep([replace(setting, features=ids, threshold=tau) for tau in taus], half=1)
    labels = pd.DataFrame({"world": OURS, "gate_percentile": percentiles, "threshold": taus})
    return with_reproduction(pd.concat([labels, points(scores)], axis=1), "p_dyn")


def ends(table: pd.DataFrame, along: str) -> pd.DataFrame:
    """Our accuracies, and tau where there is one, at the lowest and at the highest value of a column, to read aloud.

    Returns:
        end ('lowest' or 'highest'), variable (the column), value.
    """
    rows = table[table["world"] == OURS].sort_values(along).iloc[[0, -1]].assign(end=["lowest", "highest"])
    columns = ("threshold", "forget_accuracy", "near_accuracy", "side_accuracy")
    return rows.melt("end", [column for column in columns if column in rows])


# --- the statistic ----------------------------------------------------------------------------------------------------


def separations(rho: pd.DataFrame, bins: int, resamples: int) -> pd.DataFrame:
    """How far rho and raw counts of hot tokens set forget questions apart from everything else (Fig. 12).

    Args:
        rho: `guardrail.rho_table`.
        bins: of equal width, from 0 to the largest value of the two samples.
        resamples: of the bootstrap over questions and texts.

    Returns:
        world (`OURS`), against (a role of `rho`), statistic (`RHO` or `COUNTS`), tvd (`total_variation`) and
        difference (rho's tvd minus that of the statistic), both with 95 % bootstrap intervals, drawn for the two
        statistics together; positives, negatives (questions, questions or texts); and below it what was published.
        A resample repeats rows, so that its tvd tends to be the larger: an interval may lie a little high.
    """
    values = rho.assign(**{RHO: rho["rho"], COUNTS: rho["rho"] * rho["tokens"]})
    forget = values[values["role"] == "forget"]
    others = values[~values["role"].isin(["forget", "forget text"])]
    tables = [
        _compared(forget[[RHO, COUNTS]].to_numpy(), of[[RHO, COUNTS]].to_numpy(), bins, resamples).assign(against=role)
        for role, of in others.groupby("role", sort=False)
    ]
    theirs = load_published("dsg2025_rho").drop(columns="source")
    return pd.concat([pd.concat(tables).assign(world=OURS), theirs], ignore_index=True)


def _compared(positives: np.ndarray, negatives: np.ndarray, bins: int, resamples: int) -> pd.DataFrame:
    """The rows of one contrast, of values [rows, statistics]."""
    edges = [np.linspace(0, max(a.max(), b.max()) or 1, bins + 1)
             for a, b in zip(positives.T, negatives.T, strict=True)]  # fmt: skip
    rng = np.random.default_rng(SEED)
    drawn = np.array([
        _distances(rng.choice(positives, len(positives)), rng.choice(negatives, len(negatives)), edges)
        for _ in range(resamples)
    ])  # fmt: skip
    found, rows = _distances(positives, negatives, edges), []
    for i, statistic in enumerate((RHO, COUNTS)):
        (low, high), apart = np.percentile(drawn[:, i], [2.5, 97.5]), drawn[:, 0] - drawn[:, i]
        rows.append((statistic, found[i], low, high, found[0] - found[i], *np.percentile(apart, [2.5, 97.5])))
    columns = ["statistic", "tvd", "tvd_low", "tvd_high", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns).assign(positives=len(positives), negatives=len(negatives))


def _distances(positives: np.ndarray, negatives: np.ndarray, edges: Sequence[np.ndarray]) -> list[float]:
    return [total_variation(a, b, e) for a, b, e in zip(positives.T, negatives.T, edges, strict=True)]


def total_variation(a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> float:
    """Total variation distance of the histograms of two samples, 0 (the same) to 1 (no bin in common).

    Args:
        edges: of the bins, in which all values lie.
    """
    p, q = (np.histogram(x, edges)[0] / len(x) for x in (a, b))
    return float(np.abs(p - q).sum() / 2)
