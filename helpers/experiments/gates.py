"""Notebook 13: the same guard with other gates: what each costs when nobody attacks, and where it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.attacks.dilution import Dilution
from helpers.attacks.prompts import Means, PromptAttack, prompts
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import Sweep, read_letters, row_batches
from helpers.experiments import prompt_attacks
from helpers.experiments.prompt_attacks import ACCURACY, NO_ATTACK, OPENS, UNGUARDED, strongest, successes
from helpers.lab.pieces import Piece
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.methods.dsg import DSG, DSGAblation
from helpers.methods.method import Method

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

# Of each gate the attack that let most through on half 0, whichever it is.
WORST = "worst of all"


# --- asking -----------------------------------------------------------------------------------------------------------


def guards_of(lab: Lab, guard: DSG) -> list[DSG]:
    """The guard as published, and with every gate that the profile names.

    Raises:
        ValueError: an unknown gate, or one that cannot be set on the questions here.
    """
    return [guard, *(replace(guard, gated_by=name) for name in lab.profile.gates.names)]


def asked(
    lab: Lab,
    guards: Sequence[DSG],
    others: Sequence[Method],
    attacks: Sequence[PromptAttack],
    half: int,
    benign: int = 0,
) -> pd.DataFrame:
    """`prompt_attacks.asked` for guards that differ in their gates alone.

    Where a gate opens, the answer is that of the clamp without a gate, elsewhere that of the unedited model, so that
    two passes through the model serve all gates.

    Args:
        guards: with a gate each.
        others: methods that stand beside them.
        half, benign: as there.

    Returns:
        as there; the guard without a gate (label `DSGAblation.label`) is among the methods.
    """
    ungated = DSGAblation(**vars(guards[0]) | {"gated": False})
    answered = prompt_attacks.asked(lab, [ungated, *others], attacks, half, benign)
    opened = _opened(lab, guards, attacks, half, benign)
    keys = ["attack", "setting", "subject", "id"]
    shut, wide = (answered[answered["method"] == m].set_index(keys) for m in (UNGUARDED, ungated.label))
    tables = [answered]
    for method, of in opened.groupby("method", sort=False):
        found, opens = shut.assign(method=method), of.set_index(keys)["opens"].reindex(shut.index)
        right = np.where(opens > 0, wide["right"].reindex(shut.index), shut["right"])
        tables.append(found.assign(opens=opens, right=right).reset_index()[answered.columns])
    return pd.concat(tables, ignore_index=True)


def _opened(lab: Lab, guards: Sequence[DSG], attacks: Sequence[PromptAttack], half: int, benign: int) -> pd.DataFrame:
    means, clamps = lab.once(prompt_attacks.means_of), lab.once(_clamps, tuple(guards))
    knowledge, ways = prompt_attacks.knowledge_of(lab, half, benign), [NO_ATTACK, *attacks]
    pieces = [
        Piece(f"{way.name}, {way.words}, half {half}", "gates", (lab.key(opened, knowledge, way, means, clamps),),
              _opened_piece, (way, half, benign, *guards))
        for way in ways
    ]  # fmt: skip
    tables = [table for (table,) in lab.computed(pieces, dear=False)]
    return pd.concat(
        [t.assign(attack=w.name, setting=w.words) for w, t in zip(ways, tables, strict=True)], ignore_index=True
    )


def _clamps(lab: Lab, guards: tuple[DSG, ...]) -> dict[str, Clamp | None]:
    return {guard.label: lab.edited(guard).intervention for guard in guards}


def _opened_piece(lab: Lab, way: PromptAttack, half: int, benign: int, *guards: DSG) -> list[pd.DataFrame]:
    knowledge = prompt_attacks.knowledge_of(lab, half, benign)
    return [opened(knowledge, way, lab.once(prompt_attacks.means_of), lab.once(_clamps, guards))]


def opened(knowledge: Knowledge, attack: PromptAttack, means: Means, clamps: Mapping[str, Clamp]) -> pd.DataFrame:
    """On which questions in the attack's way each gate opens: one pass through the layers below serves all gates.

    Returns:
        method, subject, id, opens (1 or 0).
    """
    model, known = knowledge.model, knowledge.asked
    kept, rows = prompts(attack, model.tokenizer, known, means, huggingface(model).config.max_position_embeddings)
    batched = row_batches(model, rows, knowledge.batch_tokens)
    sweep = Sweep(model, batched, knowledge.layer, read_letters, knowledge.cache)
    named = pd.DataFrame({"subject": [known[i].subject for i in kept], "id": [str(known[i].id) for i in kept]})
    tables = []
    for label, clamp in clamps.items():
        opens = sweep.gate_scores(clamp) > clamp.gate.threshold
        tables.append(named.assign(method=label, opens=opens.double().numpy()))
    return pd.concat(tables, ignore_index=True)


# --- what came of it --------------------------------------------------------------------------------------------------


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
        table: of `asked` on half 1, with benign questions.

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
        table: of `asked` on half 1, with benign questions.
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
        half_0, half_1: of `asked`; the first may lack a method, which is then left out.

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
