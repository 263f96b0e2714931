"""The runner, on tiny notebooks made here: what papermill lets pass, a kill half-way, and what is said at the end."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.profiles import load_profile, options_of, settings_in_words
from helpers.records.provenance import ROOT
from helpers.report import plots
from helpers.reproduce import (
    NotebookError,
    _parser,
    check_device,
    check_parameters,
    check_tables,
    choose,
    find_notebooks,
    main,
    overrides_of,
)

PARAMETERS = 'profile = "tiny"\nruns = None\nfigures = None\noverrides = None'

STAGES = """
import os, time
from pathlib import Path
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

def say(name):
    with open("calls.txt", "a") as file:
        file.write(name + "\\n")

def first(n):
    say("first")
    return pd.DataFrame({"x": np.random.default_rng(0).normal(size=n)})

def second(table):
    say("second")
    if Path("wait").exists():
        Path("pid.part").write_text(str(os.getpid()))
        os.rename("pid.part", "pid")
        time.sleep(600)
    return table.assign(y=table["x"] ** 2)

def tiny_plot(table):
    figure, axes = plt.subplots()
    axes.plot(table["x"], table["y"])
    return figure
"""

GOOD = (
    "import tiny_stages\nfrom helpers.report import plots\nfrom helpers.lab.run import start",
    "plots.tiny_plot = tiny_stages.tiny_plot",
    'run = start(profile, "07_good", runs, figures, overrides)',
    'x = run.stage("first", tiny_stages.first, 5)\ny = run.stage("second", tiny_stages.second, x)',
    'run.save_figure("07_good", y, plots.tiny_plot)',
    "import os, sys\nkept = ('PYTHONHASHSEED', 'HF_HUB_OFFLINE', 'OMP_NUM_THREADS')\n"
    "print(sys.executable, *map(os.environ.get, kept))",
)


def write_notebook(
    folder: Path, name: str, *sources: str, parameters: tuple[str, ...] = (PARAMETERS,), **reproduce: Any
) -> Path:
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in parameters]
    book = new_notebook(cells=[*cells, *map(new_code_cell, sources)], metadata={"reproduce": reproduce})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def write_good(folder: Path) -> None:
    write_notebook(folder, "07_good", *GOOD, figures=["07_good"], minutes={"tiny": 0.5}, needs=["nothing"])
    (folder / "tiny_stages.py").write_text(STAGES)


def options(base: Path, *more: str) -> list[str]:
    folders = {"--notebooks": base / "note books", "--runs": base / "runs", "--figures": base / "figures"}
    return [str(part) for pair in folders.items() for part in pair] + list(more)


def calls(base: Path) -> list[str]:
    return (base / "note books" / "calls.txt").read_text().split()


def executed(base: Path) -> list[str]:
    return sorted(path.name for path in (base / "runs" / "tiny" / "notebooks").iterdir())


# --- what is refused before anything runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((), "has 0 cells tagged 'parameters', exactly one is needed"),
        ((PARAMETERS, PARAMETERS), "has 2 cells tagged 'parameters'"),
        (("profil = 'tiny'\nruns = None\nfigures = None",), "no parameter 'profile', its parameters are: profil, runs"),
        (("profile = 3\nruns = None\nfigures = None",), "parameter profile = 'tiny', allowed is int"),
        (("profile: int = 3\nruns = None\nfigures = None",), "parameter profile = 'tiny', allowed is int"),
        (("profile = 'tiny'\nruns = open('x')",), "may hold only lines `name = literal`"),
        (("profile = 'tiny'\nprint(1)",), r"may hold only lines `name = literal`: `print\(1\)`"),
        (("profile = ",), "may hold only lines `name = literal`"),
    ],
)
def test_parameters_that_papermill_would_lose_are_refused(tmp_path: Path, parameters: tuple, message: str) -> None:
    path = write_notebook(tmp_path, "01_a", parameters=parameters)
    with pytest.raises(NotebookError, match=message):
        check_parameters(path, {"profile": "tiny", "runs": "a", "figures": "b"})


def test_parameters_of_the_declared_types_pass(tmp_path: Path) -> None:
    cell = 'text = "a=b"\nnothing = None\nnumber: float = 1.0\nrows: list[int] = [1]\nmaybe: int | None = 1\nyes = True'
    path = write_notebook(tmp_path, "01_a", parameters=(cell,))
    good = {"text": "c", "nothing": "d", "number": 2, "rows": [], "maybe": None, "yes": False}
    check_parameters(path, good)
    for name, value in {"text": None, "number": "2", "rows": 1, "maybe": True, "yes": 1}.items():
        with pytest.raises(NotebookError, match=f"parameter {name} = "):
            check_parameters(path, good | {name: value})


def test_an_empty_folder_a_broken_notebook_and_a_foreign_promise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="no notebook in"):
        find_notebooks(tmp_path)
    (tmp_path / "01_a.ipynb").write_text('{"cells": [')
    with pytest.raises(NotebookError, match=r"01_a.ipynb is not a notebook"):
        find_notebooks(tmp_path)
    write_notebook(tmp_path, "01_a", figures=["02_b"])
    with pytest.raises(NotebookError, match=r"01_a.ipynb promises 02_b; its figures begin with '01_'"):
        find_notebooks(tmp_path)


def test_notebooks_are_chosen_by_number_or_name_in_name_order(tmp_path: Path) -> None:
    for name in ("10_c", "00_a", "02_b"):
        write_notebook(tmp_path, name)
    found = find_notebooks(tmp_path)
    assert [notebook.name for notebook in found] == ["00_a", "02_b", "10_c"]
    assert [notebook.name for notebook in choose(found, ["10", "00_a"])] == ["00_a", "10_c"]
    with pytest.raises(NotebookError, match="notebook '03' is unknown, the known ones are: 00_a, 02_b, 10_c"):
        choose(found, ["02", "03"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--profile", "huge"], "profile 'huge' is unknown, the known ones are: "),
        (["--only", "05"], "notebook '05' is unknown, the known ones are: 07_good"),
        (["--set", "questions.limit"], "--set 'questions.limit' has no value; write it as in --set questions.limit=8"),
        (["--set", "rmu.step=3"], "profile 'tiny': unknown key rmu"),
        (["--set", "method.rmu.step=3"], "profile 'tiny': unknown key method.rmu.step"),
        (["--set", "method.dsg.strengths=[-1.0]"], "profile 'tiny': method.dsg.strengths.0 = -1.0: input should be"),
        (
            ["--set", "method.dgs.strengths=[1.0]"],
            "method 'dgs' is unknown, the known ones are: static_clamp, ",
        ),
        (["--jobs", "-1"], "compute.jobs = -1: input should be greater than or equal to 0"),
        (["--device", "cuda"], "device 'cuda' cannot be used: this machine has no CUDA device; 'auto' takes what is"),
        (["--device", "cuda:1"], "device 'cuda:1' cannot be used: this machine has no CUDA device"),
        (["--device", "cuda:x"], "device 'cuda:x' cannot be used: this machine has no CUDA device"),
        (["--set", "model.device=cuda", "--profile", "gemma-2b-it"], "device 'cuda' cannot be used"),
        (["--method", "nowhere.py"], "nowhere.py with a method of one's own"),
        (["--limit", "-3"], "questions.limit = -3: input should be greater than or equal to 0"),
        (["--profile", "gemma-2b-it", "--only", "07"], "gemma-2b-it does not serve 07_good; it serves 01, 02"),
        (["--profile", "gemma-2b-it"], "gemma-2b-it does not serve 07_good; it serves 01, 02"),
        (["--set", "model.source=x/y"], "model 'x/y' is unknown, allowed are: 'organism', 'google/gemma-2-2b-it'"),
        (["--figures-only"], "no figure to redraw; make them first"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line(
    tmp_path: Path, capsys: Any, monkeypatch: Any, more: list[str], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    write_good(tmp_path / "note books")
    assert main(options(tmp_path, *more)) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "runs").exists()


def test_of_two_gpus_the_third_is_not_there(monkeypatch: Any) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for device in ("cpu", "auto", "cuda", "cuda:0", "cuda:1"):
        check_device(device)
    with pytest.raises(NotebookError, match="device 'cuda:2' cannot be used: this machine has 2 CUDA devices"):
        check_device("cuda:2")


def test_a_table_of_a_method_of_ones_own_is_checked_by_that_method_alone() -> None:
    own = {"own_methods": ["mine.py"], "method.mine.size": 3}
    check_tables(load_profile("tiny", own), own)
    with pytest.raises(NotebookError, match="method 'mine' is unknown"):
        check_tables(load_profile("tiny", {"method.mine.size": 3}), {"method.mine.size": 3})


def test_what_is_asked_of_the_runner_alone_imports_neither_plots_nor_models() -> None:
    """In a process of its own: the plan is there at once."""
    script = (
        "import sys; from helpers.reproduce import main; assert main(['--list']) == 0\n"
        "heavy = {'torch', 'matplotlib', 'papermill', 'nbformat', 'helpers.report.plots', 'helpers.methods'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unwritable_figures_folder_is_said_before_anything_runs(tmp_path: Path, capsys: Any) -> None:
    write_good(tmp_path / "note books")
    (tmp_path / "figures").write_text("a file where a folder should be")
    assert main(options(tmp_path)) == 2
    assert "error: cannot write" in capsys.readouterr().out
    assert not (tmp_path / "note books" / "calls.txt").exists()


@pytest.mark.parametrize("more", ["--list", "--dry-run"])
def test_the_plan_names_time_needs_and_figures_and_runs_nothing(tmp_path: Path, capsys: Any, more: str) -> None:
    write_good(tmp_path / "note books")
    write_notebook(tmp_path / "note books", "08_new")
    assert main(options(tmp_path, more)) == 0
    out = capsys.readouterr().out
    assert "2 notebooks under profile tiny (0.5 min and unknown ones)" in out
    assert "07_good: 0.5 min, needs nothing, makes 07_good\n  08_new: unknown, makes no figure\n" in out
    assert not (tmp_path / "runs").exists() and not (tmp_path / "figures").exists()


def test_notebooks_that_a_profile_does_not_serve_are_named_and_left_out(tmp_path: Path, capsys: Any) -> None:
    write_good(tmp_path / "note books")
    write_notebook(tmp_path / "note books", "02_b")
    assert main(options(tmp_path, "--profile", "gemma-2b-it", "--dry-run")) == 0
    first, plan, *notebooks = capsys.readouterr().out.splitlines()
    assert first == "profile gemma-2b-it does not serve, and leaves out: 07_good"
    assert plan.startswith("1 notebooks under profile gemma-2b-it (") and len(notebooks) == 1


def test_settings_are_written_as_a_shell_reads_them_back() -> None:
    settings = {"model.dtype": "bfloat16", "cache.memory_mb": 0, "model.optimizer": "adamw 8-bit", "a.b": [1.5, "x y"]}
    assert settings_in_words(shlex.split(options_of(settings))) == settings


def test_settings_on_the_command_line() -> None:
    given = ["--set", "method.rmu.steps=2", "method.rmu.layers=[1]", "--set", "model.dtype=bfloat16"]
    given += ["--limit", "0", "--show-text", "--device", "cuda:1", "--jobs", "3", "--scheduler", "tcp://host:8786"]
    given += ["--method", "mine.py", "/else/yours.py"]
    assert overrides_of(_parser().parse_args(given)) == {
        "method.rmu.steps": 2, "method.rmu.layers": [1], "model.dtype": "bfloat16", "questions.limit": 0,
        "questions.show_text": True, "model.device": "cuda:1", "compute.jobs": 3,
        "compute.scheduler": "tcp://host:8786", "own_methods": [str(Path.cwd() / "mine.py"), "/else/yours.py"],
    }  # fmt: skip
    assert overrides_of(_parser().parse_args([])) is None


def test_a_dry_run_finds_a_bad_notebook(tmp_path: Path, capsys: Any) -> None:
    write_notebook(tmp_path / "note books", "01_a", parameters=())
    assert main(options(tmp_path, "--dry-run")) == 2
    assert "01_a.ipynb has 0 cells tagged 'parameters'" in capsys.readouterr().out


# --- what goes wrong while it runs ------------------------------------------------------------------------------------


def test_every_way_to_fail_is_said_and_the_others_go_on(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "note books"
    write_notebook(folder, "01_exit", "import sys; sys.exit(0)", "x = 1")
    write_notebook(folder, "02_dies", "print('before')", "import os; os._exit(0)", "x = 1")
    write_notebook(folder, "03_raises", "1 / 0", "x = 1")
    write_notebook(folder, "04_promises", "x = 1", figures=["04_a", "04_b"])
    write_good(folder)
    stale = tmp_path / "figures" / "tiny"
    stale.mkdir(parents=True)
    for suffix in ("png", "pdf", "csv", "json"):
        (stale / f"04_a.{suffix}").write_text("of an earlier run")
    earlier = tmp_path / "runs" / "tiny" / "notebooks" / "03_raises.ipynb"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of an earlier run")

    assert main(options(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "code cell 3 and those after it were not executed" in out
    assert "the kernel died in code cell 3: it ran out of memory" in out
    assert "code cell 2 (`1 / 0`) raised ZeroDivisionError: division by zero" in out
    assert "promised and not made: 04_b.png, 04_b.pdf, 04_b.csv, 04_b.json" in out
    failed = [f"{name}.failed.ipynb" for name in ("01_exit", "02_dies", "03_raises", "04_promises")]
    assert executed(tmp_path) == [*failed, "07_good.ipynb"]
    assert f"  | {sys.executable} 0 1 1\n" in out, "this interpreter, with a fixed hash seed, offline, one thread"
    assert "1 of 5 notebooks complete" in out
    table = [line.split()[:2] for line in out.partition("notebook  ")[2].splitlines()[1:6]]
    assert table == [[name[:-13], "failed"] for name in failed] + [["07_good", "done"]]
    assert set(json.loads((tmp_path / "runs" / "tiny" / "times.json").read_text())) == {"07_good"}

    for suffix in ("png", "pdf", "csv", "json"):
        (stale / f"04_b.{suffix}").write_text("of an earlier run")
    assert main(options(tmp_path, "--only", "04")) == 1
    assert "left from an earlier run: 04_a.png" in capsys.readouterr().out


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_rows(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for base in (whole, killed):
        write_good(base / "note books")
    assert main(options(whole)) == 0

    (killed / "note books" / "wait").touch()
    kill_half_way(killed)
    assert executed(killed) == ["07_good.partial.ipynb"] and not (killed / "figures" / "tiny" / "07_good.csv").exists()
    (killed / "note books" / "wait").unlink()
    capsys.readouterr()
    assert main(options(killed)) == 0
    assert "  | first: from the cache (" in capsys.readouterr().out
    assert calls(whole) == ["first", "second"] and calls(killed) == ["first", "second", "second"]
    assert executed(killed) == ["07_good.ipynb"]
    assert pictures_shown(killed / "runs" / "tiny" / "notebooks" / "07_good.ipynb") == 1
    rows = [(base / "figures" / "tiny" / "07_good.csv").read_bytes() for base in (whole, killed)]
    assert rows[0] == rows[1] and len(pd.read_csv(whole / "figures" / "tiny" / "07_good.csv")) == 5

    # what is left to do then: pictures alone, to the bit as the notebook's kernel drew them, and everything by force
    stages = {}
    exec(STAGES, stages)
    monkeypatch.setattr(plots, "tiny_plot", stages["tiny_plot"], raising=False)
    pictures = {path: path.read_bytes() for path in (whole / "figures" / "tiny").iterdir()}
    assert main(options(whole, "--figures-only")) == 0
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert main(options(whole, "--force")) == 0
    assert calls(whole) == ["first", "second"] * 2


def pictures_shown(path: Path) -> int:
    cells = nbformat.read(path, as_version=4).cells
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


def kill_half_way(base: Path) -> None:
    """Start the runner on its own, wait until the second stage is under way, and kill it and its kernel."""
    command = [sys.executable, "-m", "helpers.reproduce", *options(base)]
    with open(base / "log", "w") as log:
        runner = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    pid, deadline = base / "note books" / "pid", time.monotonic() + 120
    while not pid.exists() and runner.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    runner.kill()
    assert runner.wait() == -signal.SIGKILL, "the runner ended before it could be killed"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert "07_good: started\n  | first: 0." in (base / "log").read_text(), "progress is said as it happens"


def test_a_trial_has_folders_of_its_own_and_says_what_was_changed(tmp_path: Path) -> None:
    write_good(tmp_path / "note books")
    assert main(options(tmp_path, "--limit", "8", "--set", "texts.forget_file=/some/where/text.jsonl")) == 0
    record = json.loads((tmp_path / "figures" / "tiny+changed" / "07_good.json").read_text())
    assert record["facts"]["overrides"] == {"questions.limit": 8, "texts.forget_file": "text.jsonl"}
    assert (record["settings"]["questions"]["limit"], record["settings"]["texts"]["forget_file"]) == (8, "text.jsonl")
    assert not (tmp_path / "figures" / "tiny").exists() and not (tmp_path / "runs" / "tiny").exists()


def test_how_it_is_computed_is_no_trial_and_a_method_of_ones_own_is(tmp_path: Path, capsys: Any) -> None:
    write_good(tmp_path / "note books")
    guide = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    (tmp_path / "mine_too.py").write_text(guide.partition("```python\n")[2].partition("```")[0])
    (tmp_path / "no_python.py").write_text("a method")
    assert main(options(tmp_path, "--dry-run", "--jobs", "2", "--scheduler", "tcp://host:8786")) == 0
    assert str(tmp_path / "figures" / "tiny") + "\n" in capsys.readouterr().out
    assert main(options(tmp_path, "--dry-run", "--method", str(tmp_path / "mine_too.py"))) == 0
    assert str(tmp_path / "figures" / "tiny+changed") + "\n" in capsys.readouterr().out
    assert main(options(tmp_path, "--dry-run", "--method", str(tmp_path / "no_python.py"))) == 2
    assert capsys.readouterr().out.strip().endswith("error: no_python.py, line 1: invalid syntax")
