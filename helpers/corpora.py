"""Texts as token rows: packed for statistics and loss, framed as a question is, and batched for the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.questions import encode_texts, frame_text, header

Rows = Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True)
class Document:
    """A text and the subject it belongs to (the subject names the header when the text is framed)."""

    subject: str
    text: str


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


def pack(tokenizer, texts: Sequence[str], row_length: int) -> Tensor:
    """Texts joined by EOS and cut into rows of equal length, each beginning with BOS (Farrell's and DSG's layout).

    Returns:
        token ids [rows, row_length]; the tail that does not fill a row is left out, so there is never padding.

    Raises:
        ValueError: there are no texts, or too few tokens for one row.
    """
    if not texts:
        raise ValueError("the corpus is empty: at least one text is needed")
    eos = tokenizer.eos_token_id
    ids = [i for row in tokenizer(list(texts), add_special_tokens=False).input_ids for i in (*row, eos)]
    n_rows = len(ids) // (row_length - 1)
    if n_rows == 0:
        raise ValueError(f"the corpus holds {len(ids)} tokens, too few for one row of {row_length}")
    body = torch.tensor(ids[: n_rows * (row_length - 1)]).view(n_rows, row_length - 1)
    return torch.cat([torch.full((n_rows, 1), tokenizer.bos_token_id), body], dim=1)


def framed(tokenizer, documents: Sequence[Document], prompt_format: str, max_tokens: int) -> list[list[int]]:
    """Documents asked as a question is asked, header and suffix included, as token rows; cut after `max_tokens`.

    Header and chat marks hold no hazard, so they dilute rho in every prompt alike; a threshold for prompts is taken on
    text in the same frame.
    """
    if not documents:
        return []
    how = {"add_special_tokens": False, "truncation": True, "max_length": max_tokens, "return_offsets_mapping": True}
    cuts = [places[-1][1] for places in tokenizer([d.text for d in documents], **how).offset_mapping]
    texts = [header(d.subject, prompt_format) + d.text[:cut] for d, cut in zip(documents, cuts, strict=True)]
    return encode_texts(tokenizer, [frame_text(tokenizer, text, prompt_format) for text in texts])
