"""Notebooks 02 and 04: what happens along the strength of a clamp."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.report.plots.style import (
    BLACK,
    BLUE,
    FORGET_AXIS,
    GREEN,
    GREY,
    LOSS_AXIS,
    NARROW_AXES,
    ORANGE,
    PURPLE,
    RED,
    ROLE_STYLE,
    ROLES,
    accuracy_panel,
    chance,
    colours_of,
    error,
    interval,
    legend,
    look_of,
    looks_of,
    panels,
    plain_numbers,
    role_title,
    sample,
    strengths,
    wrapped,
)

CONTROL_STYLE = {
    "clamp": (RED, "o"),
    "another decoder": (BLUE, "s"),
    "scale": (GREEN, "^"),
    "random feature": (GREY, "."),
}


def clamp_curve(table: pd.DataFrame) -> Figure:
    """Notebook 02: p(A..D) of one question against the clamp, with the loss added beside it; ours and the paper's."""
    worlds = list(dict.fromkeys(table["world"]))
    figure, axes = panels(2 * len(worlds), columns=2, height=3.2)
    for world, ax, loss in zip(worlds, axes[::2], axes[1::2], strict=True):
        of = table[table["world"] == world]
        _letter_curves(ax, of)
        rows = of.drop_duplicates("strength")
        loss.plot(rows["strength"], rows["loss_added"], color=BLACK, marker=".")
        loss.set(ylabel=LOSS_AXIS, title=f"{world}: the price")
        ax.set_title(f"{world}: one question")
        for panel in (ax, loss):
            strengths(panel, of["strength"])
    return figure


def _letter_curves(ax: Axes, of: pd.DataFrame) -> None:
    for letter, colour in zip("ABCD", (BLUE, ORANGE, GREEN, PURPLE), strict=True):
        rows = of[of["letter"] == letter]
        right = bool(rows["right"].any())
        ax.plot(rows["strength"], rows["probability"], color=colour, marker=".", lw=2.2 if right else 1,
                label=f"{letter} (right)" if right else letter)  # fmt: skip
    # room for the legend between the highest line and the frame
    ax.set(yscale="log", ylim=(1e-8, 30), yticks=[10.0**e for e in range(-8, 1)], ylabel="probability of the letter")
    plain_numbers(ax.yaxis)
    ax.legend(loc="upper center", ncols=4, handlelength=1.4, columnspacing=1.2)


def controls(table: pd.DataFrame) -> Figure:
    """Notebook 02: the clamp against its controls on the same question, and their price."""
    figure, axes = panels(2, columns=2, height=3.4)
    for ax, column in zip(axes, ("p_right", "loss_added"), strict=True):
        for (name, _), rows in table.groupby(["control", "feature"], sort=False):
            colour, marker = CONTROL_STYLE[name] if name in CONTROL_STYLE else look_of(name)
            ax.plot(rows["strength"], rows[column], color=colour, marker=marker, label=name)
        strengths(ax, table["strength"])
    axes[0].set(ylabel="probability of the right letter\n(lower is better)", ylim=(-0.03, 1.03))
    axes[1].set(ylabel=LOSS_AXIS)
    legend(figure, axes, columns=4)
    return figure


def all_questions(table: pd.DataFrame) -> Figure:
    """Notebook 02: accuracy on all known questions against the clamp strength, for several numbers of features."""
    figure, axes = panels(len(ROLES), columns=3, height=3.4, sharey=True)
    colours = colours_of(table["n_features"])
    for ax, role in zip(axes, ROLES, strict=True):
        for n, rows in table.groupby("n_features"):
            ax.errorbar(rows["strength"], rows[f"{role}_accuracy"], error(rows, role), color=colours[n], marker="o",
                        elinewidth=0.7, label=_features(n))  # fmt: skip
        strengths(ax, table["strength"])
        accuracy_panel(ax, table, role)
    axes[0].set_ylabel("accuracy (95 % interval)")
    legend(figure, axes, columns=6)
    return figure


