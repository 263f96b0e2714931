"""The one formula: change what chosen SAE features say about the residual stream, and leave all else as it is.

With residual x after layer L and feature activations f = encode(x),

    x' = x + sum over chosen i of  m_i(x) * (v_i - f_i) * W_dec[i]

which equals decode(edited f) + (x - decode(f)), the error-preserving form of all three papers, at the price of the
chosen columns alone. Three independent choices name every published method: *where* m_i is 1 (`own` or `any`), *when* a
sequence is touched (`gate`) and *what* a feature becomes (`value`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from helpers.saes import Columns, chosen_columns, feature_ids, layer_of


@dataclass(frozen=True)
class Scale:
    """A value that depends on the feature itself: f becomes factor * f (Farrell's 'scale' control; 0 ablates)."""

    factor: float


def after_bos(mask: Tensor) -> Tensor:
    """Real tokens without the first one of each row, which is BOS whether the padding is left or right.

    Args:
        mask: [batch, seq], true at real tokens.

    Returns:
        [batch, seq] bool.
    """
    real = mask.bool()
    return real & (real.cumsum(dim=1) > 1)


def hot_fraction(activations: Tensor, mask: Tensor) -> Tensor:
    """DSG's rho(x): the share of real tokens at which any chosen feature fires, with BOS in neither count.

    Args:
        activations: [batch, seq, features] of the chosen features, before any edit.
        mask: [batch, seq], true at real tokens (padding on either side).

    Returns:
        [batch] float64 in [0, 1]; 0 for a row with no token after BOS.
    """
    counted = after_bos(mask)
    hot = (activations > 0).any(dim=-1) & counted
    # float64: 2 hot tokens of 4 are exactly 0.5, so that a gate at its threshold is a matter of counting
    return hot.sum(dim=1).double() / counted.sum(dim=1).clamp(min=1).double()


@dataclass(frozen=True)
class Gate:
    """DSG's sequence-level guard: only a sequence whose hot fraction lies strictly above the threshold is touched."""

    threshold: float

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"a gate's threshold is a fraction of tokens from 0 to 1, got {self.threshold!r}")

    def opens(self, activations: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: which sequences are touched, from activations [batch, seq, features] and mask [batch, seq]."""
        return hot_fraction(activations, mask) > self.threshold


@dataclass(frozen=True, eq=False)
class Clamp:
    """Set chosen features to a value where they (or any of them) fire, and write the change into the residual.

    Args:
        sae: a sae-lens SAE on the residual stream.
        features: ids of the chosen features, without repeats; none is allowed and changes nothing.
        value: what each feature is set to: one number (-20.0 for the papers' c = 20, 0.0 for zero ablation), one number
            per feature, or a `Scale`.
        where: 'own': a feature is set where it fires itself (Farrell, Clamp Prime). 'any': at a token where any chosen
            feature fires, all of them are set (DSG).
        gate: touch a sequence only if this opens (DSG); None touches every sequence.
        decoders: ids of the features whose decoder vectors carry the change; None means the features' own. Farrell's
            'random decoder' control writes along another feature's vector.

    Raises:
        ValueError: a feature id outside the SAE or repeated, a value that is not finite or of the wrong length, an
            unknown `where`, or `decoders` of another length than `features`.
    """

    sae: torch.nn.Module
    features: Sequence[int] | Tensor
    value: float | Sequence[float] | Tensor | Scale
    where: Literal["own", "any"] = "own"
    gate: Gate | None = None
    decoders: Sequence[int] | Tensor | None = None

    def __post_init__(self) -> None:
        ids = feature_ids(self.sae, self.features)
        if self.where not in ("own", "any"):
            raise ValueError(f"where={self.where!r} is unknown, allowed are 'own' and 'any'")
        if self.decoders is not None and len(feature_ids(self.sae, self.decoders, unique=False)) != len(ids):
            raise ValueError(f"{len(ids)} features need as many decoders, got {len(self.decoders)}")
        numbers = torch.as_tensor(self.value.factor if isinstance(self.value, Scale) else self.value)
        if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != len(ids)):
            raise ValueError(
                f"value needs one number or one per feature ({len(ids)}), got shape {tuple(numbers.shape)}"
            )
        if not numbers.double().isfinite().all():
            raise ValueError(f"a clamp value must be a finite number, got {self.value!r}")

    @property
    def layer(self) -> int:
        """The layer after which the residual is edited, as the SAE's metadata says."""
        return layer_of(self.sae)

    @cached_property
    def columns(self) -> Columns:
        """The SAE's encoder and decoder columns of the chosen features."""
        return chosen_columns(self.sae, self.features, self.decoders)

    def activations(self, residual: Tensor) -> Tensor:
        """The chosen features' activations [batch, seq, features] on residual [batch, seq, d_model]."""
        return self.columns.encode(residual)

    def _target(self, activations: Tensor) -> Tensor:
        if isinstance(self.value, Scale):
            return self.value.factor * activations
        return torch.as_tensor(self.value, dtype=activations.dtype, device=activations.device).expand_as(activations)

    def _places(self, activations: Tensor, mask: Tensor) -> Tensor:
        fires = activations > 0
        if self.where == "any":
            fires = fires.any(dim=-1, keepdim=True).expand_as(activations)
        places = fires & after_bos(mask)[..., None]
        if self.gate is not None:
            places = places & self.gate.opens(activations, mask)[:, None, None]
        return places

    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """The edited residual.

        Args:
            residual: [batch, seq, d_model] after layer L.
            mask: [batch, seq], true at real tokens, padded on either side; BOS is the first real token of a row.

        Returns:
            [batch, seq, d_model] in the residual's dtype; bit-equal to `residual` wherever nothing is set.
        """
        activations = self.activations(residual)
        places = self._places(activations, mask.to(residual.device))
        change = torch.where(places, self._target(activations) - activations, 0.0)
        return residual + self.columns.decode(change).to(residual.dtype)
