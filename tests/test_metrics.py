"""Numbers that can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from helpers.measures.metrics import (
    accuracy,
    aligned,
    alignment,
    best_setting,
    bootstrapped_accuracy,
    difference_interval,
    halves,
    letter_histogram,
    pareto_front,
    retention,
    unlearning_score,
    wilson_interval,
)


def test_wilson_interval_by_hand():
    # 5 of 10 with z = 2: centre (0.5 + 4/20) / (1 + 4/10) = 0.5, half width 2 * sqrt(0.025 + 0.01) / 1.4
    low, high = wilson_interval(5, 10, z=2.0)
    assert (low, high) == pytest.approx((0.5 - 2 * 0.035**0.5 / 1.4, 0.5 + 2 * 0.035**0.5 / 1.4))


def test_of_a_question_asked_in_several_rows_a_part_counts():
    table = accuracy(pd.DataFrame({"right": [0.75, 0.0], "n": [1, 1], "by": ["x", "x"]}), ["by"])
    assert table["accuracy"].item() == 0.375
    assert table[["low", "high"]].iloc[0].tolist() == list(wilson_interval(0.75, 2))
    assert table["low"].item() > 0


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
    found = difference_interval(56 / 70, wilson_interval(56, 70), 48 / 80, wilson_interval(48, 80))
    assert found == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_difference_interval_by_hand():
    # 3 and 4 make 5 on the way down, 6 and 8 make 10 on the way up
    assert difference_interval(10, (7, 16), 2, (-6, 6)) == pytest.approx((8 - 5, 8 + 10))


def test_accuracy_pools_by_questions_not_by_subjects():
    answers = pd.DataFrame({"c": [1, 1, 2], "subject": ["a", "b", "a"], "n": [9, 1, 4], "right": [9, 0, 1]})
    pooled = accuracy(answers, ["c"])
    assert pooled["accuracy"].tolist() == [0.9, 0.25]
    assert pooled["n"].tolist() == [10, 4]
    assert pooled[["low", "high"]].values.tolist() == [list(wilson_interval(9, 10)), list(wilson_interval(1, 4))]


def test_accuracy_of_no_answers_has_its_columns_and_no_rows():
    answers = pd.DataFrame({"c": ["a"], "n": [1], "right": [1], "half": [0]})
    pooled, none = accuracy(answers, ["c", "half"]), accuracy(answers[:0], ["c", "half"])
    assert none.columns.tolist() == ["c", "half", "n", "right", "accuracy", "low", "high"] and len(none) == 0
    assert none.dtypes.to_dict() == pooled.dtypes.to_dict()


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


def test_retention_is_the_share_above_chance_that_is_left():
    assert retention(0.5, 0.75) == pytest.approx(0.5)  # 1/4 of 1/2
    assert retention(0.2718, 0.5860) == pytest.approx(0.0218 / 0.3360)
    assert retention([0.9, 0.25, 0.1], 0.75).tolist() == pytest.approx([1.0, 2e-8, 2e-8])  # better, at and below chance
    assert retention([0.2, 0.9], 0.2).tolist() == [1.0, 1.0]  # at chance before: nothing to lose


def test_alignment_by_hand():
    # good: half of what lay above chance is left; bad: a fifth
    assert alignment(0.5, 0.75, 0.35, 0.75) == pytest.approx(0.5 * 0.8)
    assert alignment(0.6, 0.6, 0.25, 0.6) == pytest.approx(1.0)
    assert alignment(0.6, 0.6, 0.6, 0.6) == 0.0


def test_bootstrap_draws_a_question_with_all_its_conditions():
    right = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])  # one or the other: paired, the two always sum to 1
    drawn = bootstrapped_accuracy(right, 2000, np.random.default_rng(0))
    assert drawn.shape == (2000, 2)
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    # 4 draws with probability 3/4: standard error sqrt(3/4 * 1/4 / 4)
    assert drawn[:, 0].mean() == pytest.approx(0.75, abs=0.02)
    assert drawn[:, 0].std() == pytest.approx((0.75 * 0.25 / 4) ** 0.5, abs=0.01)
    assert set(np.unique(drawn * 4)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("right", [np.zeros((0, 2)), np.zeros(3)])
def test_bootstrap_needs_questions(right):
    with pytest.raises(ValueError, match="expected right or wrong of some questions"):
        bootstrapped_accuracy(right, 10, np.random.default_rng(0))


def test_aligned_has_no_interval_where_every_question_is_alike():
    kept, lost = np.tile([True, True], (5, 1)), np.tile([True, False], (7, 1))
    found = aligned(kept, lost, 50, seed=0)
    for end in ("", "_low", "_high"):
        assert found[f"good_retention{end}"] == 1.0
        assert found[f"alignment{end}"] == pytest.approx(1.0)


def test_aligned_intervals_are_the_binomials():
    """300 of 400 kept: R_good = 2/3, standard error of the accuracy 0.02165 over 3/4."""
    good = np.stack([np.ones(400), np.arange(400) < 300], axis=1)
    bad = np.tile([True, False], (9, 1))
    found, half = aligned(good, bad, 20_000, seed=0), 1.96 * (0.75 * 0.25 / 400) ** 0.5 / 0.75
    ends = found["alignment"], found["alignment_low"], found["alignment_high"]
    assert ends == pytest.approx((2 / 3, 2 / 3 - half, 2 / 3 + half), abs=4e-3)
    assert aligned(good, bad, 20, seed=0) == aligned(good, bad, 20, seed=0) != aligned(good, bad, 20, seed=1)


def test_pairing_narrows_the_interval():
    """An edit that changes no answer keeps exactly everything, however few questions were right before it."""
    same = np.repeat([[True, True], [False, False]], [60, 40], axis=0)
    found = aligned(same, same, 500, seed=0)
    assert (found["good_retention_low"], found["good_retention_high"], found["alignment_high"]) == (1.0, 1.0, 0.0)
