"""Notebooks 08 and 09: more and more to forget, and less and less text to forget it by."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.measures.metrics import wilson_interval
from helpers.report.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    chance,
    interval,
    legend,
    look_of,
    panels,
    reproduced,
    role_title,
    sample,
    say_if_empty,
    wrapped,
)

# what was asked -> colour, marker, words
ASKED = {
    "to be forgotten": (RED, "o", "folds to be forgotten (lower is better)"),
    "not yet asked for": (BLUE, "s", "folds not asked for"),
    "near": (PURPLE, "v", "near domain (higher is better)"),
    "side": (GREEN, "^", "side effects (higher is better)"),
}
FOLD_LOOKS = ((ORANGE, "o"), (SKY, "s"), (BLUE, "D"), (BLACK, "p"))
OPENS_LINE = "-."
SHIFT = 0.05  # of a request, so that intervals at one place stand side by side


def at_once(table: pd.DataFrame) -> Figure:
    """Notebook 08: accuracy on folds to be forgotten, on the other folds, near domain and side effects."""
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = panels(len(methods), columns=3, height=3.6, sharex=True, sharey=True)
    for ax, method in zip(axes, methods, strict=True):
        of = table[table["method"] == method]
        for place, (asked, (colour, marker, words)) in enumerate(ASKED.items()):
            _curves(ax, of[of["asked"] == asked], colour, marker, words, (place - 1.5) * SHIFT)
        _requests_axis(ax, wrapped(method), "folds of the forget text\nto be forgotten at once")
    axes[0].set_ylabel("accuracy (95 % interval)")
    legend(figure, axes, 3, [sample("share of questions on which the gate opens", ls=OPENS_LINE)])
    return figure


def forget_requests(table: pd.DataFrame) -> Figure:
    """Notebook 08: accuracy on every fold, near domain and side effects after each of some requests in turn."""
    arms = list(dict.fromkeys(zip(table["method"], table["how"], strict=True)))
    figure, axes = panels(len(arms), columns=3, height=3.5, sharex=True, sharey=True)
    folds = [asked for asked in dict.fromkeys(table["asked"]) if asked not in ("near", "side")]
    looks = {fold: (*FOLD_LOOKS[i % len(FOLD_LOOKS)], fold) for i, fold in enumerate(folds)}
    looks |= {role: ASKED[role] for role in ("near", "side")}
    for ax, (method, how) in zip(axes, arms, strict=True):
        of = table[(table["method"] == method) & (table["how"] == how)]
        for place, (asked, (colour, marker, words)) in enumerate(looks.items()):
            _curves(ax, of[of["asked"] == asked], colour, marker, words, (place - len(looks) / 2) * SHIFT)
        _requests_axis(ax, f"{wrapped(method)}\n{wrapped(how)}", "requests so far,\na fold each")
    for ax in axes[::3]:
        ax.set_ylabel("accuracy (95 % interval)")
    more = [
        sample("a fold that is not asked for yet", marker="o", mfc="white", color=GREY),
        sample("share on which the gate opens", ls=OPENS_LINE),
    ]
    legend(figure, axes, 4, more)
    return figure


def _curves(ax: Axes, of: pd.DataFrame, colour: str, marker: str, words: str, shift: float) -> None:
    """Accuracy over requests, hollow where nobody has asked for it yet; dashed, on how many questions a gate opens."""
    right = of[of["measure"] == "accuracy"].sort_values("requests")
    errors = interval(right["accuracy"], right["low"], right["high"])
    at = right["requests"] + shift
    ax.errorbar(at, right["accuracy"], yerr=errors, color=colour, lw=1, elinewidth=0.7)
    ax.plot(at, right["accuracy"], color=colour, marker=marker, ls="none", label=words)
    if "wanted" in right:
        early = right[~right["wanted"].astype(bool) & ~right["asked"].isin(["near", "side"])]
        ax.plot(early["requests"] + shift, early["accuracy"], color=colour, marker=marker, mfc="white", ls="none")
    opens = of[(of["measure"] == "gate opens") & of["asked"].isin(["near", "side"])].sort_values("requests")
    ax.plot(opens["requests"] + shift, opens["accuracy"], color=colour, ls=OPENS_LINE)


def _requests_axis(ax: Axes, title: str, words: str) -> None:
    chance(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(title=title, xlabel=words, ylim=(-0.03, 1.05))
    ax.xaxis.set_tick_params(labelbottom=True)


def little_text(table: pd.DataFrame) -> Figure:
    """Notebook 09: accuracy of methods that are given a share of the forget text."""
    figure, axes = panels(3, columns=3, height=3.6, sharex=True, sharey=True)
    ours, theirs = table["world"] == "ours", table["world"] != "ours"
    for ax, role in zip(axes, ("forget", "near", "side"), strict=True):
        for method, of in table[ours].groupby("method", sort=False):
            _band(ax, of, role, str(method))
        reproduced(ax, table[theirs], role, "share")
        chance(ax)
        say_if_empty(ax, table.loc[ours, f"{role}_accuracy"])
        ax.set_xscale("log")
        shares = sorted(set(table.loc[ours, "share"]))
        shown = [share for i, share in enumerate(shares) if i == 0 or share / shares[i - 1] > 1.4 or share == 1]
        ax.set_xticks(shown, [f"{share:.0%}" for share in shown])
        ax.minorticks_off()
        ax.set(title=role_title(role, table.loc[ours, f"{role}_n"]), ylim=(-0.03, 1.05), xlabel="share of forget text")
    axes[0].set_ylabel("accuracy (mean; band: range over\nseeds; bar: 95 % interval of the mean)")
    legend(figure, axes, 3)
    return figure


def _band(ax: Axes, of: pd.DataFrame, role: str, method: str) -> None:
    """Mean over seeds with the range between them, and the interval of as many questions as one seed asks."""
    of = of[of[f"{role}_n"] > 0]
    if of.empty:
        return
    colour, marker = look_of(method)
    by_share = of.groupby("share")[f"{role}_accuracy"].agg(["mean", "min", "max"])
    n = int(of[f"{role}_n"].iloc[0])
    ends = [wilson_interval(round(mean * n), n) for mean in by_share["mean"]]
    errors = interval(by_share["mean"], *(pd.Series(x, index=by_share.index) for x in zip(*ends, strict=True)))
    ax.errorbar(by_share.index, by_share["mean"], yerr=errors, color=colour, marker=marker, elinewidth=0.8)
    ax.plot([], [], color=colour, marker=marker, label=method)
    ax.fill_between(by_share.index, by_share["min"], by_share["max"], color=colour, alpha=0.2, linewidth=0)


def features_by_name(table: pd.DataFrame) -> Figure:
    """Notebook 09: accuracy with features that were chosen by what they are called, at every threshold of the gate."""
    figure, axes = panels(3, columns=3, height=3.6, sharex=True, sharey=True)
    ours, theirs = table[table["world"] == "ours"], table[table["world"] != "ours"]
    named, known = ours[ours["features"] == "by their names"], ours[ours["features"] == "by forget text"]
    chosen = ours[ours["features"] == "by forget text, as chosen"]
    for ax, role in zip(axes, ("forget", "near", "side"), strict=True):
        colour, marker = look_of("DSG")
        for of, look in ((named, (RED, "o", "-")), (known, (colour, marker, "none")), (chosen, (GREY, marker, "none"))):
            if of.empty:
                continue
            errors = interval(of[f"{role}_accuracy"], of[f"{role}_low"], of[f"{role}_high"])
            hue, shape, line = look
            n = f"{of['n_features'].iloc[0]:g} " if of["n_features"].notna().all() else ""
            words = wrapped(f"{of['method'].iloc[0]}, {n}features {of['features'].iloc[0]}")
            ax.errorbar(of["threshold"], of[f"{role}_accuracy"], yerr=errors, color=hue, ls=line, elinewidth=0.8)
            ax.plot(of["threshold"], of[f"{role}_accuracy"], color=hue, marker=shape, ls="none", label=words)
        best = named[named["chosen"].astype(bool)]
        ax.plot(best["threshold"], best[f"{role}_accuracy"], "o", ms=11, mfc="none", color=BLACK,
                label="tau chosen on the other half")  # fmt: skip
        reproduced(ax, theirs, role, "threshold")
        chance(ax)
        say_if_empty(ax, ours[f"{role}_accuracy"])
        ax.set(title=role_title(role, ours[f"{role}_n"]), ylim=(-0.03, 1.05), xlabel="the gate's threshold tau")
    axes[0].set_ylabel("accuracy (95 % interval)")
    legend(figure, axes, 3)
    return figure
