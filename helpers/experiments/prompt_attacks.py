"""Notebook 11: how a guard fails: the same questions asked in other ways, by the guarded and the unguarded model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.attacks.dilution import Dilution
from helpers.attacks.prompts import BENIGN, HAZARD, Means, NoAttack, PromptAttack, prompts
from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Gate
from helpers.engine.scoring import Readout, Sweep, is_right, read_endings, read_letters, row_batches
from helpers.lab.choosing import choose
from helpers.lab.pieces import Piece
from helpers.measures.knowledge import Knowledge, read_under
from helpers.measures.metrics import accuracy, wilson_interval
from helpers.methods.method import Method
from helpers.published import load_published
from helpers.text.questions import ORIGINAL_ORDER, Question

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

UNGUARDED = "unguarded"
NO_ATTACK = NoAttack()
SETTING = ["attack", "setting", "control"]
OURS, REPRODUCTION = "ours", "gemma-2-2b-it, independent reproduction (unreviewed)"
OPENS, ACCURACY = "gate opens", "accuracy"


# --- asking -----------------------------------------------------------------------------------------------------------


def attacked_settings(lab: Lab) -> list[Method]:
    """The profile's methods, each at its setting chosen on half 0; the guard first, and none that has no setting here.

    Raises:
        ValueError: the first has no gate, so that there is nothing to attack.
    """
    sweeps = [scores for name in lab.profile.prompt_attacks.methods if (scores := lab.sweep(name))]
    settings = [choose(scores).setting for scores in sweeps]
    guard = lab.edited(settings[0]).intervention
    if guard is None or guard.gate is None:
        raise ValueError(
            f"{settings[0].label} has no gate to attack: name one that has first in prompt_attacks.methods"
        )
    return settings


def means_of(lab: Lab) -> Means:
    """What attackers have in this lab's world."""
    roles = lab.profile.questions
    kinds = {BENIGN: roles.side_effect, HAZARD: (roles.forget,)}
    questions = {kind: [q for s in subjects for q in lab.all_questions[s]] for kind, subjects in kinds.items()}
    means = Means(lab.profile.model.prompt_format, lab.fillers, questions)
    lab.unchanging(means)
    return means


def knowledge_of(lab: Lab, half: int, benign: int, forget: bool = True) -> Knowledge:
    """Known questions of one half, as many as the profile says of the subject to forget and so many of each other."""
    knowledge = lab.knowledge_on(half)
    limits = dict.fromkeys(knowledge.questions, benign)
    limits[lab.profile.questions.forget] = lab.profile.prompt_attacks.questions * forget
    return replace(knowledge, questions={s: of[: limits[s]] for s, of in knowledge.questions.items() if limits[s]})


def asked(
    lab: Lab, settings: Sequence[Method], attacks: Sequence[PromptAttack], half: int, benign: int = 0
) -> pd.DataFrame:
    """Every question of one half as it is and under every attack, under every setting and by the unedited model.

    Args:
        half: 0 to choose attacks on, where the unedited model is not asked; 1 to report.
        benign: so many questions are asked of each subject that is not to be forgotten; where there are any, those to
            forget are left out.

    Returns:
        attack, setting (in words), control, and the columns of `answers`; the rows without attack come first.
    """
    knowledge, means, edits = (
        knowledge_of(lab, half, benign, not benign),
        lab.once(means_of),
        lab.once(_edits, half, tuple(settings)),
    )
    ways = [NO_ATTACK, *attacks]
    pieces = [
        Piece(f"{way.name}, {way.words}, half {half}", "prompt-attacks",
              (lab.key(answers, knowledge, way, means, edits),), _answers, (way, half, benign, *settings))
        for way in ways
    ]  # fmt: skip
    return in_every_way(lab, ways, pieces)


def in_every_way(lab: Lab, ways: Sequence[PromptAttack], pieces: Sequence[Piece]) -> pd.DataFrame:
    """The tables of some pieces, one a way of asking, below each other; first stand attack, setting and control."""
    tables = [table for (table,) in lab.computed(pieces, dear=True)]
    named = [t.assign(attack=w.name, setting=w.words, control=w.control) for w, t in zip(ways, tables, strict=True)]
    found = pd.concat(named, ignore_index=True)
    return found[[*SETTING, *found.columns.difference(SETTING, sort=False)]]


def _edits(lab: Lab, half: int, settings: tuple[Method, ...]) -> dict[str, Edited]:
    unguarded = {UNGUARDED: lab.unedited} if half else {}
    return unguarded | {setting.label: lab.edited(setting) for setting in settings}


def _answers(lab: Lab, way: PromptAttack, half: int, benign: int, *settings: Method) -> list[pd.DataFrame]:
    return [
        answers(knowledge_of(lab, half, benign, not benign), way, lab.once(means_of), lab.once(_edits, half, settings))
    ]


