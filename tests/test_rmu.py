"""RMU's loss by hand, and training that moves what it should and nothing else."""

import pytest
import torch

from helpers.engine.forward import huggingface, residual_after
from helpers.methods.rmu import RMU, rmu_loss, steering_target, train_rmu, trained_weights, with_weights
from helpers.text.batches import Batch
from tests.toy import LAYER, toy_model

SETTING = RMU(layer=LAYER, steering=2.0, alpha=1.0, steps=100, batch_rows=4, learning_rate=1e-2, seed=0)


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
    changed = with_weights(model, train_rmu(model, forget, retain, SETTING))
    for name, weight in huggingface(changed).state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in trained_weights(model, LAYER)), name
    assert all(torch.equal(v, before[k]) for k, v in huggingface(model).state_dict().items())
    with torch.no_grad():
        batch = Batch(forget, torch.ones_like(forget, dtype=torch.bool), torch.arange(8))
        norm = residual_after(model, batch, LAYER).norm(dim=-1).mean().item()
        target = steering_target(16, 2.0 * norm, 0)
        distance = [(residual_after(m, batch, LAYER) - target).norm(dim=-1).mean().item() for m in (model, changed)]
    assert distance[1] < 0.9 * distance[0]


def test_the_same_seed_gives_the_same_weights(model):
    rows = torch.arange(10, 106).view(8, 12)
    setting = RMU(LAYER, 2.0, 1.0, 2, 4, 1e-2, seed=1)
    first, second = (train_rmu(model, rows, rows + 100, setting) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_the_same_text_for_forget_and_retain_is_refused(model):
    rows = torch.arange(10, 106).view(8, 12)
    with pytest.raises(ValueError, match="the same text"):
        train_rmu(model, rows, rows.clone(), SETTING)


def test_weights_of_another_model_are_refused(model):
    with pytest.raises(ValueError, match="no weights named"):
        with_weights(model, {"model.layers.99.mlp.down_proj.weight": torch.zeros(1)})
