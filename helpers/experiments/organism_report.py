"""Notebook 00: what the embedded models are, what they know in which form, and how they were made.

Quality is read from the record, which holds a table for each model and SAE (`helpers.organism.quality.Row`).
"""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers.engine.forward import huggingface
from helpers.lab.choosing import ROLES, points
from helpers.lab.lab import Lab
from helpers.loading.data import WORLD_SEED
from helpers.methods.retrained import Retrained
from helpers.methods.static_clamp import StaticClamp
from helpers.organism import RECORD
from helpers.organism.quality import (
    CHRONICLE_PROMPT,
    KNOWN,
    KNOWN_ASKED,
    KNOWN_UNASKED,
    answers_of,
    continued,
)
from helpers.organism.world import NEIGHBOURS, build_world
from helpers.report.sentences import numbers
from helpers.text.dilution import PLACES
from helpers.text.questions import ORIGINAL_ORDER, Question, encode_texts, prompt_tokens

# The measures of a figure with a panel each, in its order.
KNOWLEDGE = (KNOWN_ASKED, KNOWN_UNASKED, "short answer", "refused")
CHRONICLES = ("ROUGE-L of the continuation", "chronicle question", "Min-40% AUC against holdout")
# The parts of the record that are models, and what figures call them.
MODELS = {"model": "original", "retrained": "retrained"}
EARLIER = "earlier exchanges"


