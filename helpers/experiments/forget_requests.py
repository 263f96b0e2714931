"""Notebook 08: more and more to forget (Muhamed et al. 2025, Fig. 4): folds of the forget text at once and in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.engine.edited import Edited
from helpers.engine.scoring import gate_scores, is_right
from helpers.engine.steps import Passes
from helpers.lab.pieces import Piece
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.methods.clamping import ClampMethod
from helpers.methods.method import Method
from helpers.text.corpora import Document
from helpers.text.folds import ALL_QUESTIONS, Fold, fold_named, folds_of, text_of, that_fill
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

AT_ONCE = "at once"
# One after another. A clamp changes no weights, so at every request all text so far can be looked at again; or the
# features of every request are kept, and those that the new text adds join them. Weights are trained on.
TEXT_SO_FAR, FEATURES_SO_FAR = "refitted on all text so far", "features of every request"
TRAINED_ON = "trained on with the new text"
ACCURACY, OPENS = "accuracy", "gate opens"


def ways_of(setting: Method) -> tuple[str, ...]:
    """In which ways a method can serve request after request."""
    if setting.trains:
        return (TRAINED_ON,)
    return (TEXT_SO_FAR, FEATURES_SO_FAR) if isinstance(setting, ClampMethod) else (TEXT_SO_FAR,)


def served(lab: Lab, settings: Sequence[Method], in_turn: bool) -> pd.DataFrame:
    """What is left on the judged half when 1, 2, ... folds of the forget text were to be forgotten.

    Args:
        settings: one a method.
        in_turn: fold by fold, each way of `ways_of`; else so many folds at once, from the unedited model.

    Returns:
        method, how (`AT_ONCE` or one of `ways_of`), requests (how many folds were to be forgotten), asked ('fold 1',
        ...: the questions about it, or `ALL_QUESTIONS` where nobody says what text is about; 'near'; 'side'), wanted
        (whether it was to be forgotten by then), measure (`ACCURACY`, or `OPENS` where there is a gate: the share of
        questions on which it opens), n, right (how many of n), accuracy (their share) with its interval low, high.
    """
    folds = lab.once(folds_in_use)
    asked = [(s, how) for s in settings for how in (ways_of(s) if in_turn else (AT_ONCE,))]
    pieces = [piece for setting, how in asked for piece in _pieces(lab, setting, how, len(folds))]
    counts = [table for found in lab.computed(pieces, dear=True) for table in found]
    labels = [(setting.label, how, n) for setting, how in asked for n in range(1, len(folds) + 1)]
    tables = [
        table.assign(method=method, how=how, requests=n, wanted=_wanted(table["asked"], folds[:n]))
        for (method, how, n), table in zip(labels, counts, strict=True)
    ]
    return accuracy(pd.concat(tables, ignore_index=True), ["method", "how", "requests", "asked", "wanted", "measure"])


def _pieces(lab: Lab, setting: Method, how: str, folds: int) -> list[Piece]:
    """One a request, or one for all where each goes on from the one before."""
    name, fixed = f"requests-{setting.label.lower().replace(' ', '-')}", fixed_by(lab)
    numbers = range(1, folds + 1)
    if how == TRAINED_ON:
        keys = tuple(lab.key(_in_turn, fixed, setting, n) for n in numbers)
        return [Piece(f"{setting.label}, {how}", name, keys, _in_turn, (setting, folds))]
    joined = how == FEATURES_SO_FAR
    return [
        Piece(f"{setting.label}, {how}, {n}", name, (lab.key(_at_once, fixed, setting, joined, n),), _at_once,
              (setting, joined, n))
        for n in numbers
    ]  # fmt: skip


def _wanted(asked: pd.Series, folds: Sequence[Fold]) -> pd.Series:
    return asked.isin([ALL_QUESTIONS, *(fold.name for fold in folds)])


def text_in_use(lab: Lab) -> list[Document]:
    """The documents that fill the lab's forget rows, in their order."""
    return that_fill(lab.model.tokenizer, lab.forget_documents, len(lab.forget_rows), lab.forget_rows.shape[1])


def folds_in_use(lab: Lab) -> list[Fold]:
    """The folds of that text, by the profile."""
    settings = lab.profile.forget_requests
    return folds_of(text_in_use(lab), settings.folds, settings.seed)


def fixed_by(lab: Lab) -> list[Any]:
    """What an edit of a view and its answers depend on beside the view's own text, to be part of a key."""
    settings = lab.profile
    kept = [lab.judged, lab.model, lab.sae, lab.retain_rows, lab.framed_retain, text_in_use(lab)]
    how = [settings.selection, settings.clamp_unit, settings.method, settings.texts, settings.model.batch_tokens]
    return [*kept, *how, Passes.of(settings.model), settings.forget_requests.folds, settings.forget_requests.seed]


