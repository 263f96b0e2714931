"""Numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers.metrics import (
    accuracy,
    best_setting,
    difference_interval,
    halves,
    letter_histogram,
    pareto_front,
    unlearning_score,
    wilson_interval,
)


def test_wilson_interval_by_hand():
    # 5 of 10 with z = 2: centre (0.5 + 4/20) / (1 + 4/10) = 0.5, half width 2 * sqrt(0.025 + 0.01) / 1.4
    low, high = wilson_interval(5, 10, z=2.0)
    assert (low, high) == pytest.approx((0.5 - 2 * 0.035**0.5 / 1.4, 0.5 + 2 * 0.035**0.5 / 1.4))


def test_wilson_interval_at_the_edges():
    # 0 of n: upper end z^2 / (n + z^2)
    assert wilson_interval(0, 12, z=2.0) == pytest.approx((0.0, 4 / 16))
    assert wilson_interval(12, 12, z=2.0) == pytest.approx((12 / 16, 1.0))


@pytest.mark.parametrize(("right", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses_impossible_counts(right, n):
    with pytest.raises(ValueError, match=f"right={right}, n={n}"):
        wilson_interval(right, n)


def test_difference_interval_is_newcombes_published_example():
    """56 of 70 against 48 of 80 (Newcombe 1998, Table II, method 10): 0.0524 to 0.3339."""
    assert difference_interval(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_accuracy_pools_by_questions_not_by_subjects():
    answers = pd.DataFrame({"c": [1, 1, 2], "subject": ["a", "b", "a"], "n": [9, 1, 4], "right": [9, 0, 1]})
    pooled = accuracy(answers, ["c"])
    assert pooled["accuracy"].tolist() == [0.9, 0.25]
    assert pooled["n"].tolist() == [10, 4]


def test_unlearning_score_takes_the_lowest_forget_accuracy_at_99_percent():
    forget, side = [0.9, 0.4, 0.1], [1.0, 0.99, 0.98]
    assert best_setting(forget, side) == 1
    assert unlearning_score(forget, side) == pytest.approx(0.6)
    assert unlearning_score([0.1], [0.5]) == 0.0


def test_pareto_front_by_hand():
    cost = [0.5, 0.2, 0.2, 0.9, 0.5]
    gain = [0.9, 0.5, 0.4, 0.9, 0.9]
    # 2 is beaten by 1, 3 by 0, 4 equals 0 and comes later
    assert pareto_front(cost, gain) == [1, 0]


def test_letter_histogram_counts_every_letter():
    assert letter_histogram(np.array([[0, 0], [3, 1]])).tolist() == [2, 1, 0, 1]


def test_halves_are_even_disjoint_and_from_the_seed():
    assert sorted(halves(7, 0).tolist()) == [0, 0, 0, 0, 1, 1, 1]
    assert halves(50, 0).tolist() == halves(50, 0).tolist() != halves(50, 1).tolist()
