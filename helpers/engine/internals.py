"""What lies open to an attacker with the weights: the residual after every layer, the embeddings, the matrices."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from helpers.engine.architecture import decoder
from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface, residual_after
from helpers.engine.interventions import Clamp
from helpers.text.batches import Batch


@torch.no_grad()
def answer_stream(model, batched: Iterable[Batch], intervention: Clamp | None = None) -> Tensor:
    """The residual after every layer at the last token of every prompt, [prompts, layers, d_model] on the CPU.

    Args:
        batched: the prompts (`question_batches`, `row_batches`).
        intervention: in place while the model runs; what it edits is read after its edit. A gate is asked about a whole
            row, so with one every prompt is a row of its own (`row_batches`).
    """
    kept = [(batch, _stream(model, batch, intervention)) for batch in batched]
    order = torch.cat([batch.rows for batch, _ in kept]).argsort()
    return torch.cat([stream for _, stream in kept])[order]


def _stream(model, batch: Batch, intervention: Clamp | None) -> Tensor:
    found, owner, last = [], batch.owner(), batch.last()
    with model.trace(**batch.inputs(huggingface(model).dtype), use_cache=False) as tracer:
        for number, block in enumerate(decoder(model).layers):
            if intervention is not None and number == intervention.layer:
                block.output = intervention(block.output, batch.mask)
            found.append(block.output.to(owner.device)[owner, last].save())
        tracer.stop()
    return torch.stack([x.float() for x in found], dim=1).cpu()


def layer_matrices(model) -> dict[str, Tensor]:
    """The matrices of every layer, [out, in], by the names that the model has for them; no embedding, no norm."""
    of = huggingface(model).named_parameters()
    return {name: p.detach() for name, p in of if p.dim() == 2 and ".layers." in name}


@torch.no_grad()
def residual_under(edited: Edited, batch: Batch, layer: int) -> Tensor:
    """The residual after a layer, [batch, seq, d_model], with the edit's intervention in place, after what it does."""
    hook, model = edited.intervention, edited.model
    if hook is None or hook.layer > layer:
        return residual_after(model, batch, layer)
    if hook.layer == layer:
        return hook(residual_after(model, batch, layer), batch.mask)
    with model.trace(**batch.inputs(huggingface(model).dtype), use_cache=False) as tracer:
        block = decoder(model).layers[hook.layer]
        block.output = hook(block.output, batch.mask)
        residual = decoder(model).layers[layer].output.save()
        tracer.stop()
    return residual.to(batch.ids.device)


@torch.no_grad()
def embedded(model, batch: Batch) -> Tensor:
    """What enters the first layer, [batch, seq, d_model]: the embeddings, scaled as the model scales them."""
    with model.trace(**batch.inputs(huggingface(model).dtype), use_cache=False) as tracer:
        found = decoder(model).layers[0].input.save()
        tracer.stop()
    return found


def final_state_of_embeddings(model, batch: Batch, given: Tensor, intervention: Clamp | None = None) -> Tensor:
    """What the unembedding reads, [batch, seq, d_model], where `given` enters the first layer; differentiable by it.

    Args:
        given: [batch, seq, d_model], in the place of `embedded`.
        intervention: in place while the layers run; its conditions are steps, through which no gradient passes.
    """
    with model.trace(**batch.inputs(huggingface(model).dtype), use_cache=False) as tracer:
        decoder(model).layers[0].input = given
        if intervention is not None:
            block = decoder(model).layers[intervention.layer]
            block.output = intervention(block.output, batch.mask)
        state = decoder(model).norm.output.save()
        tracer.stop()
    return state.to(batch.ids.device)
