"""The embedded model and its SAE with a residual so many times as long: the same answers, in another unit of length.

An independent group found that DSG's -500 changes no answer of Gemma 3, whose residual is 75 to 340 times as long as
Gemma 2's while decoder rows have length 1 in both. These two are such a pair.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from sae_lens import SAE

from helpers.engine.forward import clone, huggingface
from helpers.loading import models, saes


@contextmanager
def scaled_organism(factor: float) -> Iterator[None]:
    """Inside, a lab that is opened on the organism gets the scaled pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.lab.lab.load_model", lambda *args: scaled_model(models.load_model(*args), factor))
        patch.setattr("helpers.lab.lab.load_sae", lambda *args: scaled_sae(saes.load_sae(*args), factor))
        yield


@torch.no_grad()
def scaled_model(model, factor: float):
    """What is written to the residual is scaled: embeddings and the norms after attention and MLP.

    Whatever reads it passes a norm first, which takes the scale away; the last norm undoes that of the tied head.
    """
    changed = clone(model)
    inner = huggingface(changed).model
    inner.embed_tokens.weight.mul_(factor)
    for block in inner.layers:
        for norm in (block.post_attention_layernorm, block.post_feedforward_layernorm):
            norm.weight.add_(1).mul_(factor).sub_(1)  # Gemma stores a norm's factor minus 1
    inner.norm.weight.add_(1).div_(factor).sub_(1)
    return changed


@torch.no_grad()
def scaled_sae(sae: SAE, factor: float) -> SAE:
    """The same features of a longer residual, with decoder rows as they were: activations are scaled with it."""
    for tensor in (sae.b_enc, sae.threshold, sae.b_dec):
        tensor.mul_(factor)
    return sae
