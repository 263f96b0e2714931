"""Notebook 13: the same clamp in two units of strength, on residuals of two lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import torch

from helpers.engine.features import norm_unit, residual_norm
from helpers.engine.interventions import Clamp
from helpers.engine.longer import longer_model, longer_sae
from helpers.engine.scoring import Sweep, is_right, read_letters, row_batches
from helpers.experiments import prompt_attacks
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.methods.dsg import DSG
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

# Gemma-3-1b's residual is 75 times as long as Gemma-2-2b's, Gemma-3-4b's 340 times.
LONGER = 100
OF_CHOSEN = (0.125, 0.25, 0.5, 1.0, 2.0)
# A norm is a mean over tokens, and so many rows of them suffice.
NORM_ROWS = 64
ABSOLUTE, RELATIVE = "absolute", "residual norm"


def clamp_units(lab: Lab, guard: DSG) -> pd.DataFrame:
    """The guard at multiples of its strength, told in activation or in norms of the residual, on it and on a longer.

    Returns:
        longer (how many times), unit (`ABSOLUTE` or `RELATIVE`), strength (in that unit), moved (by how many norms of
        the residual a feature's clamp moves it), chosen (whether that is the guard's own strength), n, right, accuracy,
        low, high, of the questions to forget of half 1.

    Raises:
        ValueError: the model or SAE cannot be scaled (`longer_model`, `longer_sae`).
    """
    tables, norm = [], _norm(lab, lab.model, lab.sae)
    clamp, knowledge = lab.edited(guard).intervention, prompt_attacks.knowledge_of(lab, 1, benign=0)
    assert clamp is not None and isinstance(clamp.value, int | float)
    strengths = [-share * clamp.value / norm for share in OF_CHOSEN]
    for factor in (1, LONGER):
        model, sae = lab.model, lab.sae
        if factor != 1:
            model, sae = longer_model(model, factor), longer_sae(sae, factor)
        there = _norm(lab, model, sae)
        for unit, one in ((ABSOLUTE, norm), (RELATIVE, there)):
            found = _answers(replace(knowledge, model=model), replace(clamp, sae=sae), [one * s for s in strengths])
            told = [s * (norm if unit == ABSOLUTE else 1.0) for s in strengths]
            tables += [
                of.assign(longer=factor, unit=unit, strength=t, moved=s * one / there, chosen=share == 1)
                for of, t, s, share in zip(found, told, strengths, OF_CHOSEN, strict=True)
            ]
    columns = ["longer", "unit", "strength", "moved", "chosen"]
    return accuracy(pd.concat(tables, ignore_index=True), columns)


def _norm(lab: Lab, model, sae) -> float:
    """The unit of the profile's `clamp_unit` 'residual norm', of a model and its SAE."""
    rows, tokens = lab.retain_rows[:NORM_ROWS], lab.profile.model.batch_tokens
    return norm_unit(residual_norm(model, lab.profile.sae.layer, rows, tokens), sae)


@torch.no_grad()
def _answers(knowledge: Knowledge, clamp: Clamp, strengths: list[float]) -> list[pd.DataFrame]:
    """Under each strength whether each question is right."""
    model, asked = knowledge.model, knowledge.asked
    rows = prompt_tokens(model.tokenizer, asked, ORIGINAL_ORDER, knowledge.prompt_format)
    batched = row_batches(model, rows, knowledge.batch_tokens)
    sweep = Sweep(model, batched, knowledge.layer, read_letters, knowledge.cache)
    found = sweep.edited_by_each([replace(clamp, value=-c) for c in strengths])
    right = [is_right(letters[:, None], asked, ORIGINAL_ORDER)[:, 0].int().numpy() for letters in found]
    return [pd.DataFrame({"n": 1, "right": of}) for of in right]
