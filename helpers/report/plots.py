"""Every picture, drawn from a table and nothing else: the CSV beside a figure is enough to draw it again.

One colour and one marker a method throughout (Okabe and Ito's palette, told apart by the colour-blind; the shape
differs too), axes in words with the better direction, chance as a line, intervals where there are counts.
"""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.measures.metrics import CHANCE, SIDE_EFFECT_FLOOR, pareto_front

BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#E69F00", "#009E73"
RED, PURPLE, BLACK, GREY = "#D55E00", "#CC79A7", "#000000", "#8C8C8C"
# method -> colour, marker
STYLE = {
    "static clamp": (BLUE, "o"),
    "static clamp, published features": (BLUE, "o"),
    "Clamp Prime": (SKY, "s"),
    "Clamp Prime, proportional": (BLUE, "P"),
    "Refusal Clamp": (RED, "X"),
    "unconditional add": (GREY, "v"),
    "DSG": (ORANGE, "^"),
    "RMU": (BLACK, "D"),
    "target": (GREY, "*"),
    "GA": (GREEN, "v"),
    "NPO": (GREEN, "<"),
    "SSD": (PURPLE, ">"),
    "SCRUB": (PURPLE, "P"),
}
ROLE_STYLE = {
    "forget": (RED, "forget"),
    "near": (PURPLE, "near domain"),
    "side": (GREEN, "side effects"),
    "forget text": (RED, "forget text"),
    "retain text": (GREY, "retain text"),
}
ARM_STYLE = {
    "RMU": (BLACK, "-", "D"),
    "DSG at test time": (ORANGE, "-", "^"),
    "DSG also in training": (RED, "--", "v"),
    "DSG, hook removed": (GREY, ":", "o"),
}
FORGET_AXIS = "forget accuracy (lower is better)"
MEASURES = ["forget_accuracy", "forget_letter", "forget_mass", "near_accuracy", "side_accuracy", "loss_added"]
PUBLISHED_COLUMNS = ["method", "layer", "forget_accuracy", "side_accuracy", "near_accuracy", "loss_added"]
SIDE_AXIS = "side-effect accuracy (higher is better)"
NEAR_AXIS = "near-domain accuracy (higher is better)"
LOSS_AXIS = "loss added on neutral text (nats per token)"
STRENGTH_AXIS = "clamp strength c (features set to -c)"


def _panels(n: int, width: float = 4.6, height: float = 3.8, **options: object) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, n, figsize=(width * n, height), layout="constrained", squeeze=False, **options)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, list(axes.flat)


def _chance(ax: Axes, direction: str = "horizontal") -> None:
    line = ax.axhline if direction == "horizontal" else ax.axvline
    line(CHANCE, color=GREY, linestyle=":", linewidth=1)


def _error(table: pd.DataFrame, name: str) -> np.ndarray:
    """Distances from an accuracy to the ends of its interval, [2, rows], as errorbar wants them."""
    middle = table[f"{name}_accuracy"]
    return np.stack([(middle - table[f"{name}_low"]).clip(lower=0), (table[f"{name}_high"] - middle).clip(lower=0)])


def knowledge(table: pd.DataFrame) -> Figure:
    """Notebook 00: share of each subject's questions right under all 24 orders, plain and chat."""
    figure, axes = _panels(2, sharey=True)
    for ax, (prompt_format, of) in zip(axes, table.groupby("prompt_format", sort=False), strict=True):
        for shift, (kind, rows), colour in zip(
            (-0.2, 0.2), of.groupby("kind", sort=False), (BLUE, ORANGE), strict=True
        ):
            places = np.arange(len(rows)) + shift
            ax.bar(places, rows["accuracy"], 0.38, color=colour, label=kind)
            errors = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
            ax.errorbar(places, rows["accuracy"], errors, fmt="none", ecolor=BLACK, elinewidth=0.8, capsize=2)
        ax.set_xticks(np.arange(len(rows)), rows["subject"], rotation=30)
        ax.set_title(f"{prompt_format} format")
        _chance(ax)
    axes[0].set_ylabel("questions right under all 24 orders (share)")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, [f"{label} with four choices while training" for label in labels],
                  loc="outside upper center", frameon=False, ncols=2)  # fmt: skip
    return figure


