"""Run every notebook and make every figure: `python -m helpers.reproduce --profile tiny`.

Papermill runs the notebooks in name order. What papermill lets pass is an error here: a parameter that the notebook
does not know or of another type, a missing or second `parameters` cell, cells that were not executed, a dead kernel, a
figure that was promised and not made. An executed notebook gets its name only when it is complete.
"""

import argparse
import ast
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers.loading.sources import needed
from helpers.profiles import Profile, available_profiles, load_profile, run_name, settings_in_words
from helpers.records.progress import show_progress
from helpers.records.provenance import FIGURE_FILES, ROOT
from helpers.records.store import write_atomically

TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (float, int),
    "bool": bool,
    "list": list,
    "dict": dict,
    "None": type(None),
}

log = logging.getLogger("helpers.reproduce")  # by name: this module is __main__ when it is run


class NotebookError(Exception):
    """A notebook that cannot be run, or did not run to its end; the message says which, where and why."""


@dataclass(frozen=True)
class Notebook:
    """A notebook of the folder.

    Attributes:
        figures: those that it promises.
        minutes: that it takes, by profile.
        needs: what else it needs, in words.
        published_features: whether it goes on with published features where the forget text cannot be had.
    """

    path: Path
    figures: tuple[str, ...]
    minutes: Mapping[str, float]
    needs: tuple[str, ...]
    published_features: bool

    @property
    def name(self) -> str:
        """The file's name without its ending, as in '03_multi_feature_pareto'."""
        return self.path.stem


@dataclass(frozen=True)
class Folders:
    """Where one profile's runs and figures go, and the base folders (as given to the notebooks) they lie in."""

    profile: str
    runs_base: Path
    figures_base: Path
    overrides: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The profile's name, marked where overrides change its settings."""
        return run_name(self.profile, self.overrides)

    @property
    def runs(self) -> Path:
        """The profile's cached stages, executed notebooks and record of times."""
        return self.runs_base / self.name

    @property
    def figures(self) -> Path:
        """The profile's figures."""
        return self.figures_base / self.name


