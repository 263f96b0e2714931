"""A method's grid is its table in the profile, and a setting in place is the clamp that its paper describes."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.edited import Edited
from helpers.engine.forward import residual_after
from helpers.engine.interventions import Add
from helpers.methods import DSG, METHODS, RMU, AttributionClamp, ClampPrime, RefusalClamp, StaticClamp, Unconditional
from helpers.methods.clamp_prime import rate_weights
from helpers.methods.dsg import DSGAblation, gate_threshold
from helpers.methods.look import Look
from helpers.methods.method import HIGHEST_ALIGNMENT, LOWEST_FORGET, ONLY_SETTING, Method, looks
from helpers.methods.refusal_clamp import (
    RefusalControl,
    answer_statistics,
    answers_of,
    by_contrast,
    by_rate,
    candidates_of,
    refusal_feature_of,
    refuses,
)
from helpers.methods.selection import selections
from helpers.methods.static_clamp import NextDecoder
from helpers.profiles import load_profile
from helpers.text.questions import encode_texts
from tests.test_features import one
from tests.toy import D_MODEL, D_SAE, LAYER, ToyLab, toy_sae

TINY = load_profile("tiny")
CLAMPS = (StaticClamp, AttributionClamp, ClampPrime, RefusalClamp, Unconditional, DSG)
# What a clamp is if its method does not say otherwise; `put` checks all that it could be.
PLAIN = {"layer": LAYER, "where": "own", "gate": None, "decoders": None, "triggers": None, "fires_above": 0.0,
         "bos": False, "keep_error": True}  # fmt: skip


@pytest.fixture(scope="module")
def lab():
    return ToyLab()


def put(setting, lab):
    """A setting's clamp in full; weights stay as they are."""
    edit = setting.apply(lab)
    assert edit.original is lab.model and edit.weights is None and edit.intervention.sae is lab.sae
    return edit.facts()


def rho_of(lab, features, rows):
    """Share of the tokens after BOS at which any of the features fires, row by row and token by token."""
    found = []
    for row in rows:
        with torch.no_grad():
            residual = residual_after(lab.model, one(row), LAYER)[0]
            found.append(np.mean([any(lab.sae.encode(x)[i] > 0 for i in features) for x in residual[1:]]))
    return found


def test_the_next_decoder_changes_nothing_but_the_decoders(lab):
    plain, other = (
        put(kind(2, 5.0, features=(3, D_SAE - 1), fires_above=0.1), lab) for kind in (StaticClamp, NextDecoder)
    )
    assert other == plain | {"decoders": [4, 0]}  # after the last comes the first


# --- all methods ------------------------------------------------------------------------------------------------------


def test_every_method_stands_under_its_name_with_a_source_and_a_rule():
    khoriatys = dict.fromkeys(("clamp_prime", "refusal_clamp", "unconditional"), HIGHEST_ALIGNMENT)
    of_weights = ["rmu", "gradient_ascent", "grad_diff", "npo", "simnpo", "ssd", "scrub", "crisp"]
    lowest = dict.fromkeys(("static_clamp", "attribution_clamp", "dsg", *of_weights), LOWEST_FORGET)
    assert {n: m.chosen_by for n, m in METHODS.items()} == khoriatys | lowest | {"retrained": ONLY_SETTING}
    assert [name for name, method in METHODS.items() if method.trains] == of_weights
    assert all(method.source for method in METHODS.values())
    for method in METHODS.values():
        assert method.table in METHODS and METHODS[method.table] is method


def test_every_label_of_every_grid_has_a_look_of_its_own():
    drawn = looks()
    labels = {setting.label for method in METHODS.values() for setting in method.grid(TINY)}
    assert labels == {
        "static clamp", "attribution clamp", "Clamp Prime", "Clamp Prime, proportional", "Refusal Clamp",
        "unconditional add", "DSG", "RMU", "retrained", "GA", "GradDiff", "NPO", "SimNPO", "SSD", "SCRUB", "CRISP",
    }  # fmt: skip
    assert len({drawn[label].marker for label in labels}) == len(labels)
    assert len({drawn[label].colour for label in labels}) == len(labels)
    assert drawn["Clamp Prime, proportional"] == Look("#009E73", "P") and drawn["DSG"] == DSG.look