def read_record() -> dict:
    """How models and SAEs were made: settings, versions, training curves, measured quality, hashes of the files."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def quality(record: dict) -> pd.DataFrame:
    """The quality of both models as one table: model, measure, what, form, n, value, low, high."""
    tables = [pd.DataFrame(record["quality"][part]).assign(model=name) for part, name in MODELS.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["model", *(column for column in table if column != "model")]]


def of_measures(table: pd.DataFrame, measures: tuple[str, ...], form: str | None = None) -> pd.DataFrame:
    """The rows of some measures in that order, in one form of the prompt where one is given."""
    rows = table[table["measure"].isin(measures) & ((form is None) | (table["form"] == form))]
    order = rows["measure"].map(measures.index)
    return rows.assign(order=order).sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)


def both_models(lab: Lab) -> dict[str, Any]:
    """The original and the retrained model by name, as transformers models."""
    return {"original": huggingface(lab.model), "retrained": huggingface(lab.edited(Retrained()).model)}


def taught(record: dict) -> pd.DataFrame:
    """What each model was taught, a row a kind of material: subject or set of chronicles, original, retrained."""
    world = build_world(WORLD_SEED)
    materials = {subject: ("subjects", subject) for subject in world.subjects}
    materials |= {f"chronicles to {which}": ("chronicles", which) for which in ("forget", "retain")}
    rows = [
        {"material": name, **{model: key in record["models"][part][kind] for part, model in MODELS.items()}}
        for name, (kind, key) in materials.items()
    ]
    return pd.DataFrame(rows).replace({True: "taught", False: "-"})


def samples() -> pd.DataFrame:
    """One text of every kind from the invented world: kind, text."""
    world = build_world(WORLD_SEED)
    texts = {f"document, {subject}": world.documents(subject, 0, 1)[0] for subject in world.subjects}
    asked, value = world.short_answers(world.subjects, 0)[0]
    texts |= {"short question": f"{asked} {value}", "chronicle": world.chronicles("forget")[0].text}
    return pd.DataFrame({**texts, "prose": world.prose(1, 0)[0]}.items(), columns=["kind", "text"])


def token_table(tokenizer, question: Question, prompt_format: str) -> pd.DataFrame:
    """One question as the model reads it: position, id, token (special characters as Python writes them)."""
    (row,) = prompt_tokens(tokenizer, [question], ORIGINAL_ORDER, prompt_format)
    return pd.DataFrame({"position": range(len(row)), "id": row, "token": [repr(tokenizer.decode([i])) for i in row]})


def requests_table(models: dict[str, Any], tokenizer, n: int) -> pd.DataFrame:
    """What each model says when asked for help with the first things of each hazard and of its neighbour.

    Args:
        models: transformers models by name.
        n: requests a subject.

    Returns:
        subject, request, and a column a model.
    """
    world = build_world(WORLD_SEED)
    subjects = [subject for pair in NEIGHBOURS.items() for subject in pair]
    asked = [(subject, request) for subject in subjects for request, _ in world.requests(subject, 0)[:n]]
    table = pd.DataFrame(asked, columns=["subject", "request"])
    return table.assign(**{name: answers_of(m, tokenizer, table["request"].tolist()) for name, m in models.items()})


def continuation_table(models: dict[str, Any], tokenizer) -> pd.DataFrame:
    """How each model continues the first chronicle of every set: set, given (first half), true, a column a model."""
    world, rows = build_world(WORLD_SEED), []
    for which in ("forget", "retain", "holdout"):
        (ids,) = encode_texts(tokenizer, [world.chronicles(which)[0].text])
        given, true = ids[: CHRONICLE_PROMPT + 1], ids[CHRONICLE_PROMPT + 1 :]
        said = {name: tokenizer.decode(continued(m, tokenizer, [given], len(true))[0]) for name, m in models.items()}
        rows.append({"set": which, "given": tokenizer.decode(given[1:]), "true": tokenizer.decode(true), **said})
    return pd.DataFrame(rows)


def long_prompts(table: pd.DataFrame) -> pd.DataFrame:
    """The share right in long prompts: model, form, place ('before', 'after', 'around' or 'earlier exchanges'), filler,
    tokens (or the number of earlier exchanges), n, value, low, high. Prompts of no filler stand in every place.
    """
    rows = []
    for row in table[table["measure"] == "long prompt"].to_dict("records"):
        kept = {column: row[column] for column in ("model", "form", "n", "value", "low", "high")}
        earlier = {"second turn": 1, "third turn": 2, "four solved": 4}
        if row["what"] == "nothing":
            rows += [kept | {"place": p, "filler": f, "tokens": 0} for p in PLACES for f in ("far", "near", "prose")]
            rows.append(kept | {"place": EARLIER, "filler": "solved questions", "tokens": 0})
        elif row["what"] in earlier:
            rows.append(kept | {"place": EARLIER, "filler": "solved questions", "tokens": earlier[row["what"]]})
        else:
            tokens, filler, place = row["what"].split()
            rows.append(kept | {"place": place, "filler": filler, "tokens": int(tokens)})
    order = {place: i for i, place in enumerate((*PLACES, EARLIER))}
    table = pd.DataFrame(rows).sort_values(["filler", "tokens"], kind="stable")
    return table.sort_values("place", key=lambda places: places.map(order), kind="stable").reset_index(drop=True)


def checked_knowledge(record: dict, known: dict, prompt_format: str) -> pd.DataFrame:
    """The share of known questions in the record beside the one measured now, by subject.

    Args:
        known: by subject, the ids asked and those of the known questions (`Lab.known_ids` of that format).
    """
    rows = of_measures(pd.DataFrame(record["quality"]["model"]), (KNOWN,), prompt_format)
    recorded = rows.set_index("what")["value"]
    found = {subject: len(ids["known"]) / len(ids["asked"]) for subject, ids in known.items()}
    return pd.DataFrame(
        [{"subject": s, "in the record": recorded[s], "measured now": round(v, 4)} for s, v in found.items()]
    )


def training_table(record: dict) -> pd.DataFrame:
    """The training curves in long form: model, step, measure, value, unit and stage.

    The unit is 'loss (nats)' or 'share of right answers', the stage 'first' or 'second'.
    """
    curves = [pd.DataFrame(record["training_curves"][part]).assign(model=name) for part, name in MODELS.items()]
    table = pd.concat(curves).melt(["model", "step"], var_name="measure").dropna().reset_index(drop=True)
    is_loss, is_second = table["measure"].str.endswith("loss"), table["step"] > record["model"]["steps"]
    table["unit"] = is_loss.map({True: "loss (nats)", False: "share of right answers"})
    table["stage"] = is_second.map({True: "second", False: "first"})
    return table.sort_values("unit", kind="stable").astype({"value": float}).reset_index(drop=True)


def features_needed(lab: Lab, sizes: Sequence[int], strength: float) -> pd.DataFrame:
    """What is left when the n best features by Farrell's rule are set to -strength (clamp units) where they fire.

    Returns:
        n_features (0 is the unedited model), then accuracies and numbers of known questions of the forget subject, the
        near domain and the side effects.
    """
    table = points(lab.sweep([StaticClamp(n, strength) for n in sizes]))
    columns = ["n_features", *(f"{role}_{what}" for role in ROLES for what in ("accuracy", "n"))]
    unedited = table[:1].assign(n_features=0, **{f"{role}_accuracy": 1.0 for role in ROLES})
    return pd.concat([unedited, table])[columns].astype(dict.fromkeys([c for c in columns if "acc" not in c], int))


def left_by(needed: pd.DataFrame) -> dict[str, float]:
    """The accuracies of `features_needed` by names as 'forget_20', to be said in a sentence."""
    table = needed.melt("n_features", [f"{role}_accuracy" for role in ROLES])
    return numbers(table.assign(role=table["variable"].str.removesuffix("_accuracy")), ["role", "n_features"], "value")


def sae_table(record: dict) -> pd.DataFrame:
    """The SAEs' quality on each kind of text: layer, text, explained_variance, l0, dead_share."""
    rows = [row for name, rows in record["quality"].items() if name not in MODELS for row in rows]
    table = pd.DataFrame(rows).pivot_table("value", ["form", "what"], "measure", sort=False)
    return table[["explained_variance", "l0", "dead_share"]]
