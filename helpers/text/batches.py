"""Token rows as padded batches for a model, sorted by length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Token rows padded on the right.

    Attributes:
        ids: token ids [batch, seq].
        mask: [batch, seq] bool, true at real tokens.
        rows: [batch], where each row stood in the caller's list.
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The arguments of a Hugging Face forward call; `dtype` is for masks that are added to attention weights."""
        return {"input_ids": self.ids, "attention_mask": self.mask.long()}

    def select(self, chosen: Tensor) -> "Batch":
        """The rows where `chosen` [batch] is true."""
        return Batch(self.ids[chosen], self.mask[chosen], self.rows[chosen.to(self.rows.device)])

    def owner(self) -> Tensor:
        """[prompts]: the row of the batch in which each prompt is; here a row is a prompt."""
        return torch.arange(len(self.ids), device=self.ids.device)

    def last(self) -> Tensor:
        """[prompts]: the position of each prompt's last real token."""
        return self.mask.sum(dim=1) - 1

    def paths(self) -> Tensor:
        """[prompts, seq] bool: the tokens that a prompt consists of."""
        return self.mask


def packed_batch(rows: Tensor, device: torch.device | str = "cpu") -> Batch:
    """Token rows [rows, row_length] without padding as one batch."""
    return Batch(rows.to(device), torch.ones_like(rows, dtype=torch.bool).to(device), torch.arange(len(rows)))


def by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices sorted by length into batches of at most `batch_tokens` padded tokens (one at least), longest first."""
    # longest first: a batch that does not fit in memory fails at once and not after an hour
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        n = max(1, batch_tokens // lengths[order[0]])
        taken, order = order[:n], order[n:]
        yield taken


def batches(rows: Rows, batch_tokens: int, pad_id: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Rows sorted by length into batches of at most `batch_tokens` padded tokens (one row at least), longest first.

    Raises:
        ValueError: there are no rows, or one of them is empty.
    """
    rows = rows.tolist() if isinstance(rows, Tensor) else [list(row) for row in rows]
    if not rows or not all(rows):
        raise ValueError(f"expected rows of at least one token, got {len(rows)} rows, {rows.count([])} of them empty")
    for taken in by_length([len(row) for row in rows], batch_tokens):
        length = len(rows[taken[0]])
        ids = torch.full((len(taken), length), pad_id)
        mask = torch.zeros(len(taken), length, dtype=torch.bool)
        for r, i in enumerate(taken):
            ids[r, : len(rows[i])] = torch.tensor(rows[i])
            mask[r, : len(rows[i])] = True
        yield Batch(ids.to(device), mask.to(device), torch.tensor(taken))
