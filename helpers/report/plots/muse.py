"""Notebook 10: what is left of learned texts, by MUSE's criteria."""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.report.plots.style import (
    BLACK,
    GREEN,
    GREY,
    REFERENCE_SIZE,
    interval,
    is_reference,
    legend,
    look_of,
    looks_of,
    panels,
    sample,
    say_if_empty,
)
from helpers.text.muse import BAND, CRITERIA, KNOWMEM_FORGET, KNOWMEM_RETAIN, PRIVLEAK, VERBMEM

TITLES = {
    VERBMEM: "VerbMem\n(lower is better)",
    KNOWMEM_FORGET: "KnowMem, forget\n(lower is better)",
    PRIVLEAK: "PrivLeak\n(best within the band)",
    KNOWMEM_RETAIN: "KnowMem, retain\n(higher is better)",
}
# how much of a method's place each world takes, above its middle (ours) and below
WORLD_PLACES = {"ours": 0.0, "MUSE-News": 0.22, "MUSE-Books": 0.38}
WORLD_MARKERS = {"MUSE-News": "s", "MUSE-Books": "D"}
STOPPED = "stopped as in the paper"
GATE_WORDS = {
    "never": "prompt only", "held": "by the prompt, held", "each": "every token by itself", "running": "running rho",
}  # fmt: skip
LINES, ORDER = ("-", "--", "-.", ":"), ("first", "second", "third", "fourth")


def muse_criteria(table: pd.DataFrame) -> Figure:
    """Notebook 10: the four criteria of every method with 95 % intervals, the paper's numbers hollow below ours."""
    figure, axes = panels(4, columns=4, height=5.2, sharey=True)
    methods = list(dict.fromkeys(table["method"]))
    for ax, criterion in zip(axes, CRITERIA, strict=True):
        of = table[table["criterion"] == criterion]
        for place, method in enumerate(methods):
            _method(ax, of[of["method"] == method], place, method)
        target = of[(of["method"] == "target") & (of["world"] == "ours")]["value"]
        if criterion == PRIVLEAK:
            ax.axvspan(-BAND, BAND, color=GREEN, alpha=0.25, linewidth=0, zorder=0)
        elif len(target):
            ax.axvline(target.iloc[0], color=GREY, ls=":", lw=1)
        ax.set(title=TITLES[criterion], xlabel="times 100")
        ax.set_ylim(len(methods) - 0.4, -0.5)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set_ylabel("method")
    extra = [
        sample("ours, chosen on half 0 (95 % interval)", marker="o", color=BLACK),
        sample("ours, stopped as in the paper", marker="x", color=BLACK),
        *(sample(f"paper, {world}", marker=marker, mfc="white") for world, marker in WORLD_MARKERS.items()),
        sample("our target", linestyle=":"),
        sample(f"PrivLeak from {-BAND:g} to {BAND:g}", marker="s", color=GREEN, alpha=0.25, markersize=9),
    ]
    legend(figure, [], 3, extra)
    return figure


def _method(ax: Axes, rows: pd.DataFrame, place: int, method: str) -> None:
    colour, marker = look_of(method)
    for row in rows.itertuples():
        if row.world != "ours":
            ax.plot(
                row.value, place + WORLD_PLACES[row.world], WORLD_MARKERS[row.world], color=GREY, mfc="white", ms=4.5
            )
            continue
        stopped = row.rule == STOPPED
        at, size = place - 0.22 * stopped, 6 * (REFERENCE_SIZE if is_reference(method) else 1)
        ax.errorbar(row.value, at, xerr=interval(row.value, row.low, row.high), color=colour, elinewidth=1,
                    marker="x" if stopped else marker, ms=size)  # fmt: skip


