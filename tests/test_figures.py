"""Figures on disk: drawn from their CSV alone, to the bit the same again, with the record of what made them."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.records.provenance import FIGURE_FILES, ROOT
from helpers.report.figures import in_few_colours, redraw, save_figure
from helpers.report.plots import SHEET

RECORD = {"notebook": "03_pareto", "facts": {"model": "organism", "seeds": [0]}}


def line(table: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(layout="constrained")
    axes.plot(table["x"], table["y"], label="μ ± σ")
    axes.legend()
    return figure


def no_figure(table: pd.DataFrame) -> plt.Axes:
    return line(table).axes[0]


@pytest.fixture(autouse=True)
def plots(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A helpers.report.plots of two functions and the house style, and no figure open before or after."""
    plt.close("all")
    module = ModuleType("helpers.report.plots")
    module.SHEET = SHEET
    module.line, module.no_figure = line, no_figure
    monkeypatch.setattr("helpers.report.figures.plots", module)
    yield module
    plt.close("all")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "figures"


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [1 / 3, float("nan"), 3.0], "name": ["nan", "a, b", ""]})


def test_a_figure_is_four_files_drawn_from_the_csv_alone(folder: Path, table: pd.DataFrame, plots: ModuleType) -> None:
    seen = []
    plots.line = lambda rows: seen.append(rows) or line(rows)
    plots.line.__name__ = "line"
    figure = save_figure(folder, "03_pareto", table, plots.line, RECORD)
    assert (folder / "03_pareto.csv").read_bytes() == b'x,y,name\n0,0.333333,nan\n1,,"a, b"\n2,3,\n'
    rounded = table.assign(y=[0.333333, float("nan"), 3.0])
    pd.testing.assert_frame_equal(seen[0], rounded, check_exact=True)
    record = json.loads((folder / "03_pareto.json").read_text())
    columns = {"x": "float64", "y": "float64", "name": "str"}
    assert record == {"drawn_by": "line", "rows": 3, "columns": columns, **RECORD}
    assert {path.name for path in folder.iterdir()} == {f"03_pareto{ending}" for ending in FIGURE_FILES}
    assert plt.get_fignums() == [] and isinstance(figure, Figure)


def test_redrawn_pictures_are_identical_to_the_bit(folder: Path, table: pd.DataFrame) -> None:
    with plt.rc_context({"lines.linewidth": 9, "savefig.dpi": 33}):  # a notebook's own settings leave no trace
        save_figure(folder, "03_pareto", table, line, RECORD)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    written = redraw(folder)
    assert [path.name for path in written] == ["03_pareto.png", "03_pareto.pdf"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    changed = {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"03_pareto.png", "03_pareto.pdf"}
    assert b"/Type3" not in before["03_pareto.pdf"] and b"/CreationDate" not in before["03_pareto.pdf"]


@pytest.mark.parametrize(
    ("columns", "draw", "message"),
    [
        ({"x": []}, line, "has no rows"),
        ({"x": [1.0]}, redraw, "no function of helpers.report.plots"),
        ({"x": ["a", None]}, line, r"column 'x' .* would come back from a CSV as something else"),
        ({"x": [(1, 2)]}, line, r"column 'x' \(object\) would come back"),
    ],
)
def test_a_figure_that_could_not_be_redrawn_is_refused(folder: Path, columns: dict, draw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_figure(folder, "03_pareto", pd.DataFrame(columns), draw, RECORD)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_plot_must_return_a_figure(folder: Path, table: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match=r"helpers.report.plots.no_figure returned Axes, a Figure is needed"):
        save_figure(folder, "03_pareto", table, no_figure, RECORD)


def test_an_unwritable_figures_folder_is_one_clear_error(folder: Path, table: pd.DataFrame) -> None:
    folder.write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"cannot write 03_pareto.csv in .*figures"):
        save_figure(folder, "03_pareto", table, line, RECORD)


@pytest.mark.parametrize(("lost", "kept"), [(".csv", ".json"), (".json", ".csv")])
def test_an_orphan_stops_redrawing(folder: Path, table: pd.DataFrame, lost: str, kept: str) -> None:
    save_figure(folder, "03_pareto", table, line, RECORD)
    (folder / f"03_pareto{lost}").unlink()
    with pytest.raises(FileNotFoundError, match=f"03_pareto{kept} has no 03_pareto{lost} beside it"):
        redraw(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"drawn_by": "circle", "columns": {}}', "'circle', which helpers.report.plots has not"),
        ("{", "not the record of a figure"),
    ],
)
def test_a_record_that_names_no_plot_stops_redrawing(
    folder: Path, table: pd.DataFrame, content: str, message: str
) -> None:
    save_figure(folder, "03_pareto", table, line, RECORD)
    (folder / "03_pareto.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        redraw(folder)


def test_a_folder_without_figures_says_how_to_make_them(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"first: python -m helpers.reproduce --profile {folder.name}$"):
        redraw(folder)
    (trial := folder / "tiny+changed").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"first: python -m helpers.reproduce --profile tiny$"):
        redraw(trial)


def test_pictures_are_redrawn_without_loading_a_model() -> None:
    """In a process of its own, with the real plots: what loads models and data sets is never imported on the way."""
    script = (
        "import sys, helpers.report.plots, helpers.report.figures\n"
        "print(sorted({'sae_lens', 'datasets', 'transformer_lens', 'helpers.loading.models'} & set(sys.modules)))\n"
        "torch = sys.modules.get('torch')\n"
        "from transformers import PreTrainedModel\n"
        "import gc; print(sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects()) if torch else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "0"]


# --- colours ----------------------------------------------------------------------------------------------------------


def png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_a_picture_keeps_its_look_in_few_colours() -> None:
    shades = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)  # 256 of them, and each of two colours
    pixels = np.stack([shades, np.where(shades > 99, 0, 200).astype(np.uint8), shades[::-1]], axis=2)
    found = in_few_colours(png(pixels, dpi=(150, 150)))
    with Image.open(io.BytesIO(found)) as picture:
        assert picture.mode == "P" and len(picture.convert("RGB").getcolors()) <= 256
        assert round(picture.info["dpi"][0]) == 150
        after = np.asarray(picture.convert("RGB"), dtype=float)
    assert np.abs(after - pixels).mean() < 8 < np.abs(pixels - pixels.mean()).mean()
    plain = np.full((4, 4, 3), (230, 159, 0), dtype=np.uint8)
    with Image.open(io.BytesIO(in_few_colours(png(plain)))) as picture:
        assert (np.asarray(picture.convert("RGB")) == plain).all()


def test_a_transparent_picture_stays_as_it_is() -> None:
    clear = png(np.full((2, 2, 4), 100, dtype=np.uint8))
    assert in_few_colours(clear) == clear
