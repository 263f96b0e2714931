"""Points pool by questions, and what is chosen is what a hand would choose: on which half, by which rule, in words."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from helpers.lab.choosing import (
    AS_SET,
    HELD_OUT,
    PAPER_PROTOCOL,
    aligned_points,
    alignment_table,
    before_and_after,
    choose,
    choose_each,
    grid_ends,
    grid_words,
    held_out,
    points,
    score_table,
)
from helpers.lab.scores import Scored, Scores
from helpers.measures.metrics import alignment, wilson_interval
from helpers.methods import DSG, RMU, ClampPrime, StaticClamp
from helpers.methods.method import HIGHEST_ALIGNMENT, LOWEST_FORGET, ONLY_SETTING
from tests.toy import toy_scores

ROWS = [("a", "forget", 0, 4, 1), ("a", "forget", 1, 6, 4), ("b", "near", 0, 2, 1), ("c", "side", 0, 9, 9),
        ("d", "side", 1, 1, 0)]  # fmt: skip
TABLE = pd.DataFrame(ROWS, columns=["subject", "role", "half", "n", "right"]).assign(
    said_A=[1, 4, 0, 0, 0], said_B=[3, 2, 0, 0, 0], said_C=0, said_D=0, letter_mass=2.0, loss_added=0.25
)
ONE = Scored(StaticClamp(20, 5.0), "static clamp", {}, TABLE)


def without(role, *scores):
    """The same sweep with no question of a role."""
    return Scores(
        Scored(one.setting, one.label, one.facts, one.table[one.table["role"] != role]) for of in scores for one in of
    )


# --- points -----------------------------------------------------------------------------------------------------------


def test_points_pool_the_side_effects_over_questions():
    (both,) = points(Scores([ONE])).to_dict("records")
    assert (both["method"], both["setting"]) == ("static clamp", "20 features x5")
    assert (both["n_features"], both["strength"]) == (20.0, 5.0)
    assert (both["forget_accuracy"], both["side_accuracy"], both["loss_added"]) == (0.5, 0.9, 0.25)
    assert (both["side_low"], both["side_high"], both["side_n"]) == (*wilson_interval(9, 10), 10)
    assert (both["forget_letter"], both["forget_mass"]) == (0.5, 0.4)  # A and B 5 times each of 10; 4 of 10
    (first,) = points(Scores([ONE]), half=0).to_dict("records")
    assert (first["forget_accuracy"], first["side_accuracy"], first["forget_n"]) == (0.25, 1.0, 4)
    assert (first["forget_letter"], first["forget_mass"]) == (0.75, 0.5)
    (second,) = points(Scores([ONE]), half=1).to_dict("records")
    assert (second["forget_accuracy"], second["side_accuracy"], second["side_n"]) == (4 / 6, 0.0, 1)


def test_points_keep_the_label_and_the_words_of_every_setting():
    rmu = Scored(RMU(2, 3.0, 30.0, steps=1, batch_rows=4, learning_rate=1e-3), "RMU", {}, TABLE)
    prime = Scored(ClampPrime(5, 2.0, proportional=True), "one of my own", {}, TABLE)
    table = points(Scores([rmu, ONE, prime]))
    assert table["method"].tolist() == ["RMU", "static clamp", "one of my own"]
    words = ["layer 2, steering 3, alpha 30, 1 steps", "20 features x5", "5 features x2"]
    assert table["setting"].tolist() == words
    np.testing.assert_equal(table["n_features"].to_numpy(), [np.nan, 20, 5])
    np.testing.assert_equal(table["strength"].to_numpy(), [np.nan, 5, 2])


@pytest.mark.parametrize("half", [None, 0, 1])
@pytest.mark.parametrize("role", ["forget", "near", "side"])
def test_a_role_without_questions_has_empty_numbers(role, half):
    table = aligned_points(without(role, toy_scores(DSG, ((50, 60), (90, 80)))), half)
    whole = aligned_points(toy_scores(DSG, ((50, 60), (90, 80))), half)
    empty = {f"{role}_{what}" for what in ("accuracy", "low", "high", "n")}
    if role == "forget":
        empty |= {"forget_letter", "forget_mass", "bad_retention", "alignment"}
    if role == "side":
        empty |= {"good_retention", "alignment"}
    assert {column for column in table if table[column].isna().all()} == empty
    assert table.columns.tolist() == whole.columns.tolist()
    rest = [column for column in table if column not in empty]
    pd.testing.assert_frame_equal(table[rest], whole[rest])


def test_aligned_points_are_the_papers_formula_by_hand():
    scores = toy_scores(DSG, ((90, 0), (100, 0)), ((25, 100), (85, 0)), ((10, 0), (100, 0)))
    table = aligned_points(scores, half=0)
    assert table["alignment"].tolist() == pytest.approx(
        [float(alignment(s, 1, f, 1)) for f, s in ((0.9, 1.0), (0.25, 0.85), (0.1, 1.0))]
    )
    # accuracies less chance over 3/4: what is below chance is gone, and 0.85 is 0.60 of 0.75
    assert table["good_retention"].tolist() == pytest.approx([1.0, 0.8, 1.0])
    assert table["bad_retention"].tolist() == pytest.approx([0.65 / 0.75, 0.0, 0.0], abs=1e-7)
    assert table["alignment"].tolist() == pytest.approx([0.1 / 0.75, 0.8, 1.0], abs=1e-7)


# --- choosing one -----------------------------------------------------------------------------------------------------


def test_the_lowest_forget_accuracy_at_the_floor_is_chosen_on_half_0():
    # setting 2 breaks the floor; on half 1 setting 0 would be chosen
    scores = toy_scores(DSG, ((50, 0), (100, 100)), ((10, 90), (99, 100)), ((0, 5), (98, 100)))
    assert choose(scores) == (scores[1].setting, f"{LOWEST_FORGET} at side effects >= 0.99")
    assert choose(scores, half=1).setting is scores[0].setting
    assert choose(scores, half=None).setting is scores[2].setting  # 5, 50, 100 of 200, and 198 of 200 are 0.99
    assert choose(scores, floor=0.98) == (scores[2].setting, f"{LOWEST_FORGET} at side effects >= 0.98")


def test_where_none_keeps_the_floor_the_rule_says_so():
    # differences 48, 85, 40
    scores = toy_scores(DSG, ((50, 0), (98, 0)), ((10, 0), (95, 0)), ((0, 0), (40, 0)))
    setting, rule = choose(scores)
    assert setting is scores[1].setting
    assert rule == "no setting keeps side effects >= 0.99: largest difference of side-effect and forget accuracy"


def test_a_method_is_chosen_by_its_own_rule_if_no_other_is_given():
    # lowest forget accuracy at the floor: setting 0; alignments 0.2, and 0.92 where the side effects fall to 0.94
    numbers = [((85, 0), (100, 0)), ((25, 0), (94, 0))]
    for method, expected in ((DSG, 0), (StaticClamp, 0), (ClampPrime, 1)):
        scores = toy_scores(method, *numbers)
        setting, rule = choose(scores)
        assert setting is scores[expected].setting
        assert rule == (HIGHEST_ALIGNMENT if expected else f"{LOWEST_FORGET} at side effects >= 0.99")
        assert choose(scores, rule=HIGHEST_ALIGNMENT) == (scores[1].setting, HIGHEST_ALIGNMENT)
        assert choose(scores, rule=LOWEST_FORGET) == (scores[0].setting, f"{LOWEST_FORGET} at side effects >= 0.99")


def test_highest_alignment_is_chosen_on_half_0():
    scores = toy_scores(ClampPrime, ((25, 100), (80, 0)), ((50, 25), (100, 100)), ((30, 25), (95, 100)))
    # 0.55 / 0.75; 0.5 / 0.75; 0.70 / 0.75 * 0.70 / 0.75
    expected = [alignment(s, 1, f, 1) for f, s in ((0.25, 0.8), (0.5, 1.0), (0.3, 0.95))]
    assert np.argmax(expected) == 2
    assert choose(scores).setting is scores[2].setting
    assert choose(scores, half=1).setting is scores[1].setting  # the first of two equals


def test_a_single_setting_is_as_set_and_none_is_refused():
    (one,) = scores = toy_scores(DSG, ((90, 90), (10, 10)))
    assert choose(scores) == (one.setting, AS_SET)
    assert choose(without("side", scores)) == (one.setting, AS_SET)
    with pytest.raises(ValueError, match="no setting to choose from"):
        choose(Scores())


@pytest.mark.parametrize("rule", [LOWEST_FORGET, HIGHEST_ALIGNMENT])
@pytest.mark.parametrize("role", ["forget", "side"])
def test_without_questions_nothing_is_chosen(role, rule):
    scores = without(role, toy_scores(DSG, ((50, 50), (90, 90)), ((40, 40), (90, 90))))
    with pytest.raises(ValueError, match="no question of the forget or of the side-effect subjects is known"):
        choose(scores, rule=rule)


def test_each_method_of_a_sweep_has_its_own_choice():
    a = toy_scores(ClampPrime, ((90, 0), (100, 0)), ((25, 100), (85, 0)), label="a")
    b = toy_scores(DSG, ((50, 50), (100, 100)), ((25, 0), (97, 0)), label="b")
    mixed = Scores([a[0], b[0], a[1], b[1]])
    assert choose_each(mixed) == {"a": a[1].setting, "b": b[0].setting}
    assert choose_each(mixed, rule=HIGHEST_ALIGNMENT) == {"a": a[1].setting, "b": b[1].setting}
    assert choose_each(mixed, rule=LOWEST_FORGET) == {"a": a[0].setting, "b": b[0].setting}


# --- at the end of a grid -------------------------------------------------------------------------------------------


HOW: dict = {"steps": 200, "batch_rows": 4, "learning_rate": 1e-2}
RMU_GRID = [RMU(layer, 10.0, alpha, **HOW) for layer in (1, 2, 3) for alpha in (3.0, 30.0, 300.0)]


def test_the_fields_at_an_end_of_the_grid_by_hand():
    # steering, steps, rows and rate are the same in all settings, so that no end of them was ever tried
    assert grid_ends(RMU(2, 10.0, 300.0, **HOW), RMU_GRID) == {"alpha": "largest"}
    assert grid_ends(RMU(1, 10.0, 3.0, **HOW), RMU_GRID) == {
        "layer": "smallest",
        "alpha": "smallest",
    }
    assert grid_ends(RMU(2, 10.0, 30.0, **HOW), RMU_GRID) == {}
    assert grid_words(RMU(3, 10.0, 300.0, **HOW), RMU_GRID) == (
        "stands at an end of its grid: layer 3 (largest), alpha 300 (largest)"
    )
    assert grid_words(RMU(2, 10.0, 30.0, **HOW), RMU_GRID) == "stands inside its grid in every field"


def test_what_is_no_number_in_every_setting_has_no_end():
    variants = [ClampPrime(n, 5.0, proportional=p) for n in (5, 10) for p in (False, True)]
    assert grid_ends(variants[0], variants) == {"n_features": "smallest"}
    thresholds = [DSG(10, 5.0), DSG(10, 5.0, threshold=0.1)]
    assert grid_ends(thresholds[1], thresholds) == {}
    assert grid_ends(thresholds[1], thresholds[1:]) == {}


def test_a_setting_that_was_not_tried_has_no_place_in_the_grid():
    with pytest.raises(ValueError, match="RMU, layer 2, steering 10, alpha 5, 200 steps is not among the 9 settings"):
        grid_ends(RMU(2, 10.0, 5.0, **HOW), RMU_GRID)


# --- chosen on one half, reported on the other ------------------------------------------------------------------------


def test_held_out_chooses_on_one_half_and_reports_on_the_other():
    # on half 0 setting 1 is best; on all questions it breaks the floor (195 of 200) and setting 0 is chosen
    scores = toy_scores(DSG, ((50, 60), (100, 100)), ((10, 30), (99, 96)))
    same, other = held_out(scores).to_dict("records")
    assert [(row["method"], row["protocol"]) for row in (same, other)] == [("DSG", PAPER_PROTOCOL), ("DSG", HELD_OUT)]
    assert (same["setting"], same["forget_accuracy"], same["forget_n"]) == ("10 features x0", 0.55, 200)
    assert (other["setting"], other["forget_accuracy"], other["side_accuracy"]) == ("10 features x1", 0.30, 0.96)
    assert (other["forget_low"], other["forget_high"]) == wilson_interval(30, 100)
    assert held_out(scores, 0.9)["setting"].tolist() == ["10 features x1"] * 2


def test_held_out_says_none_where_nothing_keeps_the_floor():
    scores = toy_scores(DSG, ((1, 1), (100, 100))) + toy_scores(StaticClamp, ((1, 1), (90, 90)))
    table = held_out(scores)
    assert table["method"].tolist() == ["DSG"] * 2 + ["static clamp"] * 2
    assert table["setting"].tolist() == ["10 features x0"] * 2 + ["none"] * 2
    assert table["forget_accuracy"][0] == 0.01 and table.loc[2:, "forget_accuracy":].isna().all(axis=None)
    alone = held_out(toy_scores(StaticClamp, ((1, 1), (90, 90))))
    assert alone.columns.tolist() == table.columns.tolist() and alone["forget_accuracy"].dtype == float


@pytest.mark.parametrize("role", ["near", "side"])
def test_held_out_of_a_role_without_questions(role):
    scores = toy_scores(DSG, ((50, 60), (100, 100)), ((10, 30), (99, 96)))
    table, whole = held_out(without(role, scores)), held_out(scores)
    if role == "side":  # nothing shows that the floor is kept
        assert table["setting"].tolist() == ["none", "none"]
    else:
        rest = [column for column in whole if not column.startswith("near")]
        pd.testing.assert_frame_equal(table[rest], whole[rest])
        assert table.filter(like="near").isna().all(axis=None)


def test_alignment_is_chosen_on_one_half_and_reported_on_the_other():
    # on half 0 setting 1 is better; on both together setting 0 is
    scores = toy_scores(ClampPrime, ((40, 30), (100, 100)), ((25, 80), (100, 100)))
    table = alignment_table(scores, 200)
    same, other = table.to_dict("records")
    assert (same["protocol"], other["protocol"]) == (PAPER_PROTOCOL, HELD_OUT)
    assert (same["strength"], same["alignment"]) == (0.0, pytest.approx(1 - 0.10 / 0.75))
    assert (other["strength"], other["alignment"]) == (1.0, pytest.approx(1 - 0.55 / 0.75))
    assert other["alignment_low"] < other["alignment"] < other["alignment_high"]
    assert (other["good_retention_low"], other["good_retention_high"], other["forget_n"]) == (1.0, 1.0, 100)
    pd.testing.assert_frame_equal(alignment_table(scores, 200), table)  # the bootstrap has a seed
    both = alignment_table(scores + toy_scores(DSG, ((40, 30), (100, 100))), 200)
    assert both["method"].tolist() == ["Clamp Prime"] * 2 + ["DSG"] * 2
    pd.testing.assert_frame_equal(both[:2], table)


def test_before_and_after_has_as_many_right_as_were_counted():
    pairs = before_and_after({"side_n": 7, "side_accuracy": 3 / 7}, "side")
    assert pairs.shape == (7, 2) and pairs.sum(axis=0).tolist() == [7, 3]


def test_score_table_by_hand():
    scores = toy_scores(DSG, ((50, 50), (100, 100)), ((10, 30), (99, 99)), ((0, 0), (98, 98)))
    scores += toy_scores(StaticClamp, ((0, 0), (90, 90)))
    assert score_table(scores).values.tolist() == [["DSG", 3, 0.8], ["static clamp", 1, 0.0]]
    assert score_table(scores, 0.98)["unlearning_score"].tolist() == [1.0, 0.0]


# --- one setting and no choice ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Only(StaticClamp):
    """A method that has one setting by its own word."""

    name, chosen_by = "only", ONLY_SETTING


def test_an_only_setting_is_reported_below_the_floor():
    # its side effects are 0.80; the static clamp's are too, and it has no setting
    scores = toy_scores(StaticClamp, ((20, 30), (80, 80))) + toy_scores(Only, ((20, 30), (80, 80)))
    table = held_out(scores)
    assert table["setting"].tolist() == ["none"] * 2 + ["10 features x0"] * 2
    only = table[table["method"] == "only"]
    assert only["protocol"].tolist() == [PAPER_PROTOCOL, HELD_OUT]
    assert only["forget_accuracy"].tolist() == [0.25, 0.30] and only["side_accuracy"].tolist() == [0.8, 0.8]
    assert score_table(scores).values.tolist() == [["static clamp", 1, 0.0], ["only", 1, 0.75]]
    alignments = alignment_table(scores, 50)
    assert alignments["method"].tolist() == ["static clamp"] * 2 + ["only"] * 2
    # R_good 0.55 / 0.75, R_bad 0 at chance and 0.05 / 0.75
    assert alignments["alignment"][2:].tolist() == pytest.approx([0.55 / 0.75, 0.55 / 0.75 * 0.70 / 0.75], abs=1e-7)
    assert choose(scores.of(Only)) == (scores[1].setting, AS_SET)
    assert choose_each(scores)["only"] is scores[1].setting


def test_an_only_setting_needs_no_question_that_it_could_be_chosen_by():
    scores = without("side", toy_scores(Only, ((20, 30), (80, 80))))
    assert held_out(scores)["forget_accuracy"].tolist() == [0.25, 0.30]
    assert score_table(scores)["unlearning_score"].tolist() == [0.75]


@pytest.mark.parametrize("table", [choose, held_out, score_table])
def test_several_only_settings_are_refused(table):
    scores = toy_scores(Only, ((20, 30), (80, 80)), ((10, 30), (80, 80)))
    with pytest.raises(ValueError, match="only is chosen by 'its only setting', and here are 2: give one of them"):
        table(scores)
