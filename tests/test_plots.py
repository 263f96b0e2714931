"""Every committed figure can be drawn from its table alone, and says what the table says."""

import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from helpers.experiments import conditional
from helpers.published import load_published
from helpers.records.provenance import ROOT
from helpers.report import plots

FIGURES = ROOT / "figures" / "tiny"
POINTS = pd.DataFrame({
    "method": ["DSG", "DSG", "RMU"], "setting": ["20 features x5", "20 features x9", "layer 2"],
    "forget_accuracy": [0.5, 0.9, 0.7], "side_accuracy": [0.99, 0.95, 1.0], "near_accuracy": [0.9, 0.9, 0.9],
    "loss_added": [0.1, 0.2, 0.0],
})  # fmt: skip


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_plot_draws_a_committed_figure():
    drawn = {json.loads(path.read_text(encoding="utf-8"))["drawn_by"] for path in FIGURES.glob("*.json")}
    names = {name for name, value in vars(plots).items() if callable(value) and not name.startswith("_")}
    functions = {name for name in names if getattr(plots, name).__module__ == "helpers.report.plots"}
    assert drawn == functions


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.json")), ids=lambda path: path.stem)
def test_axes_have_words(path):
    figure = getattr(plots, json.loads(path.read_text(encoding="utf-8"))["drawn_by"])(
        pd.read_csv(path.with_suffix(".csv"))
    )
    visible = [ax for ax in figure.axes if ax.axison]
    named = [any(not label.get_text().replace(".", "").isdigit() for label in ax.get_xticklabels()) for ax in visible]
    assert all(ax.get_xlabel() or words for ax, words in zip(visible, named, strict=True))
    # panels may share the first one's vertical axis, and that of a table of settings has names at its ticks
    assert (
        not visible
        or visible[0].get_ylabel()
        or any(t.get_text().isalpha() or " " in t.get_text() for t in visible[0].get_yticklabels())
    )


def test_pareto_draws_every_setting_and_joins_the_front():
    axes = plots.pareto(POINTS).axes
    shown = {c.get_label(): c.get_offsets().data.tolist() for c in axes[0].collections}
    assert shown == {"DSG": [[0.99, 0.5], [0.95, 0.9]], "RMU": [[1.0, 0.7]]}
    front = next(line for line in axes[0].lines if line.get_color() == plots.STYLE["DSG"][0])
    assert front.get_xydata().tolist() == [[0.99, 0.5]]  # the other DSG setting is worse in both
    assert [text.get_text() for text in axes[0].texts] == ["20f x5"]


def test_every_published_method_has_a_style():
    for name in ("farrell2024_fig5", "dsg2025_tables"):
        assert set(load_published(name)["method"]) <= set(plots.STYLE)
    assert set(conditional.published_points()["method"]) <= set(plots.STYLE)


def test_styles_differ_in_shape_and_colour_where_they_meet():
    conditional_clamps = ("Clamp Prime", "Clamp Prime, proportional", "Refusal Clamp", "unconditional add", "RMU")
    for met in (("static clamp", "Clamp Prime", "DSG", "RMU"), conditional_clamps):
        assert len({plots.STYLE[m][0] for m in met}) == len({plots.STYLE[m][1] for m in met}) == len(met)


def test_the_point_of_highest_alignment_is_ringed_in_each_panel():
    points = pd.DataFrame({
        "world": ["ours", "ours", "theirs"], "method": ["Clamp Prime", "RMU", "RMU"], "setting": ["a", "b", "c"],
        "good_retention": [0.9, 1.0, 0.8], "bad_retention": [0.5, 0.2, 0.1], "alignment": [0.45, 0.8, 0.72],
    })  # fmt: skip
    figure = plots.retention_tradeoff(points)
    rings = [ax.collections[-1].get_offsets().tolist() for ax in figure.axes]
    assert rings == [[[1.0, 0.2]], [[0.8, 0.1]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Clamp Prime", "RMU"]


def test_letters_are_stacked_to_one():
    table = pd.DataFrame(
        [(n, r, x, s, 0.5, 0.9, 8) for n in ("right answers", "e") for r in ("forget", "side")
         for x, s in zip("ABCD", (0.5, 0.25, 0.25, 0.0), strict=True)],
        columns=["name", "role", "letter", "share", "accuracy", "mass", "n"],
    )  # fmt: skip
    ax = plots.letters(table).axes[0]
    assert [p.get_x() + p.get_width() for p in ax.patches] == [0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1]
    assert [t.get_text() for t in ax.texts] == ["accuracy 0.50, mass 0.90"] * 2
