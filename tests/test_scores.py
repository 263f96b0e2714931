"""A sweep is taken apart by method, in its order, and put together again."""

import pytest

from helpers.lab.scores import Scores
from helpers.methods import DSG, ClampPrime, StaticClamp
from tests.toy import toy_scores

POINT = ((50, 50), (100, 100))


@pytest.fixture
def scores():
    a, b = toy_scores(ClampPrime, POINT, POINT, label="a"), toy_scores(DSG, POINT, label="b")
    return Scores([a[0], b[0], a[1]])


def test_of_a_method_are_the_settings_of_its_class(scores):
    assert scores.of(ClampPrime) == Scores([scores[0], scores[2]])
    assert scores.of(DSG, ClampPrime) == scores and scores.of(StaticClamp) == ()
    assert scores.settings == [ClampPrime(10, 0.0), DSG(10, 0.0), ClampPrime(10, 1.0)]


def test_by_method_is_by_label_in_the_order_of_the_sweep(scores):
    assert scores.labels == ("a", "b")
    assert scores.by_method() == {"a": (scores[0], scores[2]), "b": (scores[1],)}


def test_two_sweeps_together_are_one(scores):
    both = scores + toy_scores(StaticClamp, POINT)
    assert isinstance(both, Scores) and both.labels == ("a", "b", "static clamp") and len(both) == 4
    assert all(isinstance(of, Scores) for of in (*both.by_method().values(), both.of(DSG)))