@dataclass(frozen=True)
class Outcome:
    """How one notebook's run ended; `error` is None when it is complete."""

    notebook: str
    seconds: float
    figures: tuple[str, ...]
    error: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when all was done, 1 when a notebook failed, 2 when the request makes no sense."""
    options = _parser().parse_args(arguments)
    show_progress()
    try:
        return _carry_out(options)
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (NotebookError, ValueError, OSError) as error:
        log.error("error: %s", error)
        return 2


def _parser() -> argparse.ArgumentParser:
    description = "Run the notebooks and make the figures."
    parser = argparse.ArgumentParser(prog="python -m helpers.reproduce", description=description)
    parser.add_argument("--profile", default="tiny", help=f"one of: {', '.join(available_profiles())} (default: tiny)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers or names of the notebooks to run")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="TABLE.KEY=VALUE", help="settings to change"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="a trial with N known questions of each subject")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: as the profile says)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes that share the work (default: one a core or GPU)"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a dask scheduler whose workers share it: tcp://host:8786"
    )
    parser.add_argument("--method", nargs="+", metavar="FILE", help="files with methods of your own, shown beside ours")
    parser.add_argument("--show-text", action="store_true", help="show the words of hazardous questions and texts")
    parser.add_argument("--list", action="store_true", help="list notebooks, times and figures, and stop")
    parser.add_argument("--dry-run", action="store_true", help="check everything and say what would be done, and stop")
    parser.add_argument("--figures-only", action="store_true", help="redraw every figure from its CSV, without a model")
    parser.add_argument("--force", action="store_true", help="forget the profile's cached stages first")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder for stages and executed notebooks")
    parser.add_argument("--figures", type=Path, default=ROOT / "figures", help="folder for figures")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of the notebooks")
    return parser


def _carry_out(options: argparse.Namespace) -> int:
    overrides = overrides_of(options)
    profile = load_profile(options.profile, overrides)
    folders = Folders(profile.name, options.runs.resolve(), options.figures.resolve(), overrides)
    if options.figures_only:
        return _redraw(folders.figures)
    check_device(profile.model.device)
    check_own_methods(profile)
    notebooks = served(choose(find_notebooks(options.notebooks), options.only), profile, bool(options.only))
    for version in (load_profile(profile.name, overrides, notebook.name[:2]) for notebook in notebooks):
        needed(version)  # what it loads is known, or said now
        check_tables(version, overrides or {})
    for line in plan(notebooks, folders):
        log.info("%s", line)
    if options.list:
        return 0
    for notebook in notebooks:
        check_parameters(notebook.path, _parameters(folders))
    if options.dry_run:
        return 0
    _check_writable(folders)
    if options.force:
        shutil.rmtree(folders.runs / "stages", ignore_errors=True)
    outcomes = [_run_and_say(notebook, profile, folders) for notebook in notebooks]
    for line in summary(outcomes, folders):
        log.info("%s", line)
    return int(any(outcome.error for outcome in outcomes))


def check_device(device: str) -> None:
    """Make sure before any notebook starts that there is CUDA where it is asked for.

    Raises:
        NotebookError: there is none.
    """
    if not device.startswith("cuda"):
        return
    import torch  # takes a second, which runs on the CPU need not wait for

    number, there = device.removeprefix("cuda").removeprefix(":") or "0", torch.cuda.device_count()
    if not number.isdecimal() or int(number) >= there:
        has = f"{there} CUDA devices" if there else "no CUDA device"
        raise NotebookError(f"device {device!r} cannot be used: this machine has {has}; 'auto' takes what is there")


def check_tables(profile: Profile, overrides: Mapping[str, Any]) -> None:
    """Make sure before any notebook starts that the tables of methods and attacks are right, where they are changed.

    Raises:
        NotebookError: a table of a method that there is not.
        ValueError: an attack that there is not, a table with an unknown key, or a value that is not allowed.
    """
    if any(key.startswith(("attack.", "prompt_attacks.")) for key in overrides):
        from helpers.attacks import attacks_of

        attacks_of(profile)
    changed = {key.split(".")[1] for key in overrides if key.startswith("method.")}
    if not changed:
        return
    from helpers.methods import METHODS  # which takes as long as torch, and others need not wait

    for name in sorted(changed & METHODS.keys()):
        METHODS[name].grid(profile)
    unknown = sorted(changed - METHODS.keys())
    if unknown and not profile.own_methods:
        raise NotebookError(f"method {unknown[0]!r} is unknown, the known ones are: {', '.join(METHODS)}")


def check_own_methods(profile: Profile) -> None:
    """Make sure before any notebook starts that methods of one's own can be loaded and have settings.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that holds no method, or one whose grid has no setting.
    """
    if not profile.own_methods:
        return
    from helpers.methods.own import load_own  # which takes as long as torch, and others need not wait

    for name, method in load_own(profile.own_methods).items():
        if not method.grid(profile):
            raise ValueError(f"method {name}: its grid has no setting under profile {profile.name}")


def overrides_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """Settings given on the command line, by dotted key; None where there are none.

    Raises:
        ValueError: an argument of `--set` without '='.
    """
    given = {"questions.limit": options.limit, "model.device": options.device}
    given |= {"compute.jobs": options.jobs, "compute.scheduler": options.scheduler}
    given |= {"own_methods": [str(Path(file).resolve()) for file in options.method] if options.method else None}
    given |= {"questions.show_text": True if options.show_text else None}
    given |= settings_in_words(options.set)
    return {key: value for key, value in given.items() if value is not None} or None


def _redraw(figures: Path) -> int:
    # imported here, for plots know methods and with them torch, which --list need not wait for
    from helpers.report.figures import redraw

    pictures = redraw(figures)
    for picture in pictures:
        log.info("redrawn: %s", picture)
    log.info("%d pictures redrawn in %s", len(pictures), figures)
    return 0


# --- which notebooks --------------------------------------------------------------------------------------------------


def find_notebooks(folder: Path) -> tuple[Notebook, ...]:
    """The notebooks of a folder in name order.

    Raises:
        NotebookError: there is none, or one is not a notebook, or promises figures that do not carry its number.
    """
    paths = sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))
    if not paths:
        raise NotebookError(f"no notebook in {folder}; give their folder with --notebooks")
    return tuple(_notebook(path) for path in paths)


def _notebook(path: Path) -> Notebook:
    content = _read(path)
    about, sources = content["metadata"].get("reproduce", {}), [cell["source"] for cell in content["cells"]]
    figures = tuple(about.get("figures", ()))
    wrong = [name for name in figures if not name.startswith(path.stem[:3])]
    if wrong:
        raise NotebookError(f"{path.name} promises {', '.join(wrong)}; its figures begin with {path.stem[:3]!r}")
    published = any("published_features=True" in source for source in sources)
    minutes, needs = dict(about.get("minutes", {})), tuple(about.get("needs", ()))
    return Notebook(path.resolve(), figures, minutes, needs, published)


def _read(path: Path) -> dict[str, Any]:
    """A notebook as JSON, each cell's source as one text; nbformat takes seconds to import, and adds nothing here."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"]]
        return {"metadata": notebook["metadata"], "cells": cells}
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{path.name} is not a notebook: {error!r}") from None


