"""Notebook 08's tables: every fold counted by itself, requests in turn, the text in use."""

import pandas as pd
import pytest

from helpers.engine.edited import Edited
from helpers.engine.features import hot_fractions
from helpers.engine.scoring import is_right
from helpers.experiments.forget_requests import (
    ACCURACY,
    AT_ONCE,
    FEATURES_SO_FAR,
    OPENS,
    TEXT_SO_FAR,
    TRAINED_ON,
    answered,
    earlier_folds,
    pooled,
    ways_of,
)
from helpers.methods import DSG, RMU, StaticClamp
from helpers.text.folds import ALL_QUESTIONS, Fold
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from tests.toy import LAYER, ToyLab

CUT = 0.7  # of the questions some have a rho above it and some have not


@pytest.fixture(scope="module")
def lab():
    return ToyLab()


def test_ways_follow_from_what_a_method_is():
    assert ways_of(RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)) == (TRAINED_ON,)
    assert ways_of(DSG(2, 5.0)) == ways_of(StaticClamp(2, 5.0)) == (TEXT_SO_FAR, FEATURES_SO_FAR)


def test_right_answers_and_open_gates_are_counted_by_fold_and_role(lab):
    knowledge = lab.knowledge
    about = [question.about for question in knowledge.questions["toxins"]]
    folds = [Fold("fold 1", (0,), frozenset(about[:2])), Fold("fold 2", (1,), frozenset(about[2:]) - set(about[:2]))]
    edited = DSG(3, 5.0, threshold=CUT).apply(lab)
    found = answered(knowledge, edited, folds).set_index(["asked", "measure"])
    letters = knowledge.answers_under(edited)[:, None]
    right = is_right(letters, knowledge.asked, ORIGINAL_ORDER)[:, 0].tolist()
    rows = prompt_tokens(lab.model.tokenizer, knowledge.asked, ORIGINAL_ORDER, "chat")
    opens = (hot_fractions(lab.model, lab.sae, edited.intervention.features, rows, 10_000) > CUT).tolist()
    expected: dict = {}
    for question, yes, is_open in zip(knowledge.asked, right, opens, strict=True):
        role = knowledge.roles[question.subject]
        place = role if role != "forget" else "fold 1" if question.about in about[:2] else "fold 2"
        for measure, counted in ((ACCURACY, yes), (OPENS, is_open)):
            n, k = expected.get((place, measure), (0, 0))
            expected[place, measure] = n + 1, k + counted
    assert {key: (row["n"], row["right"]) for key, row in found.iterrows()} == expected
    assert 0 < sum(opens) < len(opens)


def test_without_a_gate_nothing_opens_and_where_nobody_says_all_questions_are_one(lab):
    nobody = [Fold("fold 1", (0,), frozenset()), Fold("fold 2", (1,), frozenset())]
    found = answered(lab.knowledge, Edited(lab.model), nobody)
    assert set(found["measure"]) == {ACCURACY} and set(found["asked"]) == {ALL_QUESTIONS, "near", "side"}
    assert found.set_index("asked")["n"].to_dict() == {ALL_QUESTIONS: 5, "near": 4, "side": 5}


ROWS = [  # requests, asked, wanted, right of 10
    (1, "fold 1", True, 2), (1, "fold 2", False, 9), (1, "fold 3", False, 8), (1, "side", False, 10),
    (2, "fold 1", True, 3), (2, "fold 2", True, 4), (2, "fold 3", False, 7), (2, "side", False, 10),
    (3, "fold 1", True, 6), (3, "fold 2", True, 5), (3, "fold 3", True, 1), (3, "side", False, 9),
]  # fmt: skip


def served_by_hand() -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["requests", "asked", "wanted", "right"])
    return table.assign(method="DSG", how=AT_ONCE, measure=ACCURACY, n=10, accuracy=table["right"] / 10)


def test_folds_are_pooled_by_whether_they_were_to_be_forgotten():
    found = pooled(served_by_hand()).set_index(["requests", "asked"])
    counts = {key: (row["right"], row["n"]) for key, row in found.iterrows()}
    assert counts == {
        (1, "to be forgotten"): (2, 10), (1, "not yet asked for"): (17, 20), (1, "side"): (10, 10),
        (2, "to be forgotten"): (7, 20), (2, "not yet asked for"): (7, 10), (2, "side"): (10, 10),
        (3, "to be forgotten"): (12, 30), (3, "side"): (9, 10),
    }  # fmt: skip


def test_earlier_folds_are_all_but_the_last_then_and_now():
    found = earlier_folds(served_by_hand()).set_index("when")
    assert found.loc["then", ["right", "n"]].tolist() == [2 + 4, 20]
    assert found.loc["now", ["right", "n"]].tolist() == [6 + 5, 20]
