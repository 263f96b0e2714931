"""Texts as token rows: packed for statistics and loss, or framed as a question is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.text.questions import encode_texts, frame_text, header


@dataclass(frozen=True)
class Document:
    """A text and the subject it belongs to (the subject names the header when the text is framed).

    `about` is the one thing the text tells of, by the name that questions have for it; '' where nobody has said.
    """

    subject: str
    text: str
    about: str = ""


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

    Header and chat marks are the same whatever is asked, so they move rho in every prompt alike (most dilute it); a
    threshold for prompts is taken on text in the same frame.
    """
    if not documents:
        return []
    how = {"add_special_tokens": False, "truncation": True, "max_length": max_tokens, "return_offsets_mapping": True}
    cuts = [places[-1][1] for places in tokenizer([d.text for d in documents], **how).offset_mapping]
    texts = [header(d.subject, prompt_format) + d.text[:cut] for d, cut in zip(documents, cuts, strict=True)]
    return encode_texts(tokenizer, [frame_text(tokenizer, text, prompt_format) for text in texts])
