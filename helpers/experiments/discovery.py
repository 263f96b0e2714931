"""Notebook 01: which features speak of the hazard (Farrell et al., Figs. 2-3; all three papers' selection rules)."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.engine.columns import chosen_columns, layer_of
from helpers.engine.features import importance, select_by_importance, select_by_sparsity
from helpers.engine.forward import residual_after
from helpers.experiments.bench import Bench
from helpers.profiles import SelectionSettings
from helpers.text.batches import Rows, batches
from helpers.text.questions import ORIGINAL_ORDER, Question, prompt_tokens

HIDDEN = "#"


def selections(
    forget: pd.DataFrame, retain: pd.DataFrame, settings: SelectionSettings, n: int
) -> dict[str, np.ndarray]:
    """The n features that each paper's rule chooses from the same statistics, best first.

    The rules: 'sparsity' (Farrell), 'clamp_prime' (Khoriaty), 'importance' (DSG as the paper says, E[f^2]) and
    'importance_released' (DSG as its code has it, (E[f])^2).
    """
    rates = forget["firing_rate"].to_numpy(), retain["firing_rate"].to_numpy()
    percentiles = (settings.ratio_percentile, settings.forget_percentile)
    chosen = {
        "sparsity": select_by_sparsity(*rates, n, settings.sparsity_retain_threshold),
        "clamp_prime": select_by_sparsity(*rates, n, settings.clamp_prime_retain_threshold),
    }
    for name, released in (("importance", False), ("importance_released", True)):
        values = importance(forget, released), importance(retain, released)
        chosen[name] = select_by_importance(*values, n, *percentiles)
    return chosen


def firing_table(forget: pd.DataFrame, retain: pd.DataFrame, chosen: dict[str, np.ndarray]) -> pd.DataFrame:
    """Firing rates of every feature, with a column per rule telling whether it chose the feature."""
    table = pd.DataFrame({
        "feature": forget["feature"], "forget_rate": forget["firing_rate"], "retain_rate": retain["firing_rate"],
        "forget_tokens": forget["tokens"], "retain_tokens": retain["tokens"],
    })  # fmt: skip
    for name, ids in chosen.items():
        table[name] = table["feature"].isin(ids)
    return table


def overlap_table(chosen: dict[str, np.ndarray]) -> pd.DataFrame:
    """How many features each pair of rules has in common: rule, other, shared, n (of the first rule)."""
    pairs = product(chosen, chosen)
    rows = [(a, b, len(np.intersect1d(chosen[a], chosen[b])), len(chosen[a])) for a, b in pairs]
    return pd.DataFrame(rows, columns=["rule", "other", "shared", "n"])


@torch.no_grad()
def token_activations(model, sae, features: Sequence[int], rows: Rows, batch_tokens: int) -> list[Tensor]:
    """Activations of some features on every token of every row: [tokens, features] a row, in the caller's order."""
    columns, found = chosen_columns(sae, features), [torch.empty(0)] * len(rows)
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        activations = columns.encode(residual_after(model, batch, layer_of(sae)))
        for i, row, mask in zip(batch.rows.tolist(), activations, batch.mask, strict=True):
            found[i] = row[mask].cpu()
    return found


def activation_histogram(
    model, sae, feature: int, sources: dict[str, Rows], bins: int, batch_tokens: int
) -> pd.DataFrame:
    """How strongly one feature fires on each source of text (Farrell et al., Fig. 2), BOS left out.

    Returns:
        source, low, high (edges of the bin), tokens (in the bin), and of_tokens (all tokens of the source); tokens at
        which the feature is silent are in no bin.
    """
    values = {
        source: torch.cat([row[1:, 0] for row in token_activations(model, sae, [feature], rows, batch_tokens)]).numpy()
        for source, rows in sources.items()
    }
    edges = np.linspace(0, max(v.max() for v in values.values()) or 1.0, bins + 1)
    rows = [
        (source, low, high, int(count), len(v))
        for source, v in values.items()
        for low, high, count in zip(edges[:-1], edges[1:], np.histogram(v[v > 0], edges)[0], strict=True)
    ]
    return pd.DataFrame(rows, columns=["source", "low", "high", "tokens", "of_tokens"])


def highlighted_question(
    model, sae, features: Sequence[int], question: Question, prompt_format: str, show_text: bool
) -> pd.DataFrame:
    """One question token by token with the strongest activation among some features (Farrell et al., Fig. 3).

    Returns:
        position, token (or '#' where the profile hides text), activation (0 at BOS, which no intervention touches).
    """
    (row,) = prompt_tokens(model.tokenizer, [question], ORIGINAL_ORDER, prompt_format)
    (activations,) = token_activations(model, sae, features, [row], len(row))
    strongest = activations.amax(dim=1)
    strongest[0] = 0
    tokens = [token_text(model.tokenizer, i, show_text) for i in row]
    return pd.DataFrame({"position": range(len(row)), "token": tokens, "activation": strongest.numpy()})


def token_text(tokenizer, token: int, show_text: bool) -> str:
    """A token as text, or '#' where the profile hides text; special tokens are always shown."""
    return tokenizer.decode([token]) if show_text or token in tokenizer.all_special_ids else HIDDEN


def strongest_examples(
    model, sae, features: Sequence[int], rows: Rows, n: int, width: int, batch_tokens: int, show_text: bool
) -> pd.DataFrame:
    """Where in some text each feature fires most strongly, one place a row of text at most.

    Returns:
        feature, rank (1 is strongest), activation, row, position, before, token, after (`width` tokens on either side).
    """
    found, examples = token_activations(model, sae, features, rows, batch_tokens), []
    for j, feature in enumerate(features):
        peaks = [(float(row[1:, j].max()), i, int(row[1:, j].argmax()) + 1) for i, row in enumerate(found)]
        for rank, (activation, i, place) in enumerate(sorted(peaks, reverse=True)[:n], start=1):
            words = [token_text(model.tokenizer, int(t), show_text) for t in rows[i]]
            parts = words[max(0, place - width) : place], words[place : place + 1], words[place + 1 : place + 1 + width]
            examples.append((int(feature), rank, activation, i, place, *("".join(p) for p in parts)))
    return pd.DataFrame(
        examples, columns=["feature", "rank", "activation", "row", "position", "before", "token", "after"]
    )


def histogram_sources(bench: Bench, questions: Sequence[Question], prompt_format: str) -> dict[str, Rows]:
    """What a feature's activations are compared on: forget questions, forget text, neutral text."""
    return {
        "forget questions": prompt_tokens(bench.model.tokenizer, questions, ORIGINAL_ORDER, prompt_format),
        "forget text": bench.forget_rows,
        "neutral text": bench.neutral_rows,
    }