def answers(knowledge: Knowledge, attack: PromptAttack, means: Means, edits: Mapping[str, Edited]) -> pd.DataFrame:
    """Every question once in the attack's way, under every edit.

    Returns:
        method, subject, role, id, n (1), right, rho and opens (1 or 0, of the gate; both empty where there is none).
        Where no letters are read, a gate looks at the question with each of the choices, and both are means of the
        four.

    Raises:
        ValueError: no question is left, or the attack's means do not suffice.
    """
    model, known = knowledge.model, knowledge.asked
    longest = huggingface(model).config.max_position_embeddings
    kept, rows = prompts(attack, model.tokenizer, known, means, longest)
    questions, read = [known[i] for i in kept], read_letters
    if not attack.lettered:
        rows, read = _choices_below(model.tokenizer, rows, questions, means.prompt_format)
    batched = list(row_batches(model, rows, knowledge.batch_tokens))
    sweep = Sweep(model, batched, knowledge.layer, read, knowledge.cache)
    named = pd.DataFrame({
        "subject": [q.subject for q in questions], "role": [knowledge.roles[q.subject] for q in questions],
        "id": [str(q.id) for q in questions], "n": 1,
    })  # fmt: skip
    tables = []
    for label, edited in edits.items():
        found = read_under(sweep, batched, edited)
        letters = found if attack.lettered else -found.view(len(questions), -1)
        right = is_right(letters[:, None], questions, ORIGINAL_ORDER)[:, 0].numpy()
        tables.append(named.assign(method=label, right=right.astype(int), **_gate(sweep, edited, len(questions))))
    return pd.concat(tables, ignore_index=True)


def _choices_below(
    tokenizer, rows: Sequence[list[int]], questions: Sequence[Question], prompt_format: str
) -> tuple[list[list[int]], Readout]:
    """Every prompt with each of its four choices behind it, and what reads their mean nats."""
    space = "" if prompt_format == "chat" else " "
    texts = [tokenizer([space + c for c in q.choices], add_special_tokens=False).input_ids for q in questions]
    told = [[*row, *choice] for row, four in zip(rows, texts, strict=True) for choice in four]
    return told, read_endings([len(choice) for four in texts for choice in four])


def _gate(sweep: Sweep, edited: Edited, questions: int) -> dict[str, np.ndarray | float]:
    """Of a question that is several rows the mean over them."""
    clamp = edited.intervention
    if clamp is None or clamp.gate is None:
        return {"rho": np.nan, "opens": np.nan}
    rho = sweep.gate_scores(replace(clamp, gate=Gate(0.0)))
    opens = (sweep.gate_scores(clamp) > clamp.gate.threshold).double()
    return {name: of.view(questions, -1).mean(dim=1).numpy() for name, of in (("rho", rho), ("opens", opens))}


# --- what came of it --------------------------------------------------------------------------------------------------


def successes(table: pd.DataFrame) -> pd.DataFrame:
    """Of the questions to forget that a method answers wrong without attack, how many are right under each.

    A question is asked once a setting, so it counts once: intervals are over questions.

    Args:
        table: of `asked`.

    Returns:
        world (`OURS`), attack, setting, control, method, n (wrong without attack), right, accuracy (their share) with
        its interval low, high; and of the same questions under the same attack unguarded (the share that the unedited
        model answers right), rho (the mean) and opens (the share of gates that open). Shares are empty where the method
        answers nothing wrong, and the last two where it has no gate.
    """
    forget = table[table["role"] == "forget"].set_index("id")
    plain, rows = forget[forget["attack"] == NO_ATTACK.name], []
    for (*setting, method), of in forget.groupby([*SETTING, "method"], sort=False):
        if method == UNGUARDED:
            continue
        known = plain[plain["method"] == method]
        wrong = of.index.intersection(known.index[known["right"] == 0])
        bare = (
            forget[(forget["method"] == UNGUARDED) & (forget["setting"] == setting[1])]["right"].reindex(wrong).mean()
        )
        n, right = len(wrong), int(of.loc[wrong, "right"].sum())
        ends = wilson_interval(right, n) if n else (np.nan, np.nan)
        means = of.loc[wrong, ["rho", "opens"]].mean()
        rows.append((OURS, *setting, method, n, right, right / n if n else np.nan, *ends, bare, *means))
    columns = ["world", *SETTING, "method", "n", "right", "accuracy", "low", "high", "unguarded", "rho", "opens"]
    return pd.DataFrame(rows, columns=columns)


def chosen(lab: Lab, guard: Method, attacks: Sequence[PromptAttack]) -> list[PromptAttack]:
    """Of each attack the setting that unblocks most on half 0 (`strongest`); controls are not chosen from."""
    tried = [attack for attack in attacks if not attack.control]
    return strongest(asked(lab, [guard], tried, half=0), tried)


def strongest(table: pd.DataFrame, attacks: Sequence[PromptAttack]) -> list[PromptAttack]:
    """Of each attack the setting with which the guard, the first method, lets most through; of equals the first.

    Args:
        table: of `asked`.
        attacks: those to choose from.
    """
    found = successes(table)
    share = found[found["method"] == found["method"].iloc[0]].set_index(["attack", "setting"])["accuracy"].fillna(0)
    first: dict[str, PromptAttack] = {}
    for attack in attacks:
        best = first.get(attack.name)
        if best is None or share[attack.name, attack.words] > share[best.name, best.words]:
            first[attack.name] = attack
    return list(first.values())


