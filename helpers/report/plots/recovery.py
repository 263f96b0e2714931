"""Notebook 12: what an attacker gets out of embeddings, residuals and weights."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.report.plots.style import (
    BLACK,
    GREY,
    REFERENCE_ORDER,
    REFERENCE_SIZE,
    SMALL,
    chance,
    interval,
    is_reference,
    legend,
    looks_of,
    panels,
    sample,
    say_if_empty,
    wrapped,
)

UNEDITED = "unedited"
VECTORS = (("residual", False, "one vector in the residual"), ("embeddings", False, "one vector in the embeddings"),
           ("residual", True, "a vector a question, fitted to it"))  # fmt: skip
TARGET_LINES = {"right letter": "-", "random wrong letter": ":"}


def residual_vector(table: pd.DataFrame) -> Figure:
    """Notebook 12: how many questions of the other half are answered as a vector in the stream wants them to be."""
    figure, axes = panels(len(VECTORS) + 1, columns=2, height=3.2)
    judged = table[table["asked"] == "judged"]
    looks = _looks(judged["method"])
    for ax, (place, each, words) in zip(axes, VECTORS, strict=False):
        of = judged[(judged["place"] == place) & (judged["each"] == each)]
        for target, line in TARGET_LINES.items():
            _lines(ax, of[of["target"] == target], "bound", "accuracy", looks, line)
        chance(ax)
        say_if_empty(ax, of["accuracy"])
        ax.set(title=f"{words}\n(n = {_most(of['n'])})", ylim=(-0.03, 1.05), ylabel="share that says the target")
    shared = judged[(judged["place"] == "residual") & ~judged["each"] & (judged["target"] == "right letter")]
    _lines(axes[-1], shared[~shared["method"].map(is_reference)], "bound", "above", looks, "-")
    axes[-1].axhline(0, color=GREY, lw=1.2)
    say_if_empty(axes[-1], shared["above"], "no reference")
    axes[-1].set(
        title="one vector in the residual, above the\nreference under the same attack",
        ylabel="difference of accuracies",
    )
    for ax in axes:
        ax.set_xlabel("bound of the length, in mean lengths\nof what it is added to (0: none)")
    legend(figure, axes, columns=4, extra=[sample(f"target: {target}", linestyle=line, color=BLACK)
                                           for target, line in TARGET_LINES.items()])  # fmt: skip
    return figure


def by_layer(table: pd.DataFrame) -> Figure:
    """Notebook 12: what the logit lens and linear probes read off the residual where an answer is given, by layer."""
    figure, axes = panels(2, columns=2, height=3.6, sharey=True)
    judged = table[table["half"] == 1]
    looks = _looks(judged["method"])
    for ax, measure, words in zip(
        axes, ("logit lens", "probe"), ("logit lens", "linear probe (dash-dotted: shuffled labels)"), strict=True
    ):
        _lines(ax, judged[judged["measure"] == measure], "layer", "accuracy", looks, "-")
        ax.set_title(f"{words}\n(n = {_most(judged['n'])})")
    _lines(axes[1], judged[judged["measure"] == "probe, shuffled labels"], "layer", "accuracy", looks, "-.")
    for ax in axes:
        chance(ax)
        ax.axvline(judged["sae_layer"].iloc[0], color=GREY, ls="--", lw=1, label="the SAE's layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="after layer", ylim=(-0.03, 1.05))
    axes[0].set_ylabel("right letters read off\n(95 % interval)")
    legend(figure, axes, columns=5)
    return figure


def other_weights(table: pd.DataFrame) -> Figure:
    """Notebook 12: accuracy of quantised and of pruned weights, and how many weights lie in another bucket."""
    figure, axes = panels(4, columns=2, height=3.2)
    judged = table[table["half"] == 1]
    looks, plain = _looks(judged["method"]), judged[judged["attack"] == "asked plainly"]
    forget, side = (judged[judged["role"] == role] for role in ("forget", "side"))
    quantised = forget[forget["attack"] == "quantisation"]
    schemes = quantised.drop_duplicates("setting").sort_values(["bits", "group"], ascending=[False, True])
    names = {row.setting: f"{row.bits:g}/{row.group:g}" for row in schemes.itertuples()}
    for ax, of, words in zip(
        axes, (forget, side), ("quantised: forget questions", "quantised: side effects"), strict=False
    ):
        rows = pd.concat([of[of["attack"] == "quantisation"], plain[plain["role"] == of["role"].iloc[0]]])
        at = {setting: i for i, setting in enumerate(names, 1)}
        _lines(
            ax,
            rows.assign(place=rows["setting"].map(at).fillna(0)).sort_values("place"),
            "place",
            "accuracy",
            looks,
            "-",
        )
        ax.set(title=f"{words}\n(n = {_most(of['n'])})", ylabel="accuracy (95 % interval)")
        _schemes(ax, ["as is", *names.values()])
    moved = quantised.assign(place=quantised["setting"].map({name: i for i, name in enumerate(names)})).sort_values(
        "place"
    )
    for method, rows in moved.dropna(subset="buckets").groupby("method", sort=False):
        axes[2].plot(rows["place"], rows["buckets"], color=looks[method][0], marker=looks[method][1])
    axes[2].set(
        title="weights in another bucket than the\noriginal's (of the edited matrices)",
        ylabel="share",
        ylim=(-0.03, 1.05),
    )
    _schemes(axes[2], [*names.values()])
    pruned = pd.concat([plain[plain["role"] == "forget"].assign(share=0.0), forget[forget["attack"] == "pruning"]])
    _lines(axes[3], pruned, "share", "accuracy", looks, "-")
    axes[3].set(
        title=f"pruned: forget questions\n(n = {_most(pruned['n'])})",
        xlabel="share of each matrix set to 0",
        ylabel="accuracy (95 % interval)",
    )
    for ax in (axes[0], axes[1], axes[3]):
        chance(ax)
        ax.set_ylim(-0.03, 1.05)
    legend(figure, axes, columns=5)
    return figure


def worst_case(table: pd.DataFrame) -> Figure:
    """Notebook 12: forget accuracy of every method under every attack, each method's strongest attack framed."""
    methods, attacks = (list(dict.fromkeys(table[column])) for column in ("method", "attack"))
    figure, (ax,) = panels(1, columns=1, height=1.6 + 0.55 * len(methods))
    cells = table.pivot(index="method", columns="attack", values="accuracy").reindex(index=methods, columns=attacks)
    ax.imshow(cells, cmap="Oranges", vmin=0, vmax=1.4, aspect="auto")
    for row in table.itertuples():
        place = attacks.index(row.attack), methods.index(row.method)
        ax.text(*place, f"{row.accuracy:.2f}\n{row.low:.2f}-{row.high:.2f}", ha="center", va="center", fontsize=SMALL)
        if row.worst:
            ax.add_patch(plt.Rectangle((place[0] - 0.48, place[1] - 0.46), 0.96, 0.92, fill=False, lw=1.8))
    access = table.drop_duplicates("attack").set_index("attack")["access"]
    ax.set_xticks(range(len(attacks)), [f"{wrapped(a, 17)}\n({access[a]})" for a in attacks], fontsize=SMALL)
    ax.set_yticks(range(len(methods)), methods)
    ax.set(xlabel="attack (what it touches)", ylabel="method")
    n = _most(table["n"])
    ax.set_title(
        f"forget accuracy under attack, 95 % interval\n(n = {n}, lower is better; framed: the strongest on half 0)"
    )
    ax.grid(False)
    return figure


