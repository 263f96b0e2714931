"""Notebook 01: which features speak of the hazard (Farrell et al., Figs. 2-3; all three papers' selection rules)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from helpers.engine.features import token_activations
from helpers.lab.choosing import points
from helpers.methods.attribution_clamp import AttributionClamp
from helpers.methods.selection import FATES, fates
from helpers.text.batches import Rows
from helpers.text.questions import HIDDEN, ORIGINAL_ORDER, Question, prompt_tokens
from helpers.text.tokens import special_ids

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


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
    return tokenizer.decode([token]) if show_text or token in special_ids(tokenizer) else HIDDEN


def strongest_passages(
    model, sae, features: Sequence[int], texts: Mapping[str, Rows], width: int, batch_tokens: int, show_text: bool
) -> pd.DataFrame:
    """Where in each text every feature fires most strongly, token by token (Muhamed et al., Fig. 13).

    Args:
        texts: token rows by the text's name.
        width: tokens on either side of the strongest place; less where the row ends. BOS is never that place.

    Returns:
        feature, text, row, position, token (or '#' where the profile hides text), activation (0 at BOS); of a text in
        which a feature never fires, the beginning of its first row.
    """
    found = {text: token_activations(model, sae, features, rows, batch_tokens) for text, rows in texts.items()}
    passages = []
    for (j, feature), (text, rows) in product(enumerate(features), texts.items()):
        fires = [torch.cat([torch.zeros(1), row[1:, j]]) for row in found[text]]
        row = int(torch.stack([of.max() for of in fires]).argmax())
        place = int(fires[row].argmax())
        seen = slice(max(0, place - width), place + width + 1)
        ids = list(rows[row])[seen]
        passages.append(pd.DataFrame({
            "feature": int(feature), "text": text, "row": row, "position": range(seen.start, seen.start + len(ids)),
            "token": [token_text(model.tokenizer, int(i), show_text) for i in ids], "activation": fires[row][seen],
        }))  # fmt: skip
    return pd.concat(passages, ignore_index=True)


def attribution_table(lab: Lab) -> pd.DataFrame:
    """What became of every candidate of attribution, and what the kept ones do, each alone, to half 1 of the questions.

    Returns:
        the columns of `Lab.alone` (half 0), asked (how many forget questions half 0 has), fate
        (`methods.selection.fates`); and of the kept ones accuracy, low, high and n of forget and of side-effect
        questions as in `points`, on half 1.
    """
    settings, forget = lab.profile.selection, lab.profile.questions.forget
    singles = [AttributionClamp(1, settings.attribution_strength, features=(int(i),)) for i in lab.attributed]
    columns = [f"{role}_{what}" for role in ("forget", "side") for what in ("accuracy", "low", "high", "n")]
    judged = points(lab.sweep(singles, half=1))[columns].assign(feature=lab.attributed)
    judged = judged.astype(dict.fromkeys(columns, float))  # where none is kept too, of which nothing is known
    asked, fate = len(lab.knowledge_on(0).questions[forget]), fates(lab.alone, settings.attribution_side_lost)
    return lab.alone.assign(asked=asked, fate=fate).merge(judged, on="feature", how="left")


def fates_counted(candidates: pd.DataFrame) -> pd.DataFrame:
    """How many candidates of `attribution_table` met each fate, 0 where none did: fate, count."""
    return candidates["fate"].value_counts().reindex(FATES, fill_value=0).rename_axis("fate").reset_index()


def histogram_sources(lab: Lab, questions: Sequence[Question]) -> dict[str, Rows]:
    """What a feature's activations are compared on: forget questions, forget text, neutral text."""
    form = lab.profile.model.prompt_format
    return {
        "forget questions": prompt_tokens(lab.model.tokenizer, questions, ORIGINAL_ORDER, form),
        "forget text": lab.forget_rows,
        "neutral text": lab.neutral_rows,
    }