def test_a_method_of_ones_own_needs_a_grid_and_an_application_and_nothing_else():
    @dataclass(frozen=True)
    class Mine(Method):
        depth: int
        warmth: float

        name, look = "mine", Look("red", "*")

        @classmethod
        def grid(cls, profile):
            return [cls(1, 0.5), cls(2, 0.5), cls(1, 2.0)]

        def apply(self, lab):
            return Edited(lab.model)

    assert Mine(1, 0.5).words == "depth 1, warmth 0.5" and Mine(1, 0.5).label == "mine"
    assert looks()["mine"] == Look("red", "*")
    assert Mine.narrowed(TINY, {"warmth": 3.0}) == [Mine(1, 3.0), Mine(2, 3.0)]
    with pytest.raises(TypeError, match="abstract"):
        Method()


def test_of_ones_own_methods_of_a_name_the_latest_has_the_look():
    """As where a cell that defines a method is run again with another colour."""
    kept = [type("Again", (Method,), {"name": "run again", "look": Look(colour, "*")}) for colour in ("red", "blue")]
    assert looks()["run again"] == kept[1].look


# --- grids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "sizes", "strengths", "rest"),
    [
        (StaticClamp, (10, 20, 50), (0.0, 1.0, 2.0, 5.0, 10.0, 20.0), {}),
        (AttributionClamp, (2, 4, 6), (2.0, 5.0, 10.0, 20.0), {}),
        (RefusalClamp, (5, 10, 20, 40), (5.0, 10.0, 20.0, 40.0), {"fires_above": 0.05}),
        (Unconditional, (5, 10, 20, 40), (1.0, 2.0), {}),
        (DSG, (10, 20, 30, 50), (1.0, 2.0, 5.0, 10.0, 20.0), {}),
    ],
)
def test_a_clamps_grid_is_every_number_of_features_with_every_strength(method, sizes, strengths, rest):
    assert method.grid(TINY) == [method(n, strength, **rest) for n, strength in product(sizes, strengths)]
    assert {setting.label for setting in method.grid(TINY)} == {method.name}
    assert next(iter(method.looks())) == method.name


def test_clamp_prime_has_two_variants_which_are_one_at_strength_0():
    strengths = (0.0, 5.0, 10.0, 20.0, 40.0)
    expected = []
    for n in (5, 10, 20, 40):
        expected += [ClampPrime(n, c) for c in strengths]
        expected += [ClampPrime(n, c, proportional=True) for c in strengths[1:]]
    assert ClampPrime.grid(TINY) == expected
    assert {(s.label, s.proportional) for s in expected} == {
        ("Clamp Prime", False),
        ("Clamp Prime, proportional", True),
    }
    assert list(ClampPrime.looks()) == ["Clamp Prime", "Clamp Prime, proportional"]


def test_notebook_05_has_the_plain_clamp_prime_over_the_static_clamps_grid():
    profile = load_profile("tiny", notebook="05")
    # fewer than 50 features pass the strict limit
    plain = [(min(s.n_features, 40), s.strength) for s in StaticClamp.grid(profile)]
    assert ClampPrime.grid(profile) == [ClampPrime(n, c) for n, c in plain]


def test_a_grid_is_the_profiles_table():
    changed = {"method.dsg.n_features": [4], "method.dsg.strengths": [3.0, 1.0]}
    assert DSG.grid(load_profile("tiny", changed)) == [DSG(4, 3.0), DSG(4, 1.0)]
    with pytest.raises(ValueError, match=r"unknown key method\.dsg\.colour"):
        DSG.grid(load_profile("tiny", {"method.dsg.colour": 1}))
    with pytest.raises(ValueError, match=r"method\.static_clamp\.strengths\.0 = -1\.0"):
        StaticClamp.grid(load_profile("tiny", {"method.static_clamp.strengths": [-1.0]}))


