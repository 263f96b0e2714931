"""Statistics equal a plain loop; the rules choose what a hand can check, and on real rates what the paper chose."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.features import (
    feature_statistics,
    hot_fractions,
    importance,
    mean_activation,
    select_by_importance,
    select_by_sparsity,
    token_activations,
)
from helpers.engine.forward import residual_after
from helpers.text.batches import Batch
from tests.toy import LAYER, toy_model, toy_sae

PUBLISHED = Path(__file__).parents[2] / "shared" / "published"
ROWS = [[2, 10, 11, 12, 1, 13], [2, 14, 4, 15], [2, 20, 21, 22, 23, 24, 25, 26]]


@pytest.fixture(scope="module")
def model():
    return toy_model()


def one(row):
    ids = torch.tensor([row])
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(1))


@torch.no_grad()
def test_statistics_equal_a_loop_over_tokens_without_special_ones(model):
    sae = toy_sae()
    acts = torch.stack([
        sae.encode(residual_after(model, one(row), LAYER)[0, t])
        for row in ROWS for t, token in enumerate(row) if token > 5  # 0 to 5 are the special tokens
    ]).double().numpy()  # fmt: skip
    for batch_tokens in (1, 1000):
        found = feature_statistics(model, sae, ROWS, batch_tokens)
        assert found["tokens"].eq(4 + 2 + 7).all()
        np.testing.assert_allclose(found["firing_rate"], (acts > 0).mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found["mean"], acts.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found["mean_square"], (acts**2).mean(axis=0), atol=1e-5)


def test_statistics_do_not_depend_on_the_chunk_and_hold_one_chunk_at_a_time(model, monkeypatch):
    sae, held = toy_sae(), []
    whole = feature_statistics(model, sae, ROWS, 1000)
    monkeypatch.setattr("helpers.engine.features.CHUNK_ACTIVATIONS", 3 * sae.cfg.d_sae)
    encode = sae.encode
    monkeypatch.setattr(sae, "encode", lambda x: held.append(len(x)) or encode(x))
    pd.testing.assert_frame_equal(feature_statistics(model, sae, ROWS, 1000), whole, atol=1e-12)
    assert max(held) == 3 and sum(held) == 13


def test_statistics_of_special_tokens_only_is_an_error(model):
    with pytest.raises(ValueError, match="empty"):
        feature_statistics(model, toy_sae(), [[2, 1, 4]], 100)


@torch.no_grad()
def test_hot_fractions_in_the_callers_order(model):
    sae, features = toy_sae(), [3, 5, 8]
    expected = []
    for row in ROWS:
        acts = sae.encode(residual_after(model, one(row), LAYER))[0, 1:, features]
        expected.append((acts > 0).any(dim=-1).double().mean().item())
    np.testing.assert_allclose(hot_fractions(model, sae, features, ROWS, 16), expected)


@torch.no_grad()
def test_token_activations_are_the_saes_in_the_callers_order(model):
    sae, features = toy_sae(), (8, 3, 5)
    for batch_tokens in (1, 16, 1000):
        found = token_activations(model, sae, features, ROWS, batch_tokens)
        assert [activations.shape for activations in found] == [(6, 3), (4, 3), (8, 3)]
        for activations, row in zip(found, ROWS, strict=True):
            expected = sae.encode(residual_after(model, one(row), LAYER))[0][:, list(features)]
            torch.testing.assert_close(activations, expected, atol=1e-5, rtol=0)
    assert any((activations > 0).any() for activations in found)
    (short,) = token_activations(model, sae, features, [ROWS[2][:5]], 1000)
    torch.testing.assert_close(found[2][:5], short, atol=1e-5, rtol=0)  # what comes later changes nothing before it


def test_mean_activation_by_hand():
    # where they fire: 0.2 / 0.1 = 2, 0.9 / 0.3 = 3, 4 / 0.5 = 8; each counts alike, however often it fires
    table = pd.DataFrame({"firing_rate": [0.1, 0.3, 0.5], "mean": [0.2, 0.9, 4.0]})
    assert mean_activation(table, [0, 1]) == pytest.approx(2.5)
    assert mean_activation(table, np.array([2])) == pytest.approx(8.0)
    assert mean_activation(table, (2, 1, 0)) == pytest.approx(13 / 3)


@torch.no_grad()
def test_mean_activation_is_the_mean_over_tokens_where_a_feature_fires(model):
    sae = toy_sae()
    acts = torch.cat([sae.encode(residual_after(model, one(row), LAYER)[0])[[t > 5 for t in row]] for row in ROWS])
    features = [i for i in range(32) if (acts[:, i] > 0).any()][:5]
    expected = np.mean([acts[:, i][acts[:, i] > 0].mean().item() for i in features])
    assert mean_activation(feature_statistics(model, sae, ROWS, 1000), features) == pytest.approx(expected, abs=1e-5)


def test_importance_as_the_paper_says_and_as_the_released_code_has_it():
    table = pd.DataFrame({"mean": [2.0, 3.0], "mean_square": [5.0, 9.5]})
    assert importance(table).tolist() == [5.0, 9.5]
    assert importance(table, released=True).tolist() == [4.0, 9.0]


def test_sparsity_rule_by_hand():
    forget = np.array([0.5, 0.4, 0.3, 0.2, 0.0])
    retain = np.array([0.010, 0.009, 0.0, 0.5, 0.0])
    # 0 is at the threshold and out, 3 is above it, 4 never fires on forget text
    assert select_by_sparsity(forget, retain, 5, 0.01).tolist() == [1, 2]
    assert select_by_sparsity(forget, retain, 1, 0.01).tolist() == [1]


def test_importance_rule_by_hand():
    forget = np.array([8.0, 6.0, 9.0, 1.0])
    retain = np.array([4.0, 1.0, 9.0, 0.1])
    # ratios 2, 6, 1, 10: the median is 4, so 1 and 3 are kept; the 5th percentile of forget (1.75) drops 3
    assert select_by_importance(forget, retain, 4, 50.0).tolist() == [1]
    assert select_by_importance(forget, retain, 4, 50.0, forget_percentile=0.0).tolist() == [1, 3]
    assert select_by_importance(forget, retain, 1, 0.0, forget_percentile=0.0).tolist() == [2]


def test_a_feature_that_never_fires_on_retain_text_has_the_largest_ratio():
    assert select_by_importance(np.array([1e-9, 1.0]), np.array([0.0, 1e-6]), 2, 100.0, 0.0).tolist() == [0]


@pytest.mark.parametrize("rule", [select_by_sparsity, select_by_importance])
def test_bad_input_is_named(rule):
    with pytest.raises(ValueError, match="equal length"):
        rule(np.ones(3), np.ones(4), 1, 0.5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        rule(np.ones(3), np.ones(3), 0, 0.5)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published firing rates are not beside this checkout")
@pytest.mark.parametrize("layer", [3, 7])
def test_sparsity_rule_on_real_rates_returns_the_papers_features(layer):
    rates = np.load(PUBLISHED / "farrell2024_gemma-2-2b-it_firing_rates.npz", allow_pickle=False)
    points = pd.read_csv(PUBLISHED / "farrell2024_gemma-2-2b-it_points.csv")
    points = points[(points["layer"] == layer) & (points["method"] == "sae_clamp")]
    assert len(points) >= 15
    for point in points.itertuples():
        chosen = select_by_sparsity(
            rates[f"layer{layer}_forget"], rates[f"layer{layer}_retain"], int(point.n_features), point.retain_threshold
        )
        assert chosen.tolist() == [int(i) for i in point.features.split()]
