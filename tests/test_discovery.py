"""Notebook 01's tables: rules beside each other, and where a feature fires, token by token."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.features import token_activations
from helpers.engine.forward import residual_after
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import answer_probabilities
from helpers.experiments.discovery import (
    activation_histogram,
    attribution_table,
    fates_counted,
    firing_table,
    highlighted_question,
    histogram_sources,
    overlap_table,
    strongest_passages,
    token_text,
)
from helpers.lab.scores import Scored, Scores
from helpers.methods.selection import DEAR, KEPT, USELESS
from helpers.report import plots
from helpers.report.figures import save_figure
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


def test_a_passage_is_cut_around_the_strongest_place_of_each_text(lab):
    others = [[2, *range(90, 101)], [2, *range(110, 130)]]
    table = strongest_passages(lab.model, lab.sae, [8, 3], {"text": ROWS, "others": others}, 3, 1000, True)
    blocks = [*table.groupby(["feature", "text"], sort=False)]
    assert [name for name, _ in blocks] == [(8, "text"), (8, "others"), (3, "text"), (3, "others")]
    for (feature, text), of in blocks:
        rows = ROWS if text == "text" else others
        found = [activations(lab, row)[:, feature].clone() for row in rows]
        for row in found:
            row[0] = 0  # BOS
        strongest = max(row.max() for row in found)
        assert of["activation"].max() == pytest.approx(float(strongest), abs=1e-5) and strongest > 0
        (row,) = of["row"].unique()
        at = of.loc[of["activation"].idxmax(), "position"]
        first, last = max(0, at - 3), min(len(rows[row]) - 1, at + 3)
        assert of["position"].tolist() == list(range(first, last + 1))
        np.testing.assert_allclose(of["activation"], found[row][first : last + 1], atol=1e-5)
        assert of["token"].tolist() == [lab.model.tokenizer.decode([i]) for i in rows[row][first : last + 1]]
    hidden = strongest_passages(lab.model, lab.sae, [8, 3], {"text": ROWS, "others": others}, 3, 1000, False)
    assert set(hidden["token"]) <= {"#", "<bos>"} and hidden.drop(columns="token").equals(table.drop(columns="token"))


def test_of_a_text_in_which_a_feature_is_silent_the_beginning_is_shown(lab):
    silent = int((activations(lab, ROWS[0]) > 0).any(dim=0).logical_not().nonzero()[0])
    table = strongest_passages(lab.model, lab.sae, [silent], {"text": ROWS[:1]}, 2, 1000, True)
    assert table["position"].tolist() == [0, 1, 2] and table["activation"].eq(0).all()


class Attributed(ToyLab):
    """A lab whose feature 3 loses no forget question, whose 8 costs too much, and whose 5 and 13 are kept."""

    alone = pd.DataFrame({
        "feature": [3, 5, 8, 13], "attribution": [4.0, 3.0, 2.0, 1.0], "forget_lost": [0, 2, 1, 1],
        "side_lost": [np.nan, 1, 3, 0], "loss_added": [np.nan, 0.2, np.nan, 0.1],
    })  # fmt: skip
    attributed = np.array([13, 5])

    def knowledge_on(self, half):
        return self.knowledge.only(half)

    def sweep(self, settings, half):
        edits = [setting.apply(self) for setting in settings]
        tables = self.knowledge_on(half).under(edits)
        return Scores(Scored(s, s.label, e.facts(), t) for s, e, t in zip(settings, edits, tables, strict=True))


def test_what_is_kept_is_measured_alone_on_the_other_half():
    lab = Attributed({"selection.attribution_side_lost": 2, "selection.attribution_strength": 5.0})
    table = attribution_table(lab)
    assert table["fate"].tolist() == [USELESS, KEPT, DEAR, KEPT] and table["feature"].tolist() == [3, 5, 8, 13]
    assert table["asked"].eq(len(lab.knowledge.only(0).questions["toxins"])).all()
    assert table["forget_accuracy"].isna().tolist() == [True, False, True, False]
    asked = lab.judged.questions
    for row in table[table["fate"] == KEPT].itertuples():
        clamp = Clamp(lab.sae, [row.feature], -10.0)  # a strength of 5 in units of 2
        for role, subjects in (("forget", ["toxins"]), ("side", ["history", "aging"])):
            questions = [q for subject in subjects for q in asked[subject]]
            said = answer_probabilities(lab.model, questions, clamp, ORIGINAL_ORDER)[:, 0].argmax(dim=-1)
            right = np.mean([int(letter) == q.answer for letter, q in zip(said, questions, strict=True)])
            assert getattr(row, f"{role}_accuracy") == right and getattr(row, f"{role}_n") == len(questions)


def test_where_nothing_is_kept_the_table_says_so(tmp_path):
    lab = Attributed()
    lab.alone, lab.attributed = lab.alone[:1], np.array([], dtype=int)
    lab.sweep = lambda settings, half: Scores(settings)
    table = attribution_table(lab)
    assert table["fate"].tolist() == [USELESS] and table["forget_n"].isna().all()
    counted = fates_counted(table).set_index("fate")["count"]
    assert counted[[USELESS, DEAR, KEPT]].tolist() == [1, 0, 0]  # and none is missing
    save_figure(tmp_path, "01_attribution", table, plots.attribution, {})  # a CSV keeps all of its columns


def test_a_feature_is_compared_on_questions_and_on_both_kinds_of_text(lab):
    questions = lab.knowledge.questions["toxins"]
    sources = histogram_sources(lab, questions)
    assert list(sources) == ["forget questions", "forget text", "neutral text"]
    assert sources["forget questions"] == prompt_tokens(lab.model.tokenizer, questions, ORIGINAL_ORDER, "chat")
    assert torch.equal(sources["forget text"], lab.forget_rows) and torch.equal(sources["neutral text"], NEUTRAL)
    (short, *_) = token_activations(lab.model, lab.sae, [3], sources["forget questions"], 1000)
    assert len(short) == len(sources["forget questions"][0])