def test_settings_are_named_in_words():
    assert StaticClamp(20, 5.0).words == "20 features x5"
    assert ClampPrime(10, 2.5, proportional=True).words == "10 features x2.5"
    setting = RMU(2, 3.0, 30.0, steps=100, batch_rows=4, learning_rate=1e-2)
    assert setting.words == "layer 2, steering 3, alpha 30, 100 steps"


# --- set by hand ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CLAMPS)
def test_what_is_set_by_hand_narrows_the_grid(method):
    grid = [setting for setting in method.grid(TINY) if not getattr(setting, "proportional", False)]
    same = {"fires_above": 0.05} if method is RefusalClamp else {}
    assert method.narrowed(TINY, {}) == grid
    sizes, strengths = (list(dict.fromkeys(getattr(s, of) for s in grid)) for of in ("n_features", "strength"))
    assert method.narrowed(TINY, {"strength": 7.0}) == [method(n, 7.0, **same) for n in sizes]
    assert method.narrowed(TINY, {"n_features": 3, "bos": True}) == [method(3, c, bos=True, **same) for c in strengths]
    ids = {"features": (4, 2, 9)}
    assert method.narrowed(TINY, ids) == [method(3, c, **ids, **same) for c in strengths]
    assert method.narrowed(TINY, {"value": 6.0}) == [method(n, 0.0, value=6.0, **same) for n in sizes]
    assert method.narrowed(TINY, {**ids, "value": -6.0}) == [method(3, 0.0, value=-6.0, **ids, **same)]
    assert method.narrowed(TINY, {"n_features": 3, "strength": 1.0}) == [method(3, 1.0, **same)]


@pytest.mark.parametrize("method", CLAMPS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": 1.0, "value": -3.0}, "strength and value are both set"),
        ({"features": (1, 2), "n_features": 2}, "features and n_features are both set"),
    ],
)
def test_what_contradicts_itself_is_refused(method, given, message):
    with pytest.raises(ValueError, match=message):
        method.narrowed(TINY, given)


def test_of_clamp_prime_the_variant_is_set_and_not_chosen_among():
    strengths = (0.0, 5.0, 10.0, 20.0, 40.0)
    found = ClampPrime.narrowed(TINY, {"proportional": True, "n_features": 4})
    assert found == [ClampPrime(4, c, proportional=True) for c in strengths]
    for proportional in (True, False):
        with pytest.raises(ValueError, match="proportional and value are both set"):
            ClampPrime.narrowed(TINY, {"proportional": proportional, "value": -1.0})


def test_what_other_methods_let_be_set_by_hand(lab):
    assert DSG.narrowed(TINY, {"threshold": 0.5, "n_features": 2, "strength": 3.0}) == [DSG(2, 3.0, threshold=0.5)]
    (refusal,) = RefusalClamp.narrowed(TINY, {"refusal_feature": 7, "features": (1, 2), "value": 9.0})
    expected = {"features": [7], "value": 9.0, "triggers": [1, 2], "where": "any", "fires_above": 0.05}
    assert put(refusal, lab) == PLAIN | expected


