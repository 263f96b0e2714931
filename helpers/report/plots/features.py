"""Notebook 01: features found, what they fire on, and what the papers' rules choose."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from helpers.methods.selection import DEAR, KEPT, USELESS
from helpers.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    ROLE_STYLE,
    SMALL,
    WIDTH,
    entries,
    error,
    legend,
    panels,
    plain_numbers,
    say_if_empty,
)

RULES = ("sparsity", "clamp_prime", "importance")
# what becomes of a candidate of attribution -> colour, marker
FATE_STYLE = {
    USELESS: (GREY, "o"),
    DEAR: (ORANGE, "s"),
    KEPT: (BLUE, "D"),
}
MOST_KEPT = 12  # features that are drawn one by one
NEW_LINE = "\u21b5"
# how wide a character of the monospaced font is, as a share of its size
_CHARACTER = 0.602


def firing_rates(table: pd.DataFrame) -> Figure:
    """Notebook 01: every feature's firing rate on forget against retain text, the papers' choices marked."""
    rules = [rule for rule in RULES if rule in table]
    figure, axes = panels(len(rules), columns=3, height=3.4, sharey=True)
    # a feature that never fires on one of the texts is drawn at half a token, left of and below all others
    x = table["retain_rate"].clip(lower=0.5 / table["retain_tokens"])
    y = table["forget_rate"].clip(lower=0.5 / table["forget_tokens"])
    for ax, rule in zip(axes, rules, strict=True):
        chosen = table[rule]
        ax.scatter(x[~chosen], y[~chosen], s=7, color=GREY, alpha=0.45, linewidths=0, label="a feature")
        ax.scatter(x[chosen], y[chosen], s=22, color=RED, label="a feature that the rule chooses")
        ax.set(xscale="log", yscale="log", title=f"{rule.replace('_', ' ')} ({chosen.sum()} chosen)")
        ax.xaxis.set_major_locator(LogLocator(base=100))
        ax.xaxis.set_minor_locator(LogLocator(base=10))
        for axis in (ax.xaxis, ax.yaxis):
            plain_numbers(axis)
        ax.set_xlabel("firing rate on retain text\n(left edge: never)")
    axes[0].set_ylabel("firing rate on forget text\n(lower edge: never)")
    legend(figure, axes, columns=2)
    return figure


def activation_distribution(table: pd.DataFrame) -> Figure:
    """Notebook 01: how strongly one feature fires on each source of text."""
    figure, (ax,) = panels(1, columns=1, height=4.0, width=6.5)
    for (source, rows), colour in zip(table.groupby("source", sort=False), (RED, BLUE, GREEN), strict=False):
        fires = rows["tokens"].sum() / rows["of_tokens"].iloc[0]
        edges = np.append(rows["low"], rows["high"].iloc[-1])
        shares = rows["tokens"] / rows["of_tokens"]
        ax.stairs(shares, edges, color=colour, fill=True, alpha=0.2)
        ax.stairs(shares, edges, color=colour, lw=1.5, label=f"{source}: fires at {fires:.2%} of tokens")
    ax.set(yscale="log", xlabel="activation of the feature", ylabel="share of the source's tokens in the bin")
    plain_numbers(ax.yaxis)
    legend(figure, [ax], columns=2)
    return figure


def highlighted_question(table: pd.DataFrame) -> Figure:
    """Notebook 01: one question, each token shaded by the strongest activation among the chosen features."""
    return _shaded([(f"shade: activation, up to {table['activation'].max():.3g}", table)])


def strongest_passages(table: pd.DataFrame) -> Figure:
    """Notebook 01: where the best features fire most strongly on forget and on retain text, each token shaded.

    One scale of shades a feature.
    """
    blocks = []
    for feature, of in table.groupby("feature", sort=False):
        for text, rows in of.groupby("text", sort=False):
            strongest = rows["activation"].max()
            fires = f"up to {strongest:.3g}" if strongest else "silent in all of it"
            one_line = rows["token"].str.replace("\n", NEW_LINE)
            blocks.append(
                (f"feature {feature} on {text}: {fires}", rows.assign(token=one_line, top=of["activation"].max()))
            )
    return _shaded(blocks)


def _shaded(blocks: list[tuple[str, pd.DataFrame]]) -> Figure:
    """Passages below each other, each under its words; `top` is the activation of the deepest shade, or the largest."""
    width = int(72 * WIDTH / (_CHARACTER * SMALL)) - 3  # characters in a line
    placed = [_places(rows["token"], width) for _, rows in blocks]
    height = sum(lines + 1.6 for _, lines in placed)
    figure = plt.figure(figsize=(WIDTH, 0.22 * height))
    figure.set_layout_engine("none")  # a character is a unit of the axis
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set(xlim=(-1.5, width + 1.5), ylim=(height - 0.9, -0.9))
    above = 0.0
    for (words, rows), (places, lines) in zip(blocks, placed, strict=True):
        ax.text(0, above, words, color=RED, fontsize=SMALL, va="center")
        top = rows.get("top", rows["activation"]).max() or 1.0
        for (x, line, shown), activation in zip(places, rows["activation"], strict=True):
            y, alpha = above + 1 + line, 0.75 * activation / top
            ax.add_patch(Rectangle((x, y - 0.42), len(shown), 0.84, color=RED, alpha=alpha, lw=0))
            ax.text(x, y, shown.replace("$", r"\$"), family="monospace", fontsize=SMALL, va="center")
        above += lines + 1.6
    return figure


def _places(tokens: pd.Series, width: int) -> tuple[list[tuple[int, int, str]], int]:
    """Where each token begins (character, line) and what is shown of it; and the number of lines."""
    places, x, line = [], 0, 0
    for token in tokens:
        shown = token.replace("\n", NEW_LINE)
        if x and x + len(shown) > width:
            x, line = 0, line + 1
        places.append((x, line, shown))
        x, line = (0, line + 1) if "\n" in token else (x + len(shown), line)
    return places, line + 1


def attribution(table: pd.DataFrame) -> Figure:
    """Notebook 01: features of large attribution, each clamped alone: which are kept, and what those do elsewhere."""
    figure, axes = panels(3, columns=2, height=3.6)
    asked = int(table["asked"].max())
    for ax, column in zip(axes, ("attribution", "side_lost"), strict=False):
        for fate, rows in table.groupby("fate", sort=False):
            colour, marker = FATE_STYLE[fate]
            ax.scatter(rows[column], rows["forget_lost"], color=colour, marker=marker, s=26, alpha=0.8, linewidths=0,
                       label=f"{fate} ({len(rows)})")  # fmt: skip
        ax.set_ylabel(f"forget questions lost of {asked}\n(half 0)")
    axes[0].set(xscale="log", xlabel="attribution (logits, summed over tokens and questions)")
    plain_numbers(axes[0].xaxis)
    axes[1].set(
        xlabel="questions lost of one side-effect subject (half 0):\nthe first that loses too many, or the most"
    )
    _kept_alone(axes[2], table[table["fate"] == KEPT])
    shown = entries(axes)
    figure.axes[len(axes)].legend(list(shown.values()), list(shown), loc="upper left")
    return figure


def _kept_alone(ax: Axes, kept: pd.DataFrame) -> None:
    """Accuracies of forget and side-effect questions under the clamp of each kept feature, the cheapest on top."""
    kept = kept.sort_values("loss_added", kind="stable")[:MOST_KEPT]
    for role, shift in (("forget", -0.15), ("side", 0.15)):
        colour, words = ROLE_STYLE[role]
        ends = error(kept, role)
        n = kept[f"{role}_n"].max()
        label = f"{words}, half 1 (n = {0 if np.isnan(n) else int(n)})"
        ax.errorbar(kept[f"{role}_accuracy"], np.arange(len(kept)) + shift, xerr=ends, fmt="o", ms=5,
                    color=colour, capsize=2.5, label=label)  # fmt: skip
    ax.set_yticks(range(len(kept)), [f"feature {i}" for i in kept["feature"]])
    ax.set_ylabel("kept, the least loss added first")
    ax.set(ylim=(len(kept) - 0.4, -0.6), xlabel="accuracy when the kept feature alone is clamped\n(half 1)")
    say_if_empty(ax, kept["forget_accuracy"], "no feature is kept")


def selection_rules(table: pd.DataFrame) -> Figure:
    """Notebook 01: how many features the papers' rules have in common."""
    figure, (ax,) = panels(1, columns=1, height=4.8, width=5.6)
    grid = table.pivot(index="rule", columns="other", values="shared")
    order = list(dict.fromkeys(table["rule"]))
    words = [name.replace("_", "\n") for name in order]
    sns.heatmap(grid.loc[order, order], annot=True, fmt="d", cmap="Blues", cbar=False, square=True, ax=ax,
                xticklabels=words, yticklabels=words, linewidths=1)  # fmt: skip
    ax.set(xlabel="rule", ylabel="rule", title="features that two rules have in common")
    ax.tick_params(length=0, labelrotation=0)
    ax.grid(False)
    return figure
