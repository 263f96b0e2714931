"""How far an accuracy is from that of the reference, a model that never knew."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.measures.metrics import difference_interval
from helpers.methods import looks

ABOVE = ["above", "above_low", "above_high"]


def above_reference(table: pd.DataFrame, who: str, same: Sequence[str]) -> pd.DataFrame:
    """Each accuracy minus the reference's, which has nothing to bring back: above 0 is more than learning anew gives.

    Args:
        table: accuracy, low, high and the columns `who` and `same`.
        who: the column with the names of methods, or of what was done to them.
        same: the columns in which a row and the reference's row agree.

    Returns:
        the table with above, above_low and above_high (the 95 % interval of the difference, as of independent
        estimates); empty where there is no reference.
    """
    references = [label for label, look in looks().items() if look.reference and label in set(table[who])]
    if not references:
        return table.assign(**dict.fromkeys(ABOVE, np.nan))
    level = table[table[who] == references[0]][[*same, "accuracy", "low", "high"]]
    both = table.merge(level, on=list(same), how="left", suffixes=("", "_reference"), validate="many_to_one")
    return table.assign(**differences(both, "_reference", "above"))


def differences(both: pd.DataFrame, other: str, name: str) -> dict[str, list[float]]:
    """Differences of two accuracies of a row with their 95 % intervals, as of independent estimates.

    Args:
        both: accuracy, low, high, and the same three with the ending `other`.

    Returns:
        the columns name, name_low, name_high.
    """
    rows = []
    for _, row in both.iterrows():
        one, two = ((row[f"accuracy{end}"], (row[f"low{end}"], row[f"high{end}"])) for end in ("", other))
        rows.append((one[0] - two[0], *difference_interval(*one, *two)))
    columns = zip(*rows, strict=True) if rows else [[], [], []]
    return {f"{name}{end}": list(values) for end, values in zip(("", "_low", "_high"), columns, strict=True)}
