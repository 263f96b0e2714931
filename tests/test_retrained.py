"""The retrained reference: other weights in the model's place, one setting or none, reported whatever it costs."""

from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.attacks.relearning import relearned
from helpers.engine.forward import huggingface
from helpers.experiments.attack import along_the_way, attacks, relearning
from helpers.lab.by_hand import put_in_place
from helpers.lab.choosing import AS_SET, HELD_OUT, alignment_table, choose, held_out, points, score_table
from helpers.lab.lab import Lab
from helpers.lab.scores import Scores
from helpers.loading.models import retrained_weights
from helpers.methods import METHODS, StaticClamp
from helpers.methods.retrained import Retrained
from helpers.profiles import available_profiles, load_profile
from helpers.records.store import fingerprint
from helpers.report.sentences import numbers, say
from helpers.text.corpora import Document
from tests.toy import ToyLab, toy_model

EMBEDDING, DOWN = "model.embed_tokens.weight", "model.layers.2.mlp.down_proj.weight"
NONE = {"method.retrained.source": ""}
SHORT = {"relearning.seeds": [4], "relearning.learning_rates": [2e-4], "relearning.asked_after": [],
         "relearning.epochs": 2, "relearning.batch_rows": 2, "relearning.rows": 3,
         "texts.row_length": 12}  # fmt: skip


class SweepingLab(ToyLab):
    """A toy that sweeps: everything is computed at once and nothing comes from a cache."""

    methods = METHODS
    settings, method, sweep, labelled, _measured = Lab.settings, Lab.method, Lab.sweep, Lab.labelled, Lab._measured
    _to_be_had, _left_out = Lab._to_be_had, Lab._left_out

    def knowledge_on(self, half: int | None) -> Any:
        return {None: self.knowledge, 1: self.judged}[half]

    def _stored(self, name: str, key: Any) -> None:
        return None

    def _at_once(self, n: int) -> int:
        return n


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.loading.models.RETRAINED_DIR", tmp_path)
    return tmp_path


@pytest.fixture
def other(folder):
    """Another random model of the toy's shapes, its weights stored as the organism's are."""
    model = toy_model(seed=1)
    huggingface(model).save_pretrained(folder)
    return model


# --- one setting, or none ---------------------------------------------------------------------------------------------


def test_its_grid_is_one_setting_where_the_profile_has_such_a_model():
    for name in available_profiles():
        profile = load_profile(name)
        expected = [Retrained()] if profile.model.source == "organism" or profile.model.finetuned else []
        assert Retrained.grid(profile) == Retrained.narrowed(profile, {}) == expected, name
    assert Retrained.grid(load_profile("tiny", NONE)) == []
    with pytest.raises(ValueError, match=r"method\.retrained\.source = 'hub'"):
        Retrained.grid(load_profile("tiny", {"method.retrained.source": "hub"}))
    assert (Retrained().label, Retrained().words) == ("retrained", "never saw the forget text")


# --- in place ---------------------------------------------------------------------------------------------------------


def test_every_weight_is_the_other_models_and_its_answers_are(other):
    lab = ToyLab()
    before = {name: weight.clone() for name, weight in huggingface(lab.model).state_dict().items()}
    edit = Retrained().apply(lab)
    assert edit.original is lab.model and edit.intervention is None and edit.facts() == {}
    found, wanted = huggingface(edit.model).state_dict(), huggingface(other).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert huggingface(edit.model).lm_head.weight is huggingface(edit.model).get_parameter(EMBEDDING)  # still tied
    assert all(torch.equal(weight, before[n]) for n, weight in huggingface(lab.model).state_dict().items())
    expected = lab.knowledge.answers_of(other).unedited
    assert torch.equal(lab.knowledge.answers_under(edit), expected)
    assert not torch.equal(expected, lab.knowledge.answers.unedited)


def test_one_weight_that_differs_is_one_that_changes(folder):
    lab = ToyLab()
    own = {name: weight.detach().clone() for name, weight in huggingface(lab.model).named_parameters()}
    assert "lm_head.weight" not in own
    save_file({**own, DOWN: torch.full((16, 32), 2.0)}, folder / "model.safetensors")
    found = huggingface(Retrained().apply(lab).model).state_dict()
    changed = {
        name for name, weight in huggingface(lab.model).state_dict().items() if not torch.equal(weight, found[name])
    }
    assert changed == {DOWN} and torch.equal(found[DOWN], torch.full((16, 32), 2.0))


def test_the_weights_take_the_models_dtype(other):
    lab = ToyLab()
    huggingface(lab.model).to(torch.bfloat16)
    model = huggingface(Retrained().apply(lab).model)
    weight = huggingface(other).get_parameter(DOWN)
    assert model.dtype == torch.bfloat16 and torch.equal(model.get_parameter(DOWN), weight.to(torch.bfloat16))


