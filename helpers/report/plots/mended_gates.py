"""Notebook 13: the same guard with other gates: what each opens on, what that costs, and where it holds."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.report.plots.style import (
    BLACK,
    BLUE,
    ORANGE,
    ROLE_STYLE,
    ROLES,
    chance,
    interval,
    legend,
    look_of,
    panels,
)


def gate_choice(table: pd.DataFrame) -> Figure:
    """Notebook 13: on which questions each gate opens when nobody attacks, and how many are right; a row a guard."""
    ours, theirs = table[table["world"] == "ours"], table[table["world"] != "ours"]
    methods = list(dict.fromkeys(ours["method"]))
    figure, axes = panels(2, columns=2, height=1.6 + 0.42 * len(methods), sharey=True)
    for i, role in enumerate(ROLES):
        colour, words = ROLE_STYLE[role]
        for ax, measure in zip(axes, ("gate opens", "accuracy"), strict=True):
            of = ours[(ours["role"] == role) & (ours["measure"] == measure)]
            if of.empty:
                continue
            at = [methods.index(method) + 0.24 * (i - 1) for method in of["method"]]
            ends = interval(of["accuracy"], of["low"], of["high"])
            label = f"{words} (n = {int(of['n'].max())})"
            ax.errorbar(of["accuracy"], at, xerr=ends, fmt="osD"[i], color=colour, ms=4.5, label=label)
    for ax, measure in zip(axes, ("gate opens", "accuracy"), strict=True):
        of = theirs[theirs["measure"] == measure]
        at = [methods.index(m) + 0.24 * (ROLES.index(r) - 1) for m, r in zip(of["method"], of["role"], strict=True)]
        ax.plot(of["accuracy"], at, marker="o", mfc="none", ms=8, ls="none", color=BLACK,
                label="Gemma-2-2b-it, independent reproduction (unreviewed)")  # fmt: skip
    axes[0].set(xlabel="share of questions on which the gate opens\n(forget: higher, others: lower is better)")
    axes[1].set(xlabel="accuracy\n(forget: lower, others: higher is better)")
    chance(axes[1], "vertical")
    _names(axes, methods)
    legend(figure, axes, columns=3)
    return figure


def padded_alarms(table: pd.DataFrame) -> Figure:
    """Notebook 13: on which share of benign questions each gate opens, by the tokens of far text in front of them."""
    roles = [role for role in ("side", "near") if role in set(table["role"])]
    lengths = sorted(set(table["tokens"]))
    figure, axes = panels(len(roles), columns=2, height=3.4, sharey=True)
    methods = list(dict.fromkeys(table["method"]))
    for ax, role in zip(axes, roles, strict=True):
        for i, method in enumerate(methods):
            of = table[(table["role"] == role) & (table["method"] == method)].sort_values("tokens")
            colour, marker = look_of(method)
            at = [lengths.index(tokens) + 0.07 * (i - len(methods) / 2) for tokens in of["tokens"]]
            ends = interval(of["accuracy"], of["low"], of["high"])
            look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "lw": 1, "label": method}
            ax.errorbar(at, of["accuracy"], ends, **look)
        n = int(table.loc[table["role"] == role, "n"].max())
        ax.set(title=f"{ROLE_STYLE[role][1]} (n = {n})", xlabel="tokens of far text in front", ylim=(-0.03, 1.05))
        ax.set_xticks(range(len(lengths)), [f"{tokens:g}" for tokens in lengths])
    aim = table["aim"].max()
    axes[0].axhline(aim, color=BLACK, ls=":", lw=1, label=f"set to {aim:g} without text in front")
    axes[0].set_ylabel("share of open gates\n(lower is better; 95 % interval)")
    legend(figure, axes, columns=4)
    return figure


def calibrations(table: pd.DataFrame) -> Figure:
    """Notebook 13: false alarms of each gate on half 1, set on half 0 by a quantile or by split-conformal."""
    methods = list(dict.fromkeys(table["method"]))
    roles = [role for role in ("side", "near") if role in set(table["role"])]
    figure, axes = panels(len(roles), columns=2, height=1.4 + 0.36 * len(methods), sharey=True)
    kinds = list(dict.fromkeys(table["calibration"]))
    for ax, role in zip(axes, roles, strict=True):
        for i, kind in enumerate(kinds):
            of = table[(table["role"] == role) & (table["calibration"] == kind)]
            at = [methods.index(method) + 0.24 * (i - 0.5) for method in of["method"]]
            look: dict[str, Any] = {"fmt": "os"[i], "color": (BLUE, ORANGE)[i], "ms": 4.5, "label": kind}
            ax.errorbar(of["accuracy"], at, xerr=interval(of["accuracy"], of["low"], of["high"]), **look)
        n = int(table.loc[table["role"] == role, "n"].max())
        ax.axvline(table["aim"].max(), color=BLACK, ls=":", lw=1, label=f"set to {table['aim'].max():g}")
        ax.set(title=f"{ROLE_STYLE[role][1]} (n = {n})", xlabel="share of open gates\n(95 % interval)")
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set(ylim=(len(methods) - 0.5, -0.5), ylabel="guard, by its gate")
    legend(figure, axes, columns=3)
    return figure


def detector_taught(table: pd.DataFrame) -> Figure:
    """Notebook 13: on which questions of half 1 the linear detector opens, by what it was taught on."""
    lessons = list(dict.fromkeys(table["taught"]))
    figure, (ax,) = panels(1, columns=1, height=1.4 + 0.42 * len(lessons))
    for i, role in enumerate(ROLES):
        of, (colour, words) = table[table["role"] == role], ROLE_STYLE[role]
        if of.empty:
            continue
        at = [lessons.index(taught) + 0.2 * (i - 1) for taught in of["taught"]]
        ends, label = interval(of["accuracy"], of["low"], of["high"]), f"{words} (n = {int(of['n'].max())})"
        ax.errorbar(of["accuracy"], at, xerr=ends, fmt="osD"[i], color=colour, ms=4.5, label=label)
    ax.set_yticks(range(len(lessons)), lessons)
    ax.set(ylim=(len(lessons) - 0.5, -0.5), xlim=(-0.03, 1.05), ylabel="taught on")
    ax.set_xlabel("share of questions on which the gate opens\n(forget: higher, others: lower is better)")
    legend(figure, [ax], columns=3)
    return figure


def clamp_units(table: pd.DataFrame) -> Figure:
    """Notebook 13: forget accuracy along the strength of a clamp in two units, for residuals of two lengths."""
    units = {"absolute": "activation c (features set to -c)", "residual norm": "norms of the residual"}
    figure, axes = panels(len(units), columns=2, height=3.2, sharey=True)
    for ax, (unit, words) in zip(axes, units.items(), strict=True):
        for i, (times, of) in enumerate(table[table["unit"] == unit].groupby("longer", sort=True)):
            label = "residual as it is" if times == 1 else f"residual and SAE times {times}"
            look: dict[str, Any] = {"fmt": ("o-", "s--")[i], "color": (BLUE, ORANGE)[i], "ms": (7, 4)[i]}
            ends = interval(of["accuracy"], of["low"], of["high"])
            ax.errorbar(of["strength"], of["accuracy"], ends, label=label, **look)
        mine = table[(table["unit"] == unit) & table["chosen"]]["strength"].iloc[0]
        ax.axvline(mine, color=BLACK, ls="--", lw=0.8, label="the guard's own")
        chance(ax)
        ax.set(xscale="log", title=f"strength: {unit}", xlabel=f"{words} (log scale)", ylim=(-0.03, 1.05))
        ax.set_xticks(sorted(set(table.loc[table["unit"] == unit, "strength"])))
        ax.xaxis.set_major_formatter("{x:.2g}")
        ax.minorticks_off()
    axes[0].set_ylabel("forget accuracy\n(lower is better; 95 % interval)")
    legend(figure, axes, columns=4)
    return figure


def gates_attacked(table: pd.DataFrame) -> Figure:
    """Notebook 13: gate by attack: of the questions that a guard blocks, how many are right under each attack."""
    methods, attacks = (list(dict.fromkeys(table[column])) for column in ("method", "attack"))
    cells = table.set_index(["method", "attack"])
    values = np.array([[cells.loc[(m, a), "accuracy"] for a in attacks] for m in methods], dtype=float)
    figure, (ax,) = panels(1, columns=1, height=1.5 + 0.56 * len(methods))
    image = ax.imshow(values, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    for i, method in enumerate(methods):
        for j, attack in enumerate(attacks):
            row = cells.loc[(method, attack)]
            if np.isnan(values[i, j]):
                continue
            colour = "white" if values[i, j] > 0.65 else BLACK
            words = f"{row['accuracy']:.2f}\n[{row['low']:.2f}, {row['high']:.2f}]\n{_short(row['setting'])}"
            ax.text(j, i, words, ha="center", va="center", fontsize=8, color=colour)
    blocked = table.groupby("method", sort=False)["n"].max()
    ax.set_xticks(range(len(attacks)), attacks, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(methods)), [f"{method}\n({blocked[method]:g} blocked)" for method in methods])
    ax.set(xlabel="attack, at the setting that unblocks most on half 0", ylabel="guard")
    ax.grid(visible=False)
    figure.colorbar(image, ax=ax, fraction=0.025, label="share right under the attack\n(lower is better)")
    return figure


def _short(setting: str) -> str:
    """A setting in fewer words, for a cell."""
    where = (" before", " above the choices", " of far text", ", options last", " between words", " questions above")
    for words in (*where, " examples"):
        setting = setting.removesuffix(words)
    return setting


def _names(axes: list[Axes], methods: list[str]) -> None:
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set(ylim=(len(methods) - 0.5, -0.5), ylabel="guard, by its gate")
    for ax in axes:
        ax.set_xlim(-0.03, 1.05)
        for i in range(1, len(methods)):
            ax.axhline(i - 0.5, color="#dddddd", lw=0.6)
