"""Notebook 14: the statements behind DSG's rule, a row with its interval for each thing that was tried."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.report.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, interval, legend, panels


def fisher(table: pd.DataFrame) -> Figure:
    """Notebook 14: how well the second moment stands for the squared gradient of the reconstruction loss."""
    names = [f"layer {layer}, decoder x{scale:g}\n(error {lost:.2f} of variance)"
             for layer, scale, lost in _once(table, ["layer", "scale"])]  # fmt: skip
    figure, axes = panels(3, columns=3, height=1.6 + 0.6 * len(names), sharey=True)
    for text, colour, marker in (("forget text", RED, "o"), ("retain text", GREY, "s")):
        of = table[table["text"] == text]
        for ax, what in zip(axes, ("slope", "r"), strict=False):
            _dots(ax, of, what, {"color": colour, "marker": marker, "label": text}, text == "retain text")
        axes[2].plot(of["missed"], [i + 0.25 * (text == "retain text") for i in range(len(of))], color=colour,
                     marker=marker, ls="none", label=text)  # fmt: skip
    axes[0].set(xlabel="slope in logarithms\n(1: proportional; 95 % interval)")
    axes[0].axvspan(0.9, 1.1, color=GREEN, alpha=0.15, label="agrees, by our rule")
    axes[1].set(xlabel="Pearson r of logarithms\n(higher is better; 95 % interval)")
    axes[1].axvspan(0.95, 1, color=GREEN, alpha=0.15)
    axes[2].set(
        xlabel="share of spread that the\nproduct misses (lower is better)", xlim=(0, 1.15 * table["missed"].max())
    )
    _rows(axes[0], names, "SAE, and its decoder scaled")
    legend(figure, axes[:1], columns=3)
    return figure


def causal(table: pd.DataFrame) -> Figure:
    """Notebook 14: rank correlation of each score with what clamping a feature alone does."""
    names = list(dict.fromkeys(table["score"]))
    figure, (ax,) = panels(1, columns=1, height=3.6, width=7.5)
    for role, words, colour, marker in (("forget", "forget questions", RED, "o"), ("side", "side effects", GREEN, "s")):
        _dots(ax, table[table["role"] == role], "spearman", {"color": colour, "marker": marker, "label": words},
              role == "side")  # fmt: skip
    ax.axvline(0, color=GREY, ls=":", lw=1.2, label="no relation (0)")
    ax.axvline(0.5, color=GREY, ls="--", lw=1, label="agrees from 0.5, by our rule")
    n = int(table["n"].max())
    ax.set(xlabel=f"Spearman with the drop in log-odds of the right letter\n({n} features; 95 % interval)")
    _rows(ax, names, "score")
    legend(figure, [ax], columns=2)
    return figure


def roc(table: pd.DataFrame) -> Figure:
    """Notebook 14: how well each test tells forget questions from others, and how far it is from rho."""
    names = list(dict.fromkeys(table["test"]))
    figure, axes = panels(3, columns=3, height=3.8, sharey=True)
    looks = (("side", "side effects", BLUE, "o"), ("near", "near domain", PURPLE, "s"))
    for role, words, colour, marker in looks:
        of = table[table["against"] == role]
        if of.empty:
            continue
        n = f"against {words} ({of['positives'].iloc[0]:g} and {of['negatives'].iloc[0]:g} questions)"
        for ax, what in zip(axes, ("auc", "difference"), strict=False):
            _dots(ax, of, what, {"color": colour, "marker": marker, "label": n}, role == "near")
        axes[2].plot(of["power"], [i + 0.25 * (role == "near") for i in range(len(of))], color=colour, marker=marker,
                     ls="none")  # fmt: skip
    axes[0].set(xlabel="AUC (higher is better;\n95 % interval)")
    axes[0].axvline(0.5, color=ORANGE, ls=":", label="chance (0.5)")
    axes[1].axvline(0, color=GREY, ls="--", lw=1)
    axes[1].set(xlabel="AUC above rho's\n(0: as good; 95 % interval)")
    axes[2].set(xlabel="power at 5 % false alarms\n(higher is better)", xlim=(-0.03, 1.05))
    _rows(axes[0], names, "test")
    legend(figure, axes[:1], columns=2)
    return figure


def _once(table: pd.DataFrame, columns: list[str]) -> list[tuple]:
    return list(table.drop_duplicates(columns)[[*columns, "lost"]].itertuples(index=False))


def _dots(ax: Axes, of: pd.DataFrame, what: str, look: dict[str, str], lower: bool) -> None:
    """A point with its interval for every row, the second of two kinds a little lower."""
    places = [i + 0.25 * lower for i in range(len(of))]
    ends = interval(of[what], of[f"{what}_low"], of[f"{what}_high"])
    ax.errorbar(of[what], places, xerr=ends, fmt=look["marker"], color=look["color"], label=look["label"], ms=5)


def _rows(ax: Axes, names: list[str], words: str) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), ylabel=words)
