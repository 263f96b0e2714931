"""What all pictures share: the page, the palette, the look of a method, the words on axes, chance and intervals.

`SHEET` is to be laid over matplotlib's own defaults: `plt.style.context(["default", SHEET])`.
"""

import textwrap
import zlib
from collections.abc import Iterable
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import Bbox

from helpers.measures.metrics import CHANCE, SIDE_EFFECT_FLOOR
from helpers.methods import PUBLISHED_FEATURES, looks

SHEET = Path(__file__).with_name("house.mplstyle")
WIDTH = 9.0  # inches of a page
SMALL = 8.0  # points of the smallest words
MARKER = 4.0  # pixels from the middle of a point to its edge, about
Look = tuple[str, str]  # colour and marker

# Okabe and Ito's palette, told apart by the colour-blind; grey is for what is no method: references and lines
BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#E69F00", "#009E73"
RED, PURPLE, BLACK, GREY = "#D55E00", "#CC79A7", "#000000", "#8C8C8C"
# methods that stand in the papers' tables only
PUBLISHED_LOOKS: dict[str, Look] = {
    "target": (GREY, "*"),
}
# for methods that nobody gave a look: Tol's muted colours beside the palette; neighbours differ in colour and in shape
_SPARE_COLOURS, _SPARE_MARKERS = ("#882255", "#44AA99", "#999933", "#332288", "#AA4499"), ("d", "h", "<", "p", ">", "8")
SPARE_LOOKS: tuple[Look, ...] = tuple((_SPARE_COLOURS[i % 5], _SPARE_MARKERS[i % 6]) for i in range(30))

ROLES = ("forget", "near", "side")
# role or kind of text -> colour, words
ROLE_STYLE = {
    "forget": (RED, "forget"),
    "near": (PURPLE, "near domain"),
    "side": (GREEN, "side effects"),
    "forget text": (RED, "forget text"),
    "retain text": (GREY, "retain text"),
}
FORGET_AXIS = "forget accuracy (lower is better)"
SIDE_AXIS = "side-effect accuracy (higher is better)"
NEAR_AXIS = "near-domain accuracy (higher is better)"
LOSS_AXIS = "loss added on neutral text\n(nats per token, lower is better)"
STRENGTH_AXIS = "clamp strength c\n(features set to -c)"
# the same in two lines, for narrow panels
NARROW_AXES = {"forget": FORGET_AXIS, "near": NEAR_AXIS, "side": SIDE_AXIS}
NARROW_AXES = {role: words.replace(" (", "\n(") for role, words in NARROW_AXES.items()}
BETTER = {role: words.partition("(")[2][:-1] for role, words in NARROW_AXES.items()}
# how a reference stands out: so many times as wide as a method's marker, and above them all
REFERENCE_SIZE, REFERENCE_ORDER = 1.8, 5
# labels of lines that belong to no method; they close a legend
CHANCE_WORDS, FLOOR_WORDS = f"chance ({CHANCE:g})", f"side effects at {SIDE_EFFECT_FLOOR:g}"


# --- the look of a method ---------------------------------------------------------------------------------------------


def look_of(label: str, taken: Iterable[Look] = ()) -> Look:
    """Colour and marker of a method, the same in every figure.

    A method that nobody gave a look gets a spare one by its name; of those in `taken` it shares neither colour nor
    marker while there are others.
    """
    known = PUBLISHED_LOOKS | {name: (look.colour, look.marker) for name, look in looks().items()}
    label = label.removesuffix(PUBLISHED_FEATURES)
    if label in known:
        return known[label]
    taken = list(taken)
    start = zlib.crc32(label.encode()) % len(SPARE_LOOKS)
    spare = SPARE_LOOKS[start:] + SPARE_LOOKS[:start]
    apart = [look for look in spare if not any(set(look) & set(other) for other in taken)]
    return next(iter(apart + [look for look in spare if look not in taken] + list(spare)))


def is_reference(label: str) -> bool:
    """Whether a label is of what the methods are measured against (`Look.reference`)."""
    look = looks().get(label.removesuffix(PUBLISHED_FEATURES))
    return look is not None and look.reference


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """The looks of the methods of one figure."""
    looks: dict[str, Look] = {}
    for label in dict.fromkeys(labels):
        looks[label] = look_of(label, looks.values())
    return looks


