"""Notebook 10: what methods leave of texts that were learned (Muhamed et al. 2025, Table 2, Table 11 and Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.engine.edited import Edited
from helpers.engine.interventions import New
from helpers.engine.scoring import gate_scores
from helpers.engine.steps import Passes
from helpers.experiments.forget_requests import AT_ONCE, TEXT_SO_FAR, TRAINED_ON
from helpers.lab.pieces import Piece
from helpers.measures.knowledge import HALF_SEED
from helpers.measures.metrics import halves
from helpers.measures.muse import criteria, muse_under, values_of
from helpers.methods.method import Method
from helpers.methods.retrained import Retrained
from helpers.methods.training import TrainedMethod
from helpers.published import load_published
from helpers.text.corpora import Document
from helpers.text.muse import CRITERIA, KNOWMEM_FORGET, KNOWMEM_RETAIN, VERBMEM
from helpers.text.questions import encode_texts

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

OURS, TARGET = "ours", "target"
# By which rule a setting stands in the table: the best at the floor of utility, or where the paper would have stopped.
CHOSEN, STOPPED = "chosen on half 0", "stopped as in the paper"
ONLY = "its only setting"
CHOSEN_BY = (VERBMEM, KNOWMEM_FORGET, KNOWMEM_RETAIN)  # the retrained model is not there to choose by
SERVED = ["method", "how", "requests", "criterion", "value", "low", "high", "n"]
ASKED_FOR, NOT_YET = "VerbMem, to be forgotten", "VerbMem, not yet asked for"


def view_of(lab: Lab, texts: Sequence[str] | None = None, model: Any = None) -> Lab:
    """The lab given the benchmark's text to retain, and text to forget: all of it, or some."""
    told = lab.muse.forget if texts is None else texts
    return lab.given([Document(lab.muse.name, text) for text in told], model, lab.muse.retain)


def reference(lab: Lab) -> Method:
    """The retrained model, to which PrivLeak is relative. Raises ValueError where the profile has none."""
    found = Retrained.grid(lab.profile)
    if not found:
        name = lab.profile.name
        raise ValueError(
            f"profile {name!r} has no retrained model, and PrivLeak is relative to it: make one with `python -m "
            f"helpers.finetune --profile {name} --data retain` and name it in method.retrained"
        )
    return found[0]


# --- settings ---------------------------------------------------------------------------------------------------------


def tables_of(
    lab: Lab, settings: Sequence[Method | None], half: int, new: New | None = None, measured: Sequence[str] = CRITERIA
) -> list[pd.DataFrame]:
    """`muse_under` of each setting, of which one half of the benchmark is given; None is the target itself.

    Of what is trained both halves are measured at once, because training it again costs more.

    Args:
        new: how a gate decides at new tokens; None takes the profile's first way.
    """
    new = lab.profile.muse.gates[0] if new is None else new
    view = lab.once(view_of)
    courses: dict[Any, list[int]] = {}
    for i, setting in enumerate(settings):
        courses.setdefault(None if setting is None else setting.course, []).append(i)
    pieces = []
    for of in courses.values():
        first = settings[of[0]]
        words = TARGET if first is None else f"{first.label}, {first.words}"
        asked = None if isinstance(first, TrainedMethod) else half
        keys = tuple(_key(lab, _applied(view, settings[i]), measured, new, asked) for i in of)
        args = (tuple(measured), new, asked, *(settings[i] for i in of))
        pieces.append(Piece(words, "muse", keys, _measured_in, args))
    found: list[pd.DataFrame] = [pd.DataFrame()] * len(settings)
    for of, results in zip(courses.values(), lab.computed(pieces, dear=True), strict=True):
        for i, table in zip(of, results, strict=True):
            found[i] = table[table["half"] == half]
    return found


def _measured_in(
    lab: Lab, measured: Sequence[str], new: New, half: int | None, *settings: Method | None
) -> list[pd.DataFrame]:
    view = lab.once(view_of)
    return [_measured(lab, _applied(view, setting), measured, new, half) for setting in settings]