def _looks(labels: pd.Series) -> dict[str, tuple[str, str]]:
    return looks_of(label for label in labels if label != UNEDITED) | {UNEDITED: (GREY, "o")}


def _most(n: pd.Series) -> int:
    return 0 if n.isna().all() else int(n.max())


def _schemes(ax: Axes, names: list[str]) -> None:
    ax.set_xticks(range(len(names)), names, rotation=40)
    ax.set_xlabel("bits/group")


def _lines(ax: Axes, table: pd.DataFrame, x: str, y: str, looks: dict[str, tuple[str, str]], line: str) -> None:
    """A line a method with its 95 % intervals; the legend names the drawn-through ones."""
    for method, rows in table.dropna(subset=y).groupby("method", sort=False):
        colour, marker = looks[method]
        size: dict[str, Any] = (
            {"markersize": 6 * REFERENCE_SIZE, "zorder": REFERENCE_ORDER} if is_reference(method) else {}
        )
        low, high = ("low", "high") if y == "accuracy" else (f"{y}_low", f"{y}_high")
        ends = interval(rows[y], rows[low], rows[high])
        thin, label = (0.7, method) if line == "-" else (0.4, None)
        ax.errorbar(rows[x], rows[y], ends, color=colour, ls=line, marker=marker, elinewidth=thin, label=label, **size)
