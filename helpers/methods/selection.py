"""The papers' rules for choosing features, the three that are remade and CRISP's, on the same statistics."""

import numpy as np
import pandas as pd

from helpers.engine.features import importance, select_by_difference, select_by_importance, select_by_sparsity
from helpers.profiles import SelectionSettings


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
