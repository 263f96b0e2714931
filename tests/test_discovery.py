"""Notebook 01's tables: rules beside each other, and where a feature fires, token by token."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.features import token_activations
from helpers.engine.forward import residual_after
from helpers.experiments.discovery import (
    activation_histogram,
    firing_table,
    highlighted_question,
    histogram_sources,
    overlap_table,
    strongest_examples,
    token_text,
)
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from tests.test_features import one
from tests.toy import LAYER, NEUTRAL, ToyLab

FEATURES = (3, 5, 8, 13)
ROWS = NEUTRAL.tolist()


@pytest.fixture(scope="module")
def lab():
    return ToyLab()


def activations(lab, row):
    """[tokens, features] of one row, by the whole SAE."""
    with torch.no_grad():
        return lab.sae.encode(residual_after(lab.model, one(row), LAYER)[0])


def test_firing_rates_stand_beside_what_each_rule_chose():
    forget, retain = (
        pd.DataFrame({"feature": [0, 1, 2], "firing_rate": rates, "tokens": n})
        for rates, n in (([0.1, 0.2, 0.3], 70), ([0.0, 0.4, 0.5], 90))
    )
    table = firing_table(forget, retain, {"sparsity": np.array([2, 0]), "importance": np.array([], dtype=int)})
    assert table[["feature", "forget_rate", "retain_rate"]].values.tolist() == [
        [0, 0.1, 0.0],
        [1, 0.2, 0.4],
        [2, 0.3, 0.5],
    ]
    assert table["forget_tokens"].eq(70).all() and table["retain_tokens"].eq(90).all()
    assert table["sparsity"].tolist() == [True, False, True] and not table["importance"].any()


def test_overlap_counts_common_features():
    table = overlap_table({"a": np.array([1, 2, 3]), "b": np.array([3, 4])})
    assert table.set_index(["rule", "other"])[["shared", "n"]].apply(tuple, axis=1).to_dict() == {
        ("a", "a"): (3, 3), ("a", "b"): (1, 3), ("b", "a"): (1, 2), ("b", "b"): (2, 2),
    }  # fmt: skip


def test_histogram_counts_the_tokens_at_which_the_feature_fires(lab):
    others = [[2, *range(90, 101)], [2, *range(110, 130)]]
    table = activation_histogram(lab.model, lab.sae, 3, {"text": ROWS, "others": others}, 7, 1000)
    values = {
        name: np.concatenate([activations(lab, row)[1:, 3].numpy() for row in rows])
        for name, rows in (("text", ROWS), ("others", others))
    }
    top = max(found.max() for found in values.values())
    assert table["source"].tolist() == ["text"] * 7 + ["others"] * 7
    for name, found in values.items():
        rows = table[table["source"] == name]
        assert rows["tokens"].sum() == (found > 0).sum() > 0
        assert rows["of_tokens"].eq(len(found)).all()
        for row in rows.itertuples():
            inside = (found > 0) & (found >= row.low) & (found < row.high if row.high < rows["high"].max() else True)
            assert row.tokens == inside.sum()
    assert table["low"].min() == 0 and table["high"].max() == pytest.approx(top, abs=1e-5)
    assert table["of_tokens"].unique().tolist() == [44, 11 + 20]


def test_a_feature_that_never_fires_has_an_empty_histogram(lab):
    silent = int((activations(lab, ROWS[0]) > 0).any(dim=0).logical_not().nonzero()[0])
    table = activation_histogram(lab.model, lab.sae, silent, {"text": ROWS[:1]}, 4, 1000)
    assert table["tokens"].eq(0).all() and table["high"].max() == 1.0


def test_hidden_text_shows_special_tokens_only(lab):
    question = lab.knowledge.asked[0]
    hidden, shown = (
        highlighted_question(lab.model, lab.sae, FEATURES, question, "chat", show_text=show) for show in (False, True)
    )
    assert set(hidden["token"]) == {"#", "<bos>", "<start_of_turn>", "<end_of_turn>"}
    assert question.question in "".join(shown["token"])
    assert hidden["activation"].equals(shown["activation"])


def test_a_question_is_highlighted_by_the_strongest_of_the_features(lab):
    question = lab.knowledge.asked[0]
    table = highlighted_question(lab.model, lab.sae, FEATURES, question, "chat", show_text=True)
    (row,) = prompt_tokens(lab.model.tokenizer, [question], ORIGINAL_ORDER, "chat")
    expected = activations(lab, row)[:, list(FEATURES)].amax(dim=1)
    np.testing.assert_allclose(table["activation"][1:], expected[1:], atol=1e-5)
    assert table["activation"][0] == 0 and (table["activation"] > 0).any()
    assert table["position"].tolist() == list(range(len(row)))
    assert table["token"].tolist() == [lab.model.tokenizer.decode([i]) for i in row]


def test_special_tokens_are_shown_whatever_the_profile_says(lab):
    tokenizer = lab.model.tokenizer
    (word,) = set(tokenizer.encode("the", add_special_tokens=False))
    assert [token_text(tokenizer, word, show) for show in (True, False)] == [tokenizer.decode([word]), "#"]
    assert token_text(tokenizer, tokenizer.bos_token_id, False) == "<bos>"


def test_strongest_examples_point_at_the_peak(lab):
    found = torch.stack([activations(lab, row) for row in ROWS])
    table = strongest_examples(lab.model, lab.sae, [3, 8], ROWS, 2, 3, 1000, True)
    assert table["feature"].tolist() == [3, 3, 8, 8] and table["rank"].tolist() == [1, 2, 1, 2]
    decode = lab.model.tokenizer.decode
    for feature, of in table.groupby("feature"):
        peaks = found[:, 1:, feature].amax(dim=1)  # BOS left out
        np.testing.assert_allclose(of["activation"], peaks.sort(descending=True).values[:2], atol=1e-5)
        for place in of.itertuples():
            row, at = ROWS[place.row], place.position
            assert found[place.row, at, feature].item() == pytest.approx(place.activation, abs=1e-5)
            assert place.token == decode([row[at]])
            assert place.before == "".join(decode([i]) for i in row[max(0, at - 3) : at])
            assert place.after == "".join(decode([i]) for i in row[at + 1 : at + 4])
    hidden = strongest_examples(lab.model, lab.sae, [3, 8], ROWS, 2, 3, 1000, False)
    assert set("".join(hidden["before"] + hidden["token"] + hidden["after"]).replace("<bos>", "")) == {"#"}


def test_a_feature_is_compared_on_questions_and_on_both_kinds_of_text(lab):
    questions = lab.knowledge.questions["toxins"]
    sources = histogram_sources(lab, questions)
    assert list(sources) == ["forget questions", "forget text", "neutral text"]
    assert sources["forget questions"] == prompt_tokens(lab.model.tokenizer, questions, ORIGINAL_ORDER, "chat")
    assert torch.equal(sources["forget text"], lab.forget_rows) and torch.equal(sources["neutral text"], NEUTRAL)
    (short, *_) = token_activations(lab.model, lab.sae, [3], sources["forget questions"], 1000)
    assert len(short) == len(sources["forget questions"][0])
