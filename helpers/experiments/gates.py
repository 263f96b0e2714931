"""Notebook 13: the same guard with other gates, what each costs when nobody attacks, and under which attacks it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.attacks.dilution import Dilution
from helpers.attacks.prompts import PromptAttack
from helpers.experiments.prompt_attacks import ACCURACY, NO_ATTACK, OPENS, UNGUARDED, strongest, successes
from helpers.measures.metrics import accuracy
from helpers.methods.dsg import DSG, DSGAblation
from helpers.methods.method import Method

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

# Of each gate the attack that let most through on half 0, whichever it is.
WORST = "worst of all"


def guards(lab: Lab, guard: DSG) -> list[DSG]:
    """The guard as published, with every gate that the profile names, and with none, which no prompt can dilute.

    Raises:
        ValueError: an unknown gate, or one that cannot be set on the questions here.
    """
    ungated = DSGAblation(**vars(guard) | {"gated": False})
    mended = [replace(guard, gated_by=name) for name in lab.profile.gates.names]
    for one in mended:
        lab.edited(one)  # what is wrong with a gate is said before anything is asked
    return [guard, *mended, ungated]


def thresholds(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """What each gate is set by: method, and as JSON would have it its fields but features and weights."""
    rows = []
    for setting in settings:
        gate = lab.edited(setting).facts().get("gate")
        known = {"threshold": gate} if isinstance(gate, float) else gate or {}
        rows.append({"method": setting.label, **{k: v for k, v in known.items() if not isinstance(v, list)}})
    return pd.DataFrame(rows).drop(columns="kind", errors="ignore")


def clean(table: pd.DataFrame) -> pd.DataFrame:
    """What each guard does when nobody attacks, by role.

    Args:
        table: of `prompt_attacks.asked` on half 1, with benign questions.

    Returns:
        method, role, measure (`OPENS`, where there is a gate, or `ACCURACY`), n, right, accuracy (their share), low,
        high.
    """
    plain = table[table["attack"] == NO_ATTACK.name]
    gated = plain[plain["opens"].notna()]
    both = pd.concat([gated.assign(right=gated["opens"], measure=OPENS), plain.assign(measure=ACCURACY)])
    return accuracy(both, ["method", "role", "measure"])


def alarms(table: pd.DataFrame, attacks: Sequence[PromptAttack]) -> pd.DataFrame:
    """On what share of benign questions each gate opens along the tokens of filler in front, the first kind there is.

    Args:
        table: of `prompt_attacks.asked` on half 1, with benign questions.
        attacks: the settings in it.

    Returns:
        method, role ('near' or 'side'), tokens (0 without attack), n, right, accuracy (the share), low, high.
    """
    benign, tables = table[(table["role"] != "forget") & table["opens"].notna()], []
    lengths = {NO_ATTACK.words: 0} | {
        a.words: a.tokens for a in attacks if isinstance(a, Dilution) and not a.control and a.place == "before"
    }
    for words, tokens in lengths.items():
        tables.append(benign[benign["setting"] == words].assign(tokens=tokens))
    padded = pd.concat(tables)
    return accuracy(padded.assign(right=padded["opens"]), ["method", "role", "tokens"])


def attacked(half_0: pd.DataFrame, half_1: pd.DataFrame, attacks: Sequence[PromptAttack]) -> pd.DataFrame:
    """Of each guard's blocked questions how many are right under each attack, at the setting chosen on half 0.

    Every guard is attacked at the setting that unblocks most of its own questions on half 0; all counts are of half 1.

    Args:
        half_0, half_1: of `prompt_attacks.asked`; the first may lack a method, which is then left out.

    Returns:
        the columns of `prompt_attacks.successes` with `WORST` as a last attack of each method, and of the method itself
        forget, forget_low, forget_high (accuracy when nobody attacks) and near, near_low, near_high (the share of
        near-domain questions on which its gate opens when nobody attacks; 1 where it has none).
    """
    tried, found, rows = successes(half_0), successes(half_1), []
    for method in dict.fromkeys(tried["method"]):
        of = half_0[half_0["method"].isin([UNGUARDED, method])]
        chosen = strongest(of, attacks)
        words = tried[tried["method"] == method].set_index(["attack", "setting"])["accuracy"].fillna(0)
        worst = max(chosen, key=lambda attack: words[attack.name, attack.words])
        mine = found[found["method"] == method].set_index(["attack", "setting"])
        for attack, name in [*((one, one.name) for one in chosen), (worst, WORST)]:
            row = mine.loc[(attack.name, attack.words)]
            rows.append({**row, "attack": name, "setting": attack.words, **_itself(half_1, method)})
    table = pd.DataFrame(rows)
    first = ["method", "attack", "setting"]
    return table[[*first, *table.columns.difference([*first, "world", "control"], sort=False)]]


def _itself(half_1: pd.DataFrame, method: str) -> dict[str, float]:
    table = clean(half_1[half_1["method"] == method]).set_index(["role", "measure"])
    found = {}
    for name, key, missing in (("forget", ("forget", ACCURACY), np.nan), ("near", ("near", OPENS), 1.0)):
        row = table.loc[key] if key in table.index else None
        for column, end in (("accuracy", ""), ("low", "_low"), ("high", "_high")):
            found[f"{name}{end}"] = missing if row is None else float(row[column])
    return found