def training(table: pd.DataFrame) -> Figure:
    """Notebook 00: the training curve: losses by name on the left, accuracies on the right."""
    figure, axes = _panels(2)
    for ax, (unit, of) in zip(axes, table.groupby("unit", sort=False), strict=True):
        for name, rows in of.groupby("measure", sort=False):
            ax.plot(rows["step"], rows["value"], label=name, linewidth=1.4)
        ax.set(xlabel="training step", ylabel=unit)
        ax.legend(frameon=False)
    return figure


def firing_rates(table: pd.DataFrame) -> Figure:
    """Notebook 01: every feature's firing rate on forget against retain text, the papers' choices marked."""
    rules = [c for c in ("sparsity", "clamp_prime", "importance") if c in table]
    figure, axes = _panels(len(rules), sharey=True)
    # a feature that never fires on one of the texts is drawn at half a token, left of and below all others
    x = table["retain_rate"].clip(lower=0.5 / table["retain_tokens"])
    y = table["forget_rate"].clip(lower=0.5 / table["forget_tokens"])
    for ax, rule in zip(axes, rules, strict=True):
        chosen = table[rule]
        ax.scatter(x[~chosen], y[~chosen], s=7, color=GREY, alpha=0.45, linewidths=0, label="not chosen")
        ax.scatter(x[chosen], y[chosen], s=22, color=RED, label=f"chosen ({chosen.sum()})")
        ax.set(xscale="log", yscale="log", title=rule.replace("_", " "))
        ax.set_xlabel("firing rate on retain text (edge: never)")
        ax.legend(frameon=False, loc="lower right")
    axes[0].set_ylabel("firing rate on forget text (edge: never)")
    return figure


def activation_distribution(table: pd.DataFrame) -> Figure:
    """Notebook 01: how strongly one feature fires on each source of text."""
    figure, (ax,) = _panels(1, width=6.2)
    for (source, rows), colour in zip(table.groupby("source", sort=False), (RED, BLUE, GREEN), strict=False):
        share = rows["tokens"].sum() / rows["of_tokens"].iloc[0]
        edges = np.append(rows["low"], rows["high"].iloc[-1])
        label = f"{source}: fires at {share:.2%} of tokens"
        ax.stairs(rows["tokens"] / rows["of_tokens"], edges, color=colour, fill=True, alpha=0.45, label=label)
    ax.set(yscale="log", xlabel="activation", ylabel="share of the source's tokens in the bin")
    figure.legend(loc="outside upper center", frameon=False, fontsize=8, ncols=1)
    return figure


def highlighted_question(table: pd.DataFrame) -> Figure:
    """Notebook 01: one question, each token shaded by the strongest activation among the chosen features."""
    figure, (ax,) = _panels(1, width=9.5, height=2.6)
    ax.axis("off")
    top = table["activation"].max() or 1.0
    x, y, width = 0.0, 0, 140  # as many monospaced characters of 8 points as the figure is wide
    for token, activation in zip(table["token"], table["activation"], strict=True):
        shown = token.replace("\n", "\u21b5")
        if x + len(shown) > width:
            x, y = 0.0, y - 1
        shade = dict(facecolor=RED, alpha=0.75 * activation / top, edgecolor="none", pad=1.2)
        ax.text(x, y, shown.replace("$", r"\$"), family="monospace", fontsize=8, bbox=shade, va="center")
        x = 0.0 if "\n" in token else x + len(shown)
        y -= "\n" in token
    ax.set(xlim=(-1, width), ylim=(y - 1, 1))
    return figure


def selection_rules(table: pd.DataFrame) -> Figure:
    """Notebook 01: how many features the papers' rules have in common."""
    figure, (ax,) = _panels(1, width=5.4, height=4.2)
    grid = table.pivot(index="rule", columns="other", values="shared")
    order = list(dict.fromkeys(table["rule"]))
    words = [name.replace("_", " ") for name in order]
    sns.heatmap(grid.loc[order, order], annot=True, fmt="d", cmap="Blues", cbar=False, square=True, ax=ax,
                xticklabels=words, yticklabels=words, linewidths=1)  # fmt: skip
    ax.set(xlabel="", ylabel="", title="features in common")
    ax.tick_params(axis="x", rotation=25)
    return figure