@pytest.mark.parametrize(
    ("setting", "features", "value"),
    [
        (StaticClamp(2, 0.0, value=-7.0), [3, 5], -7.0),
        (StaticClamp(2, 3.0, features=(9, 4)), [9, 4], -6.0),
        (StaticClamp(2, 0.0, features=(9, 4), value=(-1.0, 2.0)), [9, 4], [-1.0, 2.0]),
        (AttributionClamp(2, 3.0), [5, 13], -6.0),
        (ClampPrime(2, 0.0, value=-7.0), [13, 3], -7.0),
        (ClampPrime(2, 0.0, value=-7.0, proportional=True), [13, 3], -7.0),
        (Unconditional(2, 0.0, value=5.0), [13, 3], {"add": 5.0}),
        (Unconditional(2, 0.0, value=(5.0, 6.0)), [13, 3], {"add": [5.0, 6.0]}),
        (DSG(2, 0.0, value=-7.0, threshold=0.25), [8, 13], -7.0),
    ],
)
def test_features_and_value_set_by_hand_are_taken_as_they_are(lab, setting, features, value):
    found = put(setting, lab)
    assert (found["features"], found["value"]) == (features, value)


@pytest.mark.parametrize("method", CLAMPS)
def test_bos_and_firing_are_as_set(lab, method):
    found = put(method(2, 1.0, bos=True, fires_above=0.75), lab)
    assert (found["bos"], found["fires_above"]) == (True, 0.75)
    found = put(method(2, 1.0), lab)
    assert (found["bos"], found["fires_above"]) == (False, 0.0)


# --- in place: static clamp, Clamp Prime, unconditional ---------------------------------------------------------------


def test_the_static_clamp_sets_each_feature_where_it_fires_itself(lab):
    assert put(StaticClamp(3, 5.0), lab) == PLAIN | {"features": [3, 5, 8], "value": -10.0}
    assert put(StaticClamp(1, 0.0), lab) == PLAIN | {"features": [3], "value": 0.0}


def test_features_by_attribution_are_set_as_the_static_clamp_sets_its_own(lab):
    setting = AttributionClamp(3, 5.0)
    assert put(setting, lab) == put(StaticClamp(3, 5.0, features=(5, 13, 3)), lab)
    assert not AttributionClamp.from_text and all(m.from_text for m in METHODS.values() if m is not AttributionClamp)


@pytest.mark.parametrize("method", CLAMPS)
def test_a_setting_is_not_taken_for_one_with_fewer_features(lab, method):
    with pytest.raises(ValueError, match="20 features are asked for, the selection rule found 4; ask for fewer"):
        method(20, 1.0).apply(lab)


def test_proportional_values_follow_the_firing_rates(lab):
    assert rate_weights(np.array([0.3, 0.2, 0.1])) == pytest.approx((1.5, 1.0, 0.5))
    assert put(ClampPrime(3, 5.0), lab) == PLAIN | {"features": [13, 3, 8], "value": -10.0}
    # features 13, 3 and 8 fire at 0.14, 0.04 and 0.09: weights 14/9, 4/9 and 1
    found = put(ClampPrime(3, 5.0, proportional=True), lab)
    assert found.pop("value") == pytest.approx([-10 * 14 / 9, -10 * 4 / 9, -10.0])
    assert found == PLAIN | {"features": [13, 3, 8]}
    # features set by hand have their own shares: 1 and 4 fire at 0.02 and 0.05
    by_hand = put(ClampPrime(2, 5.0, proportional=True, features=(1, 4)), lab)
    assert by_hand["value"] == pytest.approx([-10 * 2 / 3.5, -10 * 5 / 3.5])


def test_unconditional_addition_has_no_condition(lab):
    setting = Unconditional(2, 1.0)
    assert put(setting, lab) == PLAIN | {"features": [13, 3], "value": {"add": -2.0}, "where": "always"}
    clamp = setting.apply(lab).intervention
    assert clamp.value == Add(-2.0)
    residual = torch.randn(1, 3, D_MODEL, generator=torch.Generator().manual_seed(0))
    moved = clamp(residual, torch.ones(1, 3)) - residual
    expected = -2.0 * toy_sae().W_dec[[13, 3]].sum(dim=0)
    torch.testing.assert_close(moved[0], torch.stack([torch.zeros(D_MODEL), expected, expected]), atol=1e-5, rtol=0)


# --- in place: refusal clamp ------------------------------------------------------------------------------------------


