"""Notebooks 03 to 05: what is forgotten against what it costs, a point a setting."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.measures.metrics import pareto_front
from helpers.report.plots.style import (
    BLACK,
    FORGET_AXIS,
    GREY,
    LOSS_AXIS,
    NEAR_AXIS,
    REFERENCE_ORDER,
    REFERENCE_SIZE,
    SIDE_AXIS,
    SMALL,
    annotate_apart,
    chance,
    entries,
    error,
    floor,
    is_reference,
    legend,
    looks_of,
    panels,
    plain_numbers,
    sample,
    say_if_empty,
    wrapped,
)

# columns of the tables that notebooks show beside these figures
MEASURES = ["forget_accuracy", "forget_letter", "forget_mass", "near_accuracy", "side_accuracy", "loss_added"]
PUBLISHED_COLUMNS = ["method", "layer", "forget_accuracy", "side_accuracy", "near_accuracy", "loss_added"]


def pareto(table: pd.DataFrame) -> Figure:
    """Notebooks 03 and 05: forget accuracy against side effects, near-domain accuracy and loss added."""
    figure, axes = panels(3, columns=2, height=3.5, sharey=True)
    columns = {"side_accuracy": SIDE_AXIS, "near_accuracy": NEAR_AXIS, "loss_added": LOSS_AXIS}
    axes[2].set_xscale("symlog", linthresh=0.01)
    plain_numbers(axes[2].xaxis)
    for ax, (column, words) in zip(axes, columns.items(), strict=True):
        _settings(ax, table, column)
        chance(ax)
        if say_if_empty(ax, table[column], "no value"):
            ax.set_xlim(0, 1)
        ax.set_xlabel(words)
    floor(axes[0])
    for ax in axes[::2]:
        ax.set_ylabel(FORGET_AXIS)
    extra = [sample("joined: no setting of the method is better", linestyle="-")]
    extra += [sample("bars: their 95 % intervals", linestyle="-", lw=0.7)] if "forget_low" in table else []
    notes = _notes(table) if "setting" in table else []
    extra += [sample("10f x5: the best 10 features, strength 5")] if notes else []
    shown = entries(axes) | {str(handle.get_label()): handle for handle in extra}
    figure.axes[len(axes)].legend(list(shown.values()), [wrapped(label, 45) for label in shown], loc="upper left")
    annotate_apart(axes[0], notes)
    return figure


def _settings(ax: Axes, table: pd.DataFrame, x: str) -> None:
    """Forget accuracy against another column, a look a method; settings no other of its method beats are joined.

    A reference has no front to be on: it is a larger point above the others.
    """
    looks, role = looks_of(table["method"]), x.removesuffix("_accuracy")
    for method, rows in table.groupby("method", sort=False):
        colour, marker = looks[method]
        front = _front(rows, x)
        if "forget_low" in table:
            across = error(front, role) if f"{role}_low" in table else None
            ax.errorbar(front[x], front["forget_accuracy"], error(front, "forget"), across, fmt="none", ecolor=colour,
                        elinewidth=0.7, alpha=0.4, capsize=0)  # fmt: skip
        if not is_reference(method):
            ax.plot(front[x], front["forget_accuracy"], color=colour, lw=1, alpha=0.7)
        _scatter(ax, rows[x], rows["forget_accuracy"], method, (colour, marker), size=26, alpha=0.8)


def _scatter(
    ax: Axes, x: pd.Series, y: pd.Series, method: str, look: tuple[str, str], size: float, alpha: float
) -> None:
    """The settings of a method as points of a size in square points."""
    colour, marker = look
    how: dict[str, Any] = {"color": colour, "s": size, "alpha": alpha, "linewidths": 0}
    if is_reference(method):
        how = {"facecolors": colour, "s": size * REFERENCE_SIZE**2, "zorder": REFERENCE_ORDER}
        how |= {"edgecolors": BLACK, "linewidths": 0.6}
    ax.scatter(x, y, marker=marker, label=method, **how)


def _front(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    rows = rows.dropna(subset=[x, "forget_accuracy"])
    better = -rows[x] if x == "loss_added" else rows[x]
    return rows.iloc[pareto_front(rows["forget_accuracy"].tolist(), better.tolist())]


def _notes(table: pd.DataFrame) -> list[tuple[float, float, str, str]]:
    """Settings of clamps worth a name in the panel of side effects, the lowest forget accuracy first."""
    looks, notes = looks_of(table["method"]), []
    for method, rows in table.groupby("method", sort=False):
        front = _front(rows, "side_accuracy")
        for row in front[front["forget_accuracy"] < 0.9].itertuples():
            if " features x" in row.setting:
                words = row.setting.replace(" features", "f")
                notes.append((row.side_accuracy, row.forget_accuracy, words, looks[method][0]))
    return sorted(notes, key=lambda note: note[1])


def published_pareto(table: pd.DataFrame) -> Figure:
    """Notebook 03: the paper's own points in the same axes (Farrell et al., Fig. 5)."""
    return pareto(table)