def _strengths(ax: Axes, strengths: Iterable[float]) -> None:
    """A log-like axis that has room for zero ablation (0) and, left of it, for the unedited model (-1)."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    ticks = [s for s in sorted(set(strengths)) if s in (-1, 0, 1, 2, 5, 10, 20, 50, 200)]
    names = {-1: "none", 0: "0\n(ablate)"}
    ax.set_xticks(ticks, [names.get(s, f"{s:g}") for s in ticks])
    ax.minorticks_off()
    ax.set_xlabel(STRENGTH_AXIS)


def clamp_curve(table: pd.DataFrame) -> Figure:
    """Notebook 02: p(A..D) of one question against the clamp, with the loss added beside it; ours and the paper's."""
    worlds = list(dict.fromkeys(table["world"]))
    figure, axes = _panels(2 * len(worlds), width=4.2)
    for world, ax, loss in zip(worlds, axes[::2], axes[1::2], strict=True):
        of = table[table["world"] == world]
        for letter, colour in zip("ABCD", (BLUE, ORANGE, GREEN, PURPLE), strict=True):
            rows = of[of["letter"] == letter]
            right = bool(rows["right"].any())
            name = f"{letter} (right)" if right else letter
            ax.plot(rows["strength"], rows["probability"], color=colour, marker=".", lw=2 if right else 1, label=name)
        ax.set(yscale="log", ylim=(1e-7, 2), ylabel="probability of the letter", title=world)
        ax.legend(frameon=False, title="letter")
        rows = of.drop_duplicates("strength")
        loss.plot(rows["strength"], rows["loss_added"], color=RED, marker=".")
        loss.set(ylabel="nats per token", title="loss added on neutral text")
        for panel in (ax, loss):
            _strengths(panel, of["strength"])
    return figure


def controls(table: pd.DataFrame) -> Figure:
    """Notebook 02: the clamp against its controls on the same question, and their price."""
    figure, axes = _panels(2, width=5.2)
    styles = {"clamp": (RED, "o"), "another decoder": (BLUE, "s"), "scale": (GREEN, "^"), "random feature": (GREY, ".")}
    for ax, column in zip(axes, ("p_right", "loss_added"), strict=True):
        for (name, _), rows in table.groupby(["control", "feature"], sort=False):
            colour, marker = styles[name]
            label = name if name not in ax.get_legend_handles_labels()[1] else None
            ax.plot(rows["strength"], rows[column], color=colour, marker=marker, lw=1.2, label=label)
        _strengths(ax, table["strength"])
    axes[0].set(ylabel="probability of the right letter", ylim=(-0.03, 1.03))
    axes[1].set(ylabel="loss added (nats per token)")
    axes[0].legend(frameon=False)
    return figure


