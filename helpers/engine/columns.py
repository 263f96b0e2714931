"""What an intervention needs of an SAE: the few columns of the chosen features, and the layer they are read at."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    """Share of the residual's variance that the SAE reconstructs: `1 - |x - decode(encode(x))|^2 / |x - mean(x)|^2`.

    Args:
        residuals: [tokens, d_model], without BOS, on which neither Gemma Scope's SAEs nor the organism's were trained.
    """
    with torch.no_grad():
        x = residuals.float()
        error = x - sae.decode(sae.encode(x))
        return float(1 - error.square().sum() / (x - x.mean(dim=0)).square().sum())
