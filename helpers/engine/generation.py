"""Greedy text under an intervention, with a KV cache: equal to running the whole sequence anew for every token."""

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import DynamicCache

from helpers.engine.architecture import decoder
from helpers.engine.forward import huggingface, unembed
from helpers.engine.interventions import Clamp, DuringGeneration, New
from helpers.text.batches import by_length
from helpers.text.tokens import special_ids


@torch.no_grad()
def generate(
    model,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    intervention: Clamp | None = None,
    new: New = "held",
) -> list[list[int]]:
    """The most probable continuation of each prompt, up to its first EOS or `new_tokens` tokens.

    Args:
        prompts: token ids, BOS first, of any lengths; they run as one batch.
        intervention: None for the unedited model.
        new: how its gate decides at new tokens: 'held', 'never', 'each' or 'running' (`DuringGeneration`).

    Returns:
        the new token ids of each prompt, EOS left out.

    Raises:
        ValueError: there are no prompts, one of them is empty, `new_tokens` is not positive, or `new` is
            unknown.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError(f"expected prompts of at least one token, got {len(prompts)} prompts, or an empty one")
    if new_tokens < 1:
        raise ValueError(f"new_tokens must be at least 1, got {new_tokens}")
    ids, mask = _pad_left(prompts, model.tokenizer.pad_token_id, model.device)
    edit = None if intervention is None else DuringGeneration(intervention, mask, new)
    cache, eos = DynamicCache(config=huggingface(model).config), model.tokenizer.eos_token_id
    said = torch.empty(len(prompts), 0, dtype=torch.long, device=model.device)
    while said.shape[1] < new_tokens and not (said == eos).any(dim=1).all():
        state = _next_state(model, ids, mask, cache, edit)
        ids = unembed(model, state).argmax(dim=-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        said = torch.cat([said, ids], dim=1)
    return [_until(row, eos) for row in said.tolist()]


def answers(
    model,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    batch_tokens: int,
    intervention: Clamp | None = None,
    new: New = "held",
) -> list[list[int]]:
    """What a model says to each prompt, in the caller's order: the tokens before the first special one.

    A chat model ends its turn with a mark that is not EOS, and may go on behind it.

    Args:
        batch_tokens: tokens of prompts and answers in one batch of `generate`.
        intervention, new: as of `generate`.
    """
    special = set(special_ids(model.tokenizer))
    found: list[list[int]] = [[] for _ in prompts]
    for taken in by_length([len(prompt) + new_tokens for prompt in prompts], batch_tokens):
        said_to_each = generate(model, [prompts[i] for i in taken], new_tokens, intervention, new)
        for i, said in zip(taken, said_to_each, strict=True):
            found[i] = list(takewhile(lambda token: token not in special, said))
    return found


def _next_state(model, ids: Tensor, mask: Tensor, cache: DynamicCache, edit: DuringGeneration | None) -> Tensor:
    """The final state at the last position, [batch, d_model]; `ids` [batch, new] are those the cache does not hold."""
    # positions count real tokens, so that left padding moves nobody
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
    with model.trace(**inputs, past_key_values=cache, use_cache=True) as tracer:
        if edit is not None:
            block = decoder(model).layers[edit.layer]
            block.output = edit(block.output)
        state = decoder(model).norm.output[:, -1].save()
        tracer.stop()
    return state.to(ids.device)


def _pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    length = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(length, device=device) >= length - lengths[:, None]


def _until(row: list[int], eos: int) -> list[int]:
    return row[: row.index(eos)] if eos in row else row
