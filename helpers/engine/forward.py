"""The model's forward passes by nnsight: the residual after layer L, the layers above it, and checks of the hook."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import nnsight
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from helpers.engine.architecture import architecture, decoder
from helpers.engine.columns import explained_variance, layer_of
from helpers.engine.interventions import Clamp
from helpers.text.batches import Batch

if TYPE_CHECKING:  # it takes seconds to import, and pictures need it not
    from sae_lens import SAE


def wrap(hf_model: PreTrainedModel, tokenizer) -> nnsight.TransformersModel:
    """An nnsight model around a Hugging Face one in eval mode (our own code pads, so its padding side is no matter).

    Raises:
        ValueError: the engine does not serve such a model (`architecture`).
    """
    architecture(hf_model)
    return nnsight.TransformersModel(hf_model.eval(), tokenizer=tokenizer, task="text-generation")


def huggingface(model: nnsight.TransformersModel) -> PreTrainedModel:
    """The Hugging Face model inside an nnsight model."""
    return model._module


def clone(model: nnsight.TransformersModel, dtype: torch.dtype | None = None) -> nnsight.TransformersModel:
    """A model with weights of its own, to be trained without touching the first (nnsight's wrapping is not copied).

    Args:
        dtype: of the copy's weights; None keeps the model's.

    Raises:
        ValueError: the model is spread over several devices, and a copy on one of them has no room there.
    """
    original = huggingface(model)
    if len(devices := sorted({str(weight.device) for weight in original.parameters()})) > 1:
        raise ValueError(
            f"the model is spread over {', '.join(devices)}: weights are trained and changed on one device alone, set "
            "model.device_map to 'none'"
        )
    # built in its dtype and not cast to it, which would round the rotary frequencies to bfloat16 and change all answers
    with no_init_weights(), original.device:
        twin = AutoModelForCausalLM.from_config(copy.deepcopy(original.config), dtype=dtype or original.dtype)
    # without initialisation it comes untied, and training would move embedding and unembedding apart
    twin.tie_weights()
    twin.load_state_dict(original.state_dict())
    return wrap(twin, model.tokenizer)


def with_weights(model: nnsight.TransformersModel, weights: Mapping[str, Tensor]) -> nnsight.TransformersModel:
    """A model like `model` with some weights replaced, given by the names that `model` has for them.

    Raises:
        ValueError: the model has no weights of a name.
    """
    changed = clone(model)
    huggingface(changed).requires_grad_(False)
    missing = huggingface(changed).load_state_dict(weights, strict=False).unexpected_keys
    if missing:
        raise ValueError(f"the model has no weights named {missing}")
    return changed


def _inputs(model: nnsight.TransformersModel, batch: Batch) -> dict[str, Tensor]:
    return batch.inputs(huggingface(model).dtype)


def residual_after(model: nnsight.TransformersModel, batch: Batch, layer: int) -> Tensor:
    """The residual stream after a layer, [batch, seq, d_model]; the layers above it do not run."""

    def run(part: Batch) -> Tensor:
        with model.trace(**_inputs(model, part), use_cache=False) as tracer:
            residual = decoder(model).layers[layer].output.save()
            tracer.stop()
        return residual

    return _in_halves(run, batch)


def final_state(
    model: nnsight.TransformersModel, batch: Batch, intervention: Clamp | None = None, read_at: Tensor | None = None
) -> Tensor:
    """What the unembedding reads, [batch, seq, d_model]: the whole model, with the intervention in place if given.

    Args:
        read_at: [batch, seq] bool, where the state will be read: elsewhere it is not the model's own, for the last
            layer's MLP runs at these positions alone. None for everywhere.
    """
    if intervention is not None and intervention.layer == last_layer(model):
        read_at = None

    def run(part: Batch, at: Tensor | None) -> Tensor:
        with model.trace(**_inputs(model, part), use_cache=False) as tracer:
            if intervention is not None:
                block = decoder(model).layers[intervention.layer]
                block.output = intervention(block.output, part.mask)
            if at is not None:
                _run_mlp_only_at(decoder(model).layers[-1].mlp, at)
            state = decoder(model).norm.output.save()
            tracer.stop()
        return state

    return _in_halves(run, batch, read_at)


def final_state_from(
    model: nnsight.TransformersModel, batch: Batch, layer: int, residual: Tensor, read_at: Tensor | None = None
) -> Tensor:
    """The final state (see `final_state`) when `residual` stands after a layer; only the layers above it run."""
    if layer == last_layer(model):
        read_at = None

    def run(part: Batch, given: Tensor, at: Tensor | None) -> Tensor:
        with model.trace(**_inputs(model, part), use_cache=False) as tracer:
            for block in decoder(model).layers[: layer + 1]:
                block.skip(given)
            if at is not None:
                _run_mlp_only_at(decoder(model).layers[-1].mlp, at)
            state = decoder(model).norm.output.save()
            tracer.stop()
        return state

    return _in_halves(run, batch, residual, read_at)


def _in_halves(run: Callable[..., Tensor], batch: Batch, *along: Tensor | None) -> Tensor:
    """`run(batch, *along)`, by halves of the rows where the device has no memory for all: rows do not know each other.

    Every layer needs the same memory, so what does not fit fails in the first one and costs next to nothing. Wherever
    the last layer that runs is, what it gives is where the batch is.
    """
    try:
        return run(batch, *along).to(batch.ids.device)
    except torch.OutOfMemoryError:
        if len(batch.ids) == 1:
            raise
    # only here is the exception gone, and with it what its frames hold
    gc.collect()
    torch.cuda.empty_cache()
    warnings.warn("a batch does not fit in the device's memory and is halved: see model.batch_tokens", stacklevel=3)
    first = torch.arange(len(batch.ids), device=batch.ids.device) < len(batch.ids) // 2
    halves = [(half, [None if x is None else x[half] for x in along]) for half in (first, ~first)]
    return torch.cat([_in_halves(run, batch.select(half), *parts) for half, parts in halves])


def last_layer(model: nnsight.TransformersModel) -> int:
    """The number of the model's last layer, counted from 0."""
    return architecture(huggingface(model)).layers - 1


def _run_mlp_only_at(mlp, read_at: Tensor) -> None:
    """Inside a trace: nothing reads the last MLP elsewhere, and it is most of the last layer's work."""
    x = mlp.input
    read_at, found = read_at.to(x.device), torch.zeros_like(x)
    found[read_at] = mlp(x[read_at])
    mlp.skip(found)


def unembed(model: nnsight.TransformersModel, state: Tensor, words: Tensor | None = None) -> Tensor:
    """Logits of final states [..., d_model], soft-capped where the model's are: equal to its own.

    Args:
        words: token ids [n] to give the logits of; None gives those of the whole vocabulary.

    Returns:
        [..., n] float32.
    """
    hf_model = huggingface(model)
    head = hf_model.lm_head
    there = state.to(head.weight.device)
    if words is None:
        logits = head(there)
    else:
        logits = torch.nn.functional.linear(there, head.weight[words], None if head.bias is None else head.bias[words])
    cap = architecture(hf_model).logit_softcap
    return (logits if cap is None else torch.tanh(logits / cap) * cap).float().to(state.device)


@torch.no_grad()
def check_hook(model: nnsight.TransformersModel, layer: int) -> None:
    """Make sure that the hook after `layer` reads and writes the residual stream, on eight arbitrary tokens.

    Raises:
        RuntimeError: it does not read what Hugging Face calls hidden state layer + 1, putting the residual back changes
            the logits, or changing it does not.
    """
    hf_model = huggingface(model)
    n_layers, vocab = last_layer(model) + 1, architecture(hf_model).vocab
    if not 0 <= layer < n_layers:
        raise RuntimeError(f"there is no layer {layer}: the model has layers 0 to {n_layers - 1}")
    ids = torch.arange(8)[None] % vocab
    batch = Batch(ids.to(hf_model.device), torch.ones_like(ids, dtype=torch.bool).to(hf_model.device), torch.arange(1))
    plain = hf_model(**batch.inputs(), output_hidden_states=True, use_cache=False)
    residual, state = residual_after(model, batch, layer), final_state(model, batch)
    if layer + 1 < n_layers and not torch.equal(residual, plain.hidden_states[layer + 1]):
        raise RuntimeError(f"the hook after layer {layer} does not read the residual stream")
    logits = unembed(model, state)
    if not torch.equal(logits, plain.logits.float()):
        raise RuntimeError("the final state does not lead to the model's own logits")
    if not torch.equal(unembed(model, final_state_from(model, batch, layer, residual)), logits):
        raise RuntimeError(f"an identity intervention after layer {layer} changes the logits")
    # flipped and not scaled: the last norm takes a scale away
    if torch.equal(unembed(model, final_state_from(model, batch, layer, residual.flip(-1))), logits):
        raise RuntimeError(f"changing the residual after layer {layer} does not change the logits")


@torch.no_grad()
def check_pair(model: nnsight.TransformersModel, sae: SAE, batch: Batch) -> float:
    """Make sure that the SAE explains this model's residual stream at all and that a real clamp reaches the logits.

    Args:
        batch: some rows of ordinary text.

    Returns:
        The explained variance measured on `batch`, BOS left out.

    Raises:
        RuntimeError: it is not above 0, so that the mean would explain as much and the two cannot belong together; or a
            clamp of the features that fire changes nothing.
    """
    residual = residual_after(model, batch, layer_of(sae))
    text = batch.mask.clone()
    text[:, 0] = False
    measured = explained_variance(sae, residual[text])
    if measured <= 0:
        raise RuntimeError(
            f"the SAE explains {measured:.3f} of the residual's variance after layer {layer_of(sae)}, less than its "
            "mean would: it was trained on another model or layer; check sae.source, sae.id and sae.layer"
        )
    strongest = int(sae.encode(residual[text].float()).mean(dim=0).argmax())
    clamp = Clamp(sae, [strongest], -float(residual.float().norm(dim=-1).mean()))
    if torch.equal(final_state(model, batch, clamp), final_state(model, batch)):
        raise RuntimeError(f"clamping feature {strongest} after layer {layer_of(sae)} does not reach the logits")
    return measured