def colours_of(values: Iterable[float]) -> dict[float, str]:
    """A colour for each of some sizes, from light to strong."""
    return dict(zip(sorted(set(values)), cycle((SKY, BLUE, ORANGE, RED, PURPLE, BLACK)), strict=False))


# --- panels and legends -----------------------------------------------------------------------------------------------


def panels(
    n: int, columns: int, height: float = 3.0, width: float = WIDTH, **options: Any
) -> tuple[Figure, list[Axes]]:
    """`n` panels in rows of `columns`, each row `height` inches high; places left over are empty, for a legend.

    Args:
        n: how many.
        columns: how many in a row.
        height: of a row.
        width: of the whole figure.
        options: for `plt.subplots`.
    """
    columns = min(n, columns)
    rows = -(-n // columns)
    size = (width, height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)
    for spare in grid.flat[n:]:
        spare.set_axis_off()
    return figure, list(grid.flat[:n])


def entries(axes: Iterable[Axes]) -> dict[str, Artist]:
    """What the legend of some panels says, every label once, lines of reference last."""
    shown: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    return dict(sorted(shown.items(), key=lambda entry: entry[0] in (CHANCE_WORDS, FLOOR_WORDS)))


def legend(figure: Figure, axes: Iterable[Axes], columns: int, extra: Iterable[Artist] = ()) -> None:
    """One legend under all panels, in as many columns, or fewer where it would be wider than the page."""
    shown = {str(handle.get_label()): handle for handle in extra} | entries(axes)
    for n in range(columns, 0, -1):
        box = figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=n, handlelength=2.6)
        if n == 1 or box.get_window_extent().width <= figure.bbox.width:
            return
        box.remove()


def sample(label: str, **look: Any) -> Line2D:
    """A legend's entry that stands for no single line or point."""
    return Line2D([], [], label=label, **{"color": GREY, "linestyle": "none"} | look)


def wrapped(words: str, width: int = 34) -> str:
    """Words in lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(words, width, break_on_hyphens=False))


# --- what stands in a panel -------------------------------------------------------------------------------------------


def chance(ax: Axes, direction: str = "horizontal") -> None:
    """A dotted line at the accuracy of guessing; the legend names it."""
    line = ax.axhline if direction == "horizontal" else ax.axvline
    line(CHANCE, color=GREY, linestyle=":", linewidth=1.2, label=CHANCE_WORDS)


def floor(ax: Axes) -> None:
    """A dashed upright line at the side-effect accuracy that settings must keep; the legend names it."""
    ax.axvline(SIDE_EFFECT_FLOOR, color=GREY, ls="--", lw=1, label=FLOOR_WORDS)


def interval(middle: pd.Series | float, low: pd.Series | float, high: pd.Series | float) -> np.ndarray:
    """Distances from values to the ends of their intervals, [2, rows], as errorbar wants them; missing ones stay so."""
    middle, low, high = (np.atleast_1d(np.asarray(x, dtype=float)) for x in (middle, low, high))
    return np.stack([middle - low, high - middle]).clip(min=0)


def error(table: pd.DataFrame, role: str) -> np.ndarray:
    """`interval` of a role's accuracy."""
    return interval(table[f"{role}_accuracy"], table[f"{role}_low"], table[f"{role}_high"])


def role_title(role: str, n: pd.Series, between: str = "\n") -> str:
    """A role in words with its number of questions, and which direction is the better one."""
    return f"{ROLE_STYLE[role][1]} (n = {0 if n.isna().all() else int(n.max())}){between}{BETTER[role]}"


def say_if_empty(ax: Axes, values: pd.Series, words: str = "no questions") -> bool:
    """Words in place of points where a table has no value at all, and whether that is so."""
    empty = bool(values.isna().all())
    if empty:
        ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=GREY)
    return empty


def accuracy_panel(ax: Axes, table: pd.DataFrame, role: str) -> None:
    """What every panel of one role's accuracies has: chance, a title with the number of questions, one scale."""
    chance(ax)
    say_if_empty(ax, table[f"{role}_accuracy"])
    ax.set(title=role_title(role, table[f"{role}_n"]), ylim=(-0.03, 1.05))


