"""The papers' rules for choosing features, the three that are remade and CRISP's, on the same statistics."""

import numpy as np
import pandas as pd

from helpers.engine.features import importance, select_by_difference, select_by_importance, select_by_sparsity
from helpers.profiles import SelectionSettings

# The rule whose features are found on known questions and not on text (`select_by_attribution`).
ATTRIBUTION = "attribution"
# What becomes of its candidates.
FATES = USELESS, DEAR, KEPT = ("no forget question lost", "side effects too large", "kept")


def selections(
    forget: pd.DataFrame, retain: pd.DataFrame, settings: SelectionSettings, n: int
) -> dict[str, np.ndarray]:
    """The n features that each paper's rule chooses from the same statistics, best first.

    The rules: 'sparsity' (Farrell), 'clamp_prime' (Khoriaty), 'importance' (DSG as the paper says, E[f^2]) and
    'importance_released' (DSG as its code has it, (E[f])^2), 'crisp' (CRISP).

    Args:
        forget, retain: `feature_statistics` on the two texts.
    """
    rates = forget["firing_rate"].to_numpy(), retain["firing_rate"].to_numpy()
    percentiles = (settings.ratio_percentile, settings.forget_percentile)
    chosen = {
        "sparsity": select_by_sparsity(*rates, n, settings.sparsity_retain_threshold),
        "clamp_prime": select_by_sparsity(*rates, n, settings.clamp_prime_retain_threshold),
    }
    for name, released in (("importance", False), ("importance_released", True)):
        values = importance(forget, released), importance(retain, released)
        chosen[name] = select_by_importance(*values, n, *percentiles)
    means = forget["mean"].to_numpy(), retain["mean"].to_numpy()
    chosen["crisp"] = select_by_difference(*rates, *means, n)
    return chosen


def candidates_by_attribution(attribution: np.ndarray, n: int) -> np.ndarray:
    """Ids of the n features of largest attribution, largest first; those that speak against the answer are none."""
    ranked = np.argsort(-attribution, kind="stable")
    return ranked[attribution[ranked] > 0][:n]


def fates(lost: pd.DataFrame, side_lost: int) -> np.ndarray:
    """What Farrell's filters make of features that were clamped alone, in words: `USELESS`, `DEAR` or `KEPT`.

    Args:
        lost: `measures.alone.lost_alone`.
        side_lost: how many questions of any one side-effect subject a kept feature may lose.
    """
    return np.select([lost["forget_lost"] == 0, lost["side_lost"] > side_lost], [USELESS, DEAR], KEPT)


def select_by_attribution(lost: pd.DataFrame, side_lost: int) -> np.ndarray:
    """Ids of the features that the filters keep, the least loss added first. Arguments are those of `fates`."""
    kept = lost[fates(lost, side_lost) == KEPT]
    return kept.sort_values("loss_added", kind="stable")["feature"].to_numpy()