def choose(notebooks: Sequence[Notebook], only: Sequence[str]) -> tuple[Notebook, ...]:
    """The notebooks whose number or name was asked for, in name order; all of them when nothing was.

    Raises:
        NotebookError: one that was asked for is unknown (the known ones are listed).
    """
    for wanted in only:
        if not any(wanted in _names(notebook) for notebook in notebooks):
            known = ", ".join(notebook.name for notebook in notebooks)
            raise NotebookError(f"notebook {wanted!r} is unknown, the known ones are: {known}")
    return tuple(notebook for notebook in notebooks if not only or set(only) & _names(notebook))


def served(notebooks: Sequence[Notebook], profile: Profile, asked_for: bool) -> tuple[Notebook, ...]:
    """The notebooks that the profile serves; of the others it is said that they are left out.

    Raises:
        NotebookError: one that was asked for by name is left out, or none is left.
    """
    left_out = [n for n in notebooks if profile.notebooks and n.name[:2] not in profile.notebooks]
    kept = tuple(notebook for notebook in notebooks if notebook not in left_out)
    names = ", ".join(notebook.name for notebook in left_out)
    if left_out and (asked_for or not kept):
        raise NotebookError(f"profile {profile.name} does not serve {names}; it serves {', '.join(profile.notebooks)}")
    if left_out:
        log.info("profile %s does not serve, and leaves out: %s", profile.name, names)
    return kept


def _names(notebook: Notebook) -> set[str]:
    return {notebook.name, notebook.path.name, notebook.name[:2]}


def plan(notebooks: Sequence[Notebook], folders: Folders) -> list[str]:
    """Lines that say what will be run, about how long it takes, what it needs and makes."""
    times = {notebook.name: _minutes(notebook, folders) for notebook in notebooks}
    known = [minutes for minutes in times.values() if minutes is not None]
    total = f"about {sum(known):.1f} min" if len(known) == len(times) else f"{sum(known):.1f} min and unknown ones"
    lines = [f"{len(notebooks)} notebooks under profile {folders.name} ({total}), figures to {folders.figures}"]
    for notebook in notebooks:
        minutes = "unknown" if times[notebook.name] is None else f"{times[notebook.name]:.1f} min"
        needs = f", needs {', '.join(notebook.needs)}" if notebook.needs else ""
        lines.append(f"  {notebook.name}: {minutes}{needs}, makes {', '.join(notebook.figures) or 'no figure'}")
    return lines


def _minutes(notebook: Notebook, folders: Folders) -> float | None:
    measured = _times(folders).get(notebook.name)
    return notebook.minutes.get(folders.profile, None if measured is None else measured / 60)


def _times(folders: Folders) -> dict[str, float]:
    """Seconds of each notebook's latest complete run under this profile; empty where there is no readable record."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folders.runs / "times.json").read_text()))
    return {}


# --- parameters -------------------------------------------------------------------------------------------------------


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Check values against a notebook's `parameters` cell, which papermill does not.

    Raises:
        NotebookError: no such cell or more than one, something else in it than `name = literal` lines, an unknown name,
            or a value whose type is neither its annotation's nor its default's (a default of None takes text and dict).
    """
    known = _declared(path)
    for name, value in parameters.items():
        if name not in known:
            raise NotebookError(f"{path.name} has no parameter {name!r}, its parameters are: {', '.join(known)}")
        kinds = [TYPES[kind] for kind in known[name]]
        # True is an int to isinstance, yet `n_features = True` is a mistake
        if not any(isinstance(value, kind) for kind in kinds) or (isinstance(value, bool) and bool not in kinds):
            raise NotebookError(f"{path.name}: parameter {name} = {value!r}, allowed is {' or '.join(known[name])}")