def _applied(view: Lab, setting: Method | None) -> Edited:
    return view.unedited if setting is None else setting.apply(view)


def _key(lab: Lab, edited: Edited, measured: Sequence[str], new: New, half: int | None) -> dict[str, str]:
    return lab.key(muse_under, lab.muse, edited, lab.profile.muse, lab.profile.model.batch_tokens, new, measured, half)


def _measured(lab: Lab, edited: Edited, measured: Sequence[str], new: New, half: int | None) -> pd.DataFrame:
    return muse_under(lab.muse, edited, lab.profile.muse, lab.profile.model.batch_tokens, new, measured, half)


def swept(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Every setting on half 0 of the benchmark, and which one stands for its method.

    Chosen is the setting that leaves the least memory (mean of VerbMem and KnowMem of the forget set, as shares of the
    target's) while KnowMem of the retain set is at least `utility_floor` of the target's; where none keeps that, the
    largest difference of the two shares. Stopped, as the paper does, is every training at its first whole epoch that
    falls below that floor, or at its last.

    Returns:
        a row a setting, in their order: method, setting, course (its training in words), epochs (of the text to forget;
        missing of clamps), VerbMem, KnowMem forget, KnowMem retain (times 100), memory, utility (shares of the
        target's), chosen, stopped, floor (`utility_floor`).

    Raises:
        ValueError: the target has nothing to lose by one of these.
    """
    target, *tables = tables_of(lab, [None, *settings], half=0)
    means = pd.DataFrame([{c: 100 * values_of(table, c).mean() for c in CHOSEN_BY} for table in (target, *tables)])
    if nothing := [criterion for criterion in CHOSEN_BY if not means.loc[0, criterion]]:
        raise ValueError(
            f"{', '.join(nothing)} of the target are 0: it has not learned the texts of {lab.muse.name}; set "
            "model.source to a model that was trained on them"
        )
    shares = means.iloc[1:].reset_index(drop=True) / means.iloc[0]
    table = means.iloc[1:].reset_index(drop=True).assign(
        memory=shares[[VERBMEM, KNOWMEM_FORGET]].mean(axis=1), utility=shares[KNOWMEM_RETAIN]
    )  # fmt: skip
    rows = len(lab.once(view_of).forget_rows)
    labels = pd.DataFrame({
        "method": [s.label for s in settings], "setting": [s.words for s in settings],
        "course": [s.course_words if isinstance(s, TrainedMethod) else "" for s in settings],
        "epochs": [s.steps * s.batch_rows / rows if isinstance(s, TrainedMethod) else np.nan for s in settings],
    })  # fmt: skip
    floor = lab.profile.muse.utility_floor
    return marked(pd.concat([labels, table], axis=1), floor).assign(floor=floor)


def marked(table: pd.DataFrame, floor: float) -> pd.DataFrame:
    """`swept`'s rows with their last two columns, chosen and stopped."""
    chosen, stopped = [], []
    for _, of in table.groupby("method", sort=False):
        kept = of[of["utility"] >= floor]
        chosen.append(kept["memory"].idxmin() if len(kept) else (of["utility"] - of["memory"]).idxmax())
        # a number of whole rows a step makes an epoch of .99 or 1.02
        for _, stops in of[of["epochs"].round() >= 1].sort_values("epochs").groupby("course", sort=False):
            below = stops[stops["utility"] < floor]
            stopped.append(below.index[0] if len(below) else stops.index[-1])
    return table.assign(chosen=table.index.isin(chosen), stopped=table.index.isin(stopped))


# --- the table --------------------------------------------------------------------------------------------------------


def compared(lab: Lab, settings: Sequence[Method], sweep: pd.DataFrame) -> pd.DataFrame:
    """The four criteria of the settings that `swept` marks, on half 1, with target, retrained model and paper beside.

    Returns:
        world (`OURS`, 'MUSE-News', 'MUSE-Books'), method, rule (`CHOSEN`, `STOPPED`, `ONLY`; '' of the paper), setting,
        criterion (`CRITERIA` times 100, and `MIN_K_GAP` in nats), value, low, high, n (missing of the paper).
    """
    retrained = reference(lab)
    wanted: list[tuple[str, str, Method | None]] = [(TARGET, ONLY, None), (retrained.label, ONLY, retrained)]
    for setting, row in zip(settings, sweep.to_dict("records"), strict=True):
        wanted += [(setting.label, rule, setting) for rule, column in ((CHOSEN, "chosen"), (STOPPED, "stopped"))
                   if row[column]]  # fmt: skip
    different = list(dict.fromkeys(setting for _, _, setting in wanted))
    tables = dict(zip(different, tables_of(lab, different, half=1), strict=True))
    rows = [
        criteria(tables[setting], lab.profile.muse.resamples, tables[retrained]).assign(
            method=method, rule=rule, setting="" if setting is None else setting.words
        )
        for method, rule, setting in wanted
    ]
    return pd.concat([pd.concat(rows).assign(world=OURS), published()], ignore_index=True)[
        ["world", "method", "rule", "setting", "criterion", "value", "low", "high", "n"]
    ]


def published() -> pd.DataFrame:
    """The paper's Table 2 as rows of `compared`: world, method, rule, setting, criterion, value."""
    table = load_published("dsg2025_muse").rename(columns={"benchmark": "world"})
    columns = dict(zip(("verbmem", "knowmem_forget", "privleak", "knowmem_retain"), CRITERIA, strict=True))
    long = table.rename(columns=columns).melt(["world", "method"], list(CRITERIA), "criterion")
    return long.assign(rule="", setting="")


def as_table(rows: pd.DataFrame, world: str = OURS) -> pd.DataFrame:
    """`compared` of one world as the paper prints it: a row a method and rule, a column a criterion."""
    of = rows[rows["world"] == world]
    return of.pivot_table(values="value", index=["method", "rule", "setting"], columns="criterion", sort=False)[
        list(CRITERIA)
    ].rename_axis(columns=None)


# --- gates ------------------------------------------------------------------------------------------------------------


def gates(lab: Lab, setting: Method) -> pd.DataFrame:
    """What is left on half 1 of what is said, however the gate decides at new tokens; PrivLeak reads whole texts.

    Returns:
        method, gate, criterion, value, low, high, n.
    """
    found = []
    for new in lab.profile.muse.gates:
        # methods are compared under the first way, so that all of it is there
        measured = CRITERIA if new == lab.profile.muse.gates[0] else CHOSEN_BY
        (table,) = tables_of(lab, [setting], 1, new, measured)
        found.append(criteria(table, lab.profile.muse.resamples).assign(gate=new, method=setting.label))
    return pd.concat(found, ignore_index=True)


def gate_opens(lab: Lab, setting: Method) -> dict[str, float]:
    """In percent of half 1, where a setting's gate opens: passages, forget_questions, retain_questions."""
    clamp, tokenizer = setting.apply(lab.once(view_of)).intervention, lab.model.tokenizer
    if clamp is None or clamp.gate is None:
        raise ValueError(f"{setting.label} has no gate")
    prompts = {
        "passages": [passage.prompt for passage in lab.muse.passages],
        "forget_questions": lab.muse.known_forget.prompts,
        "retain_questions": lab.muse.known_retain.prompts,
    }
    found = {}
    for name, texts in prompts.items():
        judged = [text for text, half in zip(texts, halves(len(texts), HALF_SEED), strict=True) if half == 1]
        rows = encode_texts(tokenizer, judged)
        scores = gate_scores(lab.model, clamp, rows, lab.profile.model.batch_tokens)
        found[name] = float(100 * (scores > clamp.gate.threshold).mean())
    return found


# --- requests ---------------------------------------------------------------------------------------------------------


def requests(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """What is left on half 1 when more and more of the text is to be forgotten, at once and one request after another.

    In turn, a clamp is refitted on all text so far, and weights are trained on with the new text.

    Args:
        settings: one a method.

    Returns:
        method, how, requests, criterion (`ASKED_FOR`, `NOT_YET`: VerbMem of the passages that were to be forgotten by
        then, and of the others; 'KnowMem retain'), value (times 100), low, high, n. Where the benchmark has no such
        requests, as MUSE-Books, a row a method and way without numbers says so.
    """
    pieces, labels = [], []
    for setting in settings:
        for how in _ways(setting):
            numbers = range(1, 1 + len(lab.muse.at_once if how == AT_ONCE else lab.muse.in_turn))
            for of in filter(len, [numbers] if how == TRAINED_ON else [[n] for n in numbers]):
                keys = tuple(lab.key(_served_in, _fixed(lab), setting, how, n) for n in of)
                words = f"{setting.label}, {how}, {', '.join(map(str, of))}"
                pieces.append(Piece(words, "muse-requests", keys, _served_in, (setting, how, *of)))
                labels += [(setting.label, how, n) for n in of]
    tables = [table for results in lab.computed(pieces, dear=True) for table in results]
    rows = [
        _by_request(lab, table, _told(lab, how, n)).assign(method=method, how=how, requests=n)
        for (method, how, n), table in zip(labels, tables, strict=True)
    ]
    if not rows:
        ways = [(setting.label, how) for setting in settings for how in _ways(setting)]
        return pd.DataFrame(ways, columns=SERVED[:2]).assign(
            criterion=ASKED_FOR, **dict.fromkeys(["requests", *SERVED[4:]], np.nan)
        )[SERVED]
    return pd.concat(rows, ignore_index=True)[SERVED]


def _ways(setting: Method) -> tuple[str, str]:
    return AT_ONCE, TRAINED_ON if setting.trains else TEXT_SO_FAR


def _fixed(lab: Lab) -> list[Any]:
    """What an edit of a view and its answers depend on."""
    settings, view = lab.profile, lab.once(view_of)
    kept = [lab.muse, lab.model, lab.sae, view.retain_rows, settings.muse, settings.texts, settings.selection]
    return [*kept, settings.clamp_unit, settings.method, settings.model.batch_tokens, Passes.of(settings.model)]


def _told(lab: Lab, how: str, n: int) -> tuple[str, ...]:
    """All that was to be forgotten after so many requests."""
    return lab.muse.at_once[n - 1] if how == AT_ONCE else tuple(t for fold in lab.muse.in_turn[:n] for t in fold)


def _served_in(lab: Lab, setting: Method, how: str, *numbers: int) -> list[pd.DataFrame]:
    if how != TRAINED_ON:
        return [_served(lab, setting.apply(view_of(lab, _told(lab, how, n)))) for n in numbers]
    return [_served(lab, edited) for edited in trained_on(lab, setting)]


def _served(lab: Lab, edited: Edited) -> pd.DataFrame:
    return _measured(lab, edited, (VERBMEM, KNOWMEM_RETAIN), lab.profile.muse.gates[0], half=1)


def trained_on(lab: Lab, setting: Method) -> Iterator[Edited]:
    """A setting after each request in turn, from the weights that the request before has left."""
    model = lab.model
    for texts in lab.muse.in_turn:
        edited = setting.apply(view_of(lab, texts, model))
        model = edited.model
        yield edited


def _by_request(lab: Lab, table: pd.DataFrame, told: Sequence[str]) -> pd.DataFrame:
    wanted = {i for i, passage in enumerate(lab.muse.passages) if any(passage.prompt in text for text in told)}
    memory = table["criterion"] == VERBMEM
    parts: Mapping[str, pd.DataFrame] = {
        ASKED_FOR: table[memory & table["item"].isin(wanted)],
        NOT_YET: table[memory & ~table["item"].isin(wanted)],
        KNOWMEM_RETAIN: table[~memory],
    }
    rows = [criteria(of, lab.profile.muse.resamples).assign(criterion=name) for name, of in parts.items() if len(of)]
    return pd.concat(rows, ignore_index=True)