def published_dsg(table: pd.DataFrame) -> Figure:
    """Notebook 05: the paper's own points, one a method (Muhamed et al., Tables 1 and 10)."""
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    figure, axes = panels(len(benchmarks), columns=2, height=4.2, sharey=True)
    looks = looks_of(table["method"])
    for ax, benchmark in zip(axes, benchmarks, strict=True):
        for row in table[table["benchmark"] == benchmark].itertuples():
            colour, marker = looks[row.method]
            ax.scatter(row.side_accuracy, row.forget_accuracy, color=colour, marker=marker, s=75, alpha=0.85,
                       edgecolors="white", linewidths=0.5, label=row.method)  # fmt: skip
        chance(ax)
        floor(ax)
        ax.set(title=benchmark, xlabel=SIDE_AXIS)
    axes[0].set_ylabel(FORGET_AXIS)
    legend(figure, axes, columns=5)
    return figure


def retention_tradeoff(table: pd.DataFrame) -> Figure:
    """Notebook 04: retention of what should be forgotten against that of the rest, with lines of equal alignment.

    The ring is for the methods: a reference, which they are measured against, has none.
    """
    worlds, looks = list(dict.fromkeys(table["world"])), looks_of(table["method"])
    figure, axes = panels(len(worlds), columns=2, height=5.0, sharex=True, sharey=True)
    for ax, world in zip(axes, worlds, strict=True):
        _equal_alignment(ax)
        of = table[table["world"] == world]
        for method, rows in of.groupby("method", sort=False):
            _scatter(ax, rows["good_retention"], rows["bad_retention"], method, looks[method], size=30, alpha=0.75)
        methods = of[~of["method"].map(is_reference)]
        best = methods.loc[methods["alignment"].idxmax()]
        ax.scatter(best["good_retention"], best["bad_retention"], s=130, facecolors="none", edgecolors=BLACK, lw=0.8)
        ringed = f"highest alignment (ringed), {best['alignment']:.2f}:\n{best['method']}, {best['setting']}"
        ax.set(title=f"{world}\n{ringed}", xlabel="R_good: retention of side-effect subjects\n(higher is better)")
        ax.set(xlim=(-0.03, 1.04), ylim=(-0.03, 1.04))
    axes[0].set_ylabel("R_bad: retention of the forget subject\n(lower is better)")
    legend(figure, axes, columns=3, extra=[sample("equal alignment", linestyle=":")])
    return figure


def _equal_alignment(ax: Axes) -> None:
    grid, levels = np.linspace(0, 1.04, 105), (0.2, 0.4, 0.6, 0.8)
    ax.contour(grid, grid, grid[None, :] * (1 - grid[:, None]), levels, colors=GREY, linewidths=0.8, linestyles=":")
    for level in levels:
        ax.text(level - 0.01, 0, f"{level:g}", color=GREY, fontsize=SMALL, ha="right")
