"""The experiments' tables say what a hand or a plain loop says."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.features import hot_fractions
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import answer_probabilities, loss_added
from helpers.experiments import attack, clamp_curve, discovery, guardrail, pareto
from helpers.experiments.exam import ClampSetting, Exam, points, score_settings
from helpers.loading.data import WORLD_SEED
from helpers.organism.world import build_world
from helpers.profiles import CacheSettings, load_profile
from helpers.text.questions import ORIGINAL_ORDER
from tests.toy import LAYER, toy_model, toy_sae

FEATURES = (3, 5, 8, 13)
NEUTRAL = torch.arange(10, 58).view(4, 12)


@pytest.fixture(scope="module")
def exam():
    world = build_world(WORLD_SEED)
    questions = {s: world.questions(s)[:n] for s, n in (("hazard", 5), ("biology", 4), ("history", 3), ("aging", 2))}
    roles = {"hazard": "forget", "biology": "near", "history": "side", "aging": "side"}
    return Exam(toy_model(), questions, roles, NEUTRAL, LAYER, "chat", 10_000, CacheSettings(1, 0))


@pytest.fixture(scope="module")
def setting():
    return ClampSetting("DSG", FEATURES, 10.0, 2.0, "any", 0.2)


# --- the exam ---------------------------------------------------------------------------------------------------------


def test_a_setting_makes_its_clamp(setting):
    clamp = setting.clamp(toy_sae())
    assert (clamp.value, clamp.where, clamp.gate.threshold) == (-20.0, "any", 0.2)
    assert setting.labels()["n_features"] == 4


def test_tabulate_counts_by_subject_and_half(exam):
    said = torch.zeros(14, 4)
    right = [q.answer for q in exam.asked]
    said[range(14), right] = 1.0
    said[0] = torch.eye(4)[(right[0] + 1) % 4]  # the first hazard question is answered wrong
    table = exam.tabulate(said, 0.5)
    assert table.groupby("subject", sort=False)["n"].sum().to_dict() == {
        "hazard": 5,
        "biology": 4,
        "history": 3,
        "aging": 2,
    }
    assert table.groupby("role", sort=False)["right"].sum().to_dict() == {"forget": 4, "near": 4, "side": 5}
    assert table[["said_A", "said_B", "said_C", "said_D"]].to_numpy().sum() == 14
    assert table["letter_mass"].sum() == 14
    assert table["loss_added"].eq(0.5).all()
    assert table[table["subject"] == "hazard"]["n"].tolist() == [3, 2]


def test_the_exam_scores_as_the_plain_scorer_does(exam, setting):
    sae = toy_sae()
    clamp = setting.clamp(sae)
    plain = answer_probabilities(exam.model, exam.asked, clamp, ORIGINAL_ORDER)[:, 0]
    expected = exam.tabulate(plain, loss_added(exam.model, NEUTRAL, clamp))
    pd.testing.assert_frame_equal(exam.score([clamp])[0], expected, atol=1e-6)
    unedited = answer_probabilities(exam.model, exam.asked, None, ORIGINAL_ORDER)[:, 0]
    pd.testing.assert_frame_equal(exam.score_model(exam.model), exam.tabulate(unedited, 0.0), atol=1e-6)


def test_points_pool_the_side_effects_over_questions(exam, setting):
    rows = [("m", 1, "a", "forget", 0, 4, 1), ("m", 1, "a", "forget", 1, 6, 4), ("m", 1, "b", "near", 0, 2, 1),
            ("m", 1, "c", "side", 0, 9, 9), ("m", 1, "d", "side", 1, 1, 0)]  # fmt: skip
    scores = pd.DataFrame(rows, columns=["method", "strength", "subject", "role", "half", "n", "right"])
    scores = scores.assign(
        loss_added=0.25, said_A=[1, 4, 0, 0, 0], said_B=[3, 2, 0, 0, 0], said_C=0, said_D=0, letter_mass=2.0
    )
    (both,) = points(scores).to_dict("records")
    assert (both["forget_accuracy"], both["side_accuracy"], both["loss_added"]) == (0.5, 0.9, 0.25)
    assert (both["forget_letter"], both["forget_mass"]) == (0.5, 0.4)  # A and B 5 times each of 10; 4 of 10
    (first,) = points(scores, half=0).to_dict("records")
    assert (first["forget_accuracy"], first["side_accuracy"], first["forget_n"]) == (0.25, 1.0, 4)


def test_score_settings_keeps_the_labels_of_every_setting(exam, setting):
    other = ClampSetting("static clamp", (3,), 1.0, 2.0, "own", None)
    table = points(score_settings(exam, toy_sae(), [setting, other]))
    assert table["method"].tolist() == ["DSG", "static clamp"]
    assert table["n_features"].tolist() == [4, 1]
    assert np.isnan(table["threshold"][1])


# --- 01 ---------------------------------------------------------------------------------------------------------------


def test_selections_apply_the_papers_rules():
    settings = load_profile("tiny").selection
    forget = pd.DataFrame({"firing_rate": [0.5, 0.4, 0.3], "mean": [1.0, 2.0, 1.0], "mean_square": [9.0, 4.0, 1.0]})
    retain = pd.DataFrame({"firing_rate": [0.5, 0.005, 0.0], "mean": [1.0, 1e-3, 0.0], "mean_square": [9.0, 1e-6, 0.0]})
    chosen = discovery.selections(forget, retain, settings, 3)
    assert chosen["sparsity"].tolist() == [1, 2]
    assert chosen["clamp_prime"].tolist() == [2]
    assert (
        chosen["importance"].tolist() == []
    )  # the 95th percentile of three ratios keeps 2, the 5th of forget drops it


def test_overlap_counts_common_features():
    table = discovery.overlap_table({"a": np.array([1, 2, 3]), "b": np.array([3, 4])})
    assert table.set_index(["rule", "other"])["shared"].to_dict() == {
        ("a", "a"): 3, ("a", "b"): 1, ("b", "a"): 1, ("b", "b"): 2,
    }  # fmt: skip


def test_token_activations_are_the_saes(exam):
    sae, rows = toy_sae(), [[2, 10, 11], [2, 10, 11, 12, 13]]
    short, long = discovery.token_activations(exam.model, sae, FEATURES, rows, 100)
    assert short.shape == (3, 4) and long.shape == (5, 4)
    torch.testing.assert_close(long[:3], short, atol=1e-5, rtol=0)


def test_histogram_counts_the_tokens_at_which_the_feature_fires(exam):
    sae, rows = toy_sae(), NEUTRAL.tolist()
    table = discovery.activation_histogram(exam.model, sae, 3, {"text": rows}, 7, 1000)
    fired = torch.cat([a[1:, 0] for a in discovery.token_activations(exam.model, sae, [3], rows, 1000)]) > 0
    assert table["tokens"].sum() == int(fired.sum()) > 0
    assert table["of_tokens"].eq(44).all()


def test_hidden_text_shows_special_tokens_only(exam):
    question = exam.asked[0]
    hidden = discovery.highlighted_question(exam.model, toy_sae(), FEATURES, question, "chat", show_text=False)
    shown = discovery.highlighted_question(exam.model, toy_sae(), FEATURES, question, "chat", show_text=True)
    assert set(hidden["token"]) == {"#", "<bos>", "<start_of_turn>", "<end_of_turn>"}
    assert question.question in "".join(shown["token"])
    assert hidden["activation"].equals(shown["activation"])
    assert hidden["activation"][0] == 0


def test_strongest_examples_point_at_the_peak(exam):
    sae, rows = toy_sae(), NEUTRAL.tolist()
    (best, *_) = discovery.strongest_examples(exam.model, sae, [3], rows, 2, 3, 1000, True).itertuples()
    found = torch.stack(discovery.token_activations(exam.model, sae, [3], rows, 1000))[..., 0]
    assert best.activation == pytest.approx(found[:, 1:].max().item())
    assert found[best.row, best.position].item() == pytest.approx(best.activation)
    assert best.token == exam.model.tokenizer.decode([rows[best.row][best.position]])


# --- 02 ---------------------------------------------------------------------------------------------------------------

EFFECTS = pd.DataFrame(
    [(7, "hazard", "h1", 0.4), (7, "history", "a1", 0.9), (9, "hazard", "h1", 0.1), (9, "history", "a1", 0.2)],
    columns=["feature", "subject", "question", "p_right"],
)


def test_broken_questions_and_the_strongest_pair_by_hand():
    assert clamp_curve.broken_by_feature(EFFECTS, "hazard").values.tolist() == [[7, 1, 0], [9, 1, 1]]


def test_the_pair_is_the_profiles_where_its_question_is_known_else_the_strongest():
    settings = load_profile("tiny").clamp_curve
    for feature, question, expected in (
        (-1, "", (9, "h1", "the largest effect")),
        (3, "h1", (3, "h1", "the profile's")),
        (3, "a1", (9, "h1", "the largest effect; a1 is not known to the model")),
    ):
        asked = replace(settings, feature=feature, question=question)
        assert clamp_curve.chosen_pair(EFFECTS, "hazard", asked) == expected


def test_single_feature_effects_are_the_plain_scorers(exam):
    table = clamp_curve.single_feature_effects(exam, toy_sae(), [3, 5], -20.0)
    plain = answer_probabilities(exam.model, exam.asked, Clamp(toy_sae(), [5], -20.0), ORIGINAL_ORDER)[:, 0]
    expected = [float(p[q.answer]) for p, q in zip(plain, exam.asked, strict=True)]
    np.testing.assert_allclose(table[table["feature"] == 5]["p_right"], expected, atol=1e-6)


def test_clamp_curve_has_the_unedited_model_first_and_is_the_plain_scorers(exam):
    sae, question = toy_sae(), exam.asked[0]
    curve = clamp_curve.clamp_curve(exam, sae, 3, question, [0.0, 5.0], unit=2.0)
    assert curve["strength"].unique().tolist() == [-1.0, 0.0, 5.0]
    assert curve[curve["right"]]["letter"].unique().tolist() == ["ABCD"[question.answer]]
    clamp = Clamp(sae, [3], -10.0)
    plain = answer_probabilities(exam.model, [question], clamp, ORIGINAL_ORDER)[0, 0]
    np.testing.assert_allclose(curve[curve["strength"] == 5]["probability"], plain, atol=1e-6)
    assert curve["loss_added"].iloc[-1] == pytest.approx(loss_added(exam.model, NEUTRAL, clamp), abs=1e-6)


def test_a_grid_refuses_to_take_two_settings_for_one():
    with pytest.raises(ValueError, match="20 features are asked for, the selection rule found 3"):
        pareto.clamp_grid("static clamp", np.array([4, 2, 9]), [20], [1.0], 1.0)


def test_controls_differ_in_one_thing_each():
    clamps = {name: clamp for name, _, clamp in clamp_curve.control_clamps(toy_sae(), 31, [4], 5.0, 2.0)}
    assert clamps["clamp"].value == clamps["another decoder"].value == -10.0
    assert clamps["another decoder"].decoders == [0]  # the next index, around the end
    assert clamps["scale"].value.factor == -5.0
    assert clamps["random feature"].features == [4]


def test_random_others_fire_and_were_not_chosen():
    others = clamp_curve.random_others(np.arange(10), np.array([1, 3, 5]), 4, seed=0)
    assert len(set(others)) == 4 and not set(others) & {1, 3, 5}
    with pytest.raises(ValueError, match="only 7 others fire"):
        clamp_curve.random_others(np.arange(10), np.array([1, 3, 5]), 8, seed=0)


def test_an_unknown_question_is_an_error(exam):
    with pytest.raises(ValueError, match="no question 'x'"):
        clamp_curve.question_by_id(exam.asked, "x")


# --- 03, 05 -----------------------------------------------------------------------------------------------------------


def scores_of(method, forget, side, n=100):
    """A sweep with given counts of right answers per half: forget[setting][half], side[setting][half]."""
    said = {"said_A": n, "said_B": 0, "said_C": 0, "said_D": 0, "letter_mass": 1.0, "loss_added": 0.0}
    rows = [
        {"method": method, "n_features": 10, "strength": float(i), "subject": role, "role": role, "half": half, "n": n,
         "right": counts[i][half], **said}
        for i in range(len(forget)) for role, counts in (("forget", forget), ("near", side), ("side", side))
        for half in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_held_out_chooses_on_one_half_and_reports_on_the_other():
    # on half 0 setting 1 is best; on all questions it breaks the floor (195 of 200) and setting 0 is chosen
    scores = scores_of("DSG", forget=[(50, 60), (10, 30)], side=[(100, 100), (99, 96)])
    same, other = pareto.held_out({"DSG": scores}, 0.99).to_dict("records")
    assert (same["setting"], same["forget_accuracy"], same["forget_n"]) == ("10 features x0", 0.55, 200)
    assert (other["setting"], other["forget_accuracy"], other["side_accuracy"]) == ("10 features x1", 0.30, 0.96)


def test_held_out_says_none_where_nothing_keeps_the_floor():
    scores = {"DSG": scores_of("DSG", [(1, 1)], [(100, 100)]), "RMU": scores_of("RMU", [(1, 1)], [(90, 90)])}
    table = pareto.held_out(scores, 0.99)
    assert table["setting"].tolist()[2:] == ["none", "none"]
    assert table["forget_accuracy"][0] == 0.01 and np.isnan(table["forget_accuracy"][3])


def test_choose_tells_which_rule_it_used():
    assert pareto.choose(scores_of("DSG", [(50, 0), (10, 0)], [(99, 0), (99, 0)]), 0.99)[0] == 1
    best, rule = pareto.choose(scores_of("DSG", [(50, 0), (10, 0), (0, 0)], [(98, 0), (95, 0), (40, 0)]), 0.99)
    assert best == 1 and rule.startswith("no setting keeps side effects")


def test_settings_are_named_in_words():
    assert pareto.setting_name(pd.Series({"n_features": 20, "strength": 5.0})) == "20 features x5"
    assert (
        pareto.setting_name(pd.Series({"layer": 2, "steering": 3.0, "alpha": 30.0})) == "layer 2, steering 3, alpha 30"
    )


def test_score_table_by_hand():
    table = pareto.labelled_points(scores_of("DSG", [(50, 50), (10, 30)], [(100, 100), (99, 99)]))
    assert pareto.score_table(table, 0.99).values.tolist() == [["DSG", 2, 0.8]]


def test_rmu_scores_have_a_row_a_setting(exam):
    rows = torch.arange(10, 106).view(8, 12)
    settings = pareto.rmu_settings(load_profile("tiny").rmu, seed=0)
    assert len(settings) == len({(s.layer, s.steering, s.alpha) for s in settings})
    short = [type(s)(LAYER, s.steering, s.alpha, 1, 4, 1e-3, 0) for s in settings[:2]]
    table = points(pareto.rmu_scores(exam, rows, rows + 100, short))
    assert table[["steering", "alpha"]].values.tolist() == [[s.steering, s.alpha] for s in short]


def test_threshold_is_the_percentile_of_rho(exam):
    rows = NEUTRAL.tolist()
    rho = hot_fractions(exam.model, toy_sae(), np.array(FEATURES), rows, 100)
    assert guardrail.gate_threshold(exam.model, toy_sae(), FEATURES, rows, 50.0, 100) == np.median(rho)


def test_ablation_switches_gate_and_spread():
    grid = guardrail.ablation_grid((4, 2), 0.3, [1.0], 2.0)
    assert [(s.where, s.threshold) for s in grid] == [("any", 0.3), ("own", 0.3), ("any", None), ("own", None)]
    assert len({s.method for s in grid}) == 4 and all(s.features == (4, 2) for s in grid)


def test_gate_cost_counts_open_and_shut(exam, setting):
    table = guardrail.gate_cost(exam, toy_sae(), setting)
    assert table.groupby("subject")["n"].sum().to_dict() == {"hazard": 5, "biology": 4, "history": 3, "aging": 2}
    rho = guardrail.rho_table(exam, toy_sae(), FEATURES, {"retain text": NEUTRAL})
    opened = rho[rho["kind"] == "questions"]["rho"] > setting.threshold
    assert table[table["gate"] == "open"]["n"].sum() == opened.sum()
    assert (rho["role"] == "retain text").sum() == 4


# --- 06 ---------------------------------------------------------------------------------------------------------------


def test_every_arm_is_examined_before_and_after_every_epoch(exam, setting):
    one = attack.Attack(NEUTRAL, epochs=2, learning_rate=1e-3, batch_rows=2, seed=1)
    curves = attack.relearning_curves(exam, toy_sae(), one, setting, rmu_weights={})
    arms = ("RMU", "DSG at test time", "DSG also in training", "DSG, hook removed")
    assert len(curves) == len(arms) * 3 * 3
    assert set(map(tuple, curves[["arm", "epoch", "role"]].to_numpy())) == set(
        product(arms, (0, 1, 2), ("forget", "near", "side"))
    )
    right = curves.set_index(["arm", "epoch", "role"])["right"]
    # no RMU weights: that arm is the unedited model, fine-tuned as the one whose hook is removed
    assert right["RMU"].to_dict() == right["DSG, hook removed"].to_dict()
    guarded = exam.score([setting.clamp(toy_sae())])[0].groupby("role")["right"].sum()
    assert right["DSG at test time"][0].to_dict() == right["DSG also in training"][0].to_dict() == guarded.to_dict()


def test_half_an_exam_has_that_half_of_the_questions(exam):
    both = [exam.only(half).asked for half in (0, 1)]
    assert [len(questions) for questions in both] == [8, 6]  # 3 + 2 + 2 + 1 and 2 + 2 + 1 + 1
    assert sorted(q.id for q in [*both[0], *both[1]]) == sorted(q.id for q in exam.asked)


def test_attacks_differ_in_their_seed_only():
    settings = load_profile("tiny").relearning
    assert [a.seed for a in attack.attacks(NEUTRAL, settings)] == list(settings.seeds)
