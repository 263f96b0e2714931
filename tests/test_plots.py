"""Every committed figure can be drawn from its table alone, fits a page, and says what the table says."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from helpers.experiments import conditional
from helpers.measures.metrics import CHANCE, SIDE_EFFECT_FLOOR
from helpers.methods import looks
from helpers.methods.look import Look
from helpers.published import load_published
from helpers.records.provenance import ROOT
from helpers.report import plots
from helpers.report.plots import style

FIGURES = ROOT / "figures" / "tiny"
NAMES = sorted(path.stem for path in FIGURES.glob("*.json"))
MINE = "a method of my own, with a name that is longer than a line"
POINTS = pd.DataFrame({
    "method": ["DSG", "DSG", "RMU"], "setting": ["20 features x5", "20 features x9", "layer 2"],
    "forget_accuracy": [0.5, 0.9, 0.7], "side_accuracy": [0.99, 0.95, 1.0], "near_accuracy": [0.9, 0.9, 0.9],
    "loss_added": [0.1, 0.2, 0.0],
})  # fmt: skip


@pytest.fixture(autouse=True)
def house_style() -> Iterator[None]:
    with plt.style.context(["default", plots.SHEET]):
        yield
    plt.close("all")


def table_of(name: str) -> tuple[Callable[[pd.DataFrame], Figure], pd.DataFrame]:
    """A committed figure's function and rows, as they are read for a redrawing."""
    record = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    numbers = {column: [""] for column, kind in record["columns"].items() if kind != "str"}
    rows = pd.read_csv(FIGURES / f"{name}.csv", dtype=record["columns"], keep_default_na=False, na_values=numbers)
    return getattr(plots, record["drawn_by"]), rows


@cache
def drawn(name: str) -> Figure:
    draw, rows = table_of(name)
    return rendered(draw(rows))


def rendered(figure: Figure) -> Figure:
    """As it is saved."""
    figure.set_dpi(plt.rcParams["savefig.dpi"])
    figure.canvas.draw()
    return figure


def cut_off(figure: Figure) -> list[str]:
    """Words that do not stand on the page, a pixel more or less."""
    page = figure.bbox.padded(1)
    boxes = [(text.get_text(), text.get_window_extent()) for text in words(figure)]
    return [text for text, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))]


def words(figure: Figure) -> list[Text]:
    """Every text that is seen; an invisible parent hides its texts too."""
    found = []

    def walk(artist) -> None:
        if not artist.get_visible():
            return
        found.extend([artist] if isinstance(artist, Text) and artist.get_text().strip() else [])
        # of a panel that is switched off only what was added to it is drawn, a legend or a text
        axis = {artist.xaxis, artist.yaxis} if hasattr(artist, "xaxis") and not artist.axison else set()
        for child in artist.get_children():
            if child not in axis:
                walk(child)

    walk(figure)
    hidden = beyond(figure)
    return [text for text in found if text not in hidden]


