"""Notebook 07: every method at its chosen setting, a row a method."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.report.plots.style import (
    BETTER,
    BLACK,
    BLUE,
    FORGET_AXIS,
    RED,
    REFERENCE_ORDER,
    REFERENCE_SIZE,
    SIDE_AXIS,
    chance,
    floor,
    interval,
    is_reference,
    legend,
    looks_of,
    panels,
    plain_numbers,
    sample,
    say_if_empty,
    wrapped,
)

MARKER = 6.0  # points
WORLD_STYLE = ((BLACK, "o"), (BLUE, "s"), (RED, "D"))  # ours, and the paper's two benchmarks
# column -> words; columns with an interval have their own `_low` and `_high`
MEASURED = {
    "forget_accuracy": f"forget accuracy\n({BETTER['forget']})",
    "near_accuracy": f"near-domain accuracy\n({BETTER['near']})",
    "side_accuracy": f"side-effect accuracy\n({BETTER['side']})",
    "forget_mass": "probability of any letter\non forget questions\n(near 0: silenced)",
    "agreement": "agrees with retrained\non forget questions\n(higher is better)",
    "loss_added": "loss added on neutral text\n(nats; filled packed,\nopen framed)",
}


def side_by_side(table: pd.DataFrame) -> Figure:
    """Notebook 07: accuracies, letter mass, agreement with the retrained model and loss added, a row a method."""
    names = [
        f"{method}\n{wrapped(setting, 30)}" for method, setting in zip(table["method"], table["setting"], strict=True)
    ]
    figure, axes = panels(len(MEASURED), columns=3, height=1.3 + 0.4 * len(table), sharey=True)
    for ax, (column, words) in zip(axes, MEASURED.items(), strict=True):
        _dots(ax, table, column)
        say_if_empty(ax, table[column], "no reference" if column == "agreement" else "no value")
        ax.set_xlabel(words)
        if column != "loss_added":
            ax.set_xlim(-0.03, 1.04)
        if column.endswith("_accuracy"):
            chance(ax, "vertical")
    axes[-1].set_xscale("symlog", linthresh=0.01)
    plain_numbers(axes[-1].xaxis)
    _dots(axes[-1], table, "loss_framed", filled=False)
    floor(axes[2])
    for ax in axes[::3]:
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set(ylabel="method, setting", ylim=(len(names) - 0.5, -0.5))
    n = table[["forget_n", "side_n"]].max()
    words = f"n = {n['forget_n']:.0f} forget, {n['side_n']:.0f} side; bars: 95 % intervals"
    legend(figure, axes, columns=3, extra=[sample(words)])
    return figure


def beside_published(table: pd.DataFrame) -> Figure:
    """Notebook 07: our chosen settings, the paper's and an independent reproduction's, a row a method."""
    methods, worlds = (list(dict.fromkeys(table[column])) for column in ("method", "world"))
    columns = {"forget_accuracy": FORGET_AXIS, "side_accuracy": SIDE_AXIS}
    figure, axes = panels(len(columns), columns=2, height=1.2 + 0.33 * len(methods), sharey=True)
    for ax, (column, words) in zip(axes, columns.items(), strict=True):
        name = column.removesuffix("_accuracy")
        for (world, by), rows in table.groupby(["world", "by"], sort=False):
            which = worlds.index(world)
            colour, marker = WORLD_STYLE[which]
            ax.errorbar(rows[column], rows["method"].map(methods.index) + 0.22 * (which - 1), ls="none", ms=MARKER,
                        xerr=interval(rows[column], rows[f"{name}_low"], rows[f"{name}_high"]), marker=marker,
                        color=colour, mfc="white" if by == "reproduction" else colour, elinewidth=0.7,
                        label=world if by != "reproduction" else None)  # fmt: skip
        chance(ax, "vertical")
        ax.set(xlabel=words, xlim=(-0.03, 1.05), ylim=(len(methods) - 0.5, -0.5))
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set_ylabel("method")
    floor(axes[1])
    legend(figure, axes, columns=3, extra=[sample("open: an independent reproduction")])
    return figure


def _dots(ax: Axes, table: pd.DataFrame, column: str, filled: bool = True) -> None:
    looks, name = looks_of(table["method"]), column.removesuffix("_accuracy")
    for place, row in enumerate(table.to_dict("records")):
        colour, marker = looks[row["method"]]
        ends = interval(row[column], row[f"{name}_low"], row[f"{name}_high"]) if f"{name}_low" in row else None
        how: dict[str, Any] = {"ms": MARKER}
        if is_reference(row["method"]):
            how = {"ms": MARKER * REFERENCE_SIZE, "zorder": REFERENCE_ORDER}
        ax.errorbar([row[column]], [place], xerr=ends, ls="none", marker=marker, color=colour, capsize=2,
                    mfc=colour if filled else "white", **how)  # fmt: skip
