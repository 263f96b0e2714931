"""Sentences say the numbers of a table, and say where one is not there."""

import pandas as pd
import pytest

from helpers.report.sentences import numbers, say

TABLE = pd.DataFrame({"method": ["RMU", "static clamp", "Clamp Prime, proportional"], "when": ["0", "last", "0"],
                      "accuracy": [0.375, 0.9, 1.0]})  # fmt: skip


def test_numbers_are_named_by_the_words_of_their_rows():
    assert numbers(TABLE, "method", "accuracy") == {"RMU": 0.375, "static_clamp": 0.9, "Clamp_Prime_proportional": 1.0}
    assert numbers(TABLE[:2], ["method", "when"], "accuracy") == {"RMU_0": 0.375, "static_clamp_last": 0.9}
    assert numbers(TABLE[:1].assign(n=3), ("n", "method"), "when") == {"3_RMU": "0"}
    assert numbers(TABLE[:0], "method", "accuracy") == {}


def test_rows_that_share_a_name_are_refused():
    with pytest.raises(ValueError, match="the columns when do not tell the rows apart: 0, last, 0"):
        numbers(TABLE, "when", "accuracy")
    with pytest.raises(ValueError, match="do not tell the rows apart: a_b, a_b"):
        numbers(pd.DataFrame({"x": ["a b", "a, b"], "y": [1, 2]}), "x", "y")


def test_a_sentence_has_its_numbers_in_place():
    said = say("RMU forgets {RMU:.2f}, the clamp {static_clamp:.0%}.", **numbers(TABLE, "method", "accuracy"))
    assert said.data == "RMU forgets 0.38, the clamp 90%."
    assert said._repr_markdown_() == said.data
    assert say("Nothing.", RMU=1).data == "Nothing."


def test_a_number_that_is_missing_is_said_to_be():
    table = TABLE.assign(accuracy=[0.375, float("nan"), 1.0])
    said = say("RMU {RMU:.2f}, DSG {DSG:.2f}, clamp {static_clamp:.0%}.", **numbers(table, "method", "accuracy"))
    assert said.data == "RMU 0.38, DSG *(missing)*, clamp *(missing)*."
