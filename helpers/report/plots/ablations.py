"""Notebook 15: what each part of DSG's setting does, beside what others found on Gemma."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.report.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    ROLES,
    SKY,
    accuracy_panel,
    colours_of,
    error,
    interval,
    legend,
    look_of,
    panels,
    reproduced,
    sample,
    strengths,
    wrapped,
)

# gate or not, all features at hot tokens or each its own
IDEA_STYLE = {
    (True, True): (ORANGE, "^", "-"),
    (True, False): (SKY, "s", "-"),
    (False, True): (RED, "v", "--"),
    (False, False): (BLUE, "o", "--"),
}
STATISTIC_STYLE = {"rho": (ORANGE, "^"), "raw counts": (BLUE, "s")}
# what forget questions are told from, in words
AGAINST = {
    "side": "side-effect questions",
    "near": "near-domain questions",
    "retain text": "retain text\nin the frame of a question",
    "packed retain text": "packed retain text",
}
# times further along a strength stands each next line, the middle one at it: equal ones would hide each other
APART = 1.04
ACCURACY_AXIS = "accuracy (95 % interval)"


def strength_grid(table: pd.DataFrame) -> Figure:
    """Notebook 15: accuracy along the clamp's strength, a line a number of features."""
    figure, axes = panels(len(ROLES), columns=3, height=3.9, sharey=True)
    ours, colours = table["world"] == "ours", colours_of(table["n_features"])
    mine, theirs = table[ours].groupby("method", sort=False), table[~ours].groupby("world")
    worlds: list[tuple[str, str | None, str, pd.DataFrame]]
    worlds = [*((look_of(m)[1], None, "-", of) for m, of in mine), *(("o", "white", ":", of) for _, of in theirs)]
    for ax, role in zip(axes, ROLES, strict=True):
        for marker, fill, line, rows in worlds:
            for i, (n, of) in enumerate(rows.groupby("n_features")):
                ax.errorbar(_apart(of["strength"], i), of[f"{role}_accuracy"], error(of, role), color=colours[n],
                            marker=marker, mfc=fill, ls=line, elinewidth=0.7)  # fmt: skip
        strengths(ax, table["strength"], "clamp strength c, in clamp units\n(reproduction: absolute)")
        accuracy_panel(ax, table[ours], role)
    axes[0].set_ylabel(ACCURACY_AXIS)
    extra = [sample(f"{n:g} features", color=colour, linestyle="-", lw=3) for n, colour in colours.items()]
    for marker, fill, line, rows in worlds:
        label = rows["world"].iloc[0] if fill else rows["method"].iloc[0]
        extra.append(sample(wrapped(label, 60), marker=marker, mfc=fill, linestyle=line))
    legend(figure, axes, columns=4, extra=extra)
    return figure


def ratio_percentiles(table: pd.DataFrame) -> Figure:
    """Notebook 15: accuracy with features that were chosen at other percentiles of the ratio."""
    return _along(table, "ratio_percentile", "p_ratio: percentile of the ratio\nabove which features are chosen")


def gate_percentiles(table: pd.DataFrame) -> Figure:
    """Notebook 15: accuracy with the gate's threshold at other percentiles of rho on retain text."""
    return _along(table, "gate_percentile", "p_dyn: percentile of rho on retain\ntext that is the threshold")


def _along(table: pd.DataFrame, column: str, words: str) -> Figure:
    figure, axes = panels(len(ROLES), columns=3, height=3.6, sharex=True, sharey=True)
    ours = table["world"] == "ours"
    for ax, role in zip(axes, ROLES, strict=True):
        for method, of in table[ours].groupby("method", sort=False):
            colour, marker = look_of(str(method))
            ax.errorbar(of[column], of[f"{role}_accuracy"], error(of, role), color=colour, marker=marker,
                        elinewidth=0.8, label=wrapped(str(method)))  # fmt: skip
        reproduced(ax, table[~ours], role, column)
        accuracy_panel(ax, table[ours], role)
        ax.set_xlabel(words)
    axes[0].set_ylabel(ACCURACY_AXIS)
    legend(figure, axes, columns=2)
    return figure