def _declared(path: Path) -> dict[str, tuple[str, ...]]:
    """The names of a notebook's parameters, each with the names of the types it takes."""
    cells = [cell for cell in _read(path)["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise NotebookError(f"{path.name} has {len(cells)} cells tagged 'parameters', exactly one is needed")
    try:
        return dict(_declaration(line) for line in ast.parse(cells[0]["source"]).body)
    except (SyntaxError, ValueError) as error:
        raise NotebookError(f"{path.name}: the parameters cell may hold only lines `name = literal`: {error}") from None


def _declaration(line: ast.stmt) -> tuple[str, tuple[str, ...]]:
    match line:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if line.value is not None:
            kinds = tuple(kind.strip().partition("[")[0] for kind in ast.unparse(annotation).split("|"))
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            default = ast.literal_eval(value)
            kinds = ("str", "dict", "None") if default is None else (type(default).__name__,)
        case _:
            raise ValueError(f"`{ast.unparse(line)}`")
    if set(kinds) - set(TYPES):
        raise ValueError(f"`{ast.unparse(line)}` is of type {' | '.join(kinds)}, allowed are {', '.join(TYPES)}")
    return name, kinds


def _parameters(folders: Folders) -> dict[str, Any]:
    bases = {"runs": str(folders.runs_base), "figures": str(folders.figures_base)}
    return {"profile": folders.profile, **bases, "overrides": folders.overrides and dict(folders.overrides)}


# --- running ----------------------------------------------------------------------------------------------------------


def run_notebook(notebook: Notebook, profile: Profile, folders: Folders) -> Outcome:
    """Run one notebook in a fresh kernel of this interpreter and check everything it promised.

    The executed notebook is `runs/<profile>/notebooks/<name>.ipynb` when all went well, `<name>.failed.ipynb` when not,
    and `<name>.partial.ipynb` only while it runs (or after it was killed).
    """
    output = folders.runs / "notebooks" / notebook.path.name
    partial, failed = output.with_suffix(".partial.ipynb"), output.with_suffix(".failed.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    for earlier in (output, partial, failed):
        earlier.unlink(missing_ok=True)
    before, start = _figure_stamps(notebook, folders), time.perf_counter()
    outcome = Outcome(notebook.name, 0.0, notebook.figures)
    try:
        check_parameters(notebook.path, _parameters(folders))
        _execute(notebook, partial, profile, folders)
        _check_executed(partial)
        _check_figures(notebook, folders, before)
        os.replace(partial, output)
    except NotebookError as error:
        if partial.exists():
            os.replace(partial, failed)
        outcome = replace(outcome, error=str(error))
    return replace(outcome, seconds=time.perf_counter() - start)


def _run_and_say(notebook: Notebook, profile: Profile, folders: Folders) -> Outcome:
    log.info("%s: started", notebook.name)
    outcome = run_notebook(notebook, profile, folders)
    if outcome.error:
        log.error("%s: FAILED after %.0f s\n%s", notebook.name, outcome.seconds, _indented(outcome.error))
        return outcome
    log.info("%s: done in %.0f s", notebook.name, outcome.seconds)
    times = json.dumps(_times(folders) | {notebook.name: round(outcome.seconds, 1)}, indent=1)
    write_atomically(folders.runs / "times.json", lambda path: path.write_text(times))
    return outcome


def _execute(notebook: Notebook, output: Path, profile: Profile, folders: Folders) -> None:
    # imported here, for papermill takes a second that --list and --figures-only need not wait
    import papermill
    from nbclient.exceptions import DeadKernelError

    options = {"kernel_name": "python3", "language": "python", "progress_bar": False, "cwd": notebook.path.parent}
    streams = {"stdout_file": _Indented(), "stderr_file": _Indented()}
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        with _kernel_of_this_interpreter(_environment(profile)):
            papermill.execute_notebook(notebook.path, output, _parameters(folders), **options, **streams)
    except papermill.PapermillExecutionError as error:
        # papermill's own parameters cell, the second to be executed, is not in the notebook that the reader has
        place = f"code cell {error.exec_count - 1} (`{error.source.strip().splitlines()[0]}`)"
        raise NotebookError(f"{place} raised {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        advice = "it ran out of memory or was ended from outside; try a smaller profile, then run this again"
        raise NotebookError(f"the kernel died in code cell {_last_started(output)}: {advice}") from error
    except Exception as error:  # no kernel, a folder that vanished, ...: the other notebooks may still go on
        raise NotebookError(f"papermill could not run it: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _kernel_of_this_interpreter(environment: Mapping[str, str]) -> Iterator[None]:
    """A kernel called python3 that is this very interpreter, before any other that Jupyter may know by that name."""
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels" / "python3"
        kernel.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
        spec = {"argv": command, "display_name": "Python 3", "language": "python", "env": dict(environment)}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *([before] if before else [])])
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def _environment(profile: Profile) -> dict[str, str]:
    """What the kernel needs beside the environment it inherits: this package, a fixed hash seed, pictures, silence.

    And where torch has a number of threads, the same for all other libraries, which would take a thread a core in every
    one of the processes that share the cores.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # whatever this process draws with
    # an embedded model loads nothing from the hub, and must not wait for it either
    asked = (profile.model.source, profile.sae.source, profile.questions.source, profile.texts.source)
    offline = {"HF_HUB_OFFLINE": "1"} if {*asked, profile.texts.requests} <= {"organism", ""} else {}
    threads = {"OMP_NUM_THREADS": str(profile.compute.threads)} if profile.compute.threads else {}
    fixed = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONHASHSEED": "0"}
    return {**fixed, **inline, **quiet, **offline, **threads}


class _Indented:
    """A stream that repeats what a notebook prints in this log, each line indented below the notebook's name."""

    def write(self, text: str) -> None:
        sys.stdout.write("".join(f"  | {line}\n" for line in text.splitlines() if line.strip()))

    def flush(self) -> None:
        sys.stdout.flush()


def _check_executed(path: Path) -> None:
    """Papermill takes a kernel that stopped of its own will (sys.exit) for success; the cells tell otherwise."""
    for number, cell in enumerate(_code_cells(path), start=1):
        if cell["execution_count"] is None:
            raise NotebookError(f"code cell {number} and those after it were not executed: the kernel was stopped")


def _last_started(path: Path) -> str:
    started = [cell for cell in _code_cells(path) if cell["metadata"].get("papermill", {}).get("start_time")]
    return str(len(started)) if started else "unknown"


def _code_cells(path: Path) -> list[dict[str, Any]]:
    """The cells that have code, without the one papermill adds, so that they count as in the notebook's source."""
    cells = [cell for cell in _read(path)["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]
    return [cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", ())]


def _check_figures(notebook: Notebook, folders: Folders, before: Mapping[str, tuple[int, int] | None]) -> None:
    after = _figure_stamps(notebook, folders)
    missing = [name for name in after if after[name] is None]
    stale = [name for name in after if after[name] is not None and after[name] == before[name]]
    if missing:
        raise NotebookError(f"promised and not made: {', '.join(missing)} (in {folders.figures})")
    if stale:
        raise NotebookError(f"promised and left from an earlier run: {', '.join(stale)} (in {folders.figures})")


def _figure_stamps(notebook: Notebook, folders: Folders) -> dict[str, tuple[int, int] | None]:
    """Time and identity of each promised file, None where there is none; a file written anew has another stamp."""
    paths = [folders.figures / f"{name}{suffix}" for name in notebook.figures for suffix in FIGURE_FILES]
    stamps = {path.name: path.stat() if path.is_file() else None for path in paths}
    return {name: stat and (stat.st_mtime_ns, stat.st_ino) for name, stat in stamps.items()}


def _check_writable(folders: Folders) -> None:
    for folder in (folders.runs, folders.figures):
        probe = folder / "can_write.txt"
        write_atomically(probe, lambda path: path.write_text(""))
        probe.unlink(missing_ok=True)  # another run may have begun at the same time


# --- what was made ----------------------------------------------------------------------------------------------------


def summary(outcomes: Sequence[Outcome], folders: Folders) -> list[str]:
    """The closing table: notebook, state, seconds, figures."""
    width = max(len(outcome.notebook) for outcome in outcomes)
    lines = ["", f"{'notebook':{width}}  state   seconds  figures"]
    for outcome in outcomes:
        state = "failed" if outcome.error else "done"
        figures = "-" if outcome.error else ", ".join(outcome.figures) or "none"
        lines.append(f"{outcome.notebook:{width}}  {state:6}  {outcome.seconds:7.1f}  {figures}")
    failed = sum(outcome.error is not None for outcome in outcomes)
    lines.append(f"{len(outcomes) - failed} of {len(outcomes)} notebooks complete, figures in {folders.figures}")
    return lines


def _indented(text: str) -> str:
    return "\n".join(f"  ! {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
