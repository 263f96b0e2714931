"""Notebook 06: what an attack brings back."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.report.plots.style import (
    BLACK,
    GREY,
    ORANGE,
    RED,
    REFERENCE_ORDER,
    REFERENCE_SIZE,
    ROLES,
    chance,
    is_reference,
    legend,
    look_of,
    panels,
    role_title,
    say_if_empty,
)

# arm -> colour, line, marker; another arm is drawn as a method of its name
ARM_STYLE = {
    "RMU": (BLACK, "-", "D"),
    "DSG at test time": (ORANGE, "-", "^"),
    "DSG also in training": (RED, "--", "v"),
    "DSG, hook removed": (GREY, "-.", "o"),
}


def relearning(table: pd.DataFrame) -> Figure:
    """Notebook 06: accuracy per epoch of the attack, mean over seeds with the range between them."""
    figure, axes = panels(len(ROLES), columns=3, height=3.4, sharex=True, sharey=True)
    for ax, role in zip(axes, ROLES, strict=True):
        of = table[table["role"] == role]
        for arm, rows in of.groupby("arm", sort=False):
            colour, line, marker = _arm(arm)
            by_epoch = rows.groupby("epoch")["accuracy"].agg(["mean", "min", "max"])
            (curve,) = ax.plot(by_epoch.index, by_epoch["mean"], color=colour, ls=line, marker=marker, label=arm)
            if is_reference(arm):
                curve.set(markersize=curve.get_markersize() * REFERENCE_SIZE, zorder=REFERENCE_ORDER)
            ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.15, linewidth=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        chance(ax)
        say_if_empty(ax, of["accuracy"])
        ax.set(title=role_title(role, of["n"]), xlabel="epoch of fine-tuning\non forget text", ylim=(-0.03, 1.05))
    axes[0].set_ylabel("accuracy\n(mean; band: range over seeds)")
    legend(figure, axes, columns=5)
    return figure


def _arm(name: str) -> tuple[str, str, str]:
    if name in ARM_STYLE:
        return ARM_STYLE[name]
    colour, marker = look_of(name)
    return colour, "-", marker
