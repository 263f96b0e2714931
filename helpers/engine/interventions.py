"""The one formula: change what chosen SAE features say about the residual stream, and leave all else as it is.

With residual x after layer L and feature activations f = encode(x),

    x' = x + sum over chosen i of  m_i(x) * (v_i - f_i) * W_dec[i]

which equals decode(edited f) + (x - decode(f)), the error-preserving form of all three papers, at the price of the
chosen columns alone. Three independent choices name every published method: *where* m_i is 1 (`where`, `triggers`),
*when* a sequence is touched (`gate`) and *what* a feature becomes (`value`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from helpers.engine.columns import Columns, chosen_columns, feature_ids, layer_of

# What a gate decides by at tokens that the model itself says (`DuringGeneration`).
New = Literal["never", "held", "each", "running"]


@dataclass(frozen=True)
class Scale:
    """A value that depends on the feature itself: f becomes factor * f (Farrell's 'scale' control; 0 ablates)."""

    factor: float


@dataclass(frozen=True)
class Add:
    """A value that depends on the feature itself: f becomes f + amount, one number or one per feature (steering)."""

    amount: float | Sequence[float]


def after_bos(mask: Tensor) -> Tensor:
    """Real tokens without the first one of each row, which is BOS whether the padding is left or right.

    Args:
        mask: [batch, seq], true at real tokens.

    Returns:
        [batch, seq] bool.
    """
    real = mask.bool()
    return real & (real.cumsum(dim=1) > 1)


def hot_fraction(hot: Tensor, mask: Tensor) -> Tensor:
    """Muhamed et al.'s rho(x): the share of real tokens at which any chosen feature fires, with BOS in neither count.

    Args:
        hot: [batch, seq] bool, true at tokens where any chosen feature fires.
        mask: [batch, seq], true at real tokens (padding on either side).

    Returns:
        [batch] float64 in [0, 1]; 0 for a row with no token after BOS.
    """
    counted = after_bos(mask)
    # float64: 2 hot tokens of 4 are exactly 0.5, so that a gate at its threshold is a matter of counting
    return (hot & counted).sum(dim=1).double() / counted.sum(dim=1).clamp(min=1).double()


@dataclass(frozen=True)
class Gate:
    """Only a sequence whose score lies strictly above the threshold is touched; the score is rho (Muhamed et al.).

    Heirs score otherwise, and may look at more than hot tokens (`helpers.methods.gates`).
    """

    threshold: float

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"a gate's threshold is a fraction of tokens from 0 to 1, got {self.threshold!r}")

    def evidence(self, residual: Tensor, hot: Tensor) -> Tensor:
        """What the gate sees of each token, [batch, seq, ...], from residual [batch, seq, d_model]: is it hot."""
        return hot

    def score(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] float64: what the threshold is for, from the evidence at each token and mask [batch, seq].

        The tokens of a sequence stand in their order, but there may be gaps between them (see `touched_prompts`).
        """
        return hot_fraction(evidence, mask)

    def opens(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: which sequences are touched."""
        return self.score(evidence, mask) > self.threshold


