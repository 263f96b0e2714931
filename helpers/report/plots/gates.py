"""Notebook 05: the gate of DSG: what it opens on, and what that costs."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.measures.metrics import wilson_interval
from helpers.report.plots.style import BLACK, GREY, ROLE_STYLE, SMALL, chance, interval, legend, look_of, panels


def rho(table: pd.DataFrame) -> Figure:
    """Notebook 05: distribution of rho on framed texts and on questions, with the threshold tau."""
    kinds = list(dict.fromkeys(table["kind"]))
    figure, axes = panels(len(kinds), columns=2, height=4.2, sharey=True, sharex=True)
    edges = np.linspace(0, max(table["rho"].max(), 0.1) * 1.02, 40)
    tau = table["tau"].iloc[0]
    for ax, kind in zip(axes, kinds, strict=True):
        of = table[table["kind"] == kind]
        for role in [r for r in ("retain text", "forget text", "side", "near", "forget") if r in set(of["role"])]:
            values, (colour, words) = of.loc[of["role"] == role, "rho"], ROLE_STYLE[role]
            shares = np.histogram(values, edges)[0] / len(values)
            ax.stairs(shares, edges, color=colour, fill=True, alpha=0.3)
            opens = (values > tau).mean()
            ax.stairs(shares, edges, color=colour, label=f"{words} (n = {len(values)}): gate opens on {opens:.0%}")
        ax.axvline(tau, color=BLACK, linestyle="--", lw=1, label=f"the gate's threshold tau = {tau:.3f}")
        ax.set(title=kind, xlabel="rho: share of tokens at which a chosen feature fires")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes[0].set_ylabel("share of the source's texts")
    return figure


def gate_cost(table: pd.DataFrame) -> Figure:
    """Notebook 05: where the gate opens, and how many of those questions are still answered right."""
    subjects = list(dict.fromkeys(table["subject"]))
    places, (colour, marker) = np.arange(len(subjects)), look_of("DSG")
    figure, axes = panels(2, columns=2, height=1.4 + 0.36 * len(subjects), sharey=True)
    asked = table.groupby("subject")["n"].sum()[subjects]
    found = table[table["gate"] == "open"].set_index("subject").reindex(subjects)
    opened = found["n"].fillna(0).astype(int)
    low, high = zip(*(wilson_interval(o, n) for o, n in zip(opened, asked, strict=True)), strict=True)
    axes[0].barh(places, opened / asked, color=colour)
    axes[0].errorbar(opened / asked, places, xerr=interval(opened / asked, low, high), fmt="none", ecolor=BLACK)
    for place, end, words in zip(
        places, high, (f"{o} of {n}" for o, n in zip(opened, asked, strict=True)), strict=True
    ):
        axes[0].annotate(words, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    axes[0].set(
        xlim=(0, 1.25), xticks=np.linspace(0, 1, 6), xlabel="share of questions whose gate opens\n(95 % interval)"
    )
    axes[0].set_yticks(places, [subject.replace("_", " ") for subject in subjects])
    axes[0].set(ylabel="subject", ylim=(len(subjects) - 0.5, -0.5))
    errors = interval(found["accuracy"], found["low"], found["high"])
    axes[1].errorbar(found["accuracy"], places, xerr=errors, ls="none", marker=marker, color=colour, ms=6)
    axes[1].set(xlim=(-0.03, 1.05), xlabel="accuracy where it opened\n(before: 1; 95 % interval)")
    chance(axes[1], "vertical")
    for place in places[found["accuracy"].isna()]:
        axes[1].text(0.3, place, "gate never opens", color=GREY, va="center", fontsize=SMALL)
    legend(figure, axes, columns=1)
    return figure
