"""Differences to the model that never knew."""

import pandas as pd
import pytest

from helpers.measures.metrics import difference_interval
from helpers.measures.reference import above_reference, differences


def test_a_difference_is_to_the_reference_of_the_same_seed_and_epoch():
    rows = [("retrained", 0, 0, 0.2, 0.1, 0.4), ("retrained", 0, 1, 0.5, 0.4, 0.6), ("mine", 0, 1, 0.6, 0.5, 0.8),
            ("mine", 0, 0, 0.3, 0.2, 0.4)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "seed", "epoch", "accuracy", "low", "high"])
    found = above_reference(table, "arm", ["seed", "epoch"])
    assert found["above"].tolist() == pytest.approx([0, 0, 0.1, 0.1])
    assert tuple(found.loc[2, ["above_low", "above_high"]]) == difference_interval(0.6, (0.5, 0.8), 0.5, (0.4, 0.6))
    assert above_reference(table[2:], "arm", ["seed", "epoch"])[["above", "above_low"]].isna().all(axis=None)


def test_differences_are_row_by_row_and_of_no_rows_none():
    both = pd.DataFrame([(0.9, 0.8, 1.0, 0.3, 0.2, 0.5)],
                        columns=["accuracy", "low", "high", "accuracy_w", "low_w", "high_w"])  # fmt: skip
    found = differences(both, "_w", "beyond")
    assert found["beyond"] == pytest.approx([0.6])
    assert (*found["beyond_low"], *found["beyond_high"]) == difference_interval(0.9, (0.8, 1.0), 0.3, (0.2, 0.5))
    assert differences(both[:0], "_w", "beyond") == {"beyond": [], "beyond_low": [], "beyond_high": []}
