"""Features that the papers published, for where the gated forget text cannot be had."""

import numpy as np
import pandas as pd

from helpers.profiles import Profile
from helpers.published import load_published


def published_statistics(profile: Profile) -> pd.DataFrame:
    """Farrell's forget rates in the form of `feature_statistics`: 0 for what they did not choose, no activations.

    Empty where none are published for this model and SAE.
    """
    table = load_published("farrell2024_features").query("model == @profile.model.source and sae == @profile.sae.id")
    if table.empty:
        return table
    rates = np.zeros(profile.sae.width)
    rates[table["feature"]] = table["forget_rate"]
    unknown = {"mean": np.nan, "mean_square": np.nan, "tokens": 0}
    return pd.DataFrame({"feature": np.arange(len(rates)), "firing_rate": rates}).assign(**unknown)