def test_the_refusal_clamp_sets_one_feature_where_harmful_ones_fire(lab):
    (few, *_) = RefusalClamp.grid(lab.profile)
    expected = {"features": [20], "triggers": [13, 3], "value": -10.0, "where": "any", "fires_above": 0.05}
    assert put(RefusalClamp(2, 5.0, fires_above=0.05, refusal_feature=20), lab) == PLAIN | expected
    assert put(few, lab) == PLAIN | expected | {"features": [refusal_feature_of(lab)]}
    assert few.words == "2 features x5"  # the harmful ones


# Rates of five features: 1, 2 and 4 are equal on answers to harmful requests, 2 and 4 on the others too.
HARMFUL, BENIGN = np.array([0.25, 0.75, 0.75, 1.0, 0.75]), np.array([0.0, 0.5, 0.25, 1.0, 0.25])


def test_the_refusal_feature_fires_most_often_on_answers_to_harmful_requests():
    assert by_rate(HARMFUL, BENIGN, forbidden=[]).tolist() == [3, 2, 4, 1, 0]  # ties: benign rate, then id
    assert by_rate(HARMFUL, BENIGN, forbidden=[3, 2]).tolist() == [4, 1, 0]


def test_by_contrast_a_feature_of_every_answer_is_last():
    # differences: 0.25, 0.25, 0.5, 0, 0.5
    assert by_contrast(HARMFUL, BENIGN, forbidden=[]).tolist() == [2, 4, 0, 1, 3]
    assert by_contrast(HARMFUL, BENIGN, forbidden=[2, 0]).tolist() == [4, 1, 3]


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I cannot help with that request.", True),
        ("well, i CANNOT", True),
        ("I can\N{RIGHT SINGLE QUOTATION MARK}t.", True),
        ("Gladly. I can.", False),
        ("", False),
    ],
)
def test_a_refusal_is_known_by_its_words(answer, refused):
    assert refuses(answer, ["I cannot", "I can't"]) == refused


PROMPTS = [[2, 20, 21, 22], [2, 30], [2, 40, 41]]
SAID = [[50, 51], [], [60, 61, 62]]


@pytest.fixture
def told(monkeypatch):
    """The toy model says what is set here, and not what it would say."""
    monkeypatch.setattr("helpers.methods.refusal_clamp.answers", lambda *_: SAID)


@torch.no_grad()
def test_rates_count_tokens_of_answers_and_no_others(lab, told):
    """Two and three tokens and none, each seen below its prompt: five in all, whichever prompt they answer."""
    found = []
    for prompt, answer in zip(PROMPTS, SAID, strict=True):
        residual = residual_after(lab.model, one([*prompt, *answer]), LAYER)[0]
        found += [lab.sae.encode(residual[len(prompt) + i]) > 0 for i in range(len(answer))]
    assert len(found) == 5
    expected = torch.stack(found).double().mean(dim=0)
    for batch_tokens in (6, 200):
        rates = answer_statistics(lab.model, lab.sae, PROMPTS, [], 3, batch_tokens)["rates"]
        np.testing.assert_allclose(rates, expected)
    assert set((expected * 5).round().tolist()) > {0.0, 1.0}


def test_refused_answers_are_marked_and_tokens_counted(lab, told):
    words = lab.model.tokenizer.decode(SAID[2])
    found = answer_statistics(lab.model, lab.sae, PROMPTS, [words.upper()], 3, 200)
    assert found["refused"].tolist() == [False, False, True] and found["tokens"].tolist() == [2, 0, 3]


def test_a_model_that_answers_nothing_is_one_clear_error(lab, monkeypatch):
    monkeypatch.setattr("helpers.methods.refusal_clamp.answers", lambda *_: [[], [], []])
    with pytest.raises(ValueError, match="the model answers none of 3 requests, .* set refusal_feature by hand"):
        answer_statistics(lab.model, lab.sae, PROMPTS, [], 3, 200)


