"""The logit lens: what a model would say were the residual after a layer its last (nostalgebraist 2020)."""

import torch
from torch import Tensor

from helpers.engine.forward import huggingface, unembed
from helpers.engine.scoring import letter_ids


@torch.no_grad()
def lens(model, stream: Tensor) -> Tensor:
    """Logits of A..D by the final norm and the unembedding, [..., 4] on the CPU; the larger of 'A' and ' A'.

    Args:
        stream: residuals [..., d_model], as of `engine.internals.answer_stream`. After the last layer that is the
            model's own answer.
    """
    module = huggingface(model)
    state = module.model.norm(stream.to(module.device, module.dtype))
    words = letter_ids(model.tokenizer).to(state.device)
    return unembed(model, state, words.flatten()).unflatten(-1, words.shape).amax(dim=-2).cpu()
