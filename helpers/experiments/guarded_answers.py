"""Notebook 11, in generation: free answers to hazard questions and benign ones, however a gate is asked meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from helpers.engine.edited import Edited
from helpers.engine.interventions import New
from helpers.experiments.prompt_attacks import OURS, REPRODUCTION, UNGUARDED, knowledge_of
from helpers.lab.pieces import Piece
from helpers.measures.free_answers import free_answers
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.methods.method import Method
from helpers.published import load_published

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

MATCHES, GIBBERISH, OPENED_BY = "matches", "gibberish", "opened by"
GATES: tuple[New, ...] = get_args(New)
NO_GATE = ""


def said(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Free answers of half 1, by the unedited model, under the guard with its gate asked in every way, by the others.

    Args:
        settings: the guard first.

    Returns:
        method, gate (how it is asked; `NO_GATE` of the others), and the columns of `free_answers`.
    """
    guard, *others = settings
    ways: list[tuple[Method | None, New]] = [(None, "held"), *((guard, new) for new in GATES)]
    ways += [(other, "held") for other in others]
    pieces = [
        Piece(f"free answers, {_label(setting)}, {new}", "free-answers",
              (lab.key(free_answers, *_what(lab, setting), new, lab.profile.prompt_attacks.new_tokens),),
              _said, (setting, new))
        for setting, new in ways
    ]  # fmt: skip
    tables = [table for (table,) in lab.computed(pieces, dear=True)]
    named = [
        table.assign(method=_label(setting), gate=new if setting == guard else NO_GATE)
        for (setting, new), table in zip(ways, tables, strict=True)
    ]
    found = pd.concat(named, ignore_index=True)
    return found[["method", "gate", *found.columns.difference(["method", "gate"], sort=False)]]


def _label(setting: Method | None) -> str:
    return UNGUARDED if setting is None else setting.label


def _what(lab: Lab, setting: Method | None) -> tuple[Knowledge, Edited]:
    edited: Edited = lab.unedited if setting is None else lab.edited(setting)
    return lab.once(knowledge_of, 1, lab.profile.prompt_attacks.benign_questions), edited


def _said(lab: Lab, setting: Method | None, new: New) -> list[pd.DataFrame]:
    return [free_answers(*_what(lab, setting), new, lab.profile.prompt_attacks.new_tokens)]


def in_generation(table: pd.DataFrame, new_tokens: int) -> pd.DataFrame:
    """Shares of free answers that match and that are gibberish, and of those whose gate has been open by each token.

    Args:
        table: of `said`.
        new_tokens: said at most.

    Returns:
        world (`OURS`), method, gate, role, measure (`MATCHES`, `GIBBERISH`, `OPENED_BY`), token (of the last: tokens
        said by then, 0 on the prompt; else empty), n, right, accuracy (the share), low, high.
    """
    by = ["method", "gate", "role", "measure", "token"]
    tables = [table.assign(right=table[m], measure=m, token=np.nan) for m in (MATCHES, GIBBERISH)]
    gated = table[table["gate"] != NO_GATE]
    tables += [
        gated.assign(right=(gated["opened"] <= token).astype(int), measure=OPENED_BY, token=token)
        for token in range(new_tokens)
    ]
    long = pd.concat(tables, ignore_index=True)
    return accuracy(long, by).assign(world=OURS)


def with_reproduction(found: pd.DataFrame) -> pd.DataFrame:
    """`in_generation`, and below it what others found on Gemma, unguarded and guarded (`world` tells them apart).

    Of how many answers, they do not say.
    """
    theirs = load_published("guard_attacks").query("attack == 'free answers'").drop(columns="n")
    guard = found.loc[found["gate"] != NO_GATE, "method"].iloc[0]
    bare = theirs["setting"] == UNGUARDED
    shown = theirs.assign(
        world=REPRODUCTION, role="forget", method=np.where(bare, UNGUARDED, guard),
        gate=theirs["setting"].where(~bare, NO_GATE), accuracy=theirs[["low", "high"]].mean(axis=1),
    )  # fmt: skip
    return pd.concat([found, shown[[c for c in found if c in shown]]], ignore_index=True)