def muse_gates(table: pd.DataFrame) -> Figure:
    """Notebook 10: what is left under a gated clamp, however its gate decides at tokens that the model says itself."""
    criteria = [criterion for criterion in CRITERIA if criterion != PRIVLEAK]
    figure, axes = panels(3, columns=3, height=2.6, sharey=True)
    ways = list(dict.fromkeys(table["gate"]))
    for ax, criterion in zip(axes, criteria, strict=True):
        of = table[table["criterion"] == criterion].set_index("gate").loc[ways]
        colour, marker = look_of(of["method"].iloc[0])
        ax.errorbar(of["value"], range(len(ways)), xerr=interval(of["value"], of["low"], of["high"]), color=colour,
                    marker=marker, ls="none", elinewidth=1, label=of["method"].iloc[0])  # fmt: skip
        ax.set(title=f"{TITLES[criterion]}\nn = {of['n'].iloc[0]:g}", xlabel="times 100 (95 % interval)")
        ax.set_ylim(len(ways) - 0.5, -0.5)
    axes[0].set_yticks(range(len(ways)), [GATE_WORDS[way] for way in ways])
    axes[0].set_ylabel("the gate at new tokens")
    legend(figure, axes, 1)
    return figure


def muse_training(table: pd.DataFrame) -> Figure:
    """Notebook 10: utility and memory along every training, on half 0, the floor that stops it, clamps as lines."""
    trained = table[table["epochs"].notna()]
    figure, axes = panels(2, columns=2, height=3.6)
    looks = looks_of(table["method"])
    clamps = table[table["epochs"].isna() & table["chosen"].astype(bool)]
    for ax, share in zip(axes, ("utility", "memory"), strict=True):
        for method, of in trained.groupby("method", sort=False):
            colour, marker = looks[str(method)]
            for line, (_, course) in zip(cycle(LINES), of.groupby("course", sort=False), strict=False):
                course = course.sort_values("epochs")
                ax.plot([0, *course["epochs"]], [1, *course[share]], color=colour, marker=marker, ls=line, ms=4)
            ax.plot([], [], color=colour, marker=marker, label=method)
        for row in clamps.to_dict("records"):  # they are not trained
            ax.axhline(row[share], color=looks[row["method"]][0], ls=":", lw=1.5, label=f"{row['method']}, chosen")
        stopped, chosen = trained[trained["stopped"].astype(bool)], trained[trained["chosen"].astype(bool)]
        ax.plot(stopped["epochs"], stopped[share], "o", ms=12, mfc="none", color=BLACK, label="stopped as in the paper")
        ax.plot(chosen["epochs"], chosen[share], "s", ms=10, mfc="none", color=GREY, label="chosen on half 0")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="epochs of the text to forget", ylabel="share of the target's", ylim=(-0.05, None))
    axes[0].axhline(table["floor"].iloc[0], color=GREY, lw=1, label="the paper's stopping rule")
    axes[0].set_title("utility: KnowMem, retain\n(higher is better)")
    axes[1].set_title("memory: mean of VerbMem and KnowMem, forget\n(lower is better)")
    courses = trained.groupby("method")["course"].nunique().max() if len(trained) else 0
    several = [sample(f"{ORDER[i]} course of a method", linestyle=LINES[i]) for i in range(min(courses, len(LINES)))]
    legend(figure, axes, 4, several if courses > 1 else [])
    return figure


def muse_requests(table: pd.DataFrame) -> Figure:
    """Notebook 10: memory and utility when more and more is to be forgotten, at once (above) and in turn (below)."""
    shown = ("VerbMem, to be forgotten", "VerbMem, not yet asked for", KNOWMEM_RETAIN)
    figure, axes = panels(6, columns=3, height=2.8, sharex=True, sharey=True)
    for row, at_once in enumerate((True, False)):
        of = table[(table["how"] == "at once") == at_once]
        for ax, criterion in zip(axes[3 * row :], shown, strict=False):
            for method, rows in of[of["criterion"] == criterion].groupby("method", sort=False):
                colour, marker = look_of(str(method))
                rows = rows.sort_values("requests")
                ax.errorbar(rows["requests"], rows["value"], interval(rows["value"], rows["low"], rows["high"]),
                            color=colour, marker=marker, elinewidth=0.8, label=method)  # fmt: skip
            say_if_empty(ax, of["value"], "no such requests")
            ax.set_title(f"{'at once' if at_once else 'one after another'}:\n{criterion}")
            ax.set(ylim=(-3, 105), ylabel="times 100" if criterion == shown[0] else None)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[3:]:
        ax.set_xlabel("folds that were to be forgotten")
    legend(figure, axes, 4)
    return figure
