"""A model and its SAE with a residual so many times as long: the same answers, in another unit of length.

An independent group found that DSG's -500 changes no answer of Gemma 3, whose residual is 75 to 340 times as long as
Gemma 2's while decoder rows have length 1 in both. These two are such a pair.
"""

import copy

import torch
from sae_lens import SAE

from helpers.engine.architecture import architecture, decoder
from helpers.engine.forward import clone, huggingface

# Their layers pass what attention and MLP write through a norm of its own.
NORMED = ("gemma2", "gemma3_text")


@torch.no_grad()
def longer_model(model, factor: float):
    """A copy whose residual is `factor` times as long: embeddings and the norms after attention and MLP are scaled.

    Whatever reads the residual passes a norm first, which takes the scale away; the last norm undoes that of the tied
    unembedding.

    Raises:
        ValueError: a family without norms after attention and MLP.
    """
    family = architecture(huggingface(model)).family
    if family not in NORMED:
        raise ValueError(f"the residual of a {family!r} model cannot be made longer, that of {', '.join(NORMED)} can")
    changed = clone(model)
    inner = decoder(huggingface(changed))
    inner.embed_tokens.weight.mul_(factor)
    for block in inner.layers:
        for norm in (block.post_attention_layernorm, block.post_feedforward_layernorm):
            norm.weight.add_(1).mul_(factor).sub_(1)  # Gemma stores a norm's factor minus 1
    inner.norm.weight.add_(1).div_(factor).sub_(1)
    return changed


@torch.no_grad()
def longer_sae(sae: SAE, factor: float) -> SAE:
    """A copy that finds the same features in the longer residual; decoder rows stay, activations are scaled with it.

    Raises:
        ValueError: an SAE without thresholds, whose features nobody has scaled here.
    """
    if not hasattr(sae, "threshold"):
        raise ValueError("the features of an SAE without thresholds are not scaled here: take a JumpReLU SAE")
    changed = copy.deepcopy(sae)
    for tensor in (changed.b_enc, changed.threshold, changed.b_dec):
        tensor.mul_(factor)
    return changed
