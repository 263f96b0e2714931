"""Notebooks 03 to 05: the settings that were chosen, a row a setting, with intervals."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.measures.metrics import SIDE_EFFECT_FLOOR
from helpers.report.plots.style import (
    GREY,
    NARROW_AXES,
    REFERENCE_ORDER,
    REFERENCE_SIZE,
    chance,
    floor,
    interval,
    is_reference,
    legend,
    looks_of,
    panels,
    sample,
    say_if_empty,
    wrapped,
)

MARKER = 6.5  # points
RETENTIONS = {
    "alignment": "alignment: R_good (1 - R_bad)\n(95 % interval;\nhigher is better)",
    "good_retention": "R_good: side effects kept\n(95 % interval; 0 is chance;\nhigher is better)",
    "bad_retention": "R_bad: forget subject left\n(95 % interval; 0 is chance;\nlower is better)",
}


def held_out(table: pd.DataFrame) -> Figure:
    """Notebooks 03 and 05: each method's best setting, chosen and reported on the same or on different questions."""
    figure, axes = _chosen(table, {f"{role}_accuracy": words for role, words in NARROW_AXES.items()})
    for ax in axes:
        chance(ax, "vertical")
    floor(axes[-1])
    legend(figure, axes, columns=2, extra=_protocols(table))
    return figure


def alignments(table: pd.DataFrame) -> Figure:
    """Notebook 04: alignment and both retentions of each method's best setting, with bootstrap intervals."""
    figure, axes = _chosen(table, RETENTIONS)
    legend(figure, axes, columns=1, extra=_protocols(table))
    return figure


def _chosen(table: pd.DataFrame, columns: Mapping[str, str]) -> tuple[Figure, list[Axes]]:
    """A panel a column, a row a setting: open where the first protocol was followed, filled under the others."""
    methods, first = table["method"].tolist(), table["protocol"].iloc[0]
    settings = table["setting"].replace("none", f"none keeps {SIDE_EFFECT_FLOOR:g}")
    names = [f"{wrapped(method)}\n{wrapped(setting)}" for method, setting in zip(methods, settings, strict=True)]
    row = 0.1 + 0.135 * max(name.count("\n") + 1 for name in names)
    figure, axes = panels(len(columns), columns=3, height=1.6 + row * len(table), sharey=True)
    for ax, (column, words) in zip(axes, columns.items(), strict=True):
        _dots(ax, table, column, table["protocol"] != first)
        say_if_empty(ax, table[column])
        ax.set(xlim=(-0.02, 1.03), xlabel=words)
        for i in range(1, len(methods)):
            if methods[i] != methods[i - 1]:
                ax.axhline(i - 0.5, color=GREY, lw=0.5, alpha=0.6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set(ylabel="method, setting", ylim=(len(names) - 0.5, -0.5))
    return figure, axes


def _dots(ax: Axes, table: pd.DataFrame, column: str, filled: Iterable[bool], places: Iterable[float] = ()) -> None:
    """A value a row with its interval, in the look of the row's method."""
    looks, name = looks_of(table["method"]), column.removesuffix("_accuracy")
    places = list(places) or range(len(table))
    for place, row, full in zip(places, table.to_dict("records"), filled, strict=True):
        colour, marker = looks[row["method"]]
        ends = interval(row[column], row[f"{name}_low"], row[f"{name}_high"])
        how: dict[str, Any] = {"ms": MARKER}
        if is_reference(row["method"]):
            how = {"ms": MARKER * REFERENCE_SIZE, "zorder": REFERENCE_ORDER}
        ax.errorbar([row[column]], [place], xerr=ends, ls="none", marker=marker, color=colour, capsize=2.5,
                    mfc=colour if full else "white", **how)  # fmt: skip


def _protocols(table: pd.DataFrame) -> list[Line2D]:
    """For the legend: how settings were chosen, and on how many questions they are reported."""
    shown = []
    for i, (protocol, rows) in enumerate(table.groupby("protocol", sort=False)):
        ns = [f"{rows[f'{role}_n'].max():.0f} {role}" for role in ("forget", "side") if rows[f"{role}_n"].notna().any()]
        words = f"{protocol} (n = {', '.join(ns)})" if ns else protocol
        shown.append(sample(words, marker="o", mfc=GREY if i else "white", ms=MARKER))
    return shown


def protocols(table: pd.DataFrame) -> Figure:
    """Notebook 04: the same edits under several protocols: accuracies before and after, and alignment."""
    edits = table["method"] + ", " + table["setting"]
    heads = edits.ne(edits.shift())
    places = (np.arange(len(table)) + heads.cumsum()).tolist()  # the line above an edit's first row is its heading
    figure, axes = panels(3, columns=3, height=1.4 + 0.32 * (places[-1] + 1), sharey=True)
    for ax, role in zip(axes, ("forget", "side"), strict=False):
        _before_and_after(ax, table, role, places)
        chance(ax, "vertical")
        ax.set(xlim=(-0.02, 1.04), xlabel=NARROW_AXES[role])
    _dots(axes[2], table, "alignment", [True] * len(table), places)
    axes[2].set(xlim=(-0.02, 1.04), xlabel="alignment (95 % interval)\n(higher is better)")
    names = [(place, f"{row.protocol}\n(n = {row.forget_n:.0f} forget, {row.side_n:.0f} side)")
             for place, row in zip(places, table.itertuples(), strict=True)]  # fmt: skip
    names += [(place - 1, wrapped(edit)) for place, edit, head in zip(places, edits, heads, strict=True) if head]
    axes[0].set_yticks(*zip(*sorted(names), strict=True))
    for tick, (place, _) in zip(axes[0].get_yticklabels(), sorted(names), strict=True):
        tick.set_fontweight("normal" if place in places else "bold")
    axes[0].set(ylabel="edit, and the protocol that measures it", ylim=(places[-1] + 0.6, -0.6))
    marks = [sample("before the edit", marker="o", mfc="white"), sample("after it", marker="o")]
    legend(figure, axes, columns=3, extra=marks)
    return figure


def _before_and_after(ax: Axes, table: pd.DataFrame, role: str, places: list[int]) -> None:
    looks = looks_of(table["method"])
    for place, row in zip(places, table.to_dict("records"), strict=True):
        colour, marker = looks[row["method"]]
        before, after = row[f"{role}_before"], row[f"{role}_after"]
        ax.plot([before, after], [place, place], color=colour, lw=1, alpha=0.5)
        ax.plot(before, place, marker=marker, color=colour, mfc="white", ms=MARKER)
        ax.plot(after, place, marker=marker, color=colour, ms=MARKER)
