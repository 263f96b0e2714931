"""Known answers on a real model: what others have measured on gemma-2-2b-it, beside what comes out here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.engine.features import hot_fractions
from helpers.lab.lab import Lab
from helpers.profiles import Profile
from helpers.published import load_published
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, SUFFIXES, prompt_tokens

# The notebook whose SAE and texts the known answers are of.
NOTEBOOK = "05"
# Their rho counts BOS among a row's tokens and ours does not, which moves tau by 0.001; the rest is another dtype.
TAU_TOLERANCE = 0.01


@dataclass(frozen=True)
class Answer:
    """One quantity as it came out here and as it is known, both in words, and whether the two agree."""

    quantity: str
    ours: str
    theirs: str
    agrees: bool


def known_answers(profile: Profile) -> pd.DataFrame:
    """What is known of the profile's model and SAE (`published/known_answers.csv`).

    Raises:
        ValueError: nothing is.
    """
    table = load_published("known_answers")
    of = table.query("model == @profile.model.source and sae == @profile.sae.id")
    if of.empty:
        raise ValueError(
            f"nothing is known of {profile.model.source} with SAE {profile.sae.id}; answers are known for "
            f"{table['model'][0]} with {table['sae'][0]}: --profile gemma-2-2b-it"
        )
    return of


def fidelity(lab: Lab, known: pd.DataFrame) -> list[Answer]:
    """Chosen features, tau, numbers of known questions and a prompt's tokens, here and as they are known."""
    of = {quantity: rows["value"].tolist() for quantity, rows in known.groupby("quantity", sort=False)}
    theirs = [int(i) for i in of["feature"]]
    ours = [int(i) for i in lab.selections(len(theirs))["importance_released"]]
    tokens = lab.profile.model.batch_tokens
    rho = lab.stage("rho-packed-retain", hot_fractions_of, lab.model, lab.sae, theirs, lab.retain_rows, tokens)
    tau = float(np.percentile(rho["rho"], 95))
    found = [
        Answer("features by importance, released", _words(ours), _words(theirs), ours == theirs),
        Answer("of them the same", f"{len(set(ours) & set(theirs))} of {len(theirs)}", f"{len(theirs)}",
               set(ours) == set(theirs)),
        Answer("tau of their features on packed retain text", f"{tau:.4f}", f"{of['tau'][0]:.4f}",
               abs(tau - of["tau"][0]) <= TAU_TOLERANCE),
    ]  # fmt: skip
    for row in known[known["quantity"] == "known questions"].itertuples():
        n = len(lab.known.get(row.subject, ()))
        span = f"{row.value:g}" if row.value == row.highest else f"{row.value:g} to {row.highest:g}"
        found.append(Answer(f"known questions of {row.subject}", str(n), span, row.value <= n <= row.highest))
    return [*found, *_prompt(lab, [int(i) for i in of["prompt begins"]], [int(i) for i in of["model's turn begins"]])]


def hot_fractions_of(model, sae, features: Sequence[int], rows: Rows, batch_tokens: int) -> dict[str, np.ndarray]:
    """`hot_fractions`, as a stage keeps them."""
    return {"rho": hot_fractions(model, sae, features, rows, batch_tokens)}


def _prompt(lab: Lab, begins: list[int], turn: list[int]) -> list[Answer]:
    """The chat marks around the first question of the first side-effect subject, which may be shown."""
    question = lab.all_questions[lab.profile.questions.side_effect[0]][0]
    (ids,) = prompt_tokens(lab.model.tokenizer, [question], ORIGINAL_ORDER, "chat")
    suffix = lab.model.tokenizer.encode(SUFFIXES["chat"], add_special_tokens=False)
    end = ids[len(ids) - len(suffix) - len(turn) : len(ids) - len(suffix)]
    first = ids[: len(begins)]
    return [
        Answer("a prompt's first tokens", _words(first), _words(begins), first == begins),
        Answer("tokens where the model's turn begins", _words(end), _words(turn), end == turn),
    ]


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