def beyond(figure: Figure) -> set[Text]:
    """Labels of ticks beyond an axis's limits, which matplotlib keeps and does not draw."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    ticks = [(axis, tick) for axis in axes for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())]
    inside = {
        tick for axis, tick in ticks if np.clip(tick.get_loc(), *sorted(axis.get_view_interval())) == tick.get_loc()
    }
    return {label for _, tick in ticks if tick not in inside for label in (tick.label1, tick.label2)}


def dots(figure: Figure, panel: int) -> dict[str, list[list[float]]]:
    """Label -> points of a scatter."""
    found = [c for c in figure.axes[panel].collections if isinstance(c, PathCollection)]
    return {c.get_label(): c.get_offsets().data.tolist() for c in found}


# --- every figure -----------------------------------------------------------------------------------------------------


def test_every_plot_draws_a_committed_figure() -> None:
    named = {json.loads(path.read_text(encoding="utf-8"))["drawn_by"] for path in FIGURES.glob("*.json")}
    functions = {name for name in plots.__all__ if callable(getattr(plots, name))}
    assert named == functions
    assert {getattr(plots, name).__name__ for name in functions} == functions  # by its own name it is redrawn


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_fits_a_page_and_can_be_read(name: str) -> None:
    figure = drawn(name)
    assert figure.get_figwidth() <= 9
    assert len(words(figure)) > 3
    assert not [text for text in words(figure) if text.get_fontsize() < 8] and not [
        text for text in words(figure) if "mathdefault" in text.get_text()
    ]  # no small exponents
    assert cut_off(figure) == []
    # the box of a turned word says little
    level = [text for text in words(figure) if text.get_rotation() in (0, 90)]
    boxes = [(text.get_text(), text.get_window_extent().padded(-1.5)) for text in level]
    assert [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_line_of_reference_lies_where_its_words_say(name: str) -> None:
    for line in (line for ax in drawn(name).axes for line in ax.get_lines()):
        ends = np.concatenate([line.get_xdata(), line.get_ydata()]).tolist()
        if line.get_label() == f"chance ({CHANCE:g})":
            assert ends in ([0, 1, CHANCE, CHANCE], [CHANCE, CHANCE, 0, 1])
        elif line.get_label() == f"side effects at {SIDE_EFFECT_FLOOR:g}":
            assert ends == [SIDE_EFFECT_FLOOR, SIDE_EFFECT_FLOOR, 0, 1]


def test_words_that_are_cut_off_are_found_beside_the_same_words() -> None:
    figure = plt.figure()
    figure.text(1.2, 0.5, "share of answers")
    figure.text(0.3, 0.5, "share of answers")
    assert cut_off(rendered(figure)) == ["share of answers"]
    plt.close(figure)


def test_the_strongest_attack_on_each_method_is_framed() -> None:
    _, table = table_of("12_worst_case")
    (ax,) = drawn("12_worst_case").axes
    methods, attacks = (list(dict.fromkeys(table[column])) for column in ("method", "attack"))
    framed = {(round(p.get_x() + 0.48), round(p.get_y() + 0.46)) for p in ax.patches if isinstance(p, Rectangle)}
    worst = table[table["worst"]]
    assert framed == {
        (attacks.index(a), methods.index(m)) for a, m in zip(worst["attack"], worst["method"], strict=True)
    }
    assert 0 < len(framed) < len(table)


def test_what_a_vector_wrings_out_has_its_intervals_and_so_has_the_control() -> None:
    _, table = table_of("12_residual_vector")
    table = table.query("asked == 'judged' and place == 'residual' and not each")
    found = [bar.get_segments() for bar in drawn("12_residual_vector").axes[0].collections]
    drawn_ends = sorted(tuple(sorted(end[1] for end in bar)) for bars in found for bar in bars)
    expected = sorted((low, high) for low, high in zip(table["low"], table["high"], strict=True))
    assert set(table["target"]) == {"right letter", "random wrong letter"}
    assert drawn_ends == [pytest.approx(ends) for ends in expected]


def test_a_relearned_method_is_open_before_and_filled_after() -> None:
    _, table = table_of("07_relearned")
    (ax,) = drawn("07_relearned").axes
    # a single point that is no cap of an interval
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 1 and line.get_marker() != "|"]
    opened = sorted(float(line.get_xdata()[0]) for line in lines if line.get_markerfacecolor() == "white")
    filled = sorted(float(line.get_xdata()[0]) for line in lines if line.get_markerfacecolor() != "white")
    assert opened == pytest.approx(sorted(table[table["epoch"] == 0]["accuracy"]))
    assert filled == pytest.approx(sorted(table[table["epoch"] > 0]["accuracy"]))


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_with_numbers_has_words(name: str) -> None:
    figure = drawn(name)
    seen = {text for text in words(figure)}
    panels = [ax for ax in figure.axes if ax.axison]
    assert panels or name in ("01_highlighted_question", "01_passages")
    for ax in panels:
        for axis in (ax.xaxis, ax.yaxis):
            if seen & set(axis.get_ticklabels()):  # a panel may share its neighbour's axis
                assert re.search("[a-z]{3}", axis.get_label_text()), (ax.get_title(), axis.axis_name)


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_named_once_wherever_it_is_drawn(name: str) -> None:
    figure = drawn(name)
    lines = [line for ax in figure.axes for line in ax.lines if line.get_label() == style.CHANCE_WORDS]
    assert [text.get_text() for text in words(figure)].count("chance (0.25)") == bool(lines)


@pytest.mark.parametrize("name", [n for n in NAMES if "near_accuracy" in table_of(n)[1]])
def test_a_figure_without_near_questions_is_drawn(name: str) -> None:
    draw, rows = table_of(name)
    near = {column: np.nan for column in rows if column.startswith("near_")}
    figure = rendered(draw(rows.assign(**near)))
    empty = [t.get_text() for t in words(figure) if t.get_text() in ("no questions", "no value")]
    assert len(empty) == (draw not in (plots.alignments, plots.conditional_sweeps))  # which show no near domain
    # the other panels are as full as ever
    for i, ax in enumerate(drawn(name).axes):
        if "near" not in ax.get_xlabel() + ax.get_title():
            assert len(figure.axes[i].lines) == len(ax.lines)


@pytest.mark.parametrize("name", [n for n in NAMES if {"method", "arm", "control"} & set(table_of(n)[1])])
def test_a_method_that_nobody_knows_is_drawn(name: str) -> None:
    draw, rows = table_of(name)
    column = next(c for c in ("method", "arm", "control") if c in rows)
    figure = rendered(draw(rows.assign(**{column: rows[column].replace(rows[column].iloc[0], MINE)})))
    assert cut_off(figure) == []
    if draw is not plots.all_questions:  # one method under several sizes
        shown = " ".join(" ".join(text.get_text().split()) for text in words(figure))
        assert MINE in shown


# --- looks ------------------------------------------------------------------------------------------------------------


def test_every_published_method_has_a_look_of_its_own() -> None:
    tables = [load_published("farrell2024_fig5"), load_published("dsg2025_tables"), conditional.published_points()]
    methods = sorted({method for table in tables for method in table["method"]})
    looks = [style.look_of(method) for method in methods]
    assert not set(looks) & set(style.SPARE_LOOKS)
    assert len({marker for _, marker in looks}) == len(methods)


def test_looks_differ_in_shape_and_colour_where_they_meet() -> None:
    ours = ("static clamp", "Clamp Prime", "Clamp Prime, proportional", "Refusal Clamp", "unconditional add", "DSG",
            "RMU", "retrained")  # fmt: skip
    for met in (ours, [*ours, MINE, "another of mine"]):
        looks = style.looks_of(met)
        assert len({colour for colour, _ in looks.values()}) == len({m for _, m in looks.values()}) == len(met)
    assert style.look_of("static clamp, published features") == style.look_of("static clamp") == ("#0072B2", "o")


def test_an_unknown_method_keeps_its_look_and_many_differ() -> None:
    assert style.look_of(MINE) == style.looks_of([MINE])[MINE] == style.looks_of(["DSG", MINE, "x"])[MINE]
    assert style.look_of(MINE) in style.SPARE_LOOKS
    assert len(set(style.SPARE_LOOKS)) == len(style.SPARE_LOOKS) == 30
    many = style.looks_of(f"method {i}" for i in range(30))
    assert len(set(many.values())) == 30
    assert len(style.looks_of(f"method {i}" for i in range(40))) == 40  # more than there are looks


def test_the_sheet_gives_what_the_house_asks_for() -> None:
    asked = {"font.size": 9, "legend.fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8, "savefig.dpi": 150,
             "pdf.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "figure.constrained_layout.use": True}  # fmt: skip
    assert {name: plt.rcParams[name] for name in asked} == asked


# --- what stands in a panel -------------------------------------------------------------------------------------------


def test_intervals_are_distances_and_never_negative() -> None:
    found = style.interval(pd.Series([0.5, 1.0, np.nan]), pd.Series([0.4, 0.9, 0.1]), pd.Series([0.7, 0.99999, 0.2]))
    np.testing.assert_allclose(found, [[0.1, 0.1, np.nan], [0.2, 0.0, np.nan]])


def test_a_strength_axis_names_zero_and_the_unedited_model() -> None:
    _, (ax,) = style.panels(1, columns=1)
    style.strengths(ax, [-1, 0, 1, 10, 11, 12, 13, 100])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["none", "0\n(ablate)", "1", "10", "100"]  # 11 to 13 crowd
    assert ax.get_xlim()[0] < -1 and ax.get_xlim()[1] > 100


def test_words_are_left_out_where_they_would_meet() -> None:
    _, (ax,) = style.panels(1, columns=1)
    ax.scatter([0, 0.001, 1], [0, 0, 1])
    style.annotate_apart(ax, [(0, 0, "first", "red"), (0.001, 0, "second", "red"), (0, 0, "third", "red"),
                              (0, 0, "fourth", "red"), (0, 0, "fifth", "red"), (1, 1, "far", "red")])  # fmt: skip
    boxes = [text.get_window_extent() for text in ax.texts]
    assert ax.texts[0].get_text() == "first" and ax.texts[-1].get_text() == "far" and len(boxes) < 6
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


# --- single figures ---------------------------------------------------------------------------------------------------


def test_pareto_draws_every_setting_and_joins_the_front() -> None:
    figure = plots.pareto(POINTS)
    assert dots(figure, 0) == {"DSG": [[0.99, 0.5], [0.95, 0.9]], "RMU": [[1.0, 0.7]]}
    assert dots(figure, 1) == {"DSG": [[0.9, 0.5], [0.9, 0.9]], "RMU": [[0.9, 0.7]]}
    assert dots(figure, 2) == {"DSG": [[0.1, 0.5], [0.2, 0.9]], "RMU": [[0.0, 0.7]]}
    ax = figure.axes[0]
    front = next(line for line in ax.lines if line.get_color() == style.look_of("DSG")[0])
    assert front.get_xydata().tolist() == [[0.99, 0.5]]  # the other DSG setting is worse in both
    assert [text.get_text() for text in ax.texts] == ["20f x5"]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> str:
    """The label of something that the methods are measured against."""
    monkeypatch.setattr(style, "looks", lambda: {**looks(), "the aim": Look("#123456", "*", reference=True)})
    return "the aim"


def test_a_reference_is_a_large_point_above_all_and_joined_to_nothing(reference: str) -> None:
    aim = POINTS[:1].assign(method=reference, setting="as it is", forget_accuracy=0.25, side_accuracy=0.9)
    table = pd.concat([POINTS, aim], ignore_index=True)
    figure = plots.pareto(table)
    assert dots(figure, 0) == {**dots(plots.pareto(POINTS), 0), reference: [[0.9, 0.25]]}
    for ax in figure.axes[:3]:
        points = {c.get_label(): c for c in ax.collections if isinstance(c, PathCollection)}
        star, others = points.pop(reference), points.values()
        assert all(star.get_sizes()[0] > 3 * other.get_sizes()[0] for other in others)
        assert all(star.get_zorder() > other.get_zorder() for other in (*others, *ax.lines))
        assert "#123456" not in [line.get_color() for line in ax.lines]
    assert reference in [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert plots.pareto(POINTS).axes[0].collections[0].get_zorder() == 1  # without one nothing is changed


def test_a_reference_stands_out_among_chosen_settings_and_under_attack(reference: str) -> None:
    draw, rows = table_of("05_held_out")
    rows = rows[rows["method"] != "retrained"]
    rows = pd.concat([rows, rows[:2].assign(method=reference)], ignore_index=True)
    *others, open_one, filled = [box.lines[0] for box in draw(rows).axes[0].containers]
    assert open_one.get_marker() == filled.get_marker() == "*"
    assert open_one.get_markerfacecolor() == "white" != filled.get_markerfacecolor()
    sizes = {mark.get_markersize() for mark in others}
    assert filled.get_markersize() > max(sizes) and len(sizes) == 1 and filled.get_zorder() > others[0].get_zorder()
    draw, curves = table_of("06_relearning")
    curves = curves[curves["arm"] != "retrained"]
    arm = curves[curves["arm"] == "RMU"].assign(arm=reference)
    lines = {line.get_label(): line for line in draw(pd.concat([curves, arm])).axes[0].lines}
    assert lines[reference].get_markersize() > lines["RMU"].get_markersize()
    assert lines[reference].get_zorder() > lines["RMU"].get_zorder() and lines[reference].get_marker() == "*"


def test_the_ring_is_for_the_best_method_and_not_for_a_reference(reference: str) -> None:
    points = pd.DataFrame({
        "world": "ours", "method": ["RMU", "DSG", reference], "setting": ["a", "b", "c"],
        "good_retention": [0.9, 1.0, 0.9], "bad_retention": [0.5, 0.2, 0.0], "alignment": [0.45, 0.8, 0.9],
    })  # fmt: skip
    (ax,) = plots.retention_tradeoff(points).axes
    assert ax.collections[-1].get_offsets().tolist() == [[1.0, 0.2]]
    assert ax.get_title() == "ours\nhighest alignment (ringed), 0.80:\nDSG, b"


def test_pareto_draws_the_intervals_of_the_front() -> None:
    ends = {"forget_low": [0.4, 0.8, 0.6], "forget_high": [0.65, 0.95, 0.8]}
    figure = plots.pareto(POINTS.assign(**ends))
    bars = [
        segment for c in figure.axes[0].collections if not isinstance(c, PathCollection) for segment in c.get_segments()
    ]
    np.testing.assert_allclose(bars, [[[0.99, 0.4], [0.99, 0.65]], [[1.0, 0.6], [1.0, 0.8]]])


@pytest.mark.parametrize("name", ["03_pareto", "03_published", "05_pareto", "04_tradeoff"])
def test_a_row_is_a_point(name: str) -> None:
    draw, rows = table_of(name)
    figure = draw(rows)
    found = pd.Series(0, index=rows["method"].unique())
    for ax in figure.axes[: 2 if draw is plots.retention_tradeoff else 1]:
        for c in ax.collections:
            if isinstance(c, PathCollection) and c.get_label() in found:
                found[c.get_label()] += len(c.get_offsets())
    assert found.to_dict() == rows["method"].value_counts().to_dict()


def test_the_point_of_highest_alignment_is_ringed_in_each_panel() -> None:
    points = pd.DataFrame({
        "world": ["ours", "ours", "theirs"], "method": ["Clamp Prime", "RMU", "RMU"], "setting": ["a", "b", "c"],
        "good_retention": [0.9, 1.0, 0.8], "bad_retention": [0.5, 0.2, 0.1], "alignment": [0.45, 0.8, 0.72],
    })  # fmt: skip
    figure = plots.retention_tradeoff(points)
    rings = [ax.collections[-1].get_offsets().tolist() for ax in figure.axes]
    assert rings == [[[1.0, 0.2]], [[0.8, 0.1]]]
    assert figure.axes[1].get_title() == "theirs\nhighest alignment (ringed), 0.72:\nRMU, c"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["equal alignment", "Clamp Prime", "RMU"]


def test_held_out_tells_protocols_apart_by_filling_and_methods_by_look() -> None:
    draw, rows = table_of("05_held_out")
    gone = [column for column in rows if column.endswith(("_accuracy", "_low", "_high", "_n", "_added"))]
    rows = rows.astype(dict.fromkeys(gone, float))
    rows.loc[2, gone], rows.loc[2, "setting"] = np.nan, "none"
    ax = draw(rows).axes[0]
    marks = [box.lines[0] for box in ax.containers]
    assert [mark.get_ydata().tolist() for mark in marks] == [[i] for i in range(len(rows))]
    assert [(mark.get_color(), mark.get_marker()) for mark in marks] == [style.look_of(m) for m in rows["method"]]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [True, False] * (len(rows) // 2)
    shown = [mark.get_xdata()[0] for mark in marks]
    np.testing.assert_array_equal(shown, rows["forget_accuracy"])
    assert ax.get_yticklabels()[2].get_text() == "static clamp\nnone keeps 0.99"


def test_protocols_stand_under_their_edit() -> None:
    draw, rows = table_of("04_protocols")
    labels = [(text.get_text(), text.get_fontweight()) for text in draw(rows).axes[0].get_yticklabels()]
    bold = [label for label, weight in labels if weight == "bold"]
    assert bold == [
        "Clamp Prime, 40 features x20",
        "Refusal Clamp, 40 features x40",
        "unconditional add, 10 features x2",
    ]
    assert labels[0][0] == bold[0] and labels[6][0] == bold[1] and len(labels) == len(rows) + 3
    assert labels[1][0] == "some known questions, 24 orders\n(n = 20 forget, 80 side)"


def test_letters_are_stacked_to_one() -> None:
    table = pd.DataFrame(
        [(n, r, x, s, 0.5, 0.9, 8) for n in ("right answers", "e, 5 features x1") for r in ("forget", "side")
         for x, s in zip("ABCD", (0.5, 0.25, 0.25, 0.0), strict=True)],
        columns=["name", "role", "letter", "share", "accuracy", "mass", "n"],
    )  # fmt: skip
    ax = plots.letters(table).axes[0]
    assert [p.get_x() + p.get_width() for p in ax.patches] == [0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1]
    assert [t.get_text() for t in ax.texts] == ["accuracy", "0.50", "0.50", "mass on\nletters", "0.90", "0.90"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["right answers", "e,\n5 features x1"]


def test_the_gate_is_counted_over_all_questions_of_a_subject() -> None:
    table = pd.DataFrame({
        "subject": ["b", "b", "a"], "gate": ["shut", "open", "shut"], "n": [3, 1, 5], "right": [3, 0, 5],
        "accuracy": [1.0, 0.0, 1.0], "low": [0.4, 0.0, 0.5], "high": [1.0, 0.8, 1.0],
    })  # fmt: skip
    shares, accuracy = plots.gate_cost(table).axes
    assert [bar.get_width() for bar in shares.patches] == [0.25, 0.0]
    assert [t.get_text() for t in shares.texts] == ["1 of 4", "0 of 5"]
    assert [t.get_text() for t in accuracy.texts] == ["gate never opens"]


def test_relearning_shows_the_mean_over_seeds() -> None:
    table = pd.DataFrame({
        "arm": "mine", "seed": [0, 1, 0, 1], "epoch": [0, 0, 1, 1], "role": "forget", "n": 4,
        "accuracy": [0.25, 0.75, 0.5, 1.0], "above": [0.0, 0.1, 0.2, 0.4],
    })  # fmt: skip
    figure = plots.relearning(table)
    assert figure.axes[3].lines[0].get_xydata().tolist() == [[0, 0.05], [1, pytest.approx(0.3)]]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[0, 0.5], [1, 0.75]]
    assert (figure.axes[0].lines[0].get_color(), figure.axes[0].lines[0].get_marker()) == style.look_of("mine")
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == [
        "forget (n = 4)", "near domain (n = 0)", "side effects (n = 0)", "forget, above the reference's",
    ]  # fmt: skip


def test_a_long_question_is_broken_into_lines_that_fit() -> None:
    rows = pd.DataFrame({"token": [" word"] * 60 + ["\n", "end"], "activation": [0.0] * 61 + [2.0]})
    figure = rendered(plots.highlighted_question(rows))
    note, *tokens = figure.axes[0].texts
    # 131 characters in a line: 26 words of five
    assert [t.get_position()[1] for t in tokens] == [1] * 26 + [2] * 26 + [3] * 9 + [4]
    assert cut_off(figure) == []
    assert note.get_text() == "shade: activation, up to 2"


def test_passages_of_a_feature_share_a_scale_of_shades_and_stand_under_their_words() -> None:
    tokens = [("forget text", ["a", "b\n", "c"], [0.0, 4.0, 2.0]), ("retain text", ["d", "e"], [1.0, 0.0])]
    seven = pd.concat(pd.DataFrame({"text": x, "token": t, "activation": a}) for x, t, a in tokens).assign(feature=7)
    silent = seven["activation"].where(seven["text"] == "forget text", 0.0)
    rows = pd.concat([seven, seven.assign(feature=8, activation=silent)], ignore_index=True)
    figure = rendered(plots.strongest_passages(rows))
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown[:7] == [
        "feature 7 on forget text: up to 4",
        "a",
        "b\u21b5",
        "c",
        "feature 7 on retain text: up to 1",
        "d",
        "e",
    ]
    assert shown[11] == "feature 8 on retain text: silent in all of it"
    assert [box.get_alpha() for box in figure.axes[0].patches][:5] == [0, 0.75, 0.375, 0.1875, 0]
    heights = [text.get_position()[1] for text in figure.axes[0].texts]
    assert heights[:5] == [0, 1, 1, 1, 2.6]  # a line of text is not broken where it has a new line
    assert cut_off(figure) == []


def test_candidates_are_told_apart_by_what_became_of_them() -> None:
    draw, rows = table_of("01_attribution")
    figure = draw(rows)
    counts = rows["fate"].value_counts()
    expected = {f"{fate} ({n})": n for fate, n in counts.items()}
    for panel, column in enumerate(("attribution", "side_lost")):
        found = dots(figure, panel)
        assert {label: len(points) for label, points in found.items()} == expected
        kept = rows[rows["fate"] == "kept"]
        assert found[f"kept ({len(kept)})"] == kept[[column, "forget_lost"]].to_numpy().tolist()
    cheapest_first = kept.sort_values("loss_added")["feature"]
    assert [t.get_text() for t in figure.axes[2].get_yticklabels()] == [f"feature {i}" for i in cheapest_first]
    rendered(draw(rows[rows["fate"] != "kept"]))
    assert [t.get_text() for t in plots.attribution(rows[rows["fate"] != "kept"]).axes[2].texts] == [
        "no feature is kept"
    ]


@pytest.mark.parametrize("path", sorted(Path(plots.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_drawing_function_stands_in_one_file_and_in_the_package(path: Path) -> None:
    names = re.findall(r"^def ([a-z]\w+)\(table: pd\.DataFrame\) -> Figure:", path.read_text("utf-8"), re.MULTILINE)
    assert set(names) <= set(plots.__all__)
