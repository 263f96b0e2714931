"""The notebook's workbench: cached calls, figures drawn from their CSV alone, and the record beside them."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import helpers
from helpers.lab.run import Run, redraw, start
from helpers.records.provenance import ROOT

calls: list[tuple] = []


def double(numbers: list[float], factor: float = 2.0) -> pd.DataFrame:
    calls.append((numbers, factor))
    return pd.DataFrame({"x": numbers, "y": [factor * x for x in numbers]})


def line(table: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(layout="constrained")
    axes.plot(table["x"], table["y"], label="μ ± σ")
    axes.legend()
    return figure


def no_figure(table: pd.DataFrame) -> plt.Axes:
    return line(table).axes[0]


@pytest.fixture(autouse=True)
def plots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A helpers.report.plots of two functions, and a fresh count of calls."""
    module = ModuleType("helpers.report.plots")
    module.line, module.no_figure = line, no_figure
    monkeypatch.setitem(sys.modules, "helpers.report.plots", module)
    monkeypatch.setattr(helpers, "plots", module, raising=False)
    calls.clear()
    return module


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return start("tiny", "03_pareto", str(tmp_path / "runs"), str(tmp_path / "figures"))


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [1 / 3, float("nan"), 3.0], "name": ["nan", "a, b", ""]})


def test_a_stage_is_computed_once_for_the_same_arguments(run: Run, tmp_path: Path, capsys: Any) -> None:
    first = run.stage("double", double, [1.0, 2.0])
    again = start("tiny", "04_other", str(tmp_path / "runs")).stage("double", double, numbers=[1.0, 2.0], factor=2.0)
    assert len(calls) == 1 and again.equals(first) and first["y"].tolist() == [2.0, 4.0]
    assert "double: 0.0 s\ndouble: from the cache (0.0 s when made)\n" in capsys.readouterr().out


def test_another_argument_is_computed_and_named(run: Run, capsys: Any) -> None:
    run.stage("double", double, [1.0])
    run.stage("double", double, [1.0], factor=3.0)
    assert calls == [([1.0], 2.0), ([1.0], 3.0)]
    assert "double: computed anew (factor changed)" in capsys.readouterr().out


def test_other_code_packages_or_device_are_computed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run = start("tiny", "03_pareto", str(tmp_path), str(tmp_path), {"model.device": "auto"})
    run.stage("double", double, [1.0])
    monkeypatch.setattr("helpers.lab.run.code_fingerprint", lambda function: "edited")
    monkeypatch.setattr("helpers.records.provenance.NUMERIC_PACKAGES", ("numpy",))
    monkeypatch.setattr("helpers.records.provenance.device_type", lambda: "cuda")
    monkeypatch.setattr("helpers.records.store.peak_memory", dict)
    run.stage("double", double, [1.0])
    assert len(calls) == 2
    assert "(the code, the device, the packages changed)" in capsys.readouterr().out


def test_an_argument_without_fingerprint_is_named(run: Run) -> None:
    with pytest.raises(TypeError, match=r"argument 'numbers' of double: .*PosixPath cannot be part"):
        run.stage("double", double, Path("a"))
    assert calls == []


def test_a_figure_is_four_files_drawn_from_the_csv_alone(run: Run, table: pd.DataFrame, plots: ModuleType) -> None:
    seen = []
    plots.line = lambda rows: seen.append(rows) or line(rows)
    plots.line.__name__ = "line"
    run.stage("double", double, [1.0])
    run.note(model="organism", seeds=[0])
    figure = run.save_figure("03_pareto", table, plots.line)
    assert (run.figures / "03_pareto.csv").read_bytes() == b'x,y,name\n0,0.333333,nan\n1,,"a, b"\n2,3,\n'
    rounded = table.assign(y=[0.333333, float("nan"), 3.0])
    pd.testing.assert_frame_equal(seen[0], rounded, check_exact=True)
    record = json.loads((run.figures / "03_pareto.json").read_text())
    assert (record["notebook"], record["drawn_by"], record["rows"]) == ("03_pareto", "line", 3)
    assert record["columns"] == {"x": "float64", "y": "float64", "name": "str"}
    assert record["facts"] == {"model": "organism", "seeds": [0]} and set(record["stages"]) == {"double"}
    assert sorted(path.name for path in run.figures.iterdir()) == [
        f"03_pareto.{s}" for s in ("csv", "json", "pdf", "png")
    ]
    assert plt.get_fignums() == [] and isinstance(figure, Figure)