def test_the_lab_asks_its_requests_as_chats_and_without_an_edit(lab):
    found, tokenizer = answers_of(lab), lab.model.tokenizer
    assert list(found) == ["harmful", "benign"]
    for kind, requests in (("harmful", lab.requests.harmful), ("benign", lab.requests.benign)):
        texts = [f"<start_of_turn>user\n{r}<end_of_turn>\n<start_of_turn>model\n" for r in requests]
        expected = answer_statistics(lab.model, lab.sae, encode_texts(tokenizer, texts), ("I cannot",), 24, 2048)
        for name, numbers in expected.items():
            np.testing.assert_array_equal(found[kind][name], numbers)


def test_the_labs_refusal_feature_is_none_of_the_harmful_features(lab):
    rates = [answers["rates"] for answers in answers_of(lab).values()]
    harmful = ToyLab.RANKED["clamp_prime"][:3]  # the largest setting of the grid has three
    allowed = by_rate(*rates, harmful).tolist()
    assert [ids.tolist() for ids in candidates_of(lab)] == [allowed, by_contrast(*rates, harmful).tolist()]
    assert refusal_feature_of(lab) == allowed[0] and len(allowed) == D_SAE - 3
    assert refusal_feature_of(lab, (allowed[0], allowed[1])) == allowed[2]
    features = (allowed[0],)
    assert put(RefusalClamp(1, 5.0, features=features), lab)["features"] == [allowed[1]]
    # what a larger setting of the grid has for a trigger is none of a smaller one's either: all share one feature
    other, ranking = ToyLab(), by_rate(*rates, []).tolist()
    other.RANKED = {"clamp_prime": (1, 2, ranking[0])}
    found = put(RefusalClamp(2, 5.0), other)
    assert found["triggers"] == [1, 2]
    assert found["features"] == [next(i for i in ranking if i not in (1, 2, ranking[0]))]


def test_controls_change_one_thing_each(lab):
    setting = RefusalClamp(2, 4.0, fires_above=0.05, bos=True)
    controls = setting.controls(np.int64(20), np.int64(8), np.array([9, 10]))
    lowered, boosted, dropped, contrast, other, another = [put(control, lab) for control in controls]
    assert lowered == put(RefusalClamp(2, 4.0, fires_above=0.05, bos=True, refusal_feature=20), lab)
    assert (lowered["features"], lowered["value"], lowered["triggers"]) == ([20], -8.0, [13, 3])
    assert boosted == lowered | {"value": 8.0}
    assert dropped == boosted | {"keep_error": False}
    assert contrast == lowered | {"features": [8]}
    assert other == lowered | {"features": [9]} and another == lowered | {"features": [10]}
    # rows of one label and words would be taken for one setting
    assert [control.label for control in controls] == [
        "refusal feature 20 lowered",
        "refusal feature 20 boosted",
        "refusal feature 20 boosted, error term dropped",
        "contrast feature 8 lowered",
        "feature 9 lowered",
        "feature 10 lowered",
    ]
    assert all(type(control) is RefusalControl and control.words == setting.words for control in controls)
    by_hand = RefusalClamp(1, 0.0, features=(6,), value=3.0).controls(20, 8, [])
    assert [put(control, lab)["value"] for control in by_hand] == [3.0, -3.0, -3.0, 3.0]


# --- in place: DSG ----------------------------------------------------------------------------------------------------


def test_dsg_sets_all_features_at_hot_tokens_behind_a_gate(lab):
    expected = {"features": [8, 13, 5], "value": -10.0, "where": "any"}
    tau = float(np.percentile(rho_of(lab, (8, 13, 5), lab.framed_retain), 95))
    assert 0 < tau < 1
    assert put(DSG(3, 5.0), lab) == PLAIN | expected | {"gate": pytest.approx(tau)}
    assert put(DSG(3, 5.0, threshold=0.25), lab) == PLAIN | expected | {"gate": 0.25}


