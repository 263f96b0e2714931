"""RMU's loss by hand, and training that moves what it should and nothing else."""

from dataclasses import replace

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer

from helpers.engine.forward import huggingface, residual_after, with_weights
from helpers.engine.steps import Passes
from helpers.methods.rmu import RMU, rmu_loss, steering_target, trained_weights
from helpers.methods.training import train
from helpers.profiles import load_profile
from helpers.text.batches import Batch
from tests.toy import LAYER, ToyLab, toy_model

SETTING = RMU(LAYER, 2.0, 1.0, steps=200, batch_rows=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_loss_by_hand():
    # forget (1, 3) to target (1, 1): mean of 0 and 4 is 2; retain (2, 2) from (1, 3): mean of 1 and 1 is 1, times 10
    forget, retain, frozen = (torch.tensor([[v]]) for v in ([1.0, 3.0], [2.0, 2.0], [1.0, 3.0]))
    assert rmu_loss(forget, retain, frozen, torch.tensor([1.0, 1.0]), alpha=10.0).item() == 12.0


def test_target_has_the_length_positive_entries_and_one_direction_a_seed():
    one, same, other = (steering_target(64, 5.0, seed) for seed in (0, 0, 1))
    assert one.norm().item() == pytest.approx(5.0)
    assert (one >= 0).all()
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_down_projections_of_three_layers_are_trained(model):
    assert list(trained_weights(model, 2)) == [f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1, 2)]
    assert list(trained_weights(model, 1)) == [f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)]


def test_training_steers_forget_text_and_changes_only_its_weights(model):
    draw = torch.Generator().manual_seed(3)
    forget, retain = (torch.randint(low, low + 50, (8, 12), generator=draw) for low in (10, 200))
    before = {k: v.clone() for k, v in huggingface(model).state_dict().items()}
    changed = with_weights(model, train(model, forget, retain, SETTING, Passes(1000)))
    for name, weight in huggingface(changed).state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in trained_weights(model, LAYER)), name
    assert all(torch.equal(v, before[k]) for k, v in huggingface(model).state_dict().items())
    with torch.no_grad():
        batch = Batch(forget, torch.ones_like(forget, dtype=torch.bool), torch.arange(8))
        norm = residual_after(model, batch, LAYER).norm(dim=-1).mean().item()
        target = steering_target(16, 2.0 * norm, 0)
        distance = [(residual_after(m, batch, LAYER) - target).norm(dim=-1).mean().item() for m in (model, changed)]
    assert distance[1] < 0.9 * distance[0]


def test_no_layer_above_the_steered_one_runs(monkeypatch):
    ran = []
    run = Gemma2DecoderLayer.forward
    monkeypatch.setattr(
        Gemma2DecoderLayer,
        "forward",
        lambda self, *a, **k: ran.append(self.self_attn.layer_idx) or run(self, *a, **k),
    )
    rows = torch.arange(10, 106).view(8, 12)
    train(toy_model(), rows, rows + 100, replace(SETTING, steps=2), Passes(1000))
    # the length of the target, then of two steps the frozen model on retain text and the student on both
    assert ran == list(range(LAYER + 1)) * (1 + 2 * 3)


def test_the_same_seed_gives_the_same_weights(model):
    rows = torch.arange(10, 106).view(8, 12)
    setting = RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2, seed=1)
    first, second = (train(model, rows, rows + 100, setting, Passes(1000)) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_the_same_text_for_forget_and_retain_is_refused(model):
    rows = torch.arange(10, 106).view(8, 12)
    with pytest.raises(ValueError, match="the same text"):
        train(model, rows, rows.clone(), SETTING, Passes(1000))


def test_the_grid_is_every_layer_steering_and_alpha_of_the_profile():
    grid = RMU.grid(load_profile("tiny"))
    pairs = [(layer, 30.0, alpha) for layer in (1, 2, 3) for alpha in (30.0, 300.0, 3000.0)]
    assert grid == [RMU(*pair, steps=200, batch_rows=4, learning_rate=1e-2, seed=0) for pair in pairs]
    assert grid[0].words == "layer 1, steering 30, alpha 30, 200 steps"
    assert {setting.label for setting in grid} == {"RMU"} and RMU.trains


def test_what_is_set_by_hand_narrows_the_grid():
    found = RMU.narrowed(load_profile("tiny"), {"layer": 1, "alpha": 5.0, "seed": 3})
    assert found == [RMU(1, 30.0, 5.0, steps=200, batch_rows=4, learning_rate=1e-2, seed=3)]


def test_in_place_it_is_the_trained_model_without_an_intervention(monkeypatch):
    lab, setting, times = ToyLab(), RMU(LAYER, 2.0, 1.0, steps=3, batch_rows=4, learning_rate=1e-2, seed=1), []
    monkeypatch.setattr(
        "helpers.methods.rmu.rmu_loss", lambda *args, **more: times.append(1) or rmu_loss(*args, **more)
    )
    edit, other = setting.apply(lab), replace(setting, seed=2).apply(lab)
    assert (edit.intervention, edit.original, edit.facts()) == (None, lab.model, {})
    assert edit.weights.key != other.weights.key and edit.weights.key == setting.apply(lab).weights.key
    assert times == []  # nothing is trained before the model is asked for
    found = huggingface(edit.model).state_dict()
    assert len(times) == 3
    expected = train(lab.model, lab.forget_rows, lab.retain_rows, setting, Passes.of(lab.profile.model))
    for name, weight in huggingface(lab.model).state_dict().items():
        assert torch.equal(found[name], expected.get(name, weight)), name
    written = []
    monkeypatch.setattr(lab, "seen", lambda stage: written.append(stage) or stage.result)
    kept = lab.edited(setting)  # the same weights, put where the lab keeps them
    assert all(torch.equal(kept.weights.make()[name], expected[name]) for name in expected)
    assert len(written) == len(expected)