def carriers(table: pd.DataFrame) -> Figure:
    """Notebook 02: what each chosen feature does alone, in what order, and what the first few do together."""
    drawn = list(dict.fromkeys(zip(table["world"], table["clamped"], strict=True)))
    figure, axes = panels(len(drawn), columns=3, height=3.4, sharey=True)
    words = {"alone": "each feature alone", "together": "the first k together"}
    for ax, (world, clamped) in zip(axes, drawn, strict=True):
        of = table[(table["world"] == world) & (table["clamped"] == clamped)]
        for role, rows in of.groupby("role", sort=False):
            colour, name = ROLE_STYLE[role]
            ends = interval(rows["accuracy"], rows["low"], rows["high"])
            ax.errorbar(rows["place"], rows["accuracy"], ends, color=colour, fmt="o" if clamped == "alone" else "o-",
                        ms=3.5, elinewidth=0.7, label=name)  # fmt: skip
        n = of.loc[of["role"] == "forget", "n"].max()
        ax.set(title=f"{world}:\n{words[clamped]} (n = {n} forget)", ylim=(-0.03, 1.05))
        ax.set_xlabel("features together, k" if clamped == "together" else "place of the feature by its effect")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        chance(ax)
    axes[0].set_ylabel("accuracy (95 % interval)\n(forget: lower is better)")
    legend(figure, axes, columns=4)
    return figure


def decoders(table: pd.DataFrame) -> Figure:
    """Notebook 02: the clamp along its own decoders and along the next features', ours and the paper's."""
    worlds = list(dict.fromkeys(table["world"]))
    figure, axes = panels(2 * len(worlds), columns=2, height=3.2)
    looks = looks_of(table["method"])
    for world, accuracies, price in zip(worlds, axes[::2], axes[1::2], strict=True):
        of = table[table["world"] == world]
        for method, rows in of.groupby("method", sort=False):
            colour, marker = looks[method]
            accuracies.errorbar(rows["strength"], rows["forget_accuracy"], error(rows, "forget"), color=colour,
                                marker=marker, elinewidth=0.7, label=method)  # fmt: skip
            price.plot(rows["forget_accuracy"], rows["loss_added"], color=colour, marker=marker, label=method)
        strengths(accuracies, of["strength"])
        chance(accuracies)
        words = f"{_features(of['n_features'].max())} (n = {of['forget_n'].max():.0f})"
        accuracies.set(ylim=(-0.03, 1.05), ylabel=NARROW_AXES["forget"], title=f"{world}: {words}")
        price.set(xlabel=FORGET_AXIS, ylabel=LOSS_AXIS, title=f"{world}: the price")
        price.set_yscale("symlog", linthresh=0.01)
        plain_numbers(price.yaxis)
    legend(figure, axes, columns=3)
    return figure


def _features(n: float) -> str:
    return f"{n:g} feature{'' if n == 1 else 's'}"


def conditional_sweeps(table: pd.DataFrame) -> Figure:
    """Notebook 04: accuracy on forget and on side-effect questions against the strength, a panel a method."""
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = panels(len(methods), columns=2, height=2.7, sharex=True, sharey=True)
    colours, lines = colours_of(table["n_features"]), (("forget", "-", "o", None), ("side", "--", "s", "white"))
    for i, (ax, method) in enumerate(zip(axes, methods, strict=True)):
        for n, rows in table[table["method"] == method].groupby("n_features"):
            for role, line, marker, fill in lines:
                ax.errorbar(rows["strength"], rows[f"{role}_accuracy"], error(rows, role), color=colours[n], ls=line,
                            marker=marker, mfc=fill, elinewidth=0.6)  # fmt: skip
        strengths(ax, table["strength"], "strength c in clamp units" if i + 2 >= len(methods) else "")
        ax.tick_params(labelbottom=i + 2 >= len(methods))
        chance(ax)
        ax.set(title=wrapped(method, 50), ylim=(-0.03, 1.05), ylabel="" if i % 2 else "accuracy (95 % interval)")
    extra = [sample(_features(n), color=colour, linestyle="-", lw=3) for n, colour in colours.items()]
    for role, line, marker, fill in lines:
        words = role_title(role, table[f"{role}_n"], ", ")
        extra.append(sample(words, linestyle=line, marker=marker, color=BLACK, mfc=fill))
    legend(figure, axes, columns=4, extra=extra)
    return figure
