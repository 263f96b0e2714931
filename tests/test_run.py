"""A notebook's run: cached calls, the record of what was done, and figures that carry the notebook's number."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers.lab.run import Run, start
from helpers.profiles import load_profile
from helpers.records import store
from helpers.records.provenance import ROOT

calls: list[tuple] = []


def double(numbers: list[float], factor: float = 2.0) -> pd.DataFrame:
    calls.append((numbers, factor))
    return pd.DataFrame({"x": numbers, "y": [factor * x for x in numbers]})


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return start("tiny", "03_pareto", str(tmp_path / "runs"), str(tmp_path / "figures"))


# --- stages -----------------------------------------------------------------------------------------------------------


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
    how = ("tiny", "03_pareto", str(tmp_path), str(tmp_path), {"model.device": "auto"})
    start(*how).stage("double", double, [1.0])
    monkeypatch.setattr("helpers.lab.run.code_fingerprint", lambda function: "edited")
    monkeypatch.setattr("helpers.records.provenance.NUMERIC_PACKAGES", ("numpy",))
    monkeypatch.setattr("helpers.records.provenance.device_type", lambda: "cuda")
    monkeypatch.setattr("helpers.records.store.peak_memory", dict)
    start(*how).stage("double", double, [1.0])  # code is loaded once a process, and looked at once a run
    assert len(calls) == 2
    assert "(the code, the device, the packages changed)" in capsys.readouterr().out


def test_of_how_a_profile_is_computed_only_the_threads_are_part_of_a_key(tmp_path: Path, capsys: Any) -> None:
    for overrides in ({}, {"compute.jobs": 3}, {"compute.scheduler": "tcp://a:1"}, {"compute.threads": 2}):
        start("tiny", "03_pareto", str(tmp_path), str(tmp_path), overrides or None).stage("double", double, [1.0])
    assert len(calls) == 2 and "double: computed anew (the threads changed)" in capsys.readouterr().out


def test_an_argument_without_fingerprint_is_named(run: Run) -> None:
    with pytest.raises(TypeError, match=r"argument 'numbers' of double: .*PosixPath cannot be part"):
        run.stage("double", double, Path("a"))
    assert calls == []


def np_norms(rows: np.ndarray) -> dict[str, np.ndarray]:
    calls.append(("norms",))
    return {"norms": np.linalg.norm(rows, axis=1)}


def test_arrays_may_be_arguments_and_results(run: Run) -> None:
    result = run.stage("norms", np_norms, np.array([[3.0, 4.0]]))
    assert result["norms"].tolist() == [5.0]


def test_what_does_not_change_is_hashed_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, other = np.array([[3.0, 4.0]]), np.array([[3.0, 4.0]])
    run.unchanging(rows)
    assert run.fingerprint(rows) != run.fingerprint(other) == run.fingerprint(other)
    hashed, described = [], store._Describer._DESCRIBE
    monkeypatch.setitem(described, "numpy.ndarray", lambda self, value: hashed.append(id(value)) or [])
    run.key(np_norms, rows)
    assert hashed == []
    run.key(np_norms, other)
    assert hashed == [id(other)]


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_stage_called_for_several_settings_adds_up_in_the_record(run: Run) -> None:
    slow, quick = (run.store.write("double", 1, {"a": part}, seconds) for part, seconds in (("x", 2.5), ("y", 0.25)))
    run.seen(slow)
    assert run.record()["stages"] == {"double": {"seconds": 2.5, "cached": False}}
    run.seen(quick)
    cached = run.store.read("double", {"a": "x"})
    assert run.seen(cached) == 1
    assert run.record()["stages"] == {"double": {"seconds": 5.25, "cached": False}}
    other = start("tiny", "03_pareto", str(run.store.folder.parents[1]))
    other.seen(cached)
    assert other.record()["stages"] == {"double": {"seconds": 2.5, "cached": True}}


def test_a_warning_is_said_and_recorded_once(run: Run, capsys: Any) -> None:
    for words in ("it rains", "it snows", "it rains"):
        run.warn(words)
    assert capsys.readouterr().out == "warning: it rains\nwarning: it snows\n"
    assert run.record()["facts"] == {"warnings": ["it rains", "it snows"]}


def test_a_record_names_what_was_changed_without_the_folders_of_files(tmp_path: Path) -> None:
    changed = {"own_methods": [str(Path.home() / "mine.py")], "questions.limit": 3}
    record = start("tiny", "03_pareto", str(tmp_path), str(tmp_path), changed).record()
    assert record["facts"] == {"overrides": {"own_methods": ["mine.py"], "questions.limit": 3}}
    assert record["settings"]["own_methods"] == ["mine.py"]
    assert str(Path.home()) + "/" not in json.dumps(record)


# --- figures ----------------------------------------------------------------------------------------------------------


def line(table: pd.DataFrame) -> Figure:
    return plt.figure()


def test_a_figure_carries_the_notebooks_number_and_its_record(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helpers.report.figures.plots.line", line, raising=False)
    run.stage("double", double, [1.0])
    run.note(model="organism", seeds=[0])
    table = pd.DataFrame({"x": [1.0]})
    with pytest.raises(ValueError, match="notebook 03_pareto makes figures '03_...'"):
        run.save_figure("04_pareto", table, line)
    with pytest.raises(ValueError, match="figure name '03-pareto'"):
        run.save_figure("03-pareto", table, line)
    assert not run.figures.exists() or not list(run.figures.iterdir())
    run.save_figure("03_pareto", table, line)
    record = json.loads((run.figures / "03_pareto.json").read_text())
    assert (record["notebook"], record["drawn_by"], record["rows"]) == ("03_pareto", "line", 1)
    assert record["facts"] == {"model": "organism", "seeds": [0]} and set(record["stages"]) == {"double"}
    assert record["profile"] == "tiny"


def test_without_folders_runs_and_figures_are_in_the_repository() -> None:
    run = start("tiny", "03_pareto")
    assert run.figures == ROOT / "figures" / "tiny" and run.store.folder == ROOT / "runs" / "tiny" / "stages"


@pytest.mark.parametrize(("profile", "notebook"), [("huge", "03_pareto"), ("tiny", "pareto")])
def test_an_unknown_profile_or_a_notebook_without_number_is_refused(profile: str, notebook: str) -> None:
    with pytest.raises(ValueError, match=r"'huge' is unknown, the known ones are: .*tiny|two digits"):
        start(profile, notebook)


def test_a_run_has_the_profile_of_its_notebook(tmp_path: Path) -> None:
    ids = {name: start("gemma-2-2b-it", name, str(tmp_path)).profile.sae.id for name in ("03_a", "05_a")}
    assert ids == {name: load_profile("gemma-2-2b-it", None, name[:2]).sae.id for name in ids}
    assert len(set(ids.values())) == 2