def test_the_gates_threshold_is_the_percentile_of_rho():
    lab = ToyLab({"method.dsg.gate_percentile": 50.0})
    rho = rho_of(lab, (8, 13), lab.framed_retain)
    assert len(set(rho)) == 5
    found = gate_threshold(lab.model, lab.sae, (8, 13), lab.framed_retain, 50.0, 16)
    assert found == pytest.approx(np.median(rho))
    assert gate_threshold(lab.model, lab.sae, (8, 13), lab.framed_retain, 25.0, 16) == pytest.approx(sorted(rho)[1])
    gates = [put(DSG(2, strength), lab)["gate"] for strength in (1.0, 5.0)]
    assert gates == [found, found] and lab.staged == ["gate-threshold-2"]  # once for all strengths
    assert put(DSG(2, 1.0, features=(3, 5)), lab)["gate"] == pytest.approx(
        np.median(rho_of(lab, (3, 5), lab.framed_retain))
    )


def test_ablation_switches_gate_and_spread_and_nothing_else():
    lab = ToyLab({"method.dsg.strengths": [1.0, 4.0]})
    setting = DSG(2, 9.0, bos=True, fires_above=0.5)
    whole = put(setting, lab)
    grid = setting.ablation(lab)
    assert [(s.gated, s.spread, s.strength) for s in grid] == list(product((True, False), (True, False), (1.0, 4.0)))
    for one_setting in grid:
        changed = {"value": -2.0 * one_setting.strength}
        changed |= {} if one_setting.gated else {"gate": None}
        changed |= {} if one_setting.spread else {"where": "own"}
        assert put(one_setting, lab) == whole | changed
        assert (type(one_setting), one_setting.threshold) == (DSGAblation, whole["gate"])
        assert (one_setting.features, one_setting.words) == ((8, 13), f"2 features x{one_setting.strength:g}")
    assert [s.label for s in grid[::2]] == [
        "gate, all features at hot tokens",
        "gate, each feature where it fires",
        "no gate, all features at hot tokens",
        "no gate, each feature where it fires",
    ]
    chosen = DSG(3, 1.0, features=(1, 2, 3), threshold=0.125).ablation(lab)
    assert {(s.features, s.threshold, s.n_features) for s in chosen} == {((1, 2, 3), 0.125, 3)}


# --- which features ---------------------------------------------------------------------------------------------------


def test_selections_apply_the_papers_rules():
    settings = TINY.selection
    forget = pd.DataFrame({"firing_rate": [0.5, 0.4, 0.3], "mean": [1.0, 2.0, 1.0], "mean_square": [9.0, 4.0, 1.0]})
    retain = pd.DataFrame({"firing_rate": [0.5, 0.005, 0.0], "mean": [1.0, 1e-3, 0.0], "mean_square": [9.0, 1e-6, 0.0]})
    chosen = selections(forget, retain, settings, 3)
    assert list(chosen) == ["sparsity", "clamp_prime", "importance", "importance_released", "crisp"]
    assert chosen["sparsity"].tolist() == [1, 2]
    assert chosen["clamp_prime"].tolist() == [2]
    # the 95th percentile of three ratios keeps 2, the 5th of forget drops it
    assert chosen["importance"].tolist() == []
    # (E[f])^2 is 1, 4, 1: the 5th percentile is 1, which 2 has
    assert chosen["importance_released"].tolist() == [2]
    assert selections(forget, retain, settings, 1)["sparsity"].tolist() == [1]


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (StaticClamp, "sparsity"),
        (ClampPrime, "clamp_prime"),
        (RefusalClamp, "clamp_prime"),
        (Unconditional, "clamp_prime"),
        (DSG, "importance"),
    ],
)
def test_every_method_takes_the_best_features_of_its_own_rule(lab, method, rule):
    found = put(method(3, 1.0), lab)
    chosen = found["triggers"] if method is RefusalClamp else found["features"]
    assert chosen == list(ToyLab.RANKED[rule][:3])