def test_redrawn_pictures_are_identical_to_the_bit(run: Run, table: pd.DataFrame) -> None:
    with plt.rc_context({"lines.linewidth": 9, "savefig.dpi": 33}):  # a notebook's own settings leave no trace
        run.save_figure("03_pareto", table, line)
    before = {path.name: path.read_bytes() for path in run.figures.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in run.figures.iterdir()}
    written = redraw(run.figures)
    assert [path.name for path in written] == ["03_pareto.png", "03_pareto.pdf"]
    assert {path.name: path.read_bytes() for path in run.figures.iterdir()} == before
    changed = {path.name for path in run.figures.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert changed == {"03_pareto.png", "03_pareto.pdf"}
    assert b"/Type3" not in before["03_pareto.pdf"] and b"/CreationDate" not in before["03_pareto.pdf"]


@pytest.mark.parametrize(
    ("name", "columns", "draw", "message"),
    [
        ("04_pareto", {"x": [1.0]}, line, "notebook 03_pareto makes figures '03_...'"),
        ("03-pareto", {"x": [1.0]}, line, "figure name '03-pareto'"),
        ("03_pareto", {"x": []}, line, "has no rows"),
        ("03_pareto", {"x": [1.0]}, double, "no function of helpers.report.plots"),
        ("03_pareto", {"x": ["a", None]}, line, r"column 'x' .* would come back from a CSV as something else"),
        ("03_pareto", {"x": [(1, 2)]}, line, r"column 'x' \(object\) would come back"),
    ],
)
def test_a_figure_that_could_not_be_redrawn_is_refused(
    run: Run, name: str, columns: dict, draw: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run.save_figure(name, pd.DataFrame(columns), draw)
    assert not run.figures.exists() or not list(run.figures.iterdir())


def test_a_plot_must_return_a_figure(run: Run, table: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match=r"helpers.report.plots.no_figure returned Axes, a Figure is needed"):
        run.save_figure("03_pareto", table, no_figure)
    plt.close("all")


def test_an_unwritable_figures_folder_is_one_clear_error(tmp_path: Path, table: pd.DataFrame) -> None:
    (tmp_path / "figures").write_text("a file where a folder should be")
    with pytest.raises(OSError, match=r"cannot write 03_pareto.csv in .*figures"):
        start("tiny", "03_pareto", str(tmp_path), str(tmp_path / "figures")).save_figure("03_pareto", table, line)


@pytest.mark.parametrize(("lost", "kept"), [(".csv", ".json"), (".json", ".csv")])
def test_an_orphan_stops_redrawing(run: Run, table: pd.DataFrame, lost: str, kept: str) -> None:
    run.save_figure("03_pareto", table, line)
    (run.figures / f"03_pareto{lost}").unlink()
    with pytest.raises(FileNotFoundError, match=f"03_pareto{kept} has no 03_pareto{lost} beside it"):
        redraw(run.figures)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"drawn_by": "circle", "columns": {}}', "'circle', which helpers.report.plots has not"),
        ("{", "not the record of a figure"),
    ],
)
def test_a_record_that_names_no_plot_stops_redrawing(run: Run, table: pd.DataFrame, content: str, message: str) -> None:
    run.save_figure("03_pareto", table, line)
    (run.figures / "03_pareto.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        redraw(run.figures)


def test_a_folder_without_figures_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no figure to redraw; make them first: python -m helpers.reproduce"):
        redraw(tmp_path)


def test_without_folders_runs_and_figures_are_in_the_repository() -> None:
    run = start("tiny", "03_pareto")
    assert run.figures == ROOT / "figures" / "tiny" and run._store.folder == ROOT / "runs" / "tiny" / "stages"


@pytest.mark.parametrize(("profile", "notebook"), [("huge", "03_pareto"), ("tiny", "pareto")])
def test_an_unknown_profile_or_a_notebook_without_number_is_refused(profile: str, notebook: str) -> None:
    with pytest.raises(ValueError, match=r"'huge' is unknown, the known ones are: .*tiny|two digits"):
        start(profile, notebook)


def test_pictures_are_redrawn_without_a_model(run: Run, table: pd.DataFrame) -> None:
    """In a process of its own, with the real helpers.report.plots: torch is never imported on the way."""
    script = "import sys, helpers.report.plots, helpers.reproduce; print([m for m in sys.modules if 'torch' in m])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_arrays_may_be_arguments_and_results(run: Run) -> None:
    result = run.stage("norms", np_norms, np.array([[3.0, 4.0]]))
    assert result["norms"].tolist() == [5.0]


def np_norms(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"norms": np.linalg.norm(rows, axis=1)}