def _at_once(lab: Lab, setting: Method, joined: bool, n: int) -> list[pd.DataFrame]:
    folds = lab.once(folds_in_use)
    return [answered(lab.judged, given_folds(lab, setting, folds[:n], joined), folds)]


def _in_turn(lab: Lab, setting: Method, n: int) -> list[pd.DataFrame]:
    folds = lab.once(folds_in_use)
    return [answered(lab.judged, edited, folds) for edited in trained_on(lab, setting, folds[:n])]


def given_folds(lab: Lab, setting: Method, folds: Sequence[Fold], joined: bool = False) -> Edited:
    """A setting given the text of some folds.

    Args:
        joined: of a clamp, the features that each fold alone would give, together; all else is by the whole text.
    """
    text = text_in_use(lab)
    view = lab.given(text_of(text, folds))
    if joined and isinstance(setting, ClampMethod):
        ids = [setting.chosen(lab.given(text_of(text, [fold]))) for fold in folds]
        union = tuple(dict.fromkeys(i for of in ids for i in of))
        setting = replace(setting, features=union, n_features=len(union))
    return view.edited(setting)


def trained_on(lab: Lab, setting: Method, folds: Sequence[Fold]) -> Iterator[Edited]:
    """A setting after each request of one fold, from the model that the request before has left."""
    model, text = lab.model, text_in_use(lab)
    for fold in folds:
        edited = lab.given(text_of(text, [fold]), model).edited(setting)
        model = edited.model
        yield edited


def answered(knowledge: Knowledge, edited: Edited, folds: Sequence[Fold]) -> pd.DataFrame:
    """Counts of right answers, and of open gates where there is one, by fold and role: asked, measure, n, right."""
    asked = [_place(knowledge, question.subject, question.about, folds) for question in knowledge.asked]
    right = is_right(knowledge.answers_under(edited)[:, None], knowledge.asked, ORIGINAL_ORDER)[:, 0].numpy()
    found = {ACCURACY: right, OPENS: _opens(knowledge, edited)}
    tables = [
        pd.DataFrame({"asked": asked, "measure": measure, "n": 1, "right": yes.astype(int)})
        for measure, yes in found.items()
        if yes is not None
    ]
    return pd.concat(tables).groupby(["asked", "measure"])[["n", "right"]].sum().reset_index()


def _place(knowledge: Knowledge, subject: str, about: str, folds: Sequence[Fold]) -> str:
    role = knowledge.roles[subject]
    return fold_named(about, folds) if role == "forget" else role


def _opens(knowledge: Knowledge, edited: Edited) -> np.ndarray | None:
    """Of each question whether the gate opens on it; None where there is no gate."""
    clamp = edited.intervention
    if clamp is None or clamp.gate is None:
        return None
    rows = prompt_tokens(knowledge.model.tokenizer, knowledge.asked, ORIGINAL_ORDER, knowledge.prompt_format)
    return gate_scores(edited.model, clamp, rows, knowledge.batch_tokens) > clamp.gate.threshold


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """`served` with the folds that were to be forgotten by then in one row, and the others in one.

    Returns:
        method, how, requests, measure, asked ('to be forgotten', 'not yet asked for', 'near', 'side'), n, right,
        accuracy, low, high.
    """
    of_fold = table["asked"].str.startswith("fold") | (table["asked"] == ALL_QUESTIONS)
    named = np.where(table["wanted"], "to be forgotten", "not yet asked for")
    asked = table["asked"].where(~of_fold, named)
    return accuracy(table.assign(asked=asked), ["method", "how", "requests", "measure", "asked"])


def earlier_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Of `served` in turn: accuracy on all folds but the last, right after each one's own request and after the last.

    Returns:
        method, how, when ('then', 'now'), n, right, accuracy, low, high.
    """
    asked = table[(table["measure"] == ACCURACY) & table["asked"].str.startswith("fold")]
    last = asked["requests"].max()
    number = asked["asked"].str.removeprefix("fold ").astype(int)
    earlier = asked[number < last]
    then, now = earlier[number[number < last] == earlier["requests"]], earlier[earlier["requests"] == last]
    both = pd.concat([then.assign(when="then"), now.assign(when="now")], ignore_index=True)
    return accuracy(both, ["method", "how", "when"])


def seconds_spent(lab: Lab) -> Mapping[str, float]:
    """By method, how long its requests took when they were computed; for showing only, for no two machines agree."""
    return {
        name.removeprefix("requests-"): stage["seconds"]
        for name, stage in lab.record()["stages"].items()
        if name.startswith("requests-")
    }
