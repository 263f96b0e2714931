"""The SAE's columns say what the SAE says, and the wrong SAE is refused."""

from types import SimpleNamespace

import pytest
import torch

from helpers.profiles import FOLDER, parse_profile
from helpers.saes import chosen_columns, explained_variance, feature_ids, layer_of, load_sae
from tests.toy import D_MODEL, toy_sae


def test_columns_encode_and_decode_as_the_whole_sae_does():
    sae, x = toy_sae(), 2 * torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(0))
    columns = chosen_columns(sae, [7, 2])
    torch.testing.assert_close(columns.encode(x), sae.encode(x)[:, [7, 2]], atol=1e-6, rtol=0)
    only = torch.zeros(5, 32)
    only[:, [7, 2]] = columns.encode(x)
    torch.testing.assert_close(columns.decode(columns.encode(x)), sae.decode(only) - sae.b_dec, atol=1e-5, rtol=0)


def test_columns_of_an_sae_that_normalises_are_refused():
    sae = toy_sae()
    sae.cfg.normalize_activations = "layer_norm"
    with pytest.raises(ValueError, match="without input normalisation"):
        chosen_columns(sae, [0])


def test_layers_by_hook_name():
    assert layer_of(toy_sae(layer=7)) == 7
    assert layer_of(toy_sae(layer=9, hook="resid_pre")) == 8
    with pytest.raises(ValueError, match=r"expected blocks.N.hook_resid_post"):
        layer_of(toy_sae(layer=9, hook="mlp_out"))


def test_explained_variance_by_hand():
    """An SAE that says b_dec to everything explains nothing of residuals around b_dec; one that says x, everything."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    silent = SimpleNamespace(encode=lambda x: x, decode=lambda f: torch.zeros_like(f))
    perfect = SimpleNamespace(encode=lambda x: x, decode=lambda f: f)
    half = SimpleNamespace(encode=lambda x: x, decode=lambda f: f * torch.tensor([0.0, 1.0]))
    # the variance is 1 + 1 + 4 + 4 = 10, of which the first dimension holds 2
    assert [explained_variance(s, x) for s in (silent, perfect, half)] == pytest.approx([0.0, 1.0, 0.8])


def test_feature_ids_take_lists_ranges_and_tensors():
    for features in ([1, 5], range(1, 6, 4), torch.tensor([1, 5])):
        assert feature_ids(toy_sae(), features).tolist() == [1, 5]
    assert feature_ids(toy_sae(), []).tolist() == []


def test_the_embedded_sae_is_what_the_profile_says(profile, sae):
    assert (layer_of(sae), sae.cfg.d_sae) == (profile.sae.layer, profile.sae.width)


def test_an_sae_of_another_layer_or_width_is_refused():
    text = (FOLDER / "tiny.toml").read_text(encoding="utf-8")
    for old, new in (("width = 2048", "width = 4096"), ("layer = 1 ", "layer = 2 ")):
        with pytest.raises(ValueError, match="asks for an SAE of"):
            load_sae(parse_profile(text.replace(old, new, 1), "tiny"))


def test_missing_weights_say_how_to_rebuild_them(monkeypatch, tmp_path, profile):
    monkeypatch.setattr("helpers.saes.SAE_DIR", tmp_path / "sae")
    with pytest.raises(FileNotFoundError, match="make organism"):
        load_sae(profile)