def static_or_dynamic(table: pd.DataFrame) -> Figure:
    """Notebook 15: DSG's two ideas on and off: the gate, and clamping all chosen features at hot tokens."""
    figure, axes = panels(len(ROLES), columns=3, height=3.6, sharey=True)
    for ax, role in zip(axes, ROLES, strict=True):
        for i, (method, rows) in enumerate(table.groupby("method", sort=False)):
            colour, marker, line = IDEA_STYLE[method.startswith("gate"), "hot" in method]
            ax.errorbar(_apart(rows["strength"], i), rows[f"{role}_accuracy"], error(rows, role), color=colour,
                        marker=marker, ls=line, elinewidth=0.7, label=method)  # fmt: skip
        strengths(ax, table["strength"], "clamp strength c, in clamp units\n(features set to -c)")
        accuracy_panel(ax, table, role)
    axes[0].set_ylabel(ACCURACY_AXIS)
    legend(figure, axes, columns=3)
    return figure


def _apart(values: pd.Series, line: int) -> pd.Series:
    """Of one of about four lines, where its points are drawn."""
    return values * APART ** (line - 1.5)


def rho_or_counts(table: pd.DataFrame) -> Figure:
    """Notebook 15: how far rho and raw counts of hot tokens set forget questions apart from everything else."""
    figure, axes = panels(2, columns=2, height=4.0, sharey=True)
    ours = table[table["world"] == "ours"]
    names = list(dict.fromkeys(ours["against"]))
    for shift, (statistic, (colour, marker)) in zip((-0.1, 0.1), STATISTIC_STYLE.items(), strict=True):
        of = ours[ours["statistic"] == statistic]
        _dots(axes[0], of, names, "tvd", shift, {"color": colour, "fmt": marker, "label": statistic})
        for world, theirs in table[(table["world"] != "ours") & (table["statistic"] == statistic)].groupby("world"):
            shape = "o" if "reproduction" in str(world) else "D"
            places = [names.index(name) + shift for name in theirs["against"]]
            axes[0].plot(theirs["tvd"], places, color=colour, marker=shape, mfc="white", ls="none")
    counts = ours[ours["statistic"] == "raw counts"]
    _dots(axes[1], counts, names, "difference", 0, {"color": GREY, "fmt": "o"})
    axes[1].axvline(0, color=GREY, ls="--", lw=1)
    axes[0].set(xlim=(-0.03, 1.05), xlabel="total variation distance\n(1: no overlap; 95 % interval)")
    axes[1].set(xlabel="rho's distance minus that of raw counts\n(above 0: rho separates better; 95 % interval)")
    axes[1].locator_params(axis="x", nbins=7)
    n = counts.set_index("against")["negatives"]
    axes[0].set_yticks(range(len(names)), [f"{AGAINST[name]}\n(n = {n[name]:g})" for name in names])
    asked = f"{counts['positives'].max():g} forget questions against"
    axes[0].set(ylim=(len(names) - 0.5, -0.5), ylabel=asked)
    worlds = [world for world in dict.fromkeys(table["world"]) if world != "ours"]
    hollow = [sample(wrapped(world, 60), marker="o" if "reproduction" in world else "D", mfc="white")
              for world in worlds]  # fmt: skip
    legend(figure, axes, columns=2, extra=hollow)
    return figure


def _dots(ax: Axes, of: pd.DataFrame, names: list[str], what: str, shift: float, look: dict[str, Any]) -> None:
    """A point with its interval for every row, in the place of what it is against."""
    places = [names.index(name) + shift for name in of["against"]]
    ax.errorbar(of[what], places, xerr=interval(of[what], of[f"{what}_low"], of[f"{what}_high"]), ms=6, **look)
