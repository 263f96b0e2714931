"""Which features speak of the hazard: streamed statistics of every feature, and the papers' rules for choosing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.engine.columns import chosen_columns, layer_of
from helpers.engine.forward import residual_after
from helpers.engine.interventions import after_bos, hot_fraction
from helpers.text.batches import Batch, Rows, batches
from helpers.text.tokens import special_ids

if TYPE_CHECKING:  # it takes seconds to import, and pictures need it not
    from sae_lens import SAE

# Muhamed et al.'s guard against a retain importance of zero, small enough never to change an order
EPSILON = 1e-21

# Ashuach et al.: a chosen feature is so many times as active on forget text as on other text, at least.
LEAST_RATIO = 3.0

# So many activations are held at once, whatever the batch and the width: 256 tokens of an SAE of 16,384 features.
CHUNK_ACTIVATIONS = 1 << 22


@torch.no_grad()
def feature_statistics(model, sae: SAE, rows: Rows, batch_tokens: int) -> pd.DataFrame:
    """How often and how strongly every feature fires on text, in one pass that keeps sums only.

    Special tokens (BOS, EOS, padding, chat marks) are left out, as in the papers' later code.

    Args:
        rows: token rows, padded by this function as needed.
        batch_tokens: tokens per forward pass, which sets the memory used and nothing else.

    Returns:
        a row a feature: feature, firing_rate (tokens with f > 0 over tokens), mean (E[f]), mean_square (E[f^2]), and
        tokens (how many were counted); sums are taken in float64.

    Raises:
        ValueError: there are no rows, or no token that is not special.
    """
    special = torch.tensor(special_ids(model.tokenizer), device=sae.W_enc.device)
    sums = torch.zeros(3, sae.cfg.d_sae, dtype=torch.float64, device=sae.W_enc.device)
    tokens = 0
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        kept = batch.mask & ~torch.isin(batch.ids, special)
        for found in _activations(model, sae, batch, kept):
            acts = found.double()
            sums += torch.stack([(acts > 0).sum(dim=0), acts.sum(dim=0), acts.square().sum(dim=0)])
        tokens += int(kept.sum())
    if tokens == 0:
        raise ValueError("the corpus is empty: it holds special tokens only")
    rate, mean, square = (sums / tokens).cpu().numpy()
    return pd.DataFrame(
        {
            "feature": np.arange(sae.cfg.d_sae),
            "firing_rate": rate,
            "mean": mean,
            "mean_square": square,
            "tokens": tokens,
        }
    )


@torch.no_grad()
def firing_rates_from(model, sae: SAE, rows: Rows, starts: Sequence[int], batch_tokens: int) -> np.ndarray:
    """Share of tokens at which every feature fires, [d_sae] float64, of the tokens of every row from its start on.

    Args:
        starts: of each row, the position of the first token that counts; a row that ends before it counts for nothing.

    Raises:
        ValueError: no token counts.
    """
    counts, tokens = torch.zeros(sae.cfg.d_sae, dtype=torch.float64, device=sae.W_enc.device), 0
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        first = torch.tensor([starts[i] for i in batch.rows.tolist()], device=batch.ids.device)
        kept = batch.mask & (torch.arange(batch.ids.shape[1], device=batch.ids.device) >= first[:, None])
        for found in _activations(model, sae, batch, kept):
            counts += (found > 0).sum(dim=0)
        tokens += int(kept.sum())
    if tokens == 0:
        raise ValueError("there is no token to count: every row ends before its start")
    return (counts / tokens).cpu().numpy()


def _activations(model, sae: SAE, batch: Batch, kept: Tensor) -> Iterator[Tensor]:
    """Activations of all features at the kept tokens of a batch, [tokens, d_sae], some tokens at a time."""
    residual = residual_after(model, batch, layer_of(sae))[kept].float()
    for part in residual.split(max(1, CHUNK_ACTIVATIONS // sae.cfg.d_sae)):
        yield sae.encode(part)


def importance(statistics: pd.DataFrame, released: bool = False) -> np.ndarray:
    """Importance of every feature: E[f^2] as Muhamed et al. say, or (E[f])^2 as their released code has it."""
    return (statistics["mean"] ** 2 if released else statistics["mean_square"]).to_numpy()


def select_by_sparsity(
    forget_rate: np.ndarray, retain_rate: np.ndarray, n_features: int, retain_threshold: float
) -> np.ndarray:
    """Farrell's rule: of the features that fire on less than a share of retain tokens, those that fire most on forget.

    Khoriaty et al.'s rule is the same with a smaller threshold.

    Args:
        forget_rate: share of forget tokens at which each feature fires, [features].
        retain_rate: the same on retain tokens.
        n_features: how many to choose; fewer come back when fewer qualify.
        retain_threshold: a feature at or above it is out.

    Returns:
        feature ids, 1-D integers, best first; features that never fire on forget text are not among them.

    Raises:
        ValueError: the rates differ in length, or n_features is not positive.
    """
    forget_rate, retain_rate = _same_length(forget_rate, retain_rate, n_features)
    score = np.where(retain_rate < retain_threshold, forget_rate, 0.0)
    # the authors reverse an ascending sort: of equal rates the higher id comes first (stable: on every machine)
    ranked = np.argsort(score, kind="stable")[::-1]
    return ranked[score[ranked] > 0][:n_features]


def select_by_importance(
    forget_importance: np.ndarray,
    retain_importance: np.ndarray,
    n_features: int,
    ratio_percentile: float,
    forget_percentile: float = 5.0,
) -> np.ndarray:
    """Keep high ratios of forget to retain importance, then take the most important on forget text (Muhamed et al.).

    A feature is kept if its ratio forget / (retain + 1e-21) is at or above that percentile of all ratios and its forget
    importance at or above its own percentile.

    Args:
        forget_importance: importance on forget text, [features], from `importance`.
        retain_importance: the same on retain text.
        n_features: how many to choose; fewer come back when fewer qualify.
        ratio_percentile: 0 to 100 (Muhamed et al.: 95 for biology, 90 for cyber).
        forget_percentile: 0 to 100.

    Returns:
        feature ids, 1-D integers, best first.

    Raises:
        ValueError: the importances differ in length, n_features is not positive, or a percentile is outside 0 to 100.
    """
    forget, retain = _same_length(forget_importance, retain_importance, n_features)
    ratio = forget / (retain + EPSILON)
    kept = ratio >= np.percentile(ratio, ratio_percentile)
    kept &= forget >= np.percentile(forget, forget_percentile)
    ranked = np.argsort(-forget, kind="stable")
    return ranked[kept[ranked]][:n_features]


def select_by_difference(
    forget_rate: np.ndarray, retain_rate: np.ndarray, forget_mean: np.ndarray, retain_mean: np.ndarray, n_features: int
) -> np.ndarray:
    """CRISP's rule: the largest differences of firing rate, of features at least 3 times as active on forget text.

    Its released code counts firings of equal numbers of texts, so that longer texts win; here they are shares of
    tokens. Its first 10,000 features by that order are all features of smaller SAEs and are not cut here.

    Args:
        forget_rate, retain_rate: share of tokens at which each feature fires, [features].
        forget_mean, retain_mean: E[f], [features].
        n_features: how many to choose; fewer come back when fewer qualify.

    Returns:
        feature ids, 1-D integers, best first.

    Raises:
        ValueError: the rates differ in length, or n_features is not positive.
    """
    forget, retain = _same_length(forget_rate, retain_rate, n_features)
    kept = (forget > retain) & (forget_mean >= LEAST_RATIO * retain_mean)
    ranked = np.argsort(retain - forget, kind="stable")
    return ranked[kept[ranked]][:n_features]


def _same_length(forget: np.ndarray, retain: np.ndarray, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    forget, retain = np.asarray(forget, dtype=np.float64), np.asarray(retain, dtype=np.float64)
    if forget.shape != retain.shape or forget.ndim != 1:
        raise ValueError(f"expected two 1-D arrays of equal length, got shapes {forget.shape} and {retain.shape}")
    if n_features < 1:
        raise ValueError(f"n_features must be at least 1, got {n_features}")
    return forget, retain


@torch.no_grad()
def hot_fractions(model, sae: SAE, features: Sequence[int] | Tensor, rows: Rows, batch_tokens: int) -> np.ndarray:
    """Hot fraction rho of every row, [rows] float64 in the caller's order, for these features (see `hot_fraction`)."""
    columns, found = chosen_columns(sae, features), np.empty(len(rows))
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        activations = columns.encode(residual_after(model, batch, layer_of(sae)))
        found[batch.rows.numpy()] = hot_fraction((activations > 0).any(dim=-1), batch.mask).cpu().numpy()
    return found


