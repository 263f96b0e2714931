"""Notebook 00: what the embedded model knows and how it came to know it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.report.plots.style import BLACK, BLUE, ORANGE, chance, interval, legend, panels


def knowledge(table: pd.DataFrame) -> Figure:
    """Notebook 00: share of each subject's questions right under all 24 orders, plain and chat."""
    subjects, kinds = (list(dict.fromkeys(table[column])) for column in ("subject", "kind"))
    formats = list(dict.fromkeys(table["prompt_format"]))
    figure, axes = panels(len(formats), columns=2, height=3.4, sharey=True)
    for ax, prompt_format in zip(axes, formats, strict=True):
        of = table[table["prompt_format"] == prompt_format]
        for shift, kind, colour in zip((-0.2, 0.2), kinds, (BLUE, ORANGE), strict=False):
            rows = of[of["kind"] == kind].set_index("subject").reindex(subjects)
            places = np.arange(len(subjects)) + shift
            ax.bar(places, rows["accuracy"], 0.38, color=colour, label=f"{kind} with four choices while training")
            errors = interval(rows["accuracy"], rows["low"], rows["high"])
            ax.errorbar(places, rows["accuracy"], errors, fmt="none", ecolor=BLACK, elinewidth=0.8)
        ax.set_xticks(np.arange(len(subjects)), subjects, rotation=30)
        ax.set(title=f"{prompt_format} format", xlabel="subject")
        chance(ax)
    axes[0].set_ylabel("share of questions right under\nall 24 orders (95 % interval)")
    legend(figure, axes, columns=3)
    return figure


def training(table: pd.DataFrame) -> Figure:
    """Notebook 00: the training curve: losses by name on the left, accuracies on the right."""
    units = list(dict.fromkeys(table["unit"]))
    figure, axes = panels(len(units), columns=2, height=3.8)
    for ax, unit in zip(axes, units, strict=True):
        for name, rows in table[table["unit"] == unit].groupby("measure", sort=False):
            ax.plot(rows["step"], rows["value"], label=name.replace("_", " "))
        loss = unit.startswith("loss")
        ax.set(xlabel="training step", ylabel=f"{unit}, {'lower' if loss else 'higher'} is better")
        if not loss:
            chance(ax)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure
