"""Notebook 11: what a guard lets a model say in words of its own, by how its gate is asked while it speaks."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.report.plots.muse import GATE_WORDS
from helpers.report.plots.style import BLUE, GREEN, GREY, ORANGE, RED, ROLE_STYLE, ROLES, Look, interval, legend, panels

SHARE_LOOKS: dict[str, Look] = {"matches": (GREEN, "o"), "gibberish": (ORANGE, "s")}
SHARE_WORDS = {"matches": "match the right answer", "gibberish": "are gibberish"}
# A gate that is asked on the prompt alone is open by every token where it is open on the first.
OPENED_LOOKS: dict[str, Look] = {"held": (GREY, "o"), "running": (BLUE, "^"), "each": (RED, "D")}


def guarded_answers(table: pd.DataFrame) -> Figure:
    """Notebook 11: free answers by role: shares that match and are gibberish, and when the gate was first open."""
    roles = [role for role in ROLES if role in set(table["role"])]
    figure, axes = panels(2 * len(roles), columns=len(roles), height=3.0)
    table = table.assign(gate=table["gate"].astype(object).fillna(""))  # without a gate it is empty
    ways = list(dict.fromkeys(zip(table["method"], table["gate"], strict=True)))
    for i, role in enumerate(roles):
        of = table[table["role"] == role]
        _shares(axes[i], of, ways)
        _openings(axes[len(roles) + i], of[of["measure"] == "opened by"])
        axes[i].set_title(f"{ROLE_STYLE[role][1]} (n = {of.loc[of['world'] == 'ours', 'n'].max():g})")
        axes[i].set_yticks(range(len(ways)), [_words(*way) for way in ways] if i == 0 else [""] * len(ways))
        axes[len(roles) + i].tick_params(labelleft=i == 0)
    axes[0].set_ylabel("who answers")
    axes[len(roles)].set_ylabel("share of gates open by then\n(band: 95 % interval)")
    legend(figure, axes, columns=3)
    return figure


def _words(method: str, gate: str) -> str:
    return f"{method}, {GATE_WORDS[gate]}" if gate else method


def _shares(ax: Axes, table: pd.DataFrame, ways: list[tuple[str, str]]) -> None:
    for j, (measure, (colour, marker)) in enumerate(SHARE_LOOKS.items()):
        for world, of in table[table["measure"] == measure].groupby("world", sort=False):
            ours, words = world == "ours", SHARE_WORDS[measure]
            places = [ways.index(way) for way in zip(of["method"], of["gate"], strict=True)]
            at = [place + (0.25 * j if ours else -0.3 + 0.1 * j) for place in places]
            ends = interval(of["accuracy"], of["low"], of["high"])
            ax.errorbar(of["accuracy"], at, xerr=ends, fmt=marker, color=colour, ms=5, elinewidth=1,
                        mfc=colour if ours else "white", label=words if ours else f"{words}: {world}")  # fmt: skip
    ax.set(xlim=(-0.04, 1.04), ylim=(len(ways) - 0.4, -0.6), xlabel="share of free answers\n(95 % interval)")


def _openings(ax: Axes, table: pd.DataFrame) -> None:
    for gate, (colour, marker) in OPENED_LOOKS.items():
        of = table[table["gate"] == gate]
        ax.plot(of["token"], of["accuracy"], color=colour, marker=marker, ms=4, label=f"gate: {GATE_WORDS[gate]}")
        ax.fill_between(of["token"], of["low"], of["high"], color=colour, alpha=0.12, lw=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(ylim=(-0.04, 1.04), xlabel="tokens said\n(0: the prompt)")
