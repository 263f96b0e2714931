"""Notebook 13: what others measured of gates, in the columns of our own rows."""

import pandas as pd

from helpers.experiments.prompt_attacks import ACCURACY, OPENS, OURS, REPRODUCTION
from helpers.published import load_published

# Of the reproduction's measures those that are on our axes.
MEASURES = {
    "gate opens on the near domain": ("near", OPENS),
    "false alarms": ("side", OPENS),
    "forget accuracy": ("forget", ACCURACY),
}


def with_reproduction(found: pd.DataFrame) -> pd.DataFrame:
    """`gates.clean`, and below it what others found on Gemma with gates of these kinds (`world` tells them apart)."""
    theirs = load_published("guard_gates")
    theirs = theirs[theirs["gate"].isin(found["method"]) & theirs["measure"].isin(MEASURES)]
    kinds = pd.DataFrame([MEASURES[words] for words in theirs["measure"]], columns=["role", "measure"])
    middle = theirs[["low", "high"]].mean(axis=1).to_numpy()
    shown = kinds.assign(world=REPRODUCTION, method=theirs["gate"].to_numpy(), accuracy=middle)
    return pd.concat([found.assign(world=OURS), shown], ignore_index=True)
