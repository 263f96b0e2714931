"""How much every feature speaks for the right answer: activation times gradient along its decoder (Farrell et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.engine.columns import layer_of
from helpers.engine.features import CHUNK_ACTIVATIONS
from helpers.engine.forward import final_state_from, residual_after
from helpers.engine.interventions import after_bos
from helpers.engine.scoring import question_batches, read_letter_logits
from helpers.text.batches import Batch
from helpers.text.questions import ORIGINAL_ORDER, Question, right_letters

if TYPE_CHECKING:  # it takes seconds to import, and pictures need it not
    from sae_lens import SAE


def attributions(model, sae: SAE, questions: Sequence[Question], prompt_format: str, batch_tokens: int) -> pd.DataFrame:
    """Attribution of every feature, summed over the tokens after BOS of some questions (Farrell et al. 2024).

    At a token it is f_i * (W_dec[i] . g): activation times the derivative, along the feature's decoder, of how far the
    right letter's logit lies above the mean of the three others. To first order it is what the lead loses when the
    feature is ablated, so a feature whose clamp harms the answer has a positive one.

    Args:
        questions: asked in their original order.
        batch_tokens: tokens per pass, which goes back as well (`model.training_tokens`): that sets the memory used and
            nothing else; of the features only sums are kept.

    Returns:
        a row a feature: feature, attribution (in logits, summed in float64).

    Raises:
        ValueError: there are no questions.
    """
    total = torch.zeros(sae.cfg.d_sae, dtype=torch.float64, device=sae.W_enc.device)
    for batch in question_batches(model, questions, ORIGINAL_ORDER, prompt_format, batch_tokens):
        right = torch.tensor([right_letters([questions[i]], ORIGINAL_ORDER)[0][0] for i in batch.rows.tolist()])
        with torch.no_grad():
            residual = residual_after(model, batch, layer_of(sae))
        gradient = lead_gradient(model, batch, layer_of(sae), residual, right)
        total += _summed(sae, residual, gradient, after_bos(batch.mask))
    return pd.DataFrame({"feature": np.arange(sae.cfg.d_sae), "attribution": total.cpu().numpy()})


def lead_gradient(model, batch: Batch, layer: int, residual: Tensor, right: Tensor) -> Tensor:
    """Gradient of the right letters' leads, with respect to the residual after a layer, [batch, seq, d_model].

    Rows do not know each other, so the gradient of the sum over rows is each row's own.

    Args:
        right: index of the right letter of each row, [batch].
    """
    with torch.enable_grad():
        given = residual.detach().requires_grad_()
        state = final_state_from(model, batch, layer, given, read_letter_logits.positions(batch))
        logits = read_letter_logits(model, state, batch)
        is_right = torch.nn.functional.one_hot(right.to(logits.device), logits.shape[1]).to(logits.dtype)
        # 1 for the right letter, -1/3 for each of the others
        lead = logits * (is_right * 4 - 1) / 3
        return torch.autograd.grad(lead.sum(), given)[0]


@torch.no_grad()
def _summed(sae: SAE, residual: Tensor, gradient: Tensor, counted: Tensor) -> Tensor:
    """Attributions summed over the counted tokens, [d_sae], some tokens at a time."""
    total = torch.zeros(sae.cfg.d_sae, dtype=torch.float64, device=sae.W_enc.device)
    parts = (x[counted].float().split(max(1, CHUNK_ACTIVATIONS // sae.cfg.d_sae)) for x in (residual, gradient))
    for tokens, slopes in zip(*parts, strict=True):
        total += (sae.encode(tokens) * (slopes @ sae.W_dec.T.float())).double().sum(dim=0)
    return total