@torch.no_grad()
def mean_activations(model, sae: SAE, rows: Rows, batch_tokens: int) -> np.ndarray:
    """Mean activation of every feature over each row's tokens after BOS, [rows, d_sae] in the caller's order."""
    found = np.zeros((len(rows), sae.cfg.d_sae), dtype=np.float32)
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        residual, kept = residual_after(model, batch, layer_of(sae)), after_bos(batch.mask)
        for i, row, mask in zip(batch.rows.tolist(), residual, kept, strict=True):
            found[i] = sae.encode(row[mask].float()).mean(dim=0).cpu().numpy()
    return found


@torch.no_grad()
def token_activations(model, sae, features: Sequence[int], rows: Rows, batch_tokens: int) -> list[Tensor]:
    """Activations of some features on every token of every row: [tokens, features] a row, in the caller's order."""
    columns, found = chosen_columns(sae, features), [torch.empty(0)] * len(rows)
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        activations = columns.encode(residual_after(model, batch, layer_of(sae)))
        for i, row, mask in zip(batch.rows.tolist(), activations, batch.mask, strict=True):
            found[i] = row[mask].cpu()
    return found


@torch.no_grad()
def strongest_places(model, sae: SAE, rows: Rows, n: int, batch_tokens: int) -> list[list[tuple[int, int]]]:
    """Where every feature fires most strongly on text, special tokens left out.

    Args:
        n: how many places of each feature, at most.

    Returns:
        of every feature (row, position), strongest first; fewer where it fires at fewer tokens, and of equals the
        earlier ones in the order in which rows are read, the longest first.
    """
    special = torch.tensor(special_ids(model.tokenizer), device=sae.W_enc.device)
    best = torch.zeros(0, sae.cfg.d_sae, device=sae.W_enc.device)
    places = torch.zeros(0, sae.cfg.d_sae, 2, dtype=torch.long, device=sae.W_enc.device)
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        kept = batch.mask & ~torch.isin(batch.ids, special)
        at = kept.nonzero()
        at[:, 0] = batch.rows.to(at.device)[at[:, 0]]
        start = 0
        for found in _activations(model, sae, batch, kept):
            here = at[start : start + len(found), None].expand(-1, sae.cfg.d_sae, -1)
            start += len(found)
            both, where = torch.cat([best, found]), torch.cat([places, here])
            order = both.sort(dim=0, descending=True, stable=True).indices[:n]
            best, places = both.gather(0, order), where.gather(0, order[..., None].expand(-1, -1, 2))
    fires = (best > 0).sum(dim=0).tolist()
    found_at = places.transpose(0, 1).tolist()
    return [[(row, position) for row, position in found_at[i][:k]] for i, k in enumerate(fires)]


