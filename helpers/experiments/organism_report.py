"""Notebook 00: what the embedded model is, what it knows and how it was trained, from its weights and their record."""

import json

import pandas as pd

from helpers.loading.data import WORLD_SEED
from helpers.measures.metrics import accuracy
from helpers.organism import RECORD
from helpers.organism.world import build_world
from helpers.text.questions import ORIGINAL_ORDER, Question, prompt_tokens

Known = dict[str, dict[str, dict[str, list[str]]]]


def read_record() -> dict:
    """How model and SAE were made: settings, versions, training curve, measured quality, hashes of the files."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def samples() -> pd.DataFrame:
    """One text of every kind from the invented world: kind, text."""
    world = build_world(WORLD_SEED)
    texts = {f"document, {subject}": world.documents(subject, 0, 1)[0] for subject in world.subjects}
    return pd.DataFrame({**texts, "prose": world.prose(1, 0)[0]}.items(), columns=["kind", "text"])


def token_table(tokenizer, question: Question, prompt_format: str) -> pd.DataFrame:
    """One question as the model reads it: position, id, token (special characters as Python writes them)."""
    (row,) = prompt_tokens(tokenizer, [question], ORIGINAL_ORDER, prompt_format)
    return pd.DataFrame({"position": range(len(row)), "id": row, "token": [repr(tokenizer.decode([i])) for i in row]})


def knowledge_table(known: Known, questions: dict[str, list[Question]]) -> pd.DataFrame:
    """Share of each subject's questions right under all 24 orders.

    Args:
        known: by prompt format and subject, the ids of the known questions (`Lab.known_ids`).
        questions: all questions by subject.

    Returns:
        prompt_format, subject, kind ('asked' with four choices while training, or 'never asked': known from documents
        and short answers only), n, right, accuracy, low, high.
    """
    return accuracy(_answers(known, questions), ["prompt_format", "subject", "kind"])


def pooled_knowledge(known: Known, questions: dict[str, list[Question]]) -> pd.DataFrame:
    """`knowledge_table` pooled over subjects: prompt_format, kind, n, right, accuracy, low, high."""
    return accuracy(_answers(known, questions), ["prompt_format", "kind"])


def _answers(known: Known, questions: dict[str, list[Question]]) -> pd.DataFrame:
    unasked = build_world(WORLD_SEED).unasked
    rows = [
        {"prompt_format": f, "subject": s, "kind": kind, "n": 1, "right": q.id in ids[s]["known"]}
        for f, ids in known.items()
        for s, asked in questions.items()
        for q in asked
        for kind in ["never asked" if q.id in unasked else "asked"]
    ]
    return pd.DataFrame(rows)


def training_table(record: dict) -> pd.DataFrame:
    """The training curve in long form: unit ('loss (nats)' or 'share of right answers'), measure, step, value."""
    curve = pd.DataFrame(record["training_curve"]).drop(columns="seconds", errors="ignore")
    table = curve.melt("step", var_name="measure").dropna().reset_index(drop=True)
    is_loss = table["measure"].str.endswith("loss")
    table["unit"] = is_loss.map({True: "loss (nats)", False: "share of right answers"})
    return table.sort_values("unit", kind="stable").astype({"value": float}).reset_index(drop=True)


def quality_table(record: dict) -> pd.DataFrame:
    """The SAE's quality on each kind of text: explained variance, L0, share of features that never fire."""
    return pd.DataFrame(record["quality"]["sae"]).T
