"""Notebook 06: what an attack brings back."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.report.plots.style import (
    GREY,
    ORANGE,
    RED,
    REFERENCE_ORDER,
    REFERENCE_SIZE,
    ROLES,
    chance,
    interval,
    is_reference,
    legend,
    look_of,
    panels,
    role_title,
    sample,
    say_if_empty,
)

# arm -> colour, line, marker, for the guard whose three arms are to be told apart; another looks as its method
ARM_STYLE = {
    "DSG at test time": (ORANGE, "-", "^"),
    "DSG also in training": (RED, "--", "v"),
    "DSG, hook removed": (GREY, "-.", "o"),
}
ARM_LINES = {" at test time": "-", " also in training": "--", ", hook removed": "-."}
TEXT_LINES = {"forget text": "-", "retain text": "--"}


def relearning(table: pd.DataFrame) -> Figure:
    """Notebook 06: accuracy per epoch of the attack and how far above the reference's, means over seeds."""
    figure, axes = panels(len(ROLES) + 1, columns=2, height=3.1)
    for ax, role in zip(axes, ROLES, strict=False):
        of = table[table["role"] == role]
        _curves(ax, of, "epoch", "accuracy")
        _accuracies(ax, of["accuracy"])
        ax.set(title=role_title(role, of["n"]), ylabel="accuracy\n(mean; band: range over seeds)")
    forget = table[table["role"] == "forget"]
    _curves(axes[-1], forget[~forget["arm"].map(is_reference)], "epoch", "above")
    axes[-1].axhline(0, color=GREY, lw=1.2)
    say_if_empty(axes[-1], forget["above"], "no reference")
    axes[-1].set(
        title="forget, above the reference's\n(0: no more than learning anew)", ylabel="difference of accuracies"
    )
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("epoch of fine-tuning on forget text")
    legend(figure, axes, columns=5)
    return figure


def relearning_rates(table: pd.DataFrame) -> Figure:
    """Notebook 06: forget accuracy per epoch, a panel a learning rate, with 95 % intervals."""
    rates = list(dict.fromkeys(table["learning_rate"]))
    figure, axes = panels(len(rates), columns=2, height=3.3, sharey=True)
    for ax, rate in zip(axes, rates, strict=True):
        of = table[table["learning_rate"] == rate]
        _with_intervals(ax, of, "epoch")
        _accuracies(ax, of["accuracy"])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(title=f"learning rate {rate:g} (n = {of['n'].max():g})", xlabel="epoch of fine-tuning on forget text")
    axes[0].set_ylabel("forget accuracy (95 % interval)\n(lower is better)")
    legend(figure, axes, columns=5)
    return figure


def residual_drift(table: pd.DataFrame) -> Figure:
    """Notebook 06: how far fine-tuning moves the residual after every layer, and the training loss step by step."""
    figure, axes = panels(3, columns=3, height=3.4)
    words = {"cosine": "cosine to the residual before\n(1: not moved)", "norm ratio": "norm over the norm before"}
    for ax, (measure, label) in zip(axes, words.items(), strict=False):
        for (arm, text), rows in table[table["measure"] == measure].groupby(["arm", "text"], sort=False):
            colour, _, marker = _arm(arm)
            ax.errorbar(rows["x"], rows["value"], interval(rows["value"], rows["low"], rows["high"]), color=colour,
                        ls=TEXT_LINES[text], marker=marker, elinewidth=0.7)  # fmt: skip
        ax.axvline(table["sae_layer"].iloc[0], color=GREY, ls=":", lw=1)
        ax.axhline(1, color=GREY, lw=0.8)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="after layer (dotted: the SAE's)", ylabel=measure, title=label)
    for arm, rows in table[table["measure"] == "loss"].groupby("arm", sort=False):
        colour, _, marker = _arm(arm)
        axes[2].plot(rows["x"], rows["value"], color=colour, marker=marker, markevery=4, label=_trained(arm))
    axes[2].set(xlabel="step", ylabel="nats per token", title="training loss")
    legend(figure, axes, columns=3, extra=[sample(f"residual on {text}", linestyle=line)
                                           for text, line in TEXT_LINES.items()])  # fmt: skip
    return figure


def _trained(arm: str) -> str:
    """Of which fine-tuning a loss is: an intervention that waits for the test leaves the unedited weights to train."""
    return f"{arm} (trained without it)" if arm.endswith(" at test time") else arm


def few_documents(table: pd.DataFrame) -> Figure:
    """Notebook 06: forget accuracy after fine-tuning on a few documents, with 95 % intervals; the mean over seeds."""
    figure, (ax,) = panels(1, columns=1, height=3.6, width=7)
    counts = sorted(set(table["documents"]))
    places = table.assign(place=table["documents"].map(counts.index))
    _with_intervals(ax, places, "place")
    _accuracies(ax, table["accuracy"])
    ax.set_xticks(range(len(counts)), [f"{n:g}" if n else "none" for n in counts])
    ax.set(xlabel=f"documents fine-tuned on ({table['steps'].iloc[0]:g} steps each)",
           ylabel=f"forget accuracy (n = {table['n'].max():g})\n(95 % interval, lower is better)")  # fmt: skip
    legend(figure, [ax], columns=3)
    return figure