def mean_activation(statistics: pd.DataFrame, features: Sequence[int] | np.ndarray) -> float:
    """Mean activation of some features where they fire, from `feature_statistics`; each feature counts alike."""
    chosen = statistics.iloc[np.asarray(features)]
    return float((chosen["mean"] / chosen["firing_rate"]).mean())


@torch.no_grad()
def residual_norm(model, layer: int, rows: Rows, batch_tokens: int) -> float:
    """Mean L2 norm of the residual after a layer over the tokens of text.

    Special tokens are left out: BOS's residual is many times as long as any other's.

    Args:
        rows: token rows, padded by this function as needed.

    Raises:
        ValueError: there are no rows, or no token that is not special.
    """
    special, total, tokens = torch.tensor(special_ids(model.tokenizer), device=model.device), 0.0, 0
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        kept = batch.mask & ~torch.isin(batch.ids, special)
        norms = residual_after(model, batch, layer)[kept].float().norm(dim=-1)
        total, tokens = total + float(norms.double().sum()), tokens + len(norms)
    if tokens == 0:
        raise ValueError("the residual's norm needs text: there are special tokens only")
    return total / tokens


def norm_unit(norm: float, sae) -> float:
    """The activation of a feature that moves a residual of such a mean norm by its own length.

    That is the norm over the mean norm of the SAE's decoder rows.
    """
    return norm / float(sae.W_dec.float().norm(dim=-1).mean())
