"""SAEs from a profile, checked when they are loaded."""

import os
import re
import tempfile
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from safetensors.torch import load_file
from torch import Tensor

from helpers.engine.columns import check_kind, layer_of
from helpers.loading.hub import Hub, own_cache
from helpers.loading.sources import sae_source
from helpers.organism import sae_dir
from helpers.profiles import Profile


def load_sae(profile: Profile, device: torch.device | str = "cpu", hub: Hub | None = None) -> SAE:
    """The profile's SAE in float32 and eval mode, of the width and layer that the profile says.

    That it explains this model's residual stream is checked where both are at hand: `engine.forward.check_pair`.

    Args:
        device: where the residual is that it reads.
        hub: keeps the record of what is fetched.

    Raises:
        FileNotFoundError: the organism's weights are missing.
        HubError: the SAE cannot be fetched.
        ValueError: the source is unknown, width or layer differ from the profile, or single columns of such an SAE do
            not suffice (`check_kind`).
    """
    if profile.sae.source == "organism":
        sae = SAE.load_from_disk(_organism(profile.sae.layer), device=str(device), dtype="float32")
    else:
        sae = _from_hub(profile, str(device), hub or Hub())
    sae = sae.eval().requires_grad_(False)
    check_kind(sae)
    found = {"layer": layer_of(sae), "width": sae.cfg.d_sae}
    wanted = {"layer": profile.sae.layer, "width": profile.sae.width}
    if found != wanted:
        raise ValueError(f"profile {profile.name!r} asks for an SAE of {wanted}, the loaded one has {found}")
    return sae


def _organism(layer: int) -> Path:
    folder = sae_dir(layer)
    if not (folder / "cfg.json").is_file():
        raise FileNotFoundError(
            f"the organism has no SAE after layer {layer} ({folder.name}/ is missing): correct sae.layer, or rebuild "
            "the organism with `make organism`"
        )
    return folder


def _from_hub(profile: Profile, device: str, hub: Hub) -> SAE:
    # fetched first, so that its commit is known and what fails is said as everywhere; sae-lens finds it in the cache
    folder = hub.fetch(sae_source(profile))
    if profile.sae.id.endswith(".pt"):
        return SAE.load_from_disk(converted(folder / profile.sae.id, folder.name), device=device, dtype="float32")
    if profile.sae.source.startswith("gemma-scope-2-"):
        return _gemma_scope_2(next(folder.glob(f"**/{profile.sae.id}/params.safetensors")), profile.sae.layer).to(
            device
        )
    return SAE.from_pretrained(profile.sae.source, profile.sae.id, device=device, dtype="float32")


def _gemma_scope_2(path: Path, layer: int) -> SAE:
    """A JumpReLU SAE of Gemma Scope 2 from its own file: sae-lens asks the hub for the file's header, cached or not."""
    weights, names = load_file(path), ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    if missing := sorted({name.lower() for name in names} - set(weights)):
        raise ValueError(f"{path.parent.name} is not an SAE of Gemma Scope 2's: it has no {', '.join(missing)}")
    d_in, d_sae = weights["w_enc"].shape
    cfg = JumpReLUSAEConfig(
        d_in=d_in, d_sae=d_sae, dtype="float32", device="cpu", apply_b_dec_to_input=False,
        normalize_activations="none", metadata=SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post"),
    )  # fmt: skip
    sae = JumpReLUSAE(cfg)
    sae.load_state_dict({name: weights[name.lower()].float() for name in names})
    return sae


# --- Farrell's own SAE ------------------------------------------------------------------------------------------------


class _Config:
    """Stands for the settings object that Farrell's file holds beside the weights: taken in, and never looked at."""


def converted(path: Path, commit: str) -> Path:
    """A folder with Farrell's SAE as sae-lens keeps it, made once from the `.pt` file and kept in the cache.

    The file's name tells the hook: '..._blocks.9.hook_resid_pre_...'.

    Raises:
        ValueError: the file holds anything but tensors and that settings object, or tensors of other names or shapes.
    """
    folder = own_cache() / commit / path.stem
    if not folder.is_dir():
        sae = _standard_sae(path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            sae.save_model(Path(temporary) / "sae")
            if not folder.is_dir():  # a run beside this one may have made it meanwhile
                os.rename(Path(temporary) / "sae", folder)
    return folder


def _standard_sae(path: Path) -> SAE:
    """relu(x W_enc + b_enc) W_dec + b_dec, as the authors' code computes it: b_dec is not subtracted from x."""
    weights = read_tensors(path)
    hook = re.search(r"blocks\.\d+\.hook_\w+?(?=_s\d|$)", path.stem)
    shapes = {name: tuple(weights[name].shape) for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name in weights}
    d_in, d_sae = shapes.get("W_enc", (0, 0))
    expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    if shapes != expected or hook is None:
        raise ValueError(f"{path.name} is not an SAE of Farrell's: it holds {shapes or 'none of its weights'}")
    cfg = StandardSAEConfig(
        d_in=d_in, d_sae=d_sae, dtype="float32", device="cpu", apply_b_dec_to_input=False,
        normalize_activations="none", metadata=SAEMetadata(hook_name=hook[0]),
    )  # fmt: skip
    sae = StandardSAE(cfg)
    sae.load_state_dict({name: weights[name].float() for name in expected})
    return sae


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` file of {"cfg": settings, "state_dict": tensors}, read without running any code in it.

    What the file would import is listed first, without reading it. Torch's restricted unpickler then builds tensors and
    plain values only; one class more is let in, and as an empty shell.

    Raises:
        ValueError: the file holds an object of any other class, or no tensors.
    """
    with torch.serialization.safe_globals([(_Config, "sae.config.Config")]):
        refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if refused:
            what = ", ".join(sorted(refused))
            raise ValueError(f"{path.name} is refused: it holds {what}, and only tensors and settings are read from it")
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{path.name} is not an SAE of Farrell's: it holds no `state_dict`")
    return {name: tensor for name, tensor in content["state_dict"].items() if isinstance(tensor, Tensor)}
