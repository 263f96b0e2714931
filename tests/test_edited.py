"""An edit is a model, an intervention, or both; its weights are made when they are asked for, and not to be named."""

import json

import numpy as np
import pytest
import torch

from helpers.engine.edited import Edited, Trained, clamp_facts
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Add, Clamp, Gate, Scale
from helpers.records.store import fingerprint
from tests.toy import toy_model, toy_sae

NAME = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_without_other_weights_the_model_is_the_original(model):
    assert Edited(model).model is model
    assert Edited(model, Clamp(toy_sae(), [3], 1.0)).model is model


def test_other_weights_are_made_once_and_in_a_copy(model):
    made, before = [], huggingface(model).get_parameter(NAME).clone()
    edit = Edited(model, weights=Trained("key", lambda: made.append(1) or {NAME: torch.ones(16, 32)}))
    fingerprint(edit), edit.facts()
    assert made == []
    assert edit.model is edit.model and len(made) == 1
    assert torch.equal(huggingface(edit.model).get_parameter(NAME), torch.ones(16, 32))
    assert torch.equal(huggingface(model).get_parameter(NAME), before)


def test_an_edit_is_named_by_what_it_depends_on(model):
    clamp, same = (Clamp(toy_sae(), [3], 1.0) for _ in range(2))
    other = Clamp(toy_sae(), [3], 2.0)

    def nothing():
        raise AssertionError("naming weights does not make them")

    one, again, another = (Trained(key, nothing, keep) for key, keep in (("a", None), ("a", nothing), ("b", None)))
    edits = [Edited(model), Edited(model, clamp), Edited(model, other), Edited(model, weights=one)]
    edits += [Edited(model, weights=another), Edited(model, clamp, one), Edited(toy_model(seed=1))]
    prints = [fingerprint(edit) for edit in edits]
    assert len(set(prints)) == len(prints)
    assert fingerprint(Edited(toy_model(), same)) == prints[1]
    assert fingerprint(Edited(model, weights=again)) == prints[3]  # where weights are kept does not matter


def test_facts_are_json_and_say_everything_but_the_sae(model):
    sae = toy_sae()
    assert Edited(model).facts() == {} == Edited(model, weights=Trained("key", dict)).facts()
    plain = {"layer": 1, "features": [3, 5], "value": -2.0, "where": "own", "gate": None, "decoders": None,
             "triggers": None, "fires_above": 0.0, "bos": False, "keep_error": True}  # fmt: skip
    for features in ([3, 5], (3, 5), np.array([3, 5]), torch.tensor([3, 5])):
        assert Edited(model, Clamp(sae, features, -2.0)).facts() == plain
    for value, said in (
        (Add(2.0), {"add": 2.0}), (Add((1.0, 2.0)), {"add": [1.0, 2.0]}), (Scale(-3.0), {"scale": -3.0}),
        ((1.0, 2.0), [1.0, 2.0]), (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
    ):  # fmt: skip
        assert clamp_facts(Clamp(sae, [3, 5], value)) == plain | {"value": said}
    how = {"gate": Gate(0.25), "triggers": (7, 8), "fires_above": 0.5, "bos": True, "keep_error": False}
    found = clamp_facts(Clamp(sae, [3, 5], -2.0, "any", decoders=[1, 2], **how))
    assert found == plain | how | {"where": "any", "gate": 0.25, "triggers": [7, 8], "decoders": [1, 2]}
    assert json.loads(json.dumps(found)) == found
