"""Known answers on a real model: what others have measured on gemma-2-2b-it, beside what comes out here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.engine.features import hot_fractions, select_by_sparsity
from helpers.experiments.costs import NOTEBOOKS
from helpers.lab.lab import Lab
from helpers.lab.published import published_statistics
from helpers.profiles import Profile, load_profile
from helpers.published import load_published
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, SUFFIXES, prompt_tokens

# Their rho counts BOS among a row's tokens and ours does not, which moves tau by 0.001; the rest is another dtype.
TAU_TOLERANCE = 0.01
# What Farrell's rates are of, how many features are compared, and the selection rules of the two lists that are known.
FARRELL_SUBJECT = "wmdp-bio"
FARRELL_FEATURES = 20
RULES = {"feature": "importance_released", "sparsity feature": "sparsity"}


@dataclass(frozen=True)
class Answer:
    """One quantity as it came out here and as it is known, both in words, and whether the two agree."""

    quantity: str
    ours: str
    theirs: str
    agrees: bool


def known_answers(profile: Profile) -> pd.DataFrame:
    """What is known of the profile's model, SAE and questions (`published/known_answers.csv`, an empty cell is any).

    With it go the features that Farrell's rule chooses from the rates that they published for the SAE.

    Raises:
        ValueError: nothing is.
    """
    table, asked = load_published("known_answers"), profile.questions
    # of a model that was fine-tuned here nobody knows anything
    of_model = (table["model"] == profile.model.source) & (profile.model.finetuned == "")
    of_subject = table["subject"].isin(["", asked.forget, asked.near, *asked.side_effect])
    of = table[of_model & table["sae"].isin(["", profile.sae.id]) & of_subject]
    rates = published_statistics(profile)
    if asked.forget == FARRELL_SUBJECT and not rates.empty:
        rate = rates["firing_rate"].to_numpy()
        best = select_by_sparsity(rate, np.zeros_like(rate), FARRELL_FEATURES, 1.0)
        rows = {"quantity": "sparsity feature", "sae": profile.sae.id, "value": best, "highest": best}
        of = pd.concat([of, pd.DataFrame(rows)], ignore_index=True)
    if of.empty:
        raise ValueError(
            f"nothing is known of {profile.model.source} with SAE {profile.sae.id}; answers are known for "
            f"{', '.join(table['model'].unique())}: --profile gemma-2-2b-it"
        )
    return of


def known_by_notebook(name: str) -> dict[str, pd.DataFrame]:
    """What is known of a profile (`known_answers`), by the first notebook with each of its SAEs.

    What does not depend on the SAE is with the first only.

    Raises:
        ValueError: nothing is known.
    """
    found: dict[str, pd.DataFrame] = {}
    seen: list[str] = []
    for number in load_profile(name).notebooks or NOTEBOOKS:
        profile = load_profile(name, notebook=number)
        if profile.sae.id not in seen:
            known = known_answers(profile)
            found[number] = known[known["sae"] != ""] if seen else known
            seen.append(profile.sae.id)
    return {number: known for number, known in found.items() if len(known)}


def fidelity(lab: Lab, known: pd.DataFrame) -> list[Answer]:
    """Chosen features, tau, numbers of known questions and a prompt's tokens, here and as they are known."""
    of = {quantity: rows["value"].tolist() for quantity, rows in known.groupby("quantity", sort=False)}
    found = []
    for quantity, rule in RULES.items():
        if quantity in of:
            found += _features(lab, rule, [int(i) for i in of[quantity]])
    if "tau" in of:
        theirs, tokens = [int(i) for i in of["feature"]], lab.profile.model.batch_tokens
        rho = lab.stage("rho-packed-retain", hot_fractions_of, lab.model, lab.sae, theirs, lab.retain_rows, tokens)
        tau, known_tau = float(np.percentile(rho["rho"], 95)), of["tau"][0]
        agrees = abs(tau - known_tau) <= TAU_TOLERANCE
        found.append(Answer("tau of their features on packed retain text", f"{tau:.4f}", f"{known_tau:.4f}", agrees))
    for row in known[known["quantity"] == "known questions"].itertuples():
        n = len(lab.known.get(row.subject, ()))
        span = f"{row.value:g}" if row.value == row.highest else f"{row.value:g} to {row.highest:g}"
        found.append(Answer(f"known questions of {row.subject}", str(n), span, row.value <= n <= row.highest))
    if "prompt begins" in of:
        found += _prompt(lab, [int(i) for i in of["prompt begins"]], [int(i) for i in of["model's turn begins"]])
    return found


def _features(lab: Lab, rule: str, theirs: list[int]) -> list[Answer]:
    ours = [int(i) for i in lab.selections(len(theirs))[rule]]
    shared = len(set(ours) & set(theirs))
    name = f"features by {rule.replace('_', ', ')}"
    return [
        Answer(name, _words(ours), _words(theirs), ours == theirs),
        Answer("of them the same", f"{shared} of {len(theirs)}", f"{len(theirs)}", shared == len(theirs)),
    ]


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
