"""Notebook 04: what an edited model answers."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.report.plots.style import BLUE, GREEN, ORANGE, PURPLE, ROLE_STYLE, SMALL, legend, panels, wrapped


def letters(table: pd.DataFrame) -> Figure:
    """Notebook 04: which letters are said under each edit, beside its accuracy and the mass on letters."""
    names, roles = (list(dict.fromkeys(table[column])) for column in ("name", "role"))
    figure, axes = panels(len(roles), columns=2, height=1.4 + 0.42 * len(names), sharey=True)
    for ax, role in zip(axes, roles, strict=True):
        of = table[table["role"] == role]
        _stacks(ax, of, names)
        ax.set(xlim=(0, 1.6), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="share of answers")
        ax.set_title(f"{ROLE_STYLE[role][1]} (n = {of['n'].iloc[0]})")
        ax.grid(False)
        ax.spines["bottom"].set_bounds(0, 1)
    # the last comma stands between the edit and its size
    axes[0].set_yticks(
        range(len(names)), [",\n".join(wrapped(part) for part in name.rsplit(", ", 1)) for name in names]
    )
    axes[0].set(ylabel="edit", ylim=(len(names) - 0.5, -1.3))
    legend(figure, axes[:1], columns=4)
    return figure


def _stacks(ax: Axes, of: pd.DataFrame, names: list[str]) -> None:
    """A bar of four letters for every edit, with accuracy and mass in two columns right of it."""
    start = np.zeros(len(names))
    for letter, colour in zip("ABCD", (BLUE, ORANGE, GREEN, PURPLE), strict=True):
        shares = of[of["letter"] == letter].set_index("name").loc[names, "share"].to_numpy()
        ax.barh(range(len(names)), shares, left=start, color=colour, alpha=0.85, label=f"says {letter}")
        start += shares
    facts = of.drop_duplicates("name").set_index("name").loc[names]
    for x, column, words in ((1.17, "accuracy", "accuracy"), (1.45, "mass", "mass on\nletters")):
        ax.text(x, -0.9, words, ha="center", va="center", fontsize=SMALL)
        for i, value in enumerate(facts[column]):
            ax.text(x, i, f"{value:.2f}", ha="center", va="center", fontsize=SMALL)