def controls_of(settings: Sequence[PromptAttack], attacks: Sequence[PromptAttack]) -> list[PromptAttack]:
    """The settings that ought to fail and differ from one of some in a single field."""
    return [b for a in settings for b in attacks if b.control and type(a) is type(b) and _differ(a, b) == 1]


def _differ(a: PromptAttack, b: PromptAttack) -> int:
    return sum(getattr(a, field.name) != getattr(b, field.name) for field in fields(a))


def with_reproduction(found: pd.DataFrame) -> pd.DataFrame:
    """`successes`, and below them what others found on Gemma with the same settings (`world` tells them apart)."""
    theirs = load_published("guard_attacks").query("measure == 'success'")
    theirs = theirs.merge(found[SETTING].drop_duplicates(), on=["attack", "setting"])
    middle = theirs[["low", "high"]].mean(axis=1)
    shown = theirs.assign(
        world=REPRODUCTION, method=found["method"].iloc[0], accuracy=middle, n=theirs["n"].astype(int)
    )
    return pd.concat([found, shown[[c for c in found if c in shown]]], ignore_index=True)


def of_settings(found: pd.DataFrame, attacks: Sequence[PromptAttack]) -> pd.DataFrame:
    """The rows of some settings only, in their order."""
    order = {(attack.name, attack.words): i for i, attack in enumerate(attacks)}
    places = pd.Series([order.get(key, -1) for key in zip(found["attack"], found["setting"], strict=True)], found.index)
    return found[places >= 0].loc[places[places >= 0].sort_values(kind="stable").index].reset_index(drop=True)


def in_few_rows(attacks: Sequence[PromptAttack]) -> list[PromptAttack]:
    """For one picture: of dilution every length in the first place, and in the other places the longest."""
    lengths = [a for a in attacks if isinstance(a, Dilution)]
    left_out = {a for a in lengths if a.place != lengths[0].place and a.tokens < max(b.tokens for b in lengths)}
    return [a for a in attacks if a not in left_out]


def dilution_curves(table: pd.DataFrame, attacks: Sequence[PromptAttack]) -> pd.DataFrame:
    """Accuracy on the questions to forget along the tokens of filler.

    Args:
        table: of `asked`.
        attacks: the settings in it; other attacks are left out.

    Returns:
        method, filler, place, tokens (0 without attack), n, right, accuracy, low, high.
    """
    return accuracy(_diluted(table, attacks), ["method", "filler", "place", "tokens"])


def gate_curves(table: pd.DataFrame, attacks: Sequence[PromptAttack], threshold: float) -> pd.DataFrame:
    """What the gate sees along the tokens of filler, on the questions to forget.

    Returns:
        measure ('rho' or `OPENS`), filler, place, tokens, n, value, low, high, threshold (tau). Of rho: mean, and 5th
        and 95th percentile of the questions; of open gates: the share with its interval.
    """
    guarded = _diluted(table, attacks)
    guarded = guarded[guarded["rho"].notna()]
    by = ["filler", "place", "tokens"]
    opened = accuracy(guarded.assign(right=guarded["opens"]), by).rename(columns={"accuracy": "value"})
    rho = guarded.groupby(by, sort=False)["rho"].agg(
        n="size", value="mean", low=lambda x: x.quantile(0.05), high=lambda x: x.quantile(0.95)
    )
    both = [rho.reset_index().assign(measure="rho"), opened.drop(columns="right").assign(measure=OPENS)]
    return pd.concat(both, ignore_index=True).assign(threshold=threshold)


def _diluted(table: pd.DataFrame, attacks: Sequence[PromptAttack]) -> pd.DataFrame:
    """Rows of the questions to forget with filler, place and tokens; those without filler in every panel."""
    forget = table[table["role"] == "forget"]
    plain, tables = forget[forget["attack"] == NO_ATTACK.name], []
    settings = [attack for attack in attacks if isinstance(attack, Dilution)]
    for filler, place in dict.fromkeys((attack.filler, attack.place) for attack in settings):
        tables.append(plain.assign(filler=filler, place=place, tokens=0))
    for attack in settings:
        of = forget[(forget["attack"] == attack.name) & (forget["setting"] == attack.words)]
        tables.append(of.assign(**vars(attack)))
    return pd.concat(tables, ignore_index=True)


def benign_costs(table: pd.DataFrame) -> pd.DataFrame:
    """What attacks do to questions that are not to be forgotten, by subject.

    Args:
        table: of `asked`, with benign questions.

    Returns:
        attack, setting, control, subject, role, method, measure (`OPENS`, where there is a gate, or `ACCURACY`), n,
        right, accuracy (their share), low, high.
    """
    benign = table[table["role"] != "forget"]
    opened = benign[benign["opens"].notna()]
    tables = [opened.assign(right=opened["opens"], measure=OPENS), benign.assign(measure=ACCURACY)]
    return accuracy(pd.concat(tables, ignore_index=True), [*SETTING, "subject", "role", "method", "measure"])
