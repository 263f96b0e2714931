"""Notebook 13: the same guard with other gates: what each costs when nobody attacks, and where it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.attacks.dilution import Dilution
from helpers.attacks.prompts import Means, PromptAttack, prompts
from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import Sweep, read_letters, row_batches
from helpers.experiments import prompt_attacks
from helpers.experiments.prompt_attacks import (
    ACCURACY,
    NO_ATTACK,
    OPENS,
    UNGUARDED,
    in_every_way,
    strongest,
    successes,
)
from helpers.lab.pieces import Piece
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.methods.dsg import DSG, learned_gate
from helpers.methods.gates.detector import Detector
from helpers.methods.gates.rule import (
    BENIGN,
    HAZARD,
    NEAR,
    Calibration,
    Examples,
    calibrated,
    examples_of,
    fewest_prompts,
    lowest_threshold,
    prompts_by_role,
)
from helpers.methods.method import Method
from helpers.text.folds import split
from helpers.text.questions import ORIGINAL_ORDER, PROMPT_FORMATS, prompt_tokens

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

# Of each gate the attack that let most through on half 0, whichever it is.
WORST = "strongest on half 0"
UNGATED = "no gate"


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
    """Every question of one half as it is and under every attack, with every gate.

    Args:
        guards: that differ in their gates alone.
        others: methods that stand beside them.
        half: 0 to choose attacks on, 1 to report.
        benign: how many questions are asked of each subject that is not to be forgotten.

    Returns:
        attack, setting (in words), control, and the columns of `answers`; the rows without attack come first.
    """
    ways, settings = [NO_ATTACK, *attacks], (*guards, *others)
    knowledge, means = prompt_attacks.knowledge_of(lab, half, benign), lab.once(prompt_attacks.means_of)
    edits = lab.once(_edits, settings[: len(guards)]), lab.once(_edits, settings[len(guards) :])
    pieces = [
        Piece(f"{way.name}, {way.words}, half {half}", "gates", (lab.key(answers, knowledge, way, means, *edits),),
              _answers, (way, half, benign, len(guards), *settings))
        for way in ways
    ]  # fmt: skip
    return in_every_way(lab, ways, pieces)


def asked_plainly(lab: Lab, guards: Sequence[DSG], others: Sequence[Method]) -> pd.DataFrame:
    """`asked` of half 1 under no attack, with all known questions of every subject but the one to forget.

    Of that as many as are attacked (`prompt_attacks.knowledge_of`), so that accuracies stand beside successes.
    """
    return asked(lab, guards, others, [], half=1, benign=max(map(len, lab.known.values())))


def _edits(lab: Lab, settings: tuple[Method, ...]) -> dict[str, Edited]:
    return {setting.label: lab.edited(setting) for setting in settings}


def _answers(
    lab: Lab, way: PromptAttack, half: int, benign: int, n_guards: int, *settings: Method
) -> list[pd.DataFrame]:
    knowledge, means = prompt_attacks.knowledge_of(lab, half, benign), lab.once(prompt_attacks.means_of)
    edits = lab.once(_edits, settings[:n_guards]), lab.once(_edits, settings[n_guards:])
    return [answers(knowledge, way, means, *edits)]


def answers(
    knowledge: Knowledge, attack: PromptAttack, means: Means, guards: Mapping[str, Edited], others: Mapping[str, Edited]
) -> pd.DataFrame:
    """Every question once in the attack's way: unguarded, under a guard with no gate, with every gate, by the others.

    Where a gate opens, the answer is that of the clamp without a gate, elsewhere that of the unedited model: two passes
    through the layers above serve all gates, and one through those below.

    Args:
        guards: clamps of the unedited model that differ in their gates alone.

    Returns:
        as `prompt_attacks.answers`, and score, the gate's own (empty where there is none); rho is of the guards'
        features.

    Raises:
        ValueError: the attack reads no letters, a guard has no gate, or as `prompt_attacks.answers`.
    """
    if not attack.lettered:
        raise ValueError(f"{attack.name} reads no letters, by which gates are compared: leave it out of notebook 13")
    model, known = knowledge.model, knowledge.asked
    clamps = {label: edited.intervention for label, edited in guards.items() if edited.intervention is not None}
    ungated = replace(next(iter(clamps.values())), gate=None)
    edits = {UNGUARDED: Edited(model), UNGATED: Edited(model, ungated), **others}
    found = prompt_attacks.answers(knowledge, attack, means, edits)
    _, rows = prompts(attack, model.tokenizer, known, means, huggingface(model).config.max_position_embeddings)
    sweep = Sweep(
        model, row_batches(model, rows, knowledge.batch_tokens), knowledge.layer, read_letters, knowledge.cache
    )
    shut, wide = (found[found["method"] == method].reset_index(drop=True) for method in (UNGUARDED, UNGATED))
    rho, tables = sweep.gate_scores(replace(ungated, gate=Gate(0.0))).numpy(), []
    for label, clamp in clamps.items():
        if clamp.gate is None:
            raise ValueError(f"{label} has no gate to compare")
        score = sweep.gate_scores(clamp).numpy()
        opens = score > clamp.gate.threshold
        right = np.where(opens, wide["right"], shut["right"])
        tables.append(shut.assign(method=label, right=right, rho=rho, opens=opens.astype(float), score=score))
    return pd.concat([*tables, found], ignore_index=True)


# --- what came of it --------------------------------------------------------------------------------------------------


def thresholds(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """What each gate is set by: method, and as JSON would have it its fields but features and weights."""
    rows = []
    for setting in settings:
        gate = lab.edited(setting).facts().get("gate")
        known = {"threshold": gate} if isinstance(gate, float) else gate or {}
        rows.append({"method": setting.label, **_in_one_row(known)})
    return pd.DataFrame(rows)


def _in_one_row(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of a gate's facts the numbers, those of its levels too."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= {f"{name} {inner}": number for inner, number in _in_one_row(value).items()}
        elif isinstance(value, int | float):
            flat[name] = value
    return flat


def calibrations(lab: Lab, guards: Sequence[DSG], table: pd.DataFrame) -> pd.DataFrame:
    """Each gate set by a quantile and by split-conformal, on half 0, and its false alarms on half 1.

    Args:
        table: of `asked_plainly`.

    Returns:
        method, calibration, threshold, set_on (prompts of half 0, of the role with fewest), least (so many a conformal
        threshold needs), and of every role that the gate spares on half 1 role, n, right, accuracy (the share of open
        gates), low, high, with aim. Where prompts are too few for a conformal threshold it has no row.
    """
    aim, tables = lab.profile.gates.false_alarms, []
    for guard in guards:
        if guard.gated_by is None:
            continue  # the paper's threshold is a percentile on retain text
        scores = learned_gate(lab, guard.gated_by, guard.chosen(lab))["scores"]
        mine = table[(table["method"] == guard.label) & table["role"].isin(scores)]
        fewest = min(map(len, scores.values()))
        kinds: tuple[Calibration, ...] = ("quantile", "conformal")
        for calibration in kinds[: 1 + (fewest >= fewest_prompts(aim))]:
            threshold = lowest_threshold(scores, aim, calibration)
            found = accuracy(mine.assign(right=mine["score"] > threshold), ["method", "role"])
            set_by = {"calibration": calibration, "threshold": threshold, "set_on": fewest}
            tables.append(found.assign(**set_by, least=fewest_prompts(aim), aim=aim))
    return pd.concat(tables, ignore_index=True)


def taught(lab: Lab, guard: DSG) -> pd.DataFrame:
    """The linear detector taught on less and less like what it is judged on, which is half 1 as it is asked.

    Equally many questions about the same things and about others tell what it owes to having met the things; another
    prompt format and documents, what it owes to having met the form. Thresholds are set on what it is taught on.

    Returns:
        taught (on what), role, n, right, accuracy (the share of questions on which it opens), low, high; no rows of
        things where nobody has said what questions are about, or a half of the things is asked nothing of a role.
    """
    rule, judged, settings = Detector.of(lab.profile), lab.knowledge_on(1), lab.profile.gates
    asked, full, tables = judged.asked, lab.once(examples_of, guard.chosen(lab)), []
    rows = prompt_tokens(lab.model.tokenizer, asked, ORIGINAL_ORDER, judged.prompt_format)
    batched = row_batches(lab.model, rows, judged.batch_tokens)
    sweep = Sweep(lab.model, batched, judged.layer, read_letters, judged.cache)
    for words, examples, things in _lessons(lab, full):
        how = (rule, examples, settings.false_alarms, settings.calibration)
        gate = rule.gate(lab.sae, **lab.stage("gate-taught", calibrated, *how))
        opens = (sweep.gate_scores(Clamp(lab.sae, full.features, 0.0, "any", gate)) > gate.threshold).int().numpy()
        table = pd.DataFrame(
            {"taught": words, "role": [judged.roles[q.subject] for q in asked], "n": 1, "right": opens}
        )
        tables.append(table[[things is None or q.about in things for q in asked]])
    return accuracy(pd.concat(tables), ["taught", "role"])


def _lessons(lab: Lab, full: Examples) -> Iterator[tuple[str, Examples, set[str] | None]]:
    """What a detector is taught on: in words, the examples, and the things of half 1 that it is judged on (all)."""
    yield "half 0 as it is asked", full, None
    for prompt_format in PROMPT_FORMATS:
        if prompt_format != lab.profile.model.prompt_format:
            yield f"half 0 in {prompt_format} form", replace(full, rows=prompts_by_role(lab, prompt_format)), None
    if len(lab.framed_forget):
        told = {role: texts[: len(full.rows[role])] for role, texts in
                ((HAZARD, lab.framed_forget), (NEAR, []), (BENIGN, lab.framed_retain))}  # fmt: skip
        yield "documents, none near", replace(full, rows=told), None
    about: dict[str, set[str]] = {}
    for subject, questions in (of for half in (0, 1) for of in lab.knowledge_on(half).questions.items()):
        about.setdefault(subject, set()).update(q.about for q in questions)
    if any("" in things or len(things) < 2 for things in about.values()):
        return
    drawn = [split(sorted(things), 2, seed=0) for things in about.values()]
    parts = [{thing for halves in drawn for thing in halves[i]} for i in (0, 1)]
    rows = [prompts_by_role(lab, lab.profile.model.prompt_format, part) for part in parts]
    if not all(len(of[role]) for of in rows for role in (HAZARD, BENIGN)):
        return
    for words, order in (("half of half 0, same things", (0, 1)), ("half of half 0, other things", (1, 0))):
        for part, of in zip(parts, order, strict=True):
            yield words, replace(full, rows=rows[of]), part


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


def alarms(table: pd.DataFrame, attacks: Sequence[PromptAttack], aim: float) -> pd.DataFrame:
    """On what share of benign questions each gate opens along the tokens of filler in front, the first kind there is.

    Args:
        table: of `asked` on half 1, with benign questions.
        attacks: the settings in it.
        aim: the share that the gates are set to.

    Returns:
        method, role ('near' or 'side'), tokens (0 without attack), n, right, accuracy (the share), low, high, aim.
    """
    benign, tables = table[(table["role"] != "forget") & table["opens"].notna()], []
    before = [a for a in attacks if isinstance(a, Dilution) and not a.control and a.place == "before"]
    lengths = {NO_ATTACK.words: 0} | {a.words: a.tokens for a in before if a.filler == before[0].filler}
    for words, tokens in lengths.items():
        tables.append(benign[benign["setting"] == words].assign(tokens=tokens))
    padded = pd.concat(tables)
    return accuracy(padded.assign(right=padded["opens"]), ["method", "role", "tokens"]).assign(aim=aim)


def attacked(
    half_0: pd.DataFrame,
    half_1: pd.DataFrame,
    plain: pd.DataFrame,
    padded: pd.DataFrame,
    attacks: Sequence[PromptAttack],
) -> pd.DataFrame:
    """Of each guard's blocked questions how many are right under each attack, at the setting chosen on half 0.

    Every guard is attacked at the setting that unblocks most of its own questions on half 0; all counts are of half 1.

    Args:
        half_0, half_1: of `asked`, under every attack.
        plain, padded: of `clean` and of `alarms`.

    Returns:
        the columns of `prompt_attacks.successes` with `WORST` as a last attack of each method, and of the method itself
        forget, forget_low, forget_high (accuracy when nobody attacks), near, near_low, near_high (the share of
        near-domain questions on which its gate opens when nobody attacks) and alarms, alarms_low, alarms_high (that of
        far benign questions behind the longest text); the last two are 1 without a gate, and empty without a guard.
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
            rows.append({**row, "attack": name, "setting": attack.words, **_itself(plain, padded, method)})
    table = pd.DataFrame(rows)
    first = ["method", "attack", "setting"]
    return table[[*first, *table.columns.difference([*first, "world", "control"], sort=False)]]


def _itself(plain: pd.DataFrame, padded: pd.DataFrame, method: str) -> dict[str, float]:
    """Accuracy, the near domain's and the long texts' alarms of a guard by itself, each with its interval."""
    mine, long = plain[plain["method"] == method], padded[padded["tokens"] == padded["tokens"].max()]
    always = 1.0 if method == UNGATED else np.nan
    parts = {
        "forget": (mine[(mine["role"] == "forget") & (mine["measure"] == ACCURACY)], np.nan),
        "near": (mine[(mine["role"] == "near") & (mine["measure"] == OPENS)], always),
        "alarms": (long[(long["role"] == "side") & (long["method"] == method)], always),
    }
    ends = {"": "accuracy", "_low": "low", "_high": "high"}
    return {
        f"{name}{end}": float(rows[column].iloc[0]) if len(rows) else missing
        for name, (rows, missing) in parts.items()
        for end, column in ends.items()
    }