@dataclass(frozen=True, eq=False)
class Clamp:
    """Set chosen features to a value where they (or any of them) fire, and write the change into the residual.

    Args:
        sae: a sae-lens SAE on the residual stream.
        features: ids of the chosen features, without repeats; none is allowed and changes nothing.
        value: what each feature is set to: one number (-20.0 for the papers' c = 20, 0.0 for zero ablation), one number
            per feature (Khoriaty's 'proportional'), a `Scale` or an `Add`.
        where: 'own': a feature is set where it fires itself (Farrell, Khoriaty). 'any': at a token where any chosen
            feature fires, all of them are set (Muhamed). 'always': at every token (plain steering).
        gate: touch a sequence only if this opens (Muhamed); None touches every sequence.
        decoders: ids of the features whose decoder vectors carry the change; None means the features' own. Farrell's
            'random decoder' control writes along another feature's vector.
        triggers: ids of the features whose firing decides in place of the chosen ones, which are then set wherever any
            trigger fires (Khoriaty: harmful features trigger, a refusal feature is set); needs where='any'.
        fires_above: a feature fires where its activation is larger than this (Khoriaty: 0.05).
        bos: whether BOS may be touched too, as in the released code of Farrell and Khoriaty and in lm-eval's `steered`;
            no hot fraction counts it even so.
        keep_error: what the SAE does not reconstruct stays in the residual, as in all three papers; without it every
            token that may be touched is replaced by its edited reconstruction (a third party's refusal clamp).

    Raises:
        ValueError: a feature id outside the SAE or repeated, a value that is not finite or of the wrong length, an
            unknown `where`, `decoders` of another length than `features`, `triggers` without where='any', or
            `fires_above` below 0.
    """

    sae: torch.nn.Module
    features: Sequence[int] | Tensor
    value: float | Sequence[float] | Tensor | Scale | Add
    where: Literal["own", "any", "always"] = "own"
    gate: Gate | None = None
    decoders: Sequence[int] | Tensor | None = None
    triggers: Sequence[int] | Tensor | None = None
    fires_above: float = 0.0
    bos: bool = False
    keep_error: bool = True

    def __post_init__(self) -> None:
        ids = feature_ids(self.sae, self.features)
        if self.where not in ("own", "any", "always"):
            raise ValueError(f"where={self.where!r} is unknown, allowed are 'own', 'any' and 'always'")
        if self.decoders is not None and len(feature_ids(self.sae, self.decoders, unique=False)) != len(ids):
            raise ValueError(f"{len(ids)} features need as many decoders, got {len(self.decoders)}")
        if self.triggers is not None and (self.where != "any" or not len(feature_ids(self.sae, self.triggers))):
            raise ValueError(
                f"triggers need where='any' and at least one id, got where={self.where!r} and {self.triggers!r}"
            )
        if not 0 <= self.fires_above < float("inf"):
            raise ValueError(f"fires_above is an activation, at least 0, got {self.fires_above!r}")
        numbers = torch.as_tensor(_numbers(self.value))
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

    @cached_property
    def _trigger_columns(self) -> Columns:
        return self.columns if self.triggers is None else chosen_columns(self.sae, self.triggers)

    def hot(self, residual: Tensor) -> Tensor:
        """[batch, seq] bool: the tokens of residual [batch, seq, d_model] at which any deciding feature fires."""
        return (self._trigger_columns.encode(residual) > self.fires_above).any(dim=-1)

    def evidence(self, residual: Tensor, hot: Tensor) -> Tensor:
        """What the gate sees of each token, [batch, seq, ...]; hot tokens [batch, seq] without a gate."""
        return hot if self.gate is None else self.gate.evidence(residual, hot)

    def opened(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: the sequences that are touched, from the evidence; all of them without a gate."""
        if self.gate is None:
            return torch.ones(len(evidence), dtype=torch.bool, device=evidence.device)
        return self.gate.opens(evidence, mask)

    def touchable(self, mask: Tensor) -> Tensor:
        """[batch, seq] bool: the real tokens that may be touched, all but BOS if not otherwise said; gate aside."""
        return mask.bool() if self.bos else after_bos(mask)

    def set_at(self, hot: Tensor) -> Tensor:
        """[batch, seq] bool: the tokens at which something is set, from hot tokens, gate and BOS aside."""
        return torch.ones_like(hot) if self.where == "always" or not self.keep_error else hot

    def edit(self, residual: Tensor, touchable: Tensor) -> Tensor:
        """The residual [batch, seq, d_model] edited at the tokens where `touchable` [batch, seq] allows it.

        The gate is not asked: `touchable` leaves out the sequences at which it is shut.
        """
        activations = self.columns.encode(residual)
        places = activations > self.fires_above
        if self.where != "own":
            hot = places.any(dim=-1) if self.triggers is None else self.hot(residual)
            places = (torch.ones_like(hot) if self.where == "always" else hot)[..., None].expand_as(activations)
        change = torch.where(places & touchable[..., None], self._step(activations), 0.0)
        return self._kept(residual, touchable) + self.columns.decode(change).to(residual.dtype)

    def _kept(self, residual: Tensor, touchable: Tensor) -> Tensor:
        if self.keep_error:
            return residual
        sae: Any = self.sae  # the names of its methods are sae-lens' and not torch's
        reconstruction = sae.decode(sae.encode(residual.float())).to(residual.dtype)
        return torch.where(touchable[..., None], reconstruction, residual)

    def _step(self, activations: Tensor) -> Tensor:
        """v_i - f_i, or what must be added to f_i to get there."""
        numbers = torch.as_tensor(_numbers(self.value), dtype=activations.dtype, device=activations.device)
        if isinstance(self.value, Scale):
            return (numbers - 1) * activations
        return numbers.expand_as(activations) if isinstance(self.value, Add) else numbers - activations

    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """The edited residual.

        Args:
            residual: [batch, seq, d_model] after layer L.
            mask: [batch, seq], true at real tokens, padded on either side; BOS is the first real token of a row.

        Returns:
            [batch, seq, d_model] in the residual's dtype; bit-equal to `residual` wherever nothing is set.
        """
        mask = mask.to(residual.device)
        touchable = self.touchable(mask)
        if self.gate is not None:
            evidence = self.evidence(residual, self.hot(residual))
            touchable = touchable & self.opened(evidence, mask)[:, None]
        return self.edit(residual, touchable)


class DuringGeneration:
    """An intervention through generation with a KV cache, where each pass but the first sees one new token only.

    Call it with the residual of the prompts, then with that of each new token. Published code does not say what a gate
    is to do with the latter, so it is a choice. What the cache holds is not edited again: a gate that opens late leaves
    earlier tokens as they are.

    Args:
        clamp: the intervention.
        mask: [batch, seq], true at the prompts' real tokens, padded on either side.
        new: what the gate decides by at new tokens. 'held': its verdict on the prompt holds to the end. 'never': they
            are left alone (Muhamed et al.'s released code, which takes each for BOS). 'each': every token is judged by
            itself. 'running': by the prompt and what has been said so far, the new token included. Without a
            gate, all but 'never' edit every new token.

    Raises:
        ValueError: `new` is none of these.
    """

    def __init__(self, clamp: Clamp, mask: Tensor, new: New = "held") -> None:
        if new not in get_args(New):
            raise ValueError(f"new={new!r} is unknown, allowed are {', '.join(map(repr, get_args(New)))}")
        self._clamp, self._mask, self._new = clamp, mask, new
        self._opened: Tensor | None = None
        self._at_last: Tensor | None = None

    @property
    def layer(self) -> int:
        """The layer after which the residual is edited."""
        return self._clamp.layer

    @property
    def opened(self) -> Tensor:
        """[batch] bool: whether the gate was open at the last token seen; of 'never', whether it was at the prompt.

        Raises:
            ValueError: nothing has been seen.
        """
        if self._at_last is None:
            raise ValueError("no prompt has been seen yet, so no gate has been asked: call this with its residual")
        return self._at_last

    def __call__(self, residual: Tensor) -> Tensor:
        """The edited residual [batch, seq, d_model] of the prompts at the first call, of new tokens at later ones."""
        if self._opened is None:
            return self._prompts(residual)
        if self._new == "never":
            return residual
        opened = self._opened[:, None].expand(residual.shape[:2])
        if self._clamp.gate is not None and self._new != "held":
            evidence = self._clamp.evidence(residual, self._clamp.hot(residual))
            opened = torch.stack([self._judged(token) for token in evidence.split(1, dim=1)], dim=1)
            self._at_last = opened[:, -1]
        return self._clamp.edit(residual, opened)

    def _prompts(self, residual: Tensor) -> Tensor:
        self._mask = self._mask.to(residual.device)
        self._evidence = self._clamp.evidence(residual, self._clamp.hot(residual))
        self._opened = self._at_last = self._clamp.opened(self._evidence, self._mask)
        return self._clamp.edit(residual, self._clamp.touchable(self._mask) & self._opened[:, None])

    def _judged(self, token: Tensor) -> Tensor:
        """[batch] bool: whether the gate opens at a new token, from the evidence at it, [batch, 1, ...]."""
        one = torch.ones_like(self._mask[:, :1], device=token.device)
        if self._new == "each":
            # the first of two stands where BOS would, which no gate looks at
            return self._clamp.opened(torch.cat([token, token], dim=1), torch.cat([one, one], dim=1))
        self._evidence, self._mask = torch.cat([self._evidence, token], dim=1), torch.cat([self._mask, one], dim=1)
        return self._clamp.opened(self._evidence, self._mask)


def _numbers(value: float | Sequence[float] | Tensor | Scale | Add) -> float | Sequence[float] | Tensor:
    if isinstance(value, Scale):
        return value.factor
    return value.amount if isinstance(value, Add) else value
