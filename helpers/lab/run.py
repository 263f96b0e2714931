"""The workbench of a notebook: a profile, cached stages, and figures with the rows and the record behind them.

    run = start(profile, "03_multi_feature_pareto", runs, figures)
    table = run.stage("pareto", pareto_table, model, sae, questions, settings)
    run.save_figure("03_pareto", table, plots.pareto)

Nothing here imports torch, so that `redraw` makes every picture from its CSV on a machine without a model.
"""

import importlib
import inspect
import io
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from helpers.profiles import load_profile, run_name
from helpers.records import provenance
from helpers.records.store import Store, code_fingerprint, fingerprint, write_atomically

# helpers.report.plots.style.SHEET, by its path, since this module does not reach the plots
SHEET = provenance.ROOT / "helpers" / "report" / "plots" / "house.mplstyle"
SUFFIXES = (".png", ".pdf", ".csv", ".json")
Draw = Callable[[pd.DataFrame], Figure]

log = logging.getLogger(__name__)


class Run:
    """One notebook's run under one profile; made by `start`.

    Attributes:
        profile: the loaded profile, as it is for this notebook, overrides included.
        notebook: the notebook's name, 'NN_name'.
        figures: the folder its figures go to.
    """

    def __init__(
        self, profile: str, notebook: str, runs: Path, figures: Path, overrides: Mapping[str, Any] | None = None
    ) -> None:
        if not re.fullmatch(r"\d\d_\w+", notebook):
            raise ValueError(f"notebook name {notebook!r}: two digits, '_' and a name are needed, as in '03_pareto'")
        folder = run_name(profile, overrides)
        self.profile = load_profile(profile, overrides, notebook[:2])
        self.notebook = notebook
        self.figures = figures / folder
        self._store = Store(runs / folder / "stages")
        self._facts: dict[str, Any] = {"overrides": provenance.without_folders(overrides)} if overrides else {}
        self._stages: dict[str, dict[str, Any]] = {}

    def stage(self, name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """`function(*args, **kwargs)`, from the cache where arguments, code, packages and kind of device are the same.

        Returns:
            the function's DataFrame, dict of arrays or tensors, or JSON value, as read from disk (tensors on the CPU).

        Raises:
            TypeError: an argument that cannot be fingerprinted, or a result that cannot be stored.
        """
        key = _key(function, args, kwargs, self.profile.model.device)
        stage = self._store.stage(name, lambda: function(*args, **kwargs), key)
        made = f"from the cache ({stage.seconds:.1f} s when made)" if stage.cached else f"{stage.seconds:.1f} s"
        log.info("%s: %s", name, made)
        # one stage may be called for several settings: its seconds add up
        before = self._stages.get(name, {"seconds": 0.0, "cached": True})
        self._stages[name] = {
            "seconds": round(before["seconds"] + stage.seconds, 3),
            "cached": before["cached"] and stage.cached,
        }
        return stage.result

    def note(self, **facts: Any) -> None:
        """Add facts (revisions, prompt hash, seeds, numbers of questions) to the record of every later figure."""
        provenance.check_facts(facts)
        self._facts |= facts

    def record(self) -> dict[str, Any]:
        """What made this run's results so far: commit, versions, settings, facts noted, stages, machine."""
        return provenance.record(self.profile, self._facts, self._stages)

    def save_figure(self, name: str, table: pd.DataFrame, draw: Draw) -> Figure:
        """Write the table as `<name>.csv`, draw it from that file alone, and write picture and record beside it.

        Args:
            name: begins with the notebook's number, as in '03_pareto'.
            table: tidy rows of numbers, truth values and text.
            draw: a function of `helpers.report.plots`, by whose name the figure is redrawn later.

        Returns:
            the figure, closed in pyplot, so that a notebook shows it once.

        Raises:
            ValueError: a name of another notebook, an empty table, a column that CSV would change, a foreign function.
        """
        self._check_figure(name, table, draw)
        kinds = {column: _kind(values) for column, values in table.items()}
        path = self.figures / f"{name}.csv"
        write_atomically(path, lambda file: _write_csv(table, file))
        facts = {"notebook": self.notebook, "drawn_by": draw.__name__, "rows": len(table), "columns": kinds}
        record = facts | self.record()
        figure = _draw(path, kinds, draw)
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(path.with_suffix(".json"), lambda file: file.write_text(text, encoding="utf-8"))
        return figure

    def _check_figure(self, name: str, table: pd.DataFrame, draw: Draw) -> None:
        if not re.fullmatch(rf"{self.notebook[:2]}_\w+", name):
            raise ValueError(f"figure name {name!r}: notebook {self.notebook} makes figures '{self.notebook[:2]}_...'")
        if table.empty:
            raise ValueError(f"figure {name}: the table has no rows")
        if _plot(getattr(draw, "__name__", repr(draw))) is not draw:
            raise ValueError(
                f"figure {name}: {draw!r} is no function of helpers.report.plots, and could not be redrawn"
            )


def start(
    profile: str,
    notebook: str,
    runs: str | None = None,
    figures: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Open a notebook's run, and show its progress as lines of text.

    Args:
        profile: a profile's name, as in 'tiny'.
        notebook: the notebook's own name, as in '03_multi_feature_pareto'.
        runs: folder for cached stages, default `runs` in the repository; the profile's name is added to it.
        figures: folder for figures, default `figures` in the repository; the profile's name is added to it.
        overrides: settings that differ from the profile's, by dotted key, as in {"questions.limit": 8}; what they
            change goes to folders of its own (`run_name`).
    """
    show_progress()
    root = provenance.ROOT
    return Run(profile, notebook, Path(runs or root / "runs"), Path(figures or root / "figures"), overrides)


def show_progress() -> None:
    """Print what this package logs, one line each, flushed: no bars, for notebooks and log files alike."""
    package = logging.getLogger("helpers")
    package.setLevel(logging.INFO)
    if not any(isinstance(handler, _Printer) for handler in package.handlers):
        package.addHandler(_Printer())


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def redraw(folder: Path) -> list[Path]:
    """Draw every figure in a folder again from its CSV, by the function of `helpers.report.plots` that its JSON names.

    Returns:
        the pictures written.

    Raises:
        FileNotFoundError: no figure at all, or a CSV without its JSON or the other way round.
        ValueError: a JSON that is no figure's record, or names a function that `helpers.report.plots` has not.
    """
    written = []
    for csv, record in [(csv, _figure_record(csv)) for csv in _figures(folder)]:
        plt.close(_draw(csv, record["columns"], _plot(record["drawn_by"])))
        written += [csv.with_suffix(".png"), csv.with_suffix(".pdf")]
    return written


def _figures(folder: Path) -> list[Path]:
    found = {suffix: {path.stem for path in folder.glob(f"*{suffix}")} for suffix in (".csv", ".json")}
    for stem in sorted(found[".csv"] ^ found[".json"]):
        has, lacks = (".csv", ".json") if stem in found[".csv"] else (".json", ".csv")
        raise FileNotFoundError(f"{folder}: {stem}{has} has no {stem}{lacks} beside it; make it anew or remove it")
    if not found[".csv"]:
        raise FileNotFoundError(f"{folder} holds no figure to redraw; make them first: python -m helpers.reproduce")
    return [folder / f"{stem}.csv" for stem in sorted(found[".csv"])]


def _figure_record(csv: Path) -> dict[str, Any]:
    path = csv.with_suffix(".json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        name, _ = record["drawn_by"], record["columns"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a figure ({error!r}); make the figure anew") from None
    if _plot(name) is None:
        raise ValueError(f"{path}: drawn_by names {name!r}, which helpers.report.plots has not; make the figure anew")
    return record


def _plot(name: str) -> Draw | None:
    # by name, so that what imports this module does not reach the plots: a stage must not depend on how it is drawn
    return getattr(importlib.import_module("helpers.report.plots"), name, None)


def _draw(csv: Path, kinds: Mapping[str, str], draw: Draw) -> Figure:
    """Draw from the CSV under the house style alone, so that a notebook's settings leave no trace, and save."""
    with matplotlib.rc_context(), plt.style.context(["default", SHEET]):
        figure = draw(_read_csv(csv, kinds))
        if not isinstance(figure, Figure):
            raise TypeError(
                f"helpers.report.plots.{draw.__name__} returned {type(figure).__name__}, a Figure is needed"
            )
        # no time and no version in the files: identical rows give identical bytes
        _save(figure, csv.with_suffix(".png"), dpi=150, metadata={"Software": None})
        _save(figure, csv.with_suffix(".pdf"), metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
    plt.close(figure)
    return figure


def _save(figure: Figure, path: Path, **options: Any) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], **options)
    write_atomically(path, lambda file: file.write_bytes(picture.getvalue()))


def _kind(values: pd.Series) -> str:
    kinds = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}
    if pd.api.types.is_string_dtype(values.dtype) and all(isinstance(value, str) for value in values):
        return "str"
    if values.dtype.kind in kinds and not pd.api.types.is_extension_array_dtype(values.dtype):
        return kinds[values.dtype.kind]
    raise ValueError(
        f"column {values.name!r} ({values.dtype}) would come back from a CSV as something else; "
        "numbers, truth values, or text without missing values can be drawn"
    )


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def _read_csv(path: Path, kinds: Mapping[str, str]) -> pd.DataFrame:
    # only an empty number is missing: the token "nan" stays a token, and empty text stays empty text
    numbers = {column: [""] for column, kind in kinds.items() if kind != "str"}
    return pd.read_csv(path, dtype=dict(kinds), keep_default_na=False, na_values=numbers)


def _key(function: Callable, args: tuple, kwargs: Mapping[str, Any], device: str) -> dict[str, str]:
    """What a stage depends on; an argument's name stands for it in the log, and none has a space in it."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    key = {name: _argument(function, name, value) for name, value in bound.arguments.items()}
    packages = provenance.versions(provenance.NUMERIC_PACKAGES)
    return key | {
        "the function": fingerprint(function),
        "the code": code_fingerprint(function),
        "the packages": fingerprint(packages),
        "the device": provenance.device_type() if device == "auto" else device.partition(":")[0],
    }


def _argument(function: Callable, name: str, value: object) -> str:
    try:
        return fingerprint(value)
    except TypeError as error:
        raise TypeError(f"argument {name!r} of {function.__qualname__}: {error}") from None