def reproduced(ax: Axes, theirs: pd.DataFrame, role: str, x: str) -> None:
    """What others found on Gemma, in a panel of one role's accuracies: hollow points, an outline a benchmark."""
    for (world, benchmark), of in theirs.groupby(["world", "benchmark"], sort=False):
        if f"{role}_accuracy" in of and of[f"{role}_accuracy"].notna().any():
            marker = "o" if str(benchmark).endswith("bio") else "s"
            words = wrapped(f"DSG, {benchmark}: {world}", 44)
            ax.plot(of[x], of[f"{role}_accuracy"], color=GREY, marker=marker, mfc="white", ls="none", label=words)


def plain_numbers(axis: Axis) -> None:
    """Ticks of a log-like axis as 0.01 and 1e-5: the exponent of a power of ten would be too small to read."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))
    axis.set_minor_formatter(NullFormatter())


def strengths(ax: Axes, values: Iterable[float], words: str = STRENGTH_AXIS) -> None:
    """A log-like axis that has room for zero ablation (0) and, left of it, for the unedited model (-1)."""
    values = sorted(set(values))
    ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    wanted: list[float] = [s for s in (0, -1, 1, 10, 100, 5, 50, 500, 2, 20, 200, 1000) if s in values]
    wanted += [s for s in reversed(values) if s not in wanted]
    to_axis = ax.xaxis.get_transform()
    places = dict(zip(values, to_axis.transform(np.array(values, dtype=float)), strict=True))
    left, right = places[values[0]], places[values[-1]]
    apart, margin = 0.1 * (right - left), 0.05 * (right - left) or 0.5
    kept: list[float] = []
    ax.set_xlim(*to_axis.inverted().transform(np.array([left - margin, right + margin])))
    for tick in wanted:
        if all(abs(places[tick] - places[other]) > apart for other in kept):
            kept.append(tick)
    names: dict[float, str] = {-1: "none", 0: "0\n(ablate)"}
    ax.set_xticks(sorted(kept), [names.get(s, f"{s:g}") for s in sorted(kept)])
    ax.minorticks_off()
    ax.set_xlabel(words)


def annotate_apart(ax: Axes, notes: Iterable[tuple[float, float, str, str]]) -> None:
    """Words beside points, each only where it meets no point, no line, no other words and no edge of the panel.

    Args:
        ax: the panel, everything else drawn.
        notes: x, y, words and colour, the more important first.
    """
    cast(Figure, ax.figure).draw_without_rendering()
    dots, lines = _dots(ax), _along_lines(ax)
    boxes: list[Bbox] = []
    for x, y, words, colour in notes:
        for right, up in ((1, -1), (-1, 1), (1, 1), (-1, -1)):
            place: dict[str, Any] = {"ha": "left" if right > 0 else "right", "va": "bottom" if up > 0 else "top"}
            text = ax.annotate(words, (x, y), (4 * right, 2 * up), textcoords="offset points", color=_dark(colour),
                               fontsize=SMALL, **place)  # fmt: skip
            text.set_in_layout(False)
            box = text.get_window_extent()
            inside = ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)
            free = not box.padded(MARKER).count_contains(dots) and not box.padded(1).count_contains(lines)
            if inside and free and not box.count_overlaps(boxes):
                boxes.append(box)
                break
            text.remove()


def _dark(colour: str) -> tuple[float, ...]:
    """A colour that is easier to read as words."""
    return tuple(0.7 * part for part in to_rgb(colour))


def _dots(ax: Axes) -> np.ndarray:
    """The middles of a panel's points, in pixels."""
    found = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    return np.concatenate([ax.transData.transform(np.asarray(dot)) for dot in found] + [np.empty((0, 2))])


def _along_lines(ax: Axes) -> np.ndarray:
    """Places all along a panel's lines and bars, in pixels."""
    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    paths = [ax.transData.transform(path) for bar in bars for path in bar.get_segments() if len(path)]
    paths += [line.get_transform().transform(line.get_xydata()) for line in ax.lines]
    steps = np.linspace(0, 1, 60)[:, None]
    return np.concatenate([a + steps * (b - a) for path in paths for a, b in pairwise(path)] + [np.empty((0, 2))])
