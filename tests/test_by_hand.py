"""A method's name means what the notebooks would choose, and what is set by hand is what is put in place."""

import json
from collections.abc import Iterator
from itertools import takewhile

import numpy as np
import pytest
import torch

from helpers.engine.edited import Edited, clamp_facts
from helpers.engine.features import hot_fractions, token_activations
from helpers.engine.forward import huggingface
from helpers.engine.generation import generate
from helpers.engine.interventions import Add, Clamp, Gate, Scale
from helpers.lab.by_hand import check_names, put_in_place, read_settings, settable
from helpers.lab.lab import Lab, open_lab
from helpers.measures.metrics import alignment, best_setting
from helpers.methods import METHODS
from helpers.methods.selection import selections
from helpers.text.questions import chat_text, encode_texts
from tests.small import small_tiny
from tests.toy import toy_sae


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    with small_tiny(questions__limit=6):
        yield open_lab("tiny", "04_lm_eval", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def ranked(lab):
    return selections(*lab.firing_rates(), lab.profile.selection, 5)


@pytest.fixture(scope="module")
def unit(lab, ranked):
    """Mean activation at the forget tokens where they fire of the four best features by Farrell's rule, each alike."""
    features = ranked["sparsity"][:4].tolist()
    found = token_activations(lab.model, lab.sae, features, lab.forget_rows.tolist(), 2048)
    special = torch.tensor(lab.model.tokenizer.all_special_ids)
    seen = [row[~torch.isin(ids, special)] for row, ids in zip(found, lab.forget_rows, strict=True)]
    each = torch.cat(seen).double().T
    return float(np.mean([values[values > 0].mean() for values in each]))


def half_0(lab: Lab, clamp: Clamp) -> tuple[float, float]:
    """Accuracy on forget and on side-effect questions of the half that settings are chosen on."""
    (table,) = lab.knowledge.under([Edited(lab.model, clamp)])
    of = {role: rows for role, rows in table[table["half"] == 0].groupby("role")}
    return tuple(float(of[role]["right"].sum() / of[role]["n"].sum()) for role in ("forget", "side"))


# --- what a name means ------------------------------------------------------------------------------------------------


def test_nothing_is_nothing(lab):
    none, facts = put_in_place(lab, "none", {})
    assert none.model is lab.model and none.intervention is None and none.weights is None
    assert facts == {"method": "none"}


def test_dsg_is_the_setting_that_the_notebooks_would_choose(lab, ranked, unit):
    found, facts = put_in_place(lab, "dsg", {})
    how = (lab.framed_retain, lab.profile.model.batch_tokens)
    taus = {
        n: float(np.percentile(hot_fractions(lab.model, lab.sae, ranked["importance"][:n], *how), 95)) for n in (3, 5)
    }
    grid = [(n, strength) for n in (3, 5) for strength in (2.0, 8.0)]
    tried = [Clamp(lab.sae, ranked["importance"][:n].tolist(), -s * unit, "any", Gate(taus[n])) for n, s in grid]
    forget, side = zip(*[half_0(lab, clamp) for clamp in tried], strict=True)
    best = best_setting(forget, side, 0.99)
    rule = "lowest forget accuracy at side effects >= 0.99"
    if best is None:
        best = int(np.argmax(np.array(side) - forget))
        rule = "no setting keeps side effects >= 0.99: largest difference of side-effect and forget accuracy"
    n, strength = grid[best]
    clamp = found.intervention
    assert list(clamp.features) == ranked["importance"][:n].tolist() and clamp.where == "any"
    assert clamp.value == pytest.approx(-strength * unit) and clamp.gate.threshold == pytest.approx(taus[n])
    assert facts["chosen"] == rule and facts["features"] == list(clamp.features) and facts["method"] == "dsg"
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(("method", "rule"), [("static_clamp", "sparsity"), ("clamp_prime", "clamp_prime")])
def test_static_clamps_differ_in_the_rule_that_ranks_their_features(lab, ranked, unit, method, rule):
    edit, facts = put_in_place(lab, method, {"n_features": 2, "strength": 8.0})
    found = edit.intervention
    assert list(found.features) == ranked[rule][:2].tolist() and (found.where, found.gate) == ("own", None)
    assert found.value == pytest.approx(-8 * unit) and not found.bos and facts["chosen"] == "as set"


def test_clamp_prime_is_the_setting_of_highest_alignment(lab, ranked, unit):
    found, facts = put_in_place(lab, "clamp_prime", {})
    alignments = {}
    for n, strength in ((2, 2.0), (2, 8.0), (4, 2.0), (4, 8.0)):
        ids = tuple(ranked["clamp_prime"][:n].tolist())
        forget, side = half_0(lab, Clamp(lab.sae, ids, -strength * unit))
        alignments[ids, strength] = float(alignment(side, 1.0, forget, 1.0))
    ids, strength = max(alignments, key=alignments.get)
    assert found.intervention.features == ids and found.intervention.value == pytest.approx(-strength * unit)
    assert facts["chosen"] == "highest alignment"


def test_proportional_strengths_follow_the_firing_rates(lab, ranked, unit):
    given = {"n_features": 2, "strength": 8.0, "proportional": True}
    clamp = put_in_place(lab, "clamp_prime", given)[0].intervention
    rates = lab.firing_rates()[0]["firing_rate"].to_numpy()[ranked["clamp_prime"][:2]]
    assert list(clamp.value) == pytest.approx((-8 * unit * rates / rates.mean()).tolist())


def test_a_grid_that_settings_narrow_is_chosen_from(lab, ranked, unit):
    found = put_in_place(lab, "static_clamp", {"n_features": 4, "bos": True})[0].intervention
    assert list(found.features) == ranked["sparsity"][:4].tolist() and found.bos
    tried = {s: half_0(lab, Clamp(lab.sae, ranked["sparsity"][:4].tolist(), -s * unit, bos=True)) for s in (2.0, 8.0)}
    best = best_setting(*zip(*tried.values(), strict=True), 0.99)
    assert best is not None and found.value == pytest.approx(-list(tried)[best] * unit)


def test_the_refusal_clamp_sets_its_feature_where_clamp_primes_fire(lab, ranked, unit):
    given = {"n_features": 2, "strength": 8.0, "refusal_feature": 9}
    clamp = put_in_place(lab, "refusal_clamp", given)[0].intervention
    assert list(clamp.features) == [9] and list(clamp.triggers) == ranked["clamp_prime"][:2].tolist()
    assert (clamp.where, clamp.fires_above) == ("any", 0.05) and clamp.value == pytest.approx(-8 * unit)


def test_the_refusal_feature_is_the_notebooks(lab, ranked, unit):
    """Of the features that no setting of the grid triggers on, the one most often active on what is said to requests
    about the hazard, of equals the one less active on what is said to the others."""
    clamp = put_in_place(lab, "refusal_clamp", {"n_features": 2, "strength": 8.0})[0].intervention
    rates, special = [], set(lab.model.tokenizer.all_special_ids)
    for requests in (lab.requests.harmful, lab.requests.benign):
        prompts = encode_texts(lab.model.tokenizer, [chat_text(lab.model.tokenizer, [text]) for text in requests])
        said = generate(lab.model, prompts, 24)
        rows = [
            prompt + list(takewhile(lambda token: token not in special, answer))
            for prompt, answer in zip(prompts, said, strict=True)
        ]
        found = token_activations(lab.model, lab.sae, range(lab.sae.cfg.d_sae), rows, 2048)
        each = torch.cat([row[len(prompt) :] for row, prompt in zip(found, prompts, strict=True)])
        rates.append((each > 0).double().mean(dim=0).tolist())
    allowed = sorted(set(range(lab.sae.cfg.d_sae)) - set(ranked["clamp_prime"][:4].tolist()))
    assert list(clamp.features) == [max(allowed, key=lambda i: (rates[0][i], -rates[1][i]))]


def test_what_is_set_by_hand_needs_no_statistics(lab, monkeypatch):
    monkeypatch.setattr(Lab, "firing_rates", lambda lab: pytest.fail("statistics are not needed"))
    by_hand = {"features": (7, 3), "value": (-1.0, 2.5)}
    clamp = put_in_place(lab, "static_clamp", {**by_hand, "fires_above": 0.5})[0].intervention
    assert clamp_facts(clamp) == {
        "layer": 1, "features": [7, 3], "value": [-1.0, 2.5], "where": "own", "gate": None, "decoders": None,
        "triggers": None, "fires_above": 0.5, "bos": False, "keep_error": True,
    }  # fmt: skip
    given = {"features": (7, 3), "value": -4.0, "threshold": 0.25}
    dsg = put_in_place(lab, "dsg", given)[0].intervention
    assert (dsg.where, dsg.gate, dsg.value) == ("any", Gate(0.25), -4.0)
    added = put_in_place(lab, "unconditional", {**by_hand, "bos": True})[0].intervention
    assert (added.where, added.value, added.bos) == ("always", Add((-1.0, 2.5)), True)


def test_added_is_what_a_clamp_would_be_set_to(lab, unit):
    added = put_in_place(lab, "unconditional", {"features": (7,), "strength": 2.0})[0].intervention
    assert added.value == Add(pytest.approx(-2 * unit))


def test_rmu_trains_the_weights_and_needs_no_intervention(lab):
    found, facts = put_in_place(lab, "rmu", {"alpha": 30.0})
    name = "model.layers.2.mlp.down_proj.weight"
    weights = [huggingface(model).get_parameter(name) for model in (found.model, lab.model)]
    assert not torch.equal(*weights) and found.intervention is None
    assert (facts["layer"], facts["steering"], facts["alpha"], facts["chosen"]) == (2, 10.0, 30.0, "as set")
    json.dumps(facts, allow_nan=False)


def test_facts_of_a_clamp_are_json():
    clamp = Clamp(toy_sae(), torch.tensor([3, 4]), Scale(0.5), decoders=np.array([5, 6]))
    facts = json.loads(json.dumps(clamp_facts(clamp)))
    assert (facts["features"], facts["value"], facts["decoders"]) == ([3, 4], {"scale": 0.5}, [5, 6])


# --- what may be set --------------------------------------------------------------------------------------------------

OF_TRAINING = {"steps", "batch_rows", "learning_rate", "seed"}
OF_A_CLAMP = {"n_features", "strength", "features", "value", "fires_above", "bos"}


def test_every_method_takes_its_own_fields():
    assert {name: set(settable(method)) for name, method in METHODS.items()} == {
        "static_clamp": OF_A_CLAMP,
        "attribution_clamp": OF_A_CLAMP,
        "clamp_prime": OF_A_CLAMP | {"proportional"},
        "refusal_clamp": OF_A_CLAMP | {"refusal_feature"},
        "unconditional": OF_A_CLAMP - {"fires_above"},
        "dsg": OF_A_CLAMP - {"fires_above"} | {"threshold", "gated_by"},
        "rmu": OF_TRAINING | {"layer", "steering", "alpha"},
        "gradient_ascent": OF_TRAINING,
        "grad_diff": OF_TRAINING | {"retain_weight"},
        "npo": OF_TRAINING | {"beta", "retain_weight"},
        "simnpo": OF_TRAINING | {"beta", "margin", "retain_weight"},
        "scrub": OF_TRAINING | {"forget_weight", "temperature"},
        "ssd": {"threshold", "dampening", "embeddings", "rows"},
        "crisp": OF_TRAINING | {"n_features", "boost", "unlearn_share", "coherence", "rank", "off_by_one"},
        "retrained": set(),
    }


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("none", {"value": 1.0}, "'none' takes no settings, not 'value'"),
        ("retrained", {"value": 1.0}, "'retrained' takes no settings, not 'value'"),
        (
            "static_clamp",
            {"threshold": 0.1, "alpha": 2.0},
            "takes the settings .*features, .*, not 'threshold', 'alpha'",
        ),
        ("unconditional", {"fires_above": 0.1}, "not 'fires_above'"),
        ("static_clamp", {"proportional": True}, "not 'proportional'"),
    ],
)
def test_names_of_settings_that_a_method_has_not_are_refused(method, given, message):
    with pytest.raises(ValueError, match=message):
        check_names(method, METHODS.get(method), given)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("static_clamp", {"value": 1.0, "strength": 2.0}, "strength and value are both set"),
        ("dsg", {"features": (1,), "n_features": 2}, "features and n_features are both set"),
        ("clamp_prime", {"value": 1.0, "proportional": True}, "proportional and value are both set"),
        ("dgs", {}, f"method 'dgs' is unknown, the known ones are: {', '.join(METHODS)}$"),
    ],
)
def test_settings_that_contradict_each_other_and_unknown_methods_are_refused(lab, method, given, message):
    with pytest.raises(ValueError, match=message):
        put_in_place(lab, method, given)


def test_more_features_than_a_rule_finds_are_refused(lab):
    found = len(lab.selections(2048)["clamp_prime"])
    with pytest.raises(
        ValueError, match=f"2048 features are asked for, the selection rule found {found}; ask for fewer"
    ):
        put_in_place(lab, "clamp_prime", {"n_features": 2048, "strength": 1.0})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.json", '{"features": [7, 3], "value": [1, -2.5], "threshold": 0, "bos": true}'),
        ("s.toml", "features = [7, 3]\nvalue = [1, -2.5]\nthreshold = 0\nbos = true"),
    ],
)
def test_a_file_of_settings_is_read_as_what_the_fields_are(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_settings(tmp_path / name, "dsg", METHODS["dsg"])
    assert found == {"features": (7, 3), "value": (1.0, -2.5), "threshold": 0.0, "bos": True}
