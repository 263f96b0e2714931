"""Notebook 00: what the embedded models know, in which form, and how they came to know it."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.methods.retrained import Retrained
from helpers.report.plots.style import BLUE, GREEN, GREY, ORANGE, chance, interval, legend, panels, wrapped

MODEL_LOOKS = {"original": (BLUE, "o"), "retrained": (Retrained.look.colour, Retrained.look.marker)}
FILLER_LOOKS = {"far": (GREEN, "o"), "near": (ORANGE, "s"), "prose": (GREY, "^"), "solved questions": (BLUE, "D")}


def quality(table: pd.DataFrame) -> Figure:
    """Notebook 00: a panel a measure, a line a subject or set, original and retrained side by side with intervals."""
    measures = list(dict.fromkeys(table["measure"]))
    rows = list(dict.fromkeys(table["what"]))
    figure, axes = panels(len(measures), len(measures), height=1.1 + 0.32 * len(rows), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        of = table[table["measure"] == measure]
        for shift, (model, (colour, marker)) in zip((-0.14, 0.14), MODEL_LOOKS.items(), strict=True):
            shown = of[of["model"] == model].set_index("what").reindex(rows)
            places = np.arange(len(rows)) + shift
            errors = interval(shown["value"], shown["low"].astype(float), shown["high"].astype(float))
            style: dict[str, Any] = {"color": colour, "marker": marker, "ls": "none", "elinewidth": 1}
            style["markersize"] = 9 if marker == "*" else 5  # a star of equal size looks smaller
            ax.errorbar(shown["value"], places, xerr=np.nan_to_num(errors), label=model, **style)
        ax.set(title=wrapped(measure, 22), xlim=(-0.04, 1.04), xlabel="share" if "ROUGE" not in measure else "mean")
        if "AUC" in measure:
            ax.set_xlabel("area under the curve")
    axes[0].set_yticks(np.arange(len(rows)), rows)
    axes[0].set_ylabel("subject or set")
    axes[0].set_ylim(len(rows) - 0.5, -0.5)  # the first row at the top
    legend(figure, axes, columns=2)
    return figure


def long_prompts(table: pd.DataFrame) -> Figure:
    """Notebook 00: the share right against the tokens of filler, a panel a place, a line a kind; both models."""
    places = list(dict.fromkeys(table["place"]))
    figure, axes = panels(len(places), len(places), height=3.4, sharey=True)
    for ax, place in zip(axes, places, strict=True):
        of = table[table["place"] == place]
        for (filler, model), rows in of.groupby(["filler", "model"], sort=False):
            _filler_line(ax, rows, filler, model)
        earlier = place not in ("before", "after", "around")
        words = "earlier exchanges" if earlier else "tokens of filler"
        ax.set(title=place if earlier else f"filler {place} the question", xlabel=words, ylim=(0, 1.04))
        chance(ax)
    axes[0].set_ylabel("share of questions answered right")
    legend(figure, axes, columns=5)
    return figure


def _filler_line(ax: Axes, rows: pd.DataFrame, filler: str, model: str) -> None:
    colour, marker = FILLER_LOOKS[filler]
    dashed = model == "retrained"
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "ls": "--" if dashed else "-", "lw": 1}
    errors = interval(rows["value"], rows["low"], rows["high"])
    ax.errorbar(rows["tokens"], rows["value"], errors, label=f"{filler}, {model}", **look)


def training(table: pd.DataFrame) -> Figure:
    """Notebook 00: training curves, losses on the left, accuracies on the right; dashed for the retrained model."""
    units = list(dict.fromkeys(table["unit"]))
    figure, axes = panels(len(units), columns=2, height=4.0)
    for ax, unit in zip(axes, units, strict=True):
        colours: dict[str, str] = {}
        for (name, model), rows in table[table["unit"] == unit].groupby(["measure", "model"], sort=False):
            dashed = model == "retrained"
            label = name.replace("_", " ") if not dashed else "_"
            (line,) = ax.plot(
                rows["step"], rows["value"], ls="--" if dashed else "-", color=colours.get(name), label=label
            )
            colours.setdefault(name, str(line.get_color()))
        loss = unit.startswith("loss")
        ax.set(xlabel="training step", ylabel=f"{unit}, {'lower' if loss else 'higher'} is better")
        if loss:
            ax.set_ylim(0, table.loc[table["unit"] == unit, "value"].quantile(0.97))
        else:
            chance(ax)
        ax.axvline(table.loc[table["stage"] == "first", "step"].max(), color=GREY, lw=0.8, label="second stage begins")
        ax.plot([], [], color=GREY, ls="--", label="retrained (dashed)")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure
