"""SAEs from a profile, checked at load, and the few columns of one that an intervention needs."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from torch import Tensor

from helpers.hub import Hub, own_cache
from helpers.organism import SAE_DIR
from helpers.profiles import Profile
from helpers.sources import sae_source

EXPLAINED_VARIANCE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Columns:
    """What an intervention needs of an SAE: k encoder columns with bias and threshold, and k decoder rows.

    Shapes: encoder [d_model, k], bias [k], threshold [k], decoder [k, d_model]; all float32, for JumpReLU's threshold
    is lost in bfloat16.
    """

    encoder: Tensor
    bias: Tensor
    threshold: Tensor
    decoder: Tensor

    def encode(self, residual: Tensor) -> Tensor:
        """Activations [..., k] of residual [..., d_model]: JumpReLU, or ReLU where the threshold is 0."""
        pre = residual.float() @ self.encoder.to(residual.device) + self.bias.to(residual.device)
        return pre.relu() * (pre > self.threshold.to(residual.device))

    def decode(self, activations: Tensor) -> Tensor:
        """What activations [..., k] add to the residual: [..., d_model], without the decoder's bias."""
        return activations @ self.decoder.to(activations.device)


def feature_ids(sae: SAE, features: Sequence[int] | Tensor, unique: bool = True) -> Tensor:
    """Feature ids as a 1-D int64 tensor.

    Raises:
        ValueError: an id outside 0..d_sae-1, or a repeated one when `unique`.
    """
    ids = torch.as_tensor(features).cpu().reshape(-1)
    if ids.numel() and (ids.is_floating_point() or ids.dtype == torch.bool):
        raise ValueError(f"feature ids must be whole numbers, got {ids.dtype}")
    ids = ids.long()
    outside = [i for i in ids.tolist() if not 0 <= i < sae.cfg.d_sae]
    if outside:
        raise ValueError(f"feature ids {outside} are outside this SAE, which has 0 to {sae.cfg.d_sae - 1}")
    if unique and len(ids.unique()) != len(ids):
        raise ValueError(f"feature ids are repeated: {ids.tolist()}")
    return ids


def chosen_columns(
    sae: SAE, features: Sequence[int] | Tensor, decoders: Sequence[int] | Tensor | None = None
) -> Columns:
    """The columns of `features`; `decoders` gives the decoder rows when they are another feature's.

    Raises:
        ValueError: the SAE is not a plain ReLU or JumpReLU SAE on the residual itself, where single columns suffice.
    """
    cfg = sae.cfg
    if cfg.architecture() not in ("jumprelu", "standard") or cfg.normalize_activations != "none":
        raise ValueError(
            f"single columns need a 'standard' or 'jumprelu' SAE without input normalisation, "
            f"got {cfg.architecture()!r} with {cfg.normalize_activations!r}"
        )
    ids = feature_ids(sae, features)
    rows = ids if decoders is None else feature_ids(sae, decoders, unique=False)
    with torch.no_grad():
        encoder, bias = sae.W_enc[:, ids].float(), sae.b_enc[ids].float()
        if cfg.apply_b_dec_to_input:
            bias = bias - sae.b_dec.float() @ encoder
        threshold = sae.threshold[ids].float() if hasattr(sae, "threshold") else torch.zeros_like(bias)
        return Columns(encoder, bias, threshold, sae.W_dec[rows].float())


def layer_of(sae: SAE) -> int:
    """The layer after which the SAE reads the residual: 7 for 'blocks.7.hook_resid_post' and 'blocks.8.hook_resid_pre'.

    Raises:
        ValueError: the metadata names no residual-stream hook.
    """
    name = sae.cfg.metadata.get("hook_name") or ""
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", name)
    if match is None:
        raise ValueError(f"the SAE's hook is {name!r}, expected blocks.N.hook_resid_post or blocks.N.hook_resid_pre")
    return int(match[1]) - (match[2] == "pre")


def explained_variance(sae: SAE, residuals: Tensor) -> float:
    """Share of the residual's variance that the SAE reconstructs: 1 - |x - decode(encode(x))|^2 / |x - mean(x)|^2.

    Args:
        residuals: [tokens, d_model], without BOS, on which neither Gemma Scope's SAEs nor the organism's were trained.
    """
    with torch.no_grad():
        x = residuals.float()
        error = x - sae.decode(sae.encode(x))
        return float(1 - error.square().sum() / (x - x.mean(dim=0)).square().sum())


def load_sae(profile: Profile, device: torch.device | str = "cpu", hub: Hub | None = None) -> SAE:
    """The profile's SAE in float32 and eval mode, of the width and layer that the profile says.

    That it explains this model's residual stream is checked where both are at hand: `helpers.models.check_pair`.

    Args:
        device: where the residual is that it reads.
        hub: keeps the record of what is fetched.

    Raises:
        FileNotFoundError: the organism's weights are missing.
        HubError: the SAE cannot be fetched.
        ValueError: the source is unknown, or width or layer differ from the profile.
    """
    if profile.sae.source == "organism":
        sae = SAE.load_from_disk(_organism(), device=str(device), dtype="float32")
    else:
        sae = _from_hub(profile, str(device), hub or Hub())
    sae = sae.eval().requires_grad_(False)
    found = {"layer": layer_of(sae), "width": sae.cfg.d_sae}
    wanted = {"layer": profile.sae.layer, "width": profile.sae.width}
    if found != wanted:
        raise ValueError(f"profile {profile.name!r} asks for an SAE of {wanted}, the loaded one has {found}")
    return sae


def _organism() -> Path:
    if not (SAE_DIR / "cfg.json").is_file():
        raise FileNotFoundError(f"the organism's SAE is missing at {SAE_DIR.name}/: rebuild it with `make organism`")
    return SAE_DIR


def _from_hub(profile: Profile, device: str, hub: Hub) -> SAE:
    # fetched first, so that its commit is known and what fails is said as everywhere; sae-lens finds it in the cache
    folder = hub.fetch(sae_source(profile))
    if profile.sae.id.endswith(".pt"):
        return SAE.load_from_disk(converted(folder / profile.sae.id, folder.name), device=device, dtype="float32")
    return SAE.from_pretrained(profile.sae.source, profile.sae.id, device=device, dtype="float32")


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

    Torch's restricted unpickler builds tensors and plain values only; one class more is let in, and as an empty shell.

    Raises:
        ValueError: the file holds an object of any other class, or no tensors.
    """
    try:
        with torch.serialization.safe_globals([(_Config, "sae.config.Config")]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor for name, tensor in content["state_dict"].items() if isinstance(tensor, Tensor)}
    except Exception as error:
        found = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+\.\w+)", str(error))
        what = f"it holds {found[1]}" if found else f"{type(error).__name__}"
        raise ValueError(f"{path.name} is refused, only tensors and settings are read from it: {what}") from None
