"""The SAE's columns say what the SAE says, and the wrong SAE is refused."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from safetensors.torch import save_file

from helpers.engine.columns import check_kind, chosen_columns, explained_variance, feature_ids, layer_of
from helpers.engine.interventions import Clamp
from helpers.loading.hub import Hub, files_of
from helpers.loading.saes import converted, load_sae, read_tensors
from helpers.loading.sources import sae_source
from helpers.organism import sae_dir
from helpers.profiles import FOLDER, available_profiles, load_profile, parse_profile
from tests.toy import D_MODEL, brute_force_clamp, toy_sae


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


# --- kinds of SAEs ----------------------------------------------------------------------------------------------------


def filled(sae: SAE) -> SAE:
    """With random numbers in every weight, about a tenth of the features firing."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * D_MODEL**-0.5)
        for name in ("b_enc", "b_gate"):
            if getattr(sae, name, None) is not None:
                getattr(sae, name).sub_(1.0)
    return sae.eval().requires_grad_(False)


def shape(centred: bool) -> dict:
    return {"d_in": D_MODEL, "d_sae": 32, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": centred,
            "normalize_activations": "none", "metadata": SAEMetadata(hook_name="blocks.1.hook_resid_post")}  # fmt: skip


def saved_batchtopk(centred: bool, folder: Path) -> SAE:
    """A BatchTopK SAE as sae-lens keeps it after training."""
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=4, rescale_acts_by_decoder_norm=False, **shape(centred)))
    filled(sae)
    sae.topk_threshold.fill_(0.3)
    sae.save_inference_model(folder)
    return SAE.load_from_disk(folder)


KINDS = {
    "standard": lambda centred, folder: filled(StandardSAE(StandardSAEConfig(**shape(centred)))),
    "jumprelu": lambda centred, folder: filled(JumpReLUSAE(JumpReLUSAEConfig(**shape(centred)))),
    "gated": lambda centred, folder: filled(GatedSAE(GatedSAEConfig(**shape(centred)))),
    "batchtopk": saved_batchtopk,
}


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_single_columns_of_a_kind_say_what_the_whole_sae_says(kind, centred, tmp_path):
    sae, ids = KINDS[kind](centred, tmp_path / "sae"), list(range(31, -1, -3))
    x = 2 * torch.randn(2, 40, D_MODEL, generator=torch.Generator().manual_seed(0))
    found, whole = chosen_columns(sae, ids).encode(x), sae.encode(x)[..., ids]
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert 0.02 < float((found > 0).float().mean()) < 0.9
    mask = torch.ones(2, 40)
    edited = Clamp(sae, ids, -4.0)(x, mask)
    torch.testing.assert_close(edited, brute_force_clamp(sae, x, mask, ids, -4.0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        (lambda: TopKSAE(TopKSAEConfig(k=4, **shape(False))), "'topk' cannot .*: a feature fires if it is among the k"),
        (lambda: StandardSAE(StandardSAEConfig(**shape(False) | {"normalize_activations": "layer_norm"})),
         "input normalisation 'layer_norm' cannot .*: every residual is scaled anew"),
        (lambda: JumpReLUSAE(JumpReLUSAEConfig(**shape(False) | {"normalize_activations": "expected_average_only_in"})),
         "the factor by which residuals are scaled is not in the SAE's files"),
        (lambda: SimpleNamespace(cfg=SimpleNamespace(architecture=lambda: "new", normalize_activations="none")),
         "'new' cannot .*: nobody has looked at it; allowed are standard, jumprelu, gated"),
    ],
    ids=["topk", "layer norm", "unknown factor", "unknown kind"],
)  # fmt: skip
def test_where_single_columns_do_not_suffice_one_line_says_why(sae, message):
    with pytest.raises(ValueError, match=message):
        check_kind(sae())


def test_a_kind_that_is_not_served_is_refused_when_it_is_loaded(monkeypatch, tmp_path, profile):
    TopKSAE(TopKSAEConfig(k=4, **shape(False))).save_model(tmp_path)
    monkeypatch.setattr("helpers.loading.saes.sae_dir", lambda layer: tmp_path)
    with pytest.raises(ValueError, match="architecture 'topk' cannot be edited by single columns"):
        load_sae(profile)


# --- other releases ---------------------------------------------------------------------------------------------------


class Folder(Hub):
    """A hub that is a folder here."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def fetch(self, source):
        assert files_of(source, self.folder), source.files
        return self.folder


def test_a_file_of_gemma_scope_2_is_read_from_the_cache_without_asking_the_hub(tmp_path):
    """sae-lens would ask for the file's header, cached or not."""
    toy = toy_sae()
    names = {"w_enc": toy.W_enc, "w_dec": toy.W_dec, "b_enc": toy.b_enc, "b_dec": toy.b_dec, "threshold": toy.threshold}
    folder = tmp_path / "resid_post/layer_13_width_16k_l0_medium"
    folder.mkdir(parents=True)
    save_file({name: weight.data.clone() for name, weight in names.items()}, folder / "params.safetensors")
    profile = load_profile("gemma-3-1b-it", {"sae.width": 32})
    sae, x = load_sae(profile, hub=Folder(tmp_path)), torch.randn(9, D_MODEL)
    assert torch.equal(sae.encode(x), toy.encode(x)) and torch.equal(
        sae.decode(toy.encode(x)), toy.decode(toy.encode(x))
    )
    assert layer_of(sae) == 13
    save_file({"w_enc": toy.W_enc.data}, folder / "params.safetensors")
    with pytest.raises(ValueError, match="is not an SAE of Gemma Scope 2's: it has no b_dec, b_enc, threshold, w_dec"):
        load_sae(profile, hub=Folder(tmp_path))


def test_the_files_of_a_release_are_where_it_keeps_them():
    ids = {name: sae_source(load_profile(name)).files for name in ("gemma-2-9b-it", "gemma-3-4b-it", "llama-3.1-8b-it")}
    assert ids == {
        "gemma-2-9b-it": ("layer_9/width_16k/average_l0_88/*",),
        "gemma-3-4b-it": ("resid_post/layer_17_width_16k_l0_medium/*",),
        "llama-3.1-8b-it": ("Llama3_1-8B-Base-L9R-8x/*",),
    }


def test_releases_ids_and_folders_are_those_of_sae_lens():
    """Its registry, as installed, knows every SAE that a profile names, at the place from which it is fetched."""
    registry = get_pretrained_saes_directory()
    for name in available_profiles():
        for number in (None, *load_profile(name).notebooks):
            profile = load_profile(name, notebook=number)
            if profile.sae.source in ("organism", "eoinf/unlearning_saes"):
                continue
            release = registry[profile.sae.source]
            assert release.repo_id == sae_source(profile).repo
            assert sae_source(profile).files == (f"{release.saes_map[profile.sae.id]}/*",), (name, number)
