"""Notebook 11: what the guarded and the unguarded model answer when the same questions are asked in other ways."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.report.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Look,
    chance,
    interval,
    is_reference,
    legend,
    look_of,
    panels,
    say_if_empty,
    wrapped,
)

UNGUARDED_LOOK: Look = (BLACK, "o")
FILLER_LOOKS: dict[str, Look] = {"far": (GREEN, "o"), "near": (PURPLE, "s")}
SPARE_LOOKS: tuple[Look, ...] = ((BLUE, "^"), (ORANGE, "D"), (SKY, "v"))
WAY_LOOKS: tuple[Look, ...] = ((GREY, "o"), (GREEN, "^"), (PURPLE, "s"), (ORANGE, "D"), (RED, "v"), (BLUE, "P"),
                               (SKY, "X"), (BLACK, "<"), (PURPLE, ">"))  # fmt: skip


def dilution(table: pd.DataFrame) -> Figure:
    """Notebook 11: accuracy on forget questions against the tokens of filler, a panel a kind in a place."""
    columns, shown = table["place"].nunique(), list(dict.fromkeys(zip(table["filler"], table["place"], strict=True)))
    figure, axes = panels(len(shown), columns, height=2.7, sharex=True, sharey=True)
    for ax, (filler, place) in zip(axes, shown, strict=True):
        of = table[(table["filler"] == filler) & (table["place"] == place)]
        for method, rows in of.groupby("method", sort=False):
            (colour, marker), size = _look(method), 9 if is_reference(method) else 5
            ends = interval(rows["accuracy"], rows["low"], rows["high"])
            ax.errorbar(rows["tokens"], rows["accuracy"], ends, color=colour, marker=marker, ms=size, label=method)
        ax.set(title=f"{filler} text {place} (n = {of['n'].max()})", ylim=(-0.03, 1.05))
        chance(ax)
    _lengths(axes, min(columns, len(axes)), "accuracy on forget questions\n(guarded: lower is better)")
    legend(figure, axes, columns=4)
    return figure


def diluted_gate(table: pd.DataFrame) -> Figure:
    """Notebook 11: rho and the share of open gates on forget questions against tokens of filler, a column a place."""
    places, measures = (list(dict.fromkeys(table[column])) for column in ("place", "measure"))
    fillers = list(dict.fromkeys(table["filler"]))
    looks = dict(zip(fillers, (FILLER_LOOKS.get(f, SPARE_LOOKS[i % 3]) for i, f in enumerate(fillers)), strict=True))
    figure, axes = panels(len(places) * len(measures), len(places), height=2.7, sharex=True, sharey="row")
    for i, ax in enumerate(axes):
        measure, place = measures[i // len(places)], places[i % len(places)]
        of = table[(table["measure"] == measure) & (table["place"] == place)]
        for filler, rows in of.groupby("filler", sort=False):
            colour, marker = looks[filler]
            look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "label": f"{filler} text"}
            if measure == "rho":
                ax.plot(rows["tokens"], rows["value"], **look)
                ax.fill_between(rows["tokens"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
            else:
                ax.errorbar(rows["tokens"], rows["value"], interval(rows["value"], rows["low"], rows["high"]), **look)
        if measure == "rho":
            ax.axhline(of["threshold"].max(), color=BLACK, ls="--", lw=1, label="the gate's threshold tau")
        ax.set(title=f"filler {place}", ylim=(-0.03, 1.05))
    _lengths(axes, len(places), "rho (band: 5 % to 95 %\nof forget questions)", "share of open gates\n(95 % interval)")
    legend(figure, axes, columns=3)
    return figure


def _lengths(axes: list[Axes], columns: int, *words: str) -> None:
    """Words below the lowest panels, and left of the first of each row."""
    for row, ax in enumerate(axes[::columns]):
        ax.set_ylabel(words[min(row, len(words) - 1)])
    for ax in axes[-columns:]:
        ax.set_xlabel("tokens of filler")
        ax.tick_params(labelbottom=True)  # a panel below it may be missing


def prompt_attacks(table: pd.DataFrame) -> Figure:
    """Notebook 11: of the questions that are wrong without attack, how many are right under each; a row a setting."""
    settings = list(dict.fromkeys(zip(table["attack"], table["setting"], table["control"], strict=True)))
    figure, (ax,) = panels(1, columns=1, height=1.6 + 0.24 * len(settings))
    places = {(attack, setting): i for i, (attack, setting, _) in enumerate(settings)}
    ours, theirs = table[table["world"] == "ours"], table[table["world"] != "ours"]
    guard = ours["method"].iloc[0]
    for i, (_, _, control) in enumerate(settings):
        if control:
            ax.axhspan(i - 0.5, i + 0.5, color=GREY, alpha=0.13, lw=0)
    for j, (method, rows) in enumerate(ours.groupby("method", sort=False)):
        (colour, marker), n = _look(method), rows["n"].max()
        label = f"{method}, of the {n} that it answers wrong"
        _row_points(ax, rows, places, 0.2 * j, colour, marker, label, 9 if is_reference(method) else 5)
    bare = ours[ours["method"] == guard]
    ax.plot(bare["unguarded"], [places[key] for key in _keys(bare)], marker="o", ls="none", mfc="none", color=BLACK,
            label=f"unguarded, on the same as {guard}")  # fmt: skip
    if len(theirs):
        colour, marker = _look(guard)
        _row_points(ax, theirs, places, -0.2, colour, marker, f"{guard}: {theirs['world'].iloc[0]}", 5, mfc="white")
    say_if_empty(ax, ours["accuracy"])
    chance(ax, "vertical")
    names = [f"{attack}: {setting}" if attack != setting else attack for attack, setting, _ in settings]
    ax.set_yticks(range(len(settings)), names)
    ax.set(xlim=(-0.03, 1.03), ylim=(len(settings) - 0.4, -0.6), ylabel="attack (shaded: controls that ought to fail)")
    ax.set_xlabel("share of the blocked questions that are right under the attack\n(lower is better; 95 % interval)")
    legend(figure, [ax], columns=2)
    return figure


def _keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows["attack"], rows["setting"], strict=True))


def _row_points(
    ax: Axes,
    rows: pd.DataFrame,
    places: dict,
    shift: float,
    colour: str,
    marker: str,
    label: str,
    size: int,
    **more: Any,
) -> None:
    at = [places[key] + shift for key in _keys(rows)]
    ends = interval(rows["accuracy"], rows["low"], rows["high"])
    ax.errorbar(rows["accuracy"], at, xerr=ends, fmt=marker, color=colour, ms=size, label=label, **more)


def attacked_benign(table: pd.DataFrame) -> Figure:
    """Notebook 11: benign questions by subject: how often the gate opens under each attack, and how many are right."""
    subjects = list(dict.fromkeys(table["subject"]))
    ways = list(dict.fromkeys(zip(table["attack"], table["setting"], strict=True)))
    guard = table.loc[table["measure"] == "gate opens", "method"].iloc[0]
    apart = 0.8 / max(1, len(ways))
    figure, axes = panels(2, columns=2, height=1.6 + 0.17 * len(ways) * len(subjects), sharey=True)
    for i, (way, setting) in enumerate(ways):
        of = table[(table["attack"] == way) & (table["setting"] == setting)]
        colour, marker = WAY_LOOKS[i % len(WAY_LOOKS)]
        name = way if way == "no attack" else f"{way}: {setting}"
        for ax, measure in zip(axes, ("gate opens", "accuracy"), strict=True):
            rows = of[(of["measure"] == measure) & (of["method"] == guard)]
            at = [subjects.index(subject) + apart * (i - (len(ways) - 1) / 2) for subject in rows["subject"]]
            ends = interval(rows["accuracy"], rows["low"], rows["high"])
            ax.errorbar(rows["accuracy"], at, xerr=ends, fmt=marker, color=colour, ms=4, label=name)
        bare = of[(of["measure"] == "accuracy") & (of["method"] != guard)]
        at = [subjects.index(subject) + apart * (i - (len(ways) - 1) / 2) for subject in bare["subject"]]
        axes[1].plot(bare["accuracy"], at, marker="|", ms=7, ls="none", color=BLACK, label="the unguarded model")
    axes[0].set(xlabel="share of benign questions whose gate opens\n(lower is better; 95 % interval)")
    axes[1].set(xlabel=f"accuracy under {wrapped(guard)}\n(higher is better; 95 % interval)")
    for ax in axes:
        ax.set_xlim(-0.03, 1.05)
    chance(axes[1], "vertical")
    near = set(table.loc[table["role"] == "near", "subject"])
    words = [f"{s.replace('_', ' ')}\n(near domain)" if s in near else s.replace("_", " ") for s in subjects]
    axes[0].set_yticks(range(len(subjects)), words)
    axes[0].set(ylabel="subject", ylim=(len(subjects) - 0.5, -0.5))
    legend(figure, axes, columns=2)
    return figure


def _look(method: str) -> Look:
    return UNGUARDED_LOOK if method == "unguarded" else look_of(method)
