"""What an intervention needs of an SAE: the few columns of the chosen features, and the layer they are read at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # it takes seconds to import, and pictures need it not
    from sae_lens import SAE


@dataclass(frozen=True)
class Columns:
    """What an intervention needs of an SAE: k encoder columns with bias and threshold, and k decoder rows.

    Shapes: encoder [d_model, k], bias [k], threshold [k], decoder [k, d_model]; all float32, for JumpReLU's threshold
    is lost in bfloat16. A gated SAE says by the same columns whether a feature fires and, scaled and shifted by `gain`
    and `offset` [k], how strongly; None where both are one.
    """

    encoder: Tensor
    bias: Tensor
    threshold: Tensor
    decoder: Tensor
    gain: Tensor | None = None
    offset: Tensor | None = None

    def encode(self, residual: Tensor) -> Tensor:
        """Activations [..., k] of residual [..., d_model]: JumpReLU, ReLU where the threshold is 0, or gated."""
        with in_float32(residual.device):
            pre = residual.float() @ self.encoder.to(residual.device) + self.bias.to(residual.device)
        size = pre
        if self.gain is not None and self.offset is not None:
            size = pre * self.gain.to(residual.device) + self.offset.to(residual.device)
        return size.relu() * (pre > self.threshold.to(residual.device))

    def decode(self, activations: Tensor) -> Tensor:
        """What activations [..., k] add to the residual: [..., d_model], without the decoder's bias."""
        with in_float32(activations.device):
            return activations @ self.decoder.to(activations.device)


def in_float32(device: torch.device) -> AbstractContextManager:
    """Products of float32 stay such, while a model is trained under autocast too."""
    low = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if low else nullcontext()


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


# Why single columns of other SAEs say nothing, by their architecture or input normalisation in sae-lens.
ALL_COLUMNS = {
    "topk": "a feature fires if it is among the k largest of all, so one needs every column",
    "abstopk": "a feature fires if it is among the k largest of all, so one needs every column",
    "temporal": "a feature depends on earlier tokens",
    "layer_norm": "every residual is scaled anew, so that a feature's activation is no linear map of it",
    "constant_norm_rescale": "every residual is scaled anew, so that a feature's activation is no linear map of it",
    "expected_average_only_in": "the factor by which residuals are scaled is not in the SAE's files",
}
BY_COLUMNS = ("standard", "jumprelu", "gated")


def check_kind(sae: SAE) -> None:
    """Make sure that single columns suffice. sae-lens keeps trained BatchTopK SAEs as 'jumprelu', which is one of them.

    Raises:
        ValueError: they do not, and why.
    """
    kind, norm = sae.cfg.architecture(), sae.cfg.normalize_activations
    if kind in BY_COLUMNS and norm == "none":
        return
    what = f"architecture {kind!r}" if kind not in BY_COLUMNS else f"input normalisation {norm!r}"
    why = ALL_COLUMNS.get(norm if kind in BY_COLUMNS else kind, "nobody has looked at it")
    raise ValueError(
        f"an SAE of {what} cannot be edited by single columns: {why}; "
        f"allowed are {', '.join(BY_COLUMNS)} (batchtopk is saved as jumprelu) without input normalisation"
    )


def chosen_columns(
    sae: SAE, features: Sequence[int] | Tensor, decoders: Sequence[int] | Tensor | None = None
) -> Columns:
    """The columns of `features`; `decoders` gives the decoder rows when they are another feature's.

    Raises:
        ValueError: single columns do not suffice (`check_kind`).
    """
    check_kind(sae)
    ids = feature_ids(sae, features)
    rows = ids if decoders is None else feature_ids(sae, decoders, unique=False)
    with torch.no_grad():
        encoder, decoder = sae.W_enc[:, ids].float(), sae.W_dec[rows].float()
        centre = sae.b_dec.float() @ encoder if sae.cfg.apply_b_dec_to_input else 0
        if sae.cfg.architecture() == "gated":
            gain = sae.r_mag[ids].float().exp()
            gate, magnitude = sae.b_gate[ids].float() - centre, sae.b_mag[ids].float() - centre * gain
            return Columns(encoder, gate, torch.zeros_like(gain), decoder, gain, magnitude - gate * gain)
        bias = sae.b_enc[ids].float() - centre
        threshold = sae.threshold[ids].float() if hasattr(sae, "threshold") else torch.zeros_like(bias)
        return Columns(encoder, bias, threshold, decoder)


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
    """Share of the residual's variance that the SAE reconstructs: `1 - |x - decode(encode(x))|^2 / |x - mean(x)|^2`.

    Args:
        residuals: [tokens, d_model], without BOS, on which neither Gemma Scope's SAEs nor the organism's were trained.
    """
    with torch.no_grad():
        x = residuals.float()
        error = x - sae.decode(sae.encode(x))
        return float(1 - error.square().sum() / (x - x.mean(dim=0)).square().sum())