def all_questions(table: pd.DataFrame) -> Figure:
    """Notebook 02: accuracy on all known questions against the clamp strength, for several numbers of features."""
    roles = ("forget", "near", "side")
    figure, axes = _panels(len(roles), sharey=True)
    colours = dict(zip(sorted(table["n_features"].unique()), (SKY, BLUE, ORANGE, RED), strict=False))
    for ax, role in zip(axes, roles, strict=True):
        for n, rows in table.groupby("n_features"):
            ax.errorbar(rows["strength"], rows[f"{role}_accuracy"], _error(rows, role), color=colours[n], marker="o",
                        ms=4, lw=1.3, elinewidth=0.7, label=f"{n} features")  # fmt: skip
        _strengths(ax, table["strength"])
        _chance(ax)
        ax.set(title=f"{ROLE_STYLE[role][1]} (n = {table[f'{role}_n'].iloc[0]})", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("accuracy (95 % interval)")
    axes[0].legend(frameon=False)
    return figure


def _scatter(ax: Axes, table: pd.DataFrame, x: str, annotate: bool) -> None:
    """Forget accuracy against another column, a style a method; settings no other of its method beats are joined."""
    for method, rows in table.groupby("method", sort=False):
        colour, marker = STYLE[method]
        ax.scatter(rows[x], rows["forget_accuracy"], color=colour, marker=marker, s=26, alpha=0.75, label=method)
        better = -rows[x] if x == "loss_added" else rows[x]
        front = rows.iloc[pareto_front(rows["forget_accuracy"].tolist(), better.tolist())]
        ax.plot(front[x], front["forget_accuracy"], color=colour, lw=1, alpha=0.6)
        named = front[front["forget_accuracy"] < 0.9] if annotate and method != "RMU" else front.iloc[:0]
        for row in named.itertuples():
            words = row.setting.replace(" features", "f")
            ax.annotate(words, (getattr(row, x), row.forget_accuracy), fontsize=6, xytext=(-3, -2),
                        textcoords="offset points", color=colour, ha="right", va="top")  # fmt: skip
    _chance(ax)


def pareto(table: pd.DataFrame) -> Figure:
    """Notebooks 03 and 05: forget accuracy against side effects, near-domain accuracy and loss added."""
    figure, axes = _panels(3, width=5.2, height=4.8, sharey=True)
    columns = (("side_accuracy", SIDE_AXIS), ("near_accuracy", NEAR_AXIS), ("loss_added", LOSS_AXIS))
    for ax, (column, words) in zip(axes, columns, strict=True):
        _scatter(ax, table, column, annotate="setting" in table and column == "side_accuracy")
        ax.set_xlabel(words)
    axes[0].axvline(SIDE_EFFECT_FLOOR, color=GREY, linestyle="--", lw=0.8)
    axes[2].set_xscale("symlog", linthresh=0.01)
    axes[0].set_ylabel(FORGET_AXIS)
    axes[2].legend(frameon=False)
    return figure


def published_pareto(table: pd.DataFrame) -> Figure:
    """Notebook 03: the paper's own points in the same axes (Farrell et al., Fig. 5)."""
    return pareto(table)


def published_dsg(table: pd.DataFrame) -> Figure:
    """Notebook 05: the paper's own points, one a method (Muhamed et al., Tables 1 and 10)."""
    figure, axes = _panels(table["benchmark"].nunique(), sharey=True)
    for ax, (benchmark, rows) in zip(axes, table.groupby("benchmark", sort=False), strict=True):
        for row in rows.itertuples():
            colour, marker = STYLE[row.method]
            ax.scatter(row.side_accuracy, row.forget_accuracy, color=colour, marker=marker, s=44, label=row.method)
        _chance(ax)
        ax.axvline(SIDE_EFFECT_FLOOR, color=GREY, linestyle="--", lw=0.8)
        ax.set(title=benchmark, xlabel=SIDE_AXIS)
    axes[0].set_ylabel(FORGET_AXIS)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return figure


def held_out(table: pd.DataFrame) -> Figure:
    """Notebooks 03 and 05: each method's best setting, chosen and reported on the same or on different questions."""
    found = table[table["setting"] != "none"]
    figure, axes = _panels(3, width=4.2, height=1.4 + 0.55 * len(table), sharey=True)
    names = [f"{m}\n{p.split(',')[0]}" for m, p in zip(table["method"], table["protocol"], strict=True)]
    for ax, role in zip(axes, ("forget", "near", "side"), strict=True):
        ax.errorbar(found[f"{role}_accuracy"], found.index, xerr=_error(found, role), fmt="o", ms=5,
                    color=ROLE_STYLE[role][0], capsize=3)  # fmt: skip
        _chance(ax, "vertical")
        ax.set(xlim=(0, 1.02), xlabel=f"{ROLE_STYLE[role][1]} accuracy")
        ax.set_yticks(range(len(names)), names, fontsize=7)
    for i, setting in enumerate(table["setting"]):
        axes[0].annotate(setting if setting != "none" else "no setting keeps side effects >= 0.99", (0.02, i),
                         fontsize=6.5, xytext=(0, 7), textcoords="offset points")  # fmt: skip
    axes[0].invert_yaxis()
    return figure


def rho(table: pd.DataFrame) -> Figure:
    """Notebook 05: distribution of rho on framed texts and on questions, with the threshold tau."""
    figure, axes = _panels(2, width=5.6, sharey=True, sharex=True)
    edges = np.linspace(0, max(table["rho"].max(), 0.1) * 1.02, 40)
    tau = table["tau"].iloc[0]
    for ax, (kind, of) in zip(axes, table.groupby("kind", sort=False), strict=True):
        roles = [role for role in ("retain text", "forget text", "side", "near", "forget") if role in set(of["role"])]
        for role in roles:
            values, (colour, words) = of.loc[of["role"] == role, "rho"], ROLE_STYLE[role]
            label = f"{words} ({len(values)}): gate opens on {(values > tau).mean():.0%}"
            ax.hist(values, edges, weights=np.full(len(values), 1 / len(values)), color=colour, alpha=0.5, label=label)
        ax.axvline(tau, color=BLACK, linestyle="--", lw=1, label=f"tau = {tau:.3f}")
        ax.set(title=kind, xlabel="rho: share of tokens at which a chosen feature fires")
        ax.legend(frameon=False, fontsize=7)
    axes[0].set_ylabel("share of the source's texts")
    return figure


def ablation(table: pd.DataFrame) -> Figure:
    """Notebook 05: DSG's two ideas on and off: the gate, and clamping all chosen features at hot tokens."""
    figure, axes = _panels(3, width=4.4, sharey=True)
    styles = {True: {True: (ORANGE, "^"), False: (SKY, "s")}, False: {True: (RED, "v"), False: (BLUE, "o")}}
    for ax, role in zip(axes, ("forget", "near", "side"), strict=True):
        for method, rows in table.groupby("method", sort=False):
            colour, marker = styles[method.startswith("gate")]["hot" in method]
            ax.errorbar(rows["strength"], rows[f"{role}_accuracy"], _error(rows, role), color=colour, marker=marker,
                        ms=5, lw=1.2, elinewidth=0.7, label=method)  # fmt: skip
        _strengths(ax, table["strength"])
        _chance(ax)
        ax.set(title=f"{ROLE_STYLE[role][1]} (n = {table[f'{role}_n'].iloc[0]})", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("accuracy (95 % interval)")
    axes[1].legend(frameon=False, fontsize=7)
    return figure


def gate_cost(table: pd.DataFrame) -> Figure:
    """Notebook 05: where the gate opens, and how many of those questions are still answered right."""
    figure, axes = _panels(2, width=5.0)
    subjects = list(dict.fromkeys(table["subject"]))
    counts = table.pivot_table(index="subject", columns="gate", values="n", fill_value=0).loc[subjects]
    opened = counts.get("open", 0) / counts.sum(axis=1)
    axes[0].bar(subjects, opened, color=ORANGE)
    axes[0].set(ylabel="share of questions whose gate opens", ylim=(0, 1.03))
    found = table[table["gate"] == "open"]
    places = [subjects.index(s) for s in found["subject"]]
    errors = [(found["accuracy"] - found["low"]).clip(lower=0), (found["high"] - found["accuracy"]).clip(lower=0)]
    axes[1].errorbar(places, found["accuracy"], errors, fmt="^", color=ORANGE, capsize=3)
    for place, n in zip(places, found["n"], strict=True):
        axes[1].annotate(f"n = {n}", (place, 0.02), ha="center", fontsize=7)
    axes[1].set(ylabel="accuracy where it opened (before: 1)", ylim=(-0.03, 1.05), xticks=range(len(subjects)))
    axes[1].set(xlim=axes[0].get_xlim(), xticklabels=subjects)
    _chance(axes[1])
    for ax in axes:
        ax.tick_params(axis="x", rotation=30)
    return figure


def relearning(table: pd.DataFrame) -> Figure:
    """Notebook 06: accuracy per epoch of the attack, mean over seeds with the range between them."""
    roles = ("forget", "near", "side")
    figure, axes = _panels(len(roles), width=4.4, sharey=True)
    for ax, role in zip(axes, roles, strict=True):
        for arm, rows in table[table["role"] == role].groupby("arm", sort=False):
            colour, line, marker = ARM_STYLE[arm]
            by_epoch = rows.groupby("epoch")["accuracy"].agg(["mean", "min", "max"])
            ax.plot(by_epoch.index, by_epoch["mean"], color=colour, linestyle=line, marker=marker, ms=4, label=arm)
            ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.15, linewidth=0)
        _chance(ax)
        ax.set(title=f"{ROLE_STYLE[role][1]}", xlabel="epoch of fine-tuning on forget text", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("accuracy (mean; band: range over seeds)")
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def conditional_sweeps(table: pd.DataFrame) -> Figure:
    """Notebook 04: accuracy on forget and on side-effect questions against the strength, a panel a method."""
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = _panels(len(methods), width=3.9, sharex=True, sharey=True)
    colours = dict(zip(sorted(table["n_features"].unique()), (SKY, BLUE, ORANGE, RED), strict=False))
    for ax, method in zip(axes, methods, strict=True):
        for n, rows in table[table["method"] == method].groupby("n_features"):
            for role, line, marker in (("forget", "-", "o"), ("side", "--", "s")):
                ax.errorbar(rows["strength"], rows[f"{role}_accuracy"], _error(rows, role), color=colours[n], ls=line,
                            marker=marker, ms=4, lw=1.2, elinewidth=0.6, label=f"{n:g} features, {role}")  # fmt: skip
        _strengths(ax, table["strength"])
        _chance(ax)
        ax.set(title=method, ylim=(-0.03, 1.03), xlabel="strength c in clamp units")
    ns = f"forget n = {table['forget_n'].iloc[0]}, side effects n = {table['side_n'].iloc[0]}"
    axes[0].set_ylabel(f"accuracy on known questions\n({ns})")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return figure


def retention_tradeoff(table: pd.DataFrame) -> Figure:
    """Notebook 04: retention of what should be forgotten against that of the rest, with lines of equal alignment."""
    worlds = list(dict.fromkeys(table["world"]))
    figure, axes = _panels(len(worlds), width=5.2, height=4.8, sharex=True, sharey=True)
    grid = np.linspace(0, 1.04, 105)
    for ax, world in zip(axes, worlds, strict=True):
        lines = ax.contour(grid, grid, grid[None, :] * (1 - grid[:, None]), levels=[0.2, 0.4, 0.6, 0.8],
                           colors=GREY, linewidths=0.6, linestyles=":")  # fmt: skip
        ax.clabel(lines, fmt="alignment %.1f", fontsize=6)
        of = table[table["world"] == world]
        for method, rows in of.groupby("method", sort=False):
            colour, marker = STYLE[method]
            ax.scatter(rows["good_retention"], rows["bad_retention"], color=colour, marker=marker, s=28, alpha=0.75,
                       linewidths=0, label=method)  # fmt: skip
        best = of.loc[of["alignment"].idxmax()]
        words = f"highest alignment, {best['alignment']:.2f}:\n{best['method']}, {best['setting']}"
        ax.annotate(words, (0.0, 0.95), fontsize=7)
        ax.scatter(best["good_retention"], best["bad_retention"], s=130, facecolors="none", edgecolors=BLACK, lw=0.8)
        ax.set(title=world, xlabel="R_good: retention of side-effect subjects\n(higher is better)")
        ax.set(xlim=(-0.03, 1.04), ylim=(-0.03, 1.04))
    axes[0].set_ylabel("R_bad: retention of the forget subject\n(lower is better)")
    shown = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False, fontsize=8)
    return figure


def alignments(table: pd.DataFrame) -> Figure:
    """Notebook 04: alignment and both retentions of each method's best setting, with bootstrap intervals."""
    figure, axes = _panels(3, width=4.2, height=1.4 + 0.5 * len(table), sharey=True)
    labels = table[["method", "protocol", "forget_n", "side_n"]].itertuples(index=False)
    names = [f"{m}\n{p.split(',')[0]}\n(n = {int(forget)}, {int(side)})" for m, p, forget, side in labels]
    columns = {"alignment": BLACK, "good_retention": GREEN, "bad_retention": RED}
    for ax, (column, colour) in zip(axes, columns.items(), strict=True):
        _interval_dots(ax, table, column, colour)
        ax.set_yticks(range(len(names)), names, fontsize=7)
    for ax, words in zip(
        axes, ("alignment: R_good * (1 - R_bad)", "R_good: kept (0: chance)", "R_bad: left (0: chance)"), strict=True
    ):
        ax.set(xlim=(-0.02, 1.02), xlabel=words)
    for i, setting in enumerate(table["setting"]):
        axes[0].annotate(setting, (0.0, i), fontsize=6.5, xytext=(0, 6), textcoords="offset points")
    axes[0].invert_yaxis()
    return figure


def _interval_dots(ax: Axes, table: pd.DataFrame, column: str, colour: str) -> None:
    """A value a row with its interval, from `column`, `column_low` and `column_high`."""
    middle = table[column]
    ends = np.stack([middle - table[f"{column}_low"], table[f"{column}_high"] - middle]).clip(min=0)
    ax.errorbar(middle, range(len(table)), xerr=ends, fmt="o", ms=5, color=colour, capsize=3)


def letters(table: pd.DataFrame) -> Figure:
    """Notebook 04: which letters are said under each edit, beside its accuracy and the mass on letters."""
    names = list(dict.fromkeys(table["name"]))
    figure, axes = _panels(2, width=5.4, height=1.2 + 0.42 * len(names), sharey=True)
    for ax, (role, of) in zip(axes, table.groupby("role", sort=False), strict=True):
        start = np.zeros(len(names))
        for letter, colour in zip("ABCD", (BLUE, ORANGE, GREEN, PURPLE), strict=True):
            shares = of[of["letter"] == letter].set_index("name").loc[names, "share"].to_numpy()
            ax.barh(range(len(names)), shares, left=start, color=colour, alpha=0.8, label=letter)
            start += shares
        for i, row in enumerate(of.drop_duplicates("name").set_index("name").loc[names].itertuples()):
            ax.annotate(f"accuracy {row.accuracy:.2f}, mass {row.mass:.2f}", (1.02, i), fontsize=7, va="center")
        ax.set(xlim=(0, 1.6), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="share of answers")
        ax.set_title(f"{ROLE_STYLE[role][1]} (n = {of['n'].iloc[0]})")
        ax.grid(False)
    axes[0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=4)
    return figure


def protocols(table: pd.DataFrame) -> Figure:
    """Notebook 04: the same edits under several protocols: accuracies before and after, and alignment."""
    figure, axes = _panels(3, width=4.4, height=1.4 + 0.36 * len(table), sharey=True)
    for ax, role in zip(axes, ("forget", "side"), strict=False):
        colour = ROLE_STYLE[role][0]
        ax.hlines(range(len(table)), table[f"{role}_after"], table[f"{role}_before"], color=colour, lw=1, alpha=0.5)
        for when, fill in (("before", "none"), ("after", colour)):
            ax.scatter(table[f"{role}_{when}"], range(len(table)), s=32, facecolors=fill, edgecolors=colour, label=when)
        for i, n in enumerate(table[f"{role}_n"]):
            ax.annotate(f"n = {n}", (0.01, i), fontsize=6.5, va="center")
        _chance(ax, "vertical")
        ax.set(xlim=(0, 1.03), xlabel=f"{ROLE_STYLE[role][1]} accuracy")
        ax.legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0.1, 1.0), ncols=2)
    _interval_dots(axes[2], table, "alignment", BLACK)
    axes[2].set(xlim=(-0.02, 1.02), xlabel="alignment (95 % interval)")
    rows = zip(table["method"], table["setting"], table["protocol"], strict=True)
    axes[0].set_yticks(range(len(table)), [f"{m}, {s}\n{p}" for m, s, p in rows], fontsize=7)
    axes[0].invert_yaxis()
    return figure