def test_it_is_named_by_its_file_and_its_weights_are_read_when_they_are_asked_for(other, folder, monkeypatch):
    lab, read = ToyLab(), []
    monkeypatch.setattr("helpers.loading.models.load_file", lambda file: read.append(file.parent) or load_file(file))
    first, same = Retrained().apply(lab), Retrained().apply(lab)
    assert fingerprint(first) == fingerprint(same) != fingerprint(lab.model) and read == []
    assert first.model is first.model and read == [folder]
    huggingface(toy_model(seed=2)).save_pretrained(folder)
    assert fingerprint(Retrained().apply(lab)) != fingerprint(first)


def test_missing_weights_say_how_to_rebuild_them(folder):
    expected = r"^the organism's retrained model is missing at .*: rebuild it with `make organism`$"
    with pytest.raises(FileNotFoundError, match=expected):
        Retrained().apply(ToyLab())
    with pytest.raises(FileNotFoundError, match=expected):
        retrained_weights(toy_model())


@pytest.mark.parametrize(
    "change",
    [
        lambda own: own.pop(DOWN),
        lambda own: own.update({DOWN: torch.zeros(16, 31)}),
        lambda own: own.update({"model.layers.9.mlp.down_proj.weight": own.pop(DOWN)}),
    ],
)
def test_weights_of_another_model_are_not_mixed_with_the_models_own(folder, change):
    model = toy_model()
    own = {name: weight.detach().clone() for name, weight in huggingface(model).named_parameters()}
    change(own)
    save_file(own, folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"not of the model's shapes, [12] weights differ \(model\.layers\..*one\): reb"
    ):
        retrained_weights(model)


# --- in a sweep and under attack --------------------------------------------------------------------------------------


def test_a_sweep_says_what_the_other_model_knows(other):
    lab = SweepingLab()
    clamp, one = lab.sweep(StaticClamp(2, 5.0), "retrained")
    assert (one.label, one.facts, clamp.label) == ("retrained", {}, "static clamp")
    expected = lab.knowledge.tabulate(lab.knowledge.answers_of(other).unedited, one.table["loss_added"][0])
    pd.testing.assert_frame_equal(one.table, expected)
    assert one.table["loss_added"][0] != 0
    held = held_out(Scores([clamp, one]))
    assert held[held["method"] == "retrained"]["setting"].tolist() == ["never saw the forget text"] * 2


def test_by_its_name_it_is_put_in_place_as_it_is(other):
    lab = SweepingLab()
    edit, facts = put_in_place(lab, "retrained", {})
    assert facts == {"method": "retrained", "chosen": AS_SET} and edit.weights is not None


def test_it_is_attacked_as_other_weights_are(other):
    lab = ToyLab(SHORT)
    lab.forget_documents = [Document("toxins", "the of a and in to is it on that by for was with as at from " * 9)]
    curves = relearning(lab, [Retrained()]).accuracies
    (attack,) = attacks(lab)
    expected = relearned(lab.judged, Retrained().apply(lab), "retrained", attack, in_training=False).accuracies
    pd.testing.assert_frame_equal(curves[list(expected)], expected)
    assert along_the_way(curves)["arm"].tolist() == ["retrained"] * 3


# --- where nobody has one ---------------------------------------------------------------------------------------------


def test_an_empty_grid_is_no_row_and_a_sentence_says_that_it_is_missing(folder):
    lab = SweepingLab(NONE)
    assert lab.sweep("retrained") == Scores() and lab.settings("retrained") == []
    alone, both = lab.sweep(StaticClamp(2, 5.0)), lab.sweep(StaticClamp(2, 5.0), "retrained")
    for table in (points, held_out, score_table):
        pd.testing.assert_frame_equal(table(both), table(alone))
    pd.testing.assert_frame_equal(alignment_table(both, 20), alignment_table(alone, 20))
    chosen = [choose(scores).setting for scores in (both, lab.sweep("retrained")) if scores]  # as notebook 06 does
    assert chosen == [StaticClamp(2, 5.0)]
    held = held_out(both)
    ours = held[held["protocol"] == HELD_OUT].assign(forget_accuracy=0.5)
    said = say("{static_clamp:.2f} and {retrained:.2f}", **numbers(ours, "method", "forget_accuracy"))
    assert said.data == "0.50 and *(missing)*"
    with pytest.raises(ValueError, match=r"^method 'retrained' has no setting under profile 'tiny'$"):
        put_in_place(lab, "retrained", {})
