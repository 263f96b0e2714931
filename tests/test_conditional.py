"""Conditional clamps (notebook 04): what the settings make, what is chosen, and how an edit reads."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.interventions import Add, Clamp
from helpers.engine.scoring import answer_probabilities, is_right
from helpers.experiments import conditional
from helpers.experiments.exam import ClampSetting, Exam, points, score_settings
from helpers.loading.data import WORLD_SEED
from helpers.measures.metrics import alignment
from helpers.organism.world import build_world
from helpers.profiles import load_profile
from helpers.text.questions import ORDERS, ORIGINAL_ORDER
from tests.toy import D_SAE, LAYER, toy_model, toy_sae

FEATURES = (3, 5, 8, 13)
TINY = load_profile("tiny")
SETTINGS = replace(
    TINY.conditional, n_features=(2, 3), strengths=(0.0, 5.0), refusal_strengths=(4.0,), add_strengths=(1.0,),
    ordered_questions=1, resamples=50,
)  # fmt: skip


@pytest.fixture(scope="module")
def exam():
    world = build_world(WORLD_SEED)
    questions = {s: world.questions(s)[:n] for s, n in (("hazard", 4), ("biology", 2), ("history", 3), ("aging", 2))}
    roles = {"hazard": "forget", "biology": "near", "history": "side", "aging": "side"}
    neutral = torch.arange(10, 58).view(4, 12)
    return Exam(toy_model(), questions, roles, neutral, LAYER, "chat", 10_000, TINY.cache)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_proportional_values_follow_the_firing_rates():
    assert conditional.rate_weights(np.array([0.3, 0.2, 0.1])) == pytest.approx((1.5, 1.0, 0.5))
    rates = np.linspace(0.01, 0.32, D_SAE)
    grid = conditional.prime_grid(np.array(FEATURES), rates, SETTINGS, unit=2.0)
    assert [(s.method, len(s.features), s.strength) for s in grid] == [
        ("Clamp Prime", 2, 0.0), ("Clamp Prime", 2, 5.0), ("Clamp Prime, proportional", 2, 5.0),
        ("Clamp Prime", 3, 0.0), ("Clamp Prime", 3, 5.0), ("Clamp Prime, proportional", 3, 5.0),
    ]  # fmt: skip
    assert grid[1].clamp(toy_sae()).value == -10.0
    # features 3 and 5 fire at 0.04 and 0.06: weights 0.8 and 1.2
    assert grid[2].clamp(toy_sae()).value == pytest.approx((-8.0, -12.0))
    assert {s.where for s in grid} == {"own"}


def test_the_refusal_clamp_sets_one_feature_where_harmful_ones_fire():
    (few, _) = conditional.refusal_grid(np.array(FEATURES), 20, SETTINGS, unit=2.0)
    clamp = few.clamp(toy_sae())
    assert (clamp.features, clamp.triggers, clamp.value, clamp.where) == ((20,), (3, 5), -8.0, "any")
    assert clamp.fires_above == SETTINGS.fires_above > 0
    assert few.labels()["n_features"] == 2  # the harmful ones


def test_addition_has_no_condition():
    (few, _) = conditional.add_grid(np.array(FEATURES), SETTINGS, unit=2.0)
    clamp = few.clamp(toy_sae())
    assert (clamp.value, clamp.where, clamp.features) == (Add(-2.0), "always", (3, 5))
    residual = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0))
    moved = clamp(residual, torch.ones(1, 3)) - residual
    expected = -2.0 * toy_sae().W_dec[[3, 5]].sum(dim=0)
    torch.testing.assert_close(moved[0], torch.stack([torch.zeros(16), expected, expected]), atol=1e-5, rtol=0)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="triggers need where='any'"):
        ClampSetting("m", FEATURES, 1.0, 1.0, "own", None, refusal=7).clamp(toy_sae())
    with pytest.raises(ValueError, match="one per feature"):
        ClampSetting("m", FEATURES, 1.0, 1.0, "own", None, weights=(1.0, 2.0)).clamp(toy_sae())


def test_controls_change_one_thing_each():
    setting = ClampSetting("Refusal Clamp", FEATURES, 4.0, 2.0, "any", None, refusal=20, fires_above=0.05)
    lowered, boosted, dropped, other = [s.clamp(toy_sae()) for s in conditional.refusal_controls(setting, [9])]
    assert (lowered.value, boosted.value, other.value) == (-8.0, 8.0, -8.0)
    assert (lowered.features, boosted.features, other.features) == ((20,), (20,), (9,))
    assert dropped.value == 8.0 and dropped.features == (20,)
    assert [c.keep_error for c in (lowered, boosted, dropped, other)] == [True, True, False, True]
    names = [s.method for s in conditional.refusal_controls(setting, [9, 10])]
    assert len(set(names)) == 5  # rows of one method and strength would be taken for one setting


# --- which features ---------------------------------------------------------------------------------------------------


def test_the_stand_in_fires_most_where_answers_begin():
    rates, retain = np.array([0.2, 1.0, 1.0, 1.0]), np.array([0.0, 0.3, 0.1, 0.0])
    assert conditional.stand_in(rates, retain, forbidden=[3]) == 2  # 3 is harmful, 1 fires more elsewhere
    assert conditional.stand_in(rates, retain, forbidden=[]) == 3


def test_answer_rates_are_those_of_the_last_token(exam):
    sae = toy_sae()
    rates = conditional.answer_rates(exam, sae)
    assert rates.shape == (D_SAE,)
    # the chat frame ends alike in every question, but the residual there has seen the question
    counts = rates * len(exam.asked)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    best = conditional.stand_in(rates, np.zeros(D_SAE), [])
    assert rates[best] == rates.max() > 0


def test_random_features_are_not_forbidden():
    found = conditional.random_features(10, forbidden=[0, 1, 2], n=5, seed=0)
    assert len(set(found)) == 5 and not set(found) & {0, 1, 2}


def test_chosen_table_counts_retain_tokens():
    forget = pd.DataFrame({"firing_rate": [0.0, 0.1, 0.3], "mean": [0.0, 0.2, 0.9], "tokens": 100})
    retain = pd.DataFrame({"firing_rate": [0.5, 0.02, 0.0], "mean": [0.0, 0.1, 0.0], "tokens": 200})
    table = conditional.chosen_table(np.array([2, 1]), forget, retain)
    assert table["retain_tokens"].tolist() == [0, 4]
    assert table["mean_activation"].tolist() == pytest.approx([3.0, 2.0])
    assert table["weight"].tolist() == pytest.approx([1.5, 0.5])


# --- retention and alignment ------------------------------------------------------------------------------------------


def sweep(method, forget, side, n=100):
    """Right answers per half: forget[setting][half], side[setting][half]."""
    rest = {"said_A": n, "said_B": 0, "said_C": 0, "said_D": 0, "letter_mass": 1.0, "loss_added": 0.0}
    rows = [
        {"method": method, "n_features": 5, "strength": float(i), "subject": role, "role": role, "half": half, "n": n,
         "right": of[i][half], **rest}
        for i in range(len(forget)) for role, of in (("forget", forget), ("near", side), ("side", side))
        for half in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_alignment_is_chosen_on_one_half_and_reported_on_the_other():
    # on half 0 setting 1 is better; on both together setting 0 is
    scores = sweep("Clamp Prime", forget=[(40, 30), (25, 80)], side=[(100, 100), (100, 100)])
    same, other = conditional.alignment_table({"Clamp Prime": scores}, 200).to_dict("records")
    assert (same["strength"], same["alignment"]) == (0.0, pytest.approx(1 - 0.10 / 0.75))
    assert (other["strength"], other["alignment"]) == (1.0, pytest.approx(1 - 0.55 / 0.75))
    assert other["alignment_low"] < other["alignment"] < other["alignment_high"]
    assert (other["good_retention_low"], other["good_retention_high"], other["forget_n"]) == (1.0, 1.0, 100)


def test_aligned_points_and_best_edits_take_the_highest():
    grid = [ClampSetting("a", (1,), float(i), 1.0, "own", None) for i in range(2)]
    grid.insert(1, ClampSetting("b", (1,), 0.0, 1.0, "own", None))
    a = sweep("a", forget=[(90, 0), (25, 100)], side=[(100, 0), (85, 0)])
    b = sweep("b", forget=[(50, 50)], side=[(100, 100)])
    scores = pd.concat([a[a["strength"] == 0], b, a[a["strength"] == 1]], ignore_index=True)
    assert conditional.best_edits(grid, scores) == {"a": grid[2], "b": grid[1]}
    table = conditional.aligned_points(scores, half=0)
    expected = [float(alignment(s, 1, f, 1)) for f, s in ((0.9, 1.0), (0.5, 1.0), (0.25, 0.85))]
    assert table["alignment"].tolist() == pytest.approx(expected)


def test_our_points_stand_beside_the_papers():
    table = conditional.tradeoff_table(conditional.aligned_points(sweep("RMU", [(50, 50)], [(99, 99)])), "tiny")
    assert table["world"].value_counts().to_dict() == {"Khoriaty et al., gemma-2-2b": 68, "ours, tiny": 1}
    assert table.notna().all(axis=None)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_letters_are_counted_by_role(exam):
    edit = ClampSetting("unconditional add", FEATURES, 3.0, 2.0, "always", None)
    table = conditional.letters_table(exam, toy_sae(), [edit])
    assert table.groupby(["name", "role"])["share"].sum().tolist() == pytest.approx([1.0] * 4)
    right = table[(table["name"] == "right answers") & (table["role"] == "forget")]
    answers = [q.answer for q in exam.questions["hazard"]]
    assert (right["share"] * 4).tolist() == [answers.count(i) for i in range(4)]
    said = table[(table["name"] == "unconditional add, 4 features x3") & (table["role"] == "side")]
    plain = answer_probabilities(exam.model, exam.asked, edit.clamp(toy_sae()), ORIGINAL_ORDER)[6:, 0]
    assert (said["share"] * 5).tolist() == pytest.approx([(plain.argmax(dim=1) == i).sum().item() for i in range(4)])
    assert said["mass"].iloc[0] == pytest.approx(plain.sum(dim=1).mean().item(), abs=1e-6)


def test_text_is_hidden_where_the_profile_says_so(exam):
    questions, clamp = exam.asked[:2], Clamp(toy_sae(), FEATURES, -20.0, "any")
    edits = {"no edit": None, "clamp": clamp}
    shown, hidden = (conditional.told(exam.model, questions, edits, 4, show) for show in (True, False))
    assert set(hidden["says"]) | set(hidden["wanted"]) == {"#"}
    assert shown["wanted"].tolist() == [q.choices[q.answer] for q in questions for _ in edits]
    assert shown["name"].tolist() == ["no edit", "clamp"] * 2
    assert hidden["kept"].equals(shown["kept"])
    # where no word has changed all are kept
    same = shown[shown["name"] == "clamp"]["says"].to_numpy() == shown[shown["name"] == "no edit"]["says"].to_numpy()
    kept = shown["kept"].to_numpy().reshape(-1, 2)
    assert (kept[:, 0] >= kept[:, 1]).all() and (kept[same, 0] == kept[same, 1]).all()


# --- protocols --------------------------------------------------------------------------------------------------------


def test_every_protocol_reads_every_edit(exam):
    sae, questions = (
        toy_sae(),
        {s: [*qs, *build_world(WORLD_SEED).questions(s)[-2:]] for s, qs in exam.questions.items()},
    )
    edits = [ClampSetting("Clamp Prime", FEATURES, 5.0, 2.0, "own", None),
             ClampSetting("unconditional add", FEATURES, 1.0, 2.0, "always", None)]  # fmt: skip
    table = conditional.protocols(exam, sae, questions, edits, ["plain"], SETTINGS)
    assert table["method"].tolist() == ["Clamp Prime"] * 4 + ["unconditional add"] * 4
    # one a subject in 24 orders and in one, the known, all; no near domain
    assert table["forget_n"].tolist() == [1, 1, 4, 6] * 2
    assert table["side_n"].tolist() == [2, 2, 5, 9] * 2
    assert table["forget_before"].tolist()[:3] == [1.0, 1.0, 1.0]

    clamp = edits[0].clamp(sae)
    (one,) = exam.questions["hazard"][:1]
    ordered = is_right(answer_probabilities(exam.model, [one], clamp, ORDERS), [one], ORDERS)
    assert table["forget_after"][0] == pytest.approx(ordered.double().mean().item())
    every = questions["hazard"]
    for when, edit in (("before", None), ("after", clamp)):
        right = is_right(answer_probabilities(exam.model, every, edit, ORIGINAL_ORDER, "plain"), every, ORIGINAL_ORDER)
        assert table[f"forget_{when}"][3] == pytest.approx(right.double().mean().item())


def test_one_order_of_known_questions_is_what_the_exam_counts(exam):
    edit = ClampSetting("Clamp Prime", FEATURES, 5.0, 2.0, "own", None)
    table = conditional.protocols(exam, toy_sae(), exam.questions, [edit], ["chat"], SETTINGS)
    (point,) = points(score_settings(exam, toy_sae(), [edit])).to_dict("records")
    for protocol in ("all known questions, one order", "all questions, one order, chat frame"):
        (row,) = table[table["protocol"] == protocol].to_dict("records")
        assert row["forget_after"] == pytest.approx(point["forget_accuracy"])
        assert row["side_after"] == pytest.approx(point["side_accuracy"])
        assert row["forget_letter"] == pytest.approx(point["forget_letter"])