def other_half(table: pd.DataFrame) -> Figure:
    """Notebook 06: forget accuracy before and after text about half of what is asked, on that half and on the other."""
    halves = {"told": "what the text is about", "not told": "what the text is not about"}
    figure, axes = panels(2, columns=2, height=3.3, sharey=True)
    for ax, (role, words) in zip(axes, halves.items(), strict=True):
        of = table[table["role"] == role]
        _with_intervals(ax, of, "epoch")
        _accuracies(ax, of["accuracy"])
        last = int(of["epoch"].max()) if len(of) else 0
        ax.set_xticks(sorted({0, last}), ["before", f"after {last} epochs"][: 1 + bool(last)])
        ax.set_xlabel("fine-tuning on text about half of the things")
        ax.set(title=f"{words}\n(n = {of['n'].max() if len(of) else 0:g})", xlim=(-0.2 * last - 0.1, 1.2 * last + 0.1))
    axes[0].set_ylabel("forget accuracy (95 % interval)\n(lower is better)")
    legend(figure, axes, columns=5)
    return figure


def relearned_once(table: pd.DataFrame) -> Figure:
    """Notebook 07: forget accuracy before and after the same fine-tuning, a row an arm, with 95 % intervals."""
    arms = list(dict.fromkeys(table["arm"]))
    figure, (ax,) = panels(1, columns=1, height=1.3 + 0.32 * len(arms))
    for place, arm in enumerate(arms):
        colour, _, marker = _arm(arm)
        rows = table[table["arm"] == arm].sort_values("epoch")
        ax.plot(rows["accuracy"], [place] * len(rows), color=colour, lw=1, alpha=0.5)
        size: dict[str, Any] = {"ms": 6 * (REFERENCE_SIZE if is_reference(arm) else 1)}
        for filled, row in zip((False, True), rows.itertuples(), strict=True):
            ax.errorbar([row.accuracy], [place], xerr=interval(row.accuracy, row.low, row.high), ls="none",
                        marker=marker, color=colour, mfc=colour if filled else "white", elinewidth=0.7,
                        **size)  # fmt: skip
    chance(ax, "vertical")
    ax.set_yticks(range(len(arms)), arms)
    ax.set(xlim=(-0.03, 1.05), ylim=(len(arms) - 0.5, -0.5), ylabel="method",
           xlabel=f"forget accuracy (n = {table['n'].max():g}; lower is better)")  # fmt: skip
    words = f"open: before, filled: after {table['epoch'].max():g} epochs; bars: 95 % intervals"
    legend(figure, [ax], columns=2, extra=[sample(words)])
    return figure


def _accuracies(ax: Axes, values: pd.Series) -> None:
    chance(ax)
    say_if_empty(ax, values)
    ax.set_ylim(-0.03, 1.05)


def _curves(ax: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    """Every arm's mean over seeds with the range between them."""
    for arm, rows in table.groupby("arm", sort=False):
        colour, line, marker = _arm(arm)
        means = rows.groupby(x)[y].agg(["mean", "min", "max"])
        (curve,) = ax.plot(means.index, means["mean"], color=colour, ls=line, marker=marker, label=arm)
        if is_reference(arm):
            curve.set(markersize=curve.get_markersize() * REFERENCE_SIZE, zorder=REFERENCE_ORDER)
        ax.fill_between(means.index, means["min"], means["max"], color=colour, alpha=0.15, linewidth=0)


def _with_intervals(ax: Axes, table: pd.DataFrame, x: str) -> None:
    """Every arm with its 95 % interval, means over seeds, arms a little apart."""
    arms = list(dict.fromkeys(table["arm"]))
    step = 0.012 * (table[x].max() - table[x].min()) if len(table) else 0
    for i, (arm, rows) in enumerate(table.dropna(subset="accuracy").groupby("arm", sort=False)):
        colour, line, marker = _arm(arm)
        means = rows.groupby(x)[["accuracy", "low", "high"]].mean()
        size: dict[str, Any] = (
            {"markersize": 6 * REFERENCE_SIZE, "zorder": REFERENCE_ORDER} if is_reference(arm) else {}
        )
        ax.errorbar(means.index + step * (i - len(arms) / 2), means["accuracy"],
                    interval(means["accuracy"], means["low"], means["high"]), color=colour, ls=line, marker=marker,
                    elinewidth=0.7, label=arm, **size)  # fmt: skip


def _arm(name: str) -> tuple[str, str, str]:
    """Colour, line and marker: of its own, or of the method whose arm it is, with the line of the arm."""
    if name in ARM_STYLE:
        return ARM_STYLE[name]
    method, line = next(
        ((name.removesuffix(end), line) for end, line in ARM_LINES.items() if name.endswith(end)), (name, "-")
    )
    colour, marker = look_of(method)
    return colour, "--" if is_reference(method) else line, marker
