"""What the losses of unlearning are made of: sums of nats over rows, and the divergence of two models' next words."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from torch.utils.checkpoint import checkpoint

from helpers.engine.architecture import architecture
from helpers.engine.forward import final_state, huggingface, unembed
from helpers.engine.scoring import CHUNK_LOGITS, read_loss
from helpers.text.batches import Batch


def sums_and_lengths(model, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of each row the nats of all its predicted tokens together, and how many those are; both [rows], differentiable.

    The first token predicts and is not predicted; padding is neither.
    """
    found = read_loss(model, final_state(model, batch), batch)
    return found[:, 0], found[:, 1]


def mean_nats(model, batch: Batch) -> Tensor:
    """Next-token loss in nats per token, over all predicted tokens of a batch."""
    nats, lengths = sums_and_lengths(model, batch)
    return nats.sum() / lengths.sum()


def divergence(teacher: Any, student: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the next word, in nats, mean over all predicting tokens of a batch.

    Args:
        teacher: a frozen model, through which no gradient flows.
        temperature: divides the logits of both; the result is multiplied by its square, as in distillation, so that
            gradients keep their size.
    """
    predicting = batch.mask[:, 1:]
    with torch.no_grad():
        taught = final_state(teacher, batch)[:, :-1][predicting]
    said = final_state(student, batch)[:, :-1][predicting]
    # logits of a whole batch over Gemma's 256,000 words do not fit: each chunk is computed once more going backward
    chunk = max(1, CHUNK_LOGITS // architecture(huggingface(student)).vocab)

    def part(wanted: Tensor, state: Tensor) -> Tensor:
        with torch.no_grad():
            target = (unembed(teacher, wanted) / temperature).log_softmax(dim=-1)
        own = (unembed(student, state) / temperature).log_softmax(dim=-1)
        return kl_div(own, target, reduction="sum", log_target=True)

    parts = [
        checkpoint(part, wanted, state, use_reentrant=False)
        for wanted, state in zip(taught.split(chunk), said.split(chunk), strict=True)
    ]
    return temperature**2 * torch.stack(parts).sum() / len(said)
