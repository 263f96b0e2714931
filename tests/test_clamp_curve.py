"""Notebook 02's tables: one feature, many values, and controls, each as the plain scorer says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.forward import residual_after
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import answer_probabilities, loss_added
from helpers.experiments.clamp_curve import (
    alone_and_together,
    beside_the_paper,
    broken_by_feature,
    by_effect,
    carriers,
    chosen_pair,
    clamp_curve,
    control_clamps,
    control_curves,
    decoders_beside_the_paper,
    effects_of,
    features_beside_the_paper,
    firing_features,
    question_by_id,
    random_others,
)
from helpers.measures.metrics import wilson_interval
from helpers.profiles import load_profile
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from tests.test_features import one
from tests.toy import D_SAE, LAYER, NEUTRAL, toy_knowledge, toy_sae

EFFECTS = pd.DataFrame(
    [(7, "toxins", "h1", 0.4), (7, "history", "a1", 0.9), (9, "toxins", "h1", 0.1), (9, "history", "a1", 0.2)],
    columns=["feature", "subject", "question", "p_right"],
)


@pytest.fixture(scope="module")
def knowledge():
    return toy_knowledge()


def plain(knowledge, questions, clamp):
    """p(A..D) of each question, [questions, 4]."""
    return answer_probabilities(knowledge.model, questions, clamp, ORIGINAL_ORDER)[:, 0]


def test_broken_questions_by_hand():
    assert broken_by_feature(EFFECTS, "toxins").values.tolist() == [[7, 1, 0], [9, 1, 1]]
    other = EFFECTS.assign(p_right=[0.6, 0.9, 0.1, 0.2])  # 7 breaks nothing, and is listed all the same
    assert broken_by_feature(other, "toxins").values.tolist() == [[9, 1, 1], [7, 0, 0]]
    assert broken_by_feature(other, "history").values.tolist() == [[9, 1, 1], [7, 0, 0]]


def test_the_pair_is_the_profiles_where_its_question_is_known_else_the_strongest():
    settings = load_profile("tiny").clamp_curve
    for feature, question, expected in (
        (-1, "", (9, "h1", "the largest effect")),
        (3, "h1", (3, "h1", "the profile's")),
        (3, "a1", (9, "h1", "the largest effect; a1 is not known to the model")),
    ):
        asked = replace(settings, feature=feature, question=question)
        assert chosen_pair(EFFECTS, "toxins", asked) == expected


def test_effects_of_sets_are_the_plain_scorers(knowledge):
    sets = [[3], [3, 5]]
    table = effects_of(knowledge, toy_sae(), sets, -20.0)
    assert table["n_features"].tolist() == [1] * 14 + [2] * 14 and table["feature"].tolist() == [3] * 14 + [5] * 14
    assert table["question"].tolist() == [str(q.id) for q in knowledge.asked] * 2
    assert table["subject"].tolist() == [q.subject for q in knowledge.asked] * 2
    assert table["role"].tolist() == [knowledge.roles[q.subject] for q in knowledge.asked] * 2
    for n, features in enumerate(sets, start=1):
        said, rows = plain(knowledge, knowledge.asked, Clamp(toy_sae(), features, -20.0)), table["n_features"] == n
        expected = [float(p[q.answer]) for p, q in zip(said, knowledge.asked, strict=True)]
        np.testing.assert_allclose(table[rows]["p_right"], expected, atol=1e-6)
        assert table[rows]["right"].tolist() == [
            p.argmax() == q.answer for p, q in zip(said, knowledge.asked, strict=True)
        ]


def effects(**lost):
    """Four forget questions and one other: feature -> (forget questions lost, others lost)."""
    rows = []
    for feature, (n, others) in lost.items():
        rows += [(1, int(feature[1:]), "toxins", "forget", f"t{i}", 0.5, i >= n) for i in range(4)]
        rows += [(1, int(feature[1:]), "aging", "side", "a", 0.5, not others)]
    return pd.DataFrame(rows, columns=["n_features", "feature", "subject", "role", "question", "p_right", "right"])


def test_features_are_ordered_on_one_half_and_reported_on_the_other():
    # of the two that lose two questions 8 loses nothing else; on the other half the order would be 9, 8, 7
    assert by_effect(effects(f7=(2, 1), f9=(1, 0), f8=(2, 0))) == [8, 7, 9]
    table = alone_and_together(effects(f7=(0, 1), f8=(1, 0), f9=(4, 0)), effects(f8=(1, 0), f7=(2, 1), f9=(4, 1)))
    forget = table[table["role"] == "forget"]
    assert forget["clamped"].tolist() == ["alone"] * 3 + ["together"] * 3
    assert forget["feature"].tolist() == [8, 7, 9] * 2 and forget["place"].tolist() == [1, 2, 3] * 2
    assert forget["accuracy"].tolist() == [0.75, 1.0, 0.0, 0.75, 0.5, 0.0] and forget["n"].eq(4).all()
    assert table[table["role"] == "side"]["accuracy"].tolist() == [1, 0, 1, 1, 0, 0]
    assert carriers(table) == {"n": 3, "all": 1.0, "needed": 3, "three": 1.0}
    assert carriers(table, 0.5)["needed"] == 2
    nothing = carriers(table.assign(accuracy=1.0))
    assert nothing["all"] == 0 and np.isnan(nothing["needed"]) and np.isnan(nothing["three"])


def test_the_papers_single_features_stand_beside_ours():
    ours = alone_and_together(effects(f7=(2, 1)), effects(f7=(2, 1)))
    table = features_beside_the_paper(ours, "tiny")
    paper = table[table["world"] == "Farrell et al., gemma-2-2b-it"]
    assert table["world"][: len(ours)].eq("ours, tiny").all() and len(table) == len(ours) + 10
    assert paper["feature"].tolist()[:3] == [11913, 14227, 3025] and paper["place"].tolist() == list(range(1, 11))
    assert paper["right"].tolist()[:3] == [522 - 174, 522 - 161, 522 - 121]


def test_both_decoders_stand_beside_the_papers():
    ours = pd.DataFrame({
        "method": ["static clamp", "the next feature's decoder"], "n_features": 10, "strength": 5.0,
        "forget_accuracy": [0.5, 0.9], "forget_low": 0.4, "forget_high": 0.95, "forget_n": 40, "loss_added": 0.1,
    })  # fmt: skip
    table = decoders_beside_the_paper(ours, "tiny")
    assert table["forget_accuracy"][:2].tolist() == [0.5, 0.9] and len(table) == 2 + 14
    paper = table[2:].set_index(["method", "strength"])
    row = paper.loc["the next feature's decoder", 50]
    assert (row["forget_accuracy"], row["loss_added"], row["forget_n"]) == (0.8697, 0.0204, 522)
    assert (row["forget_low"], row["forget_high"]) == wilson_interval(454, 522)  # 0.8697 of 522
    assert paper.loc["static clamp", 100]["forget_accuracy"] == 0.3927


def test_clamp_curve_has_the_unedited_model_first_and_is_the_plain_scorers(knowledge):
    sae, question = toy_sae(), knowledge.asked[0]
    curve = clamp_curve(knowledge, sae, 3, question, [0.0, 5.0], unit=2.0)
    assert curve["strength"].unique().tolist() == [-1.0, 0.0, 5.0]
    assert curve["letter"].tolist() == list("ABCD") * 3
    assert curve[curve["right"]]["letter"].unique().tolist() == ["ABCD"[question.answer]]
    for strength, clamp in ((-1.0, None), (0.0, Clamp(sae, [3], 0.0)), (5.0, Clamp(sae, [3], -10.0))):
        rows = curve[curve["strength"] == strength]
        np.testing.assert_allclose(rows["probability"], plain(knowledge, [question], clamp)[0], atol=1e-6)
        added = 0.0 if clamp is None else loss_added(knowledge.model, NEUTRAL, clamp)
        assert rows["loss_added"].tolist() == pytest.approx([added] * 4, abs=1e-6)
    assert curve["value"].dropna().tolist() == [0.0] * 4 + [-10.0] * 4
    assert curve["loss_added"].iloc[-1] != 0


def test_controls_differ_in_one_thing_each():
    found = control_clamps(toy_sae(), 31, [4], 5.0, 2.0)
    clamps = {name: clamp for name, _, clamp in found}
    assert [feature for _, feature, _ in found] == [31, 31, 31, 4]
    assert clamps["clamp"].value == clamps["another decoder"].value == clamps["random feature"].value == -10.0
    assert clamps["another decoder"].decoders == [0]  # the next index, around the end
    assert clamps["scale"].value.factor == -5.0
    assert clamps["random feature"].features == [4]
    assert [clamps[name].features for name in ("clamp", "another decoder", "scale")] == [[31]] * 3
    assert clamps["clamp"].decoders is clamps["scale"].decoders is clamps["random feature"].decoders is None


def test_control_curves_are_the_plain_scorers(knowledge):
    sae, question = toy_sae(), knowledge.asked[0]
    table = control_curves(knowledge, sae, 3, [8, 13], question, [0.0, 4.0], 2.0)
    assert table["control"].tolist() == ["clamp", "another decoder", "scale", "random feature", "random feature"] * 2
    assert table["strength"].tolist() == [0.0] * 5 + [4.0] * 5
    expected = [clamp for strength in (0.0, 4.0) for *_, clamp in control_clamps(sae, 3, [8, 13], strength, 2.0)]
    for row, clamp in zip(table.itertuples(), expected, strict=True):
        assert row.feature == clamp.features[0]
        assert row.p_right == pytest.approx(plain(knowledge, [question], clamp)[0, question.answer].item(), abs=1e-6)
        assert row.loss_added == pytest.approx(loss_added(knowledge.model, NEUTRAL, clamp), abs=1e-6)


@torch.no_grad()
def test_features_that_fire_on_a_question_after_bos(knowledge):
    sae, question = toy_sae(), knowledge.asked[0]
    (row,) = prompt_tokens(knowledge.model.tokenizer, [question], ORIGINAL_ORDER, "chat")
    residual = residual_after(knowledge.model, one(row), LAYER)[0]
    # half of the features fire at two tokens, and the others at none but BOS, which feature 1 is told to do
    sae.W_enc[:, 1] = residual[0] / residual[0].norm()
    strongest = (residual[1:] @ sae.W_enc + sae.b_enc).sort(dim=0, descending=True).values
    sae.threshold.copy_(torch.where(torch.arange(D_SAE) % 2 == 0, strongest[2], strongest[0] + 1e-3).clamp(min=0))
    fire = {i for x in residual[1:] for i in (sae.encode(x) > 0).nonzero().flatten().tolist()}
    assert fire == set(range(0, D_SAE, 2)) and sae.encode(residual[0])[1] > 0
    assert firing_features(knowledge, sae, question).tolist() == sorted(fire)


def test_random_others_fire_and_were_not_chosen():
    others = random_others(np.arange(10), np.array([1, 3, 5]), 4, seed=0)
    assert len(set(others)) == 4 and not set(others) & {1, 3, 5} and set(others) < set(range(10))
    assert random_others(np.arange(10), np.array([1, 3, 5]), 4, seed=0).tolist() == others.tolist()
    with pytest.raises(ValueError, match="only 7 others fire"):
        random_others(np.arange(10), np.array([1, 3, 5]), 8, seed=0)


def test_an_unknown_question_is_an_error(knowledge):
    question = knowledge.asked[6]
    assert question_by_id(knowledge.asked, str(question.id)) is question
    with pytest.raises(ValueError, match="no question 'x'"):
        question_by_id(knowledge.asked, "x")


def test_our_curve_stands_beside_the_papers(knowledge):
    curve = clamp_curve(knowledge, toy_sae(), 3, knowledge.asked[0], [0.0], unit=2.0)
    table = beside_the_paper(curve, "tiny")
    ours = table[table["world"] == "ours, tiny"]
    pd.testing.assert_frame_equal(ours.drop(columns="world"), curve[list(ours)[1:]])
    paper = table[table["world"] == "Farrell et al., gemma-2b-it"]
    assert set(paper[paper["right"]]["letter"]) == {"A"} and set(paper["letter"]) == set("ABCD")
    assert len(ours) + len(paper) == len(table)
