"""How far fine-tuning moves the residual stream: direction and length, layer by layer (DSG, Fig. 9)."""

from math import sqrt
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from helpers.engine.forward import last_layer, residual_after
from helpers.engine.scoring import row_batches
from helpers.text.batches import Batch

Z = 1.959964


@torch.no_grad()
def residual_drift(before: Any, after: Any, rows: Tensor, batch_tokens: int) -> pd.DataFrame:
    """Cosine and ratio of norms (after over before) of the residual after every layer, means over tokens without BOS.

    Paper: Muhamed et al. 2025, Fig. 9.

    Args:
        before, after: two models of one shape, no intervention on either.
        rows: packed token ids [rows, row_length].
        batch_tokens: tokens a forward pass; changes memory, not results.

    Returns:
        layer, measure ('cosine', 'norm ratio'), n (rows), value, low, high. The interval is 1.96 standard errors over
        rows, for tokens of one row are not independent; empty for a single row.
    """
    cosines, ratios = [], []
    for batch in row_batches(before, rows, batch_tokens):
        first, last = (_stream(model, batch).float() for model in (before, after))
        cosines.append(torch.cosine_similarity(first, last, dim=-1).mean(dim=-1))
        ratios.append((last.norm(dim=-1) / first.norm(dim=-1)).mean(dim=-1))
    found = {"cosine": torch.cat(cosines), "norm ratio": torch.cat(ratios)}
    parts = [_over_rows(values).assign(measure=measure) for measure, values in found.items()]
    return pd.concat(parts, ignore_index=True)[["layer", "measure", "n", "value", "low", "high"]]


def _stream(model, batch: Batch) -> Tensor:
    """The residual after every layer without BOS, [batch, layers, seq - 1, d_model]."""
    found = [residual_after(model, batch, layer)[:, 1:].cpu() for layer in range(last_layer(model) + 1)]
    return torch.stack(found, dim=1)


def _over_rows(values: Tensor) -> pd.DataFrame:
    """Means of [rows, layers] with their intervals."""
    n, mean = len(values), values.double().mean(dim=0)
    spread = values.double().std(dim=0) if n > 1 else torch.full_like(mean, torch.nan)
    half = Z * spread / sqrt(n)
    columns = {"value": mean, "low": mean - half, "high": mean + half}
    return pd.DataFrame({name: x.numpy() for name, x in columns.items()}).rename_axis("layer").reset_index().assign(n=n)
