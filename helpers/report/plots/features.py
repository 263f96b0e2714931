"""Notebook 01: features found, what they fire on, and what the papers' rules choose."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from helpers.report.plots.style import BLUE, GREEN, GREY, RED, SMALL, WIDTH, legend, panels, plain_numbers

RULES = ("sparsity", "clamp_prime", "importance")
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
    width = int(72 * WIDTH / (_CHARACTER * SMALL)) - 3  # characters in a line
    places, lines = _places(table["token"], width)
    figure = plt.figure(figsize=(WIDTH, 0.22 * (lines + 2)))
    figure.set_layout_engine("none")  # a character is a unit of the axis
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    top = table["activation"].max() or 1.0
    for (x, line, shown), activation in zip(places, table["activation"], strict=True):
        ax.add_patch(Rectangle((x, line - 0.42), len(shown), 0.84, color=RED, alpha=0.75 * activation / top, lw=0))
        ax.text(x, line, shown.replace("$", r"\$"), family="monospace", fontsize=SMALL, va="center")
    ax.text(0, lines + 0.5, f"shade: activation, up to {top:.3g}", color=RED, fontsize=SMALL, va="center")
    ax.set(xlim=(-1.5, width + 1.5), ylim=(lines + 1.25, -0.75))
    return figure


def _places(tokens: pd.Series, width: int) -> tuple[list[tuple[int, int, str]], int]:
    """Where each token begins (character, line) and what is shown of it; and the number of lines."""
    places, x, line = [], 0, 0
    for token in tokens:
        shown = token.replace("\n", "\u21b5")
        if x and x + len(shown) > width:
            x, line = 0, line + 1
        places.append((x, line, shown))
        x, line = (0, line + 1) if "\n" in token else (x + len(shown), line)
    return places, line + 1


def selection_rules(table: pd.DataFrame) -> Figure:
    """Notebook 01: how many features the papers' rules have in common."""
    figure, (ax,) = panels(1, columns=1, height=4.4, width=5.2)
    grid = table.pivot(index="rule", columns="other", values="shared")
    order = list(dict.fromkeys(table["rule"]))
    words = [name.replace("importance_", "importance,\n").replace("_", " ") for name in order]
    sns.heatmap(grid.loc[order, order], annot=True, fmt="d", cmap="Blues", cbar=False, square=True, ax=ax,
                xticklabels=words, yticklabels=words, linewidths=1)  # fmt: skip
    ax.set(xlabel="rule", ylabel="rule", title="features that two rules have in common")
    ax.tick_params(length=0, labelrotation=0)
    ax.grid(False)
    return figure
