"""The SAE's columns say what the SAE says, and the wrong SAE is refused."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from sae_lens import SAE

from helpers.engine.columns import chosen_columns, explained_variance, feature_ids, layer_of
from helpers.loading.saes import converted, load_sae, read_tensors
from helpers.organism import sae_dir
from helpers.profiles import FOLDER, parse_profile
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


def test_an_sae_of_another_layer_or_width_is_refused(monkeypatch):
    text = (FOLDER / "tiny.toml").read_text(encoding="utf-8")
    monkeypatch.setattr("helpers.loading.saes.sae_dir", lambda layer: sae_dir(1))
    for old, new in (("width = 2048", "width = 4096"), ("layer = 1 ", "layer = 2 ")):
        with pytest.raises(ValueError, match="asks for an SAE of"):
            load_sae(parse_profile(text.replace(old, new, 1), "tiny"))


def test_a_layer_without_an_sae_is_said():
    text = (FOLDER / "tiny.toml").read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="no SAE after layer 3"):
        load_sae(parse_profile(text.replace("layer = 1 ", "layer = 3 ", 1), "tiny"))


def test_missing_weights_say_how_to_rebuild_them(monkeypatch, tmp_path, profile):
    monkeypatch.setattr("helpers.loading.saes.sae_dir", lambda layer: tmp_path / f"sae-{layer}")
    with pytest.raises(FileNotFoundError, match="make organism"):
        load_sae(profile)


class Config:
    """Farrell's settings object, of which only the class's name matters."""

    def __init__(self) -> None:
        self.d_in, self.dtype, self.device = 3, torch.float32, torch.device("cpu")


class Payload:
    """An object whose unpickling runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def farrell(monkeypatch, tmp_path):
    """A made-up file in Farrell's layout, whose settings object is of a class that cannot be imported any more."""
    module = ModuleType("sae.config")
    module.Config = type("Config", (Config,), {"__module__": "sae.config", "__qualname__": "Config"})
    torch.manual_seed(0)
    shapes = {"W_enc": (3, 5), "b_enc": (5,), "W_dec": (5, 3), "b_dec": (3,)}
    content = {"cfg": module.Config(), "state_dict": {name: torch.randn(shape) for name, shape in shapes.items()}}
    path = tmp_path / "sparse_autoencoder_gemma-2b-it_blocks.9.hook_resid_pre_s5_127.pt"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sae", ModuleType("sae"))
        patch.setitem(sys.modules, "sae.config", module)
        torch.save(content, path)
    monkeypatch.setattr("helpers.loading.saes.own_cache", lambda: tmp_path / "cache")
    return path, content["state_dict"]


def test_farrells_file_becomes_an_sae_that_computes_what_the_authors_code_does(farrell):
    path, weights = farrell
    folder = converted(path, "commit")
    assert sorted(file.name for file in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    sae, x = SAE.load_from_disk(folder), torch.randn(7, 3)
    features = (x @ weights["W_enc"] + weights["b_enc"]).relu()
    torch.testing.assert_close(sae.encode(x), features)
    torch.testing.assert_close(sae.decode(features), features @ weights["W_dec"] + weights["b_dec"])
    torch.testing.assert_close(chosen_columns(sae, [4, 1]).encode(x), features[:, [4, 1]])
    assert layer_of(sae) == 8


def test_farrells_file_is_converted_once(farrell):
    path, _ = farrell
    folder = converted(path, "commit")
    path.unlink()
    assert converted(path, "commit") == folder and [f.name for f in folder.parent.iterdir()] == [path.stem]


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"cfg": Payload(f"touch {trace}"), "state_dict": {}}, path)
    with pytest.raises(ValueError, match=r"evil.pt is refused: it holds \w+\.system, and only tensors"):
        read_tensors(path)
    assert not trace.exists()


def test_another_file_than_farrells_is_refused(farrell, tmp_path):
    path, weights = farrell
    torch.save({"cfg": None, "state_dict": weights | {"b_enc": torch.zeros(4)}}, path)
    with pytest.raises(ValueError, match="is not an SAE of Farrell's: it holds {'W_enc'"):
        converted(path, "commit")
    torch.save({"weights": 1}, path)
    with pytest.raises(ValueError, match="holds no `state_dict`"):
        converted(path, "commit")
    assert not (tmp_path / "cache").exists()
