"""A notebook's run: its profile, cached stages, and figures with the rows and the record behind them.

    run = start(profile, "03_multi_feature_pareto", runs, figures)
    table = run.stage("firing-rates", feature_statistics, model, sae, rows, batch_tokens)
    run.save_figure("03_pareto", table, plots.pareto)

Nothing here knows a model; `helpers.lab.lab` is a run with one.
"""

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from helpers.profiles import load_profile, run_name
from helpers.records import provenance
from helpers.records.progress import show_progress
from helpers.records.store import Stage, Store, code_fingerprint, fingerprint
from helpers.report.figures import Draw, save_figure

log = logging.getLogger(__name__)


class Run:
    """One notebook's run under one profile; made by `start`.

    Attributes:
        profile: the loaded profile, as it is for this notebook, overrides included.
        notebook: the notebook's name, 'NN_name'.
        figures: the folder its figures go to.
        store: its cached stages.
    """

    def __init__(
        self,
        profile: str,
        notebook: str,
        runs: str | None = None,
        figures: str | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        if not re.fullmatch(r"\d\d_\w+", notebook):
            raise ValueError(f"notebook name {notebook!r}: two digits, '_' and a name are needed, as in '03_pareto'")
        folder, root = run_name(profile, overrides), provenance.ROOT
        self.profile = load_profile(profile, overrides, notebook[:2])
        self.notebook = notebook
        self.figures = Path(figures or root / "figures") / folder
        self.store = Store(Path(runs or root / "runs") / folder / "stages")
        self._facts: dict[str, Any] = {"overrides": provenance.without_folders(overrides)} if overrides else {}
        self._stages: dict[str, dict[str, Any]] = {}
        # fingerprints, by id, of large objects that this run holds and that do not change, and of code, which is loaded
        # once a process: by module, and with all that a function reaches
        self._fingerprints: dict[int, str] = {}
        self._code: dict[str, str | None] = {}
        self._reached: dict[Callable, str] = {}

    def stage(self, name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """`function(*args, **kwargs)`, from the cache where arguments, code, packages and kind of device are the same.

        Returns:
            the function's DataFrame, dict of arrays or tensors, or JSON value, as read from disk (tensors on the CPU).

        Raises:
            TypeError: an argument that cannot be fingerprinted, or a result that cannot be stored.
        """
        stage = self.store.stage(name, lambda: function(*args, **kwargs), self.key(function, *args, **kwargs))
        made = f"from the cache ({stage.seconds:.1f} s when made)" if stage.cached else f"{stage.seconds:.1f} s"
        log.info("%s: %s", name, made)
        return self.seen(stage)

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage took when it was made, here or before; several results of one name added up."""
        return {name: stage["seconds"] for name, stage in self._stages.items()}

    def seen(self, stage: Stage) -> Any:
        """A stage's result, with the stage noted in the record; one called for several settings adds up its seconds."""
        before = self._stages.get(stage.name, {"seconds": 0.0, "cached": True})
        self._stages[stage.name] = {
            "seconds": round(before["seconds"] + stage.seconds, 3),
            "cached": before["cached"] and stage.cached,
        }
        return stage.result

    def key(self, function: Callable, *args: Any, **kwargs: Any) -> dict[str, str]:
        """What a stage depends on; an argument's name stands for it in the log, and none has a space in it."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        key = {name: self._argument(function, name, value) for name, value in bound.arguments.items()}
        device = self.profile.model.device
        if function not in self._reached:
            self._reached[function] = code_fingerprint(function)
        return key | {
            "the function": self.fingerprint(function),
            "the code": self._reached[function],
            "the packages": self._packages,
            "the device": provenance.device_type() if device == "auto" else device.partition(":")[0],
            "the threads": str(self.profile.compute.threads),
        }

    @cached_property
    def _packages(self) -> str:
        return fingerprint(provenance.versions(provenance.NUMERIC_PACKAGES))

    def _argument(self, function: Callable, name: str, value: object) -> str:
        try:
            return self.fingerprint(value)
        except TypeError as error:
            raise TypeError(f"argument {name!r} of {function.__qualname__}: {error}") from None

    def fingerprint(self, value: object) -> str:
        """`store.fingerprint` of a value; what `unchanging` was told of is not hashed again."""
        return fingerprint(value, self._fingerprints, self._code)

    def unchanging(self, value: object) -> None:
        """Remember the fingerprint of a large object that this run holds to its end and that does not change."""
        if id(value) not in self._fingerprints:  # or the second time it would be the fingerprint of the fingerprint
            self._fingerprints[id(value)] = self.fingerprint(value)

    def note(self, **facts: Any) -> None:
        """Add facts (revisions, prompt hash, seeds, numbers of questions) to the record of every later figure."""
        provenance.check_facts(facts)
        self._facts |= facts

    def warn(self, words: str) -> None:
        """Say something that a reader of the figures must know, in the log and in the record of every later figure."""
        warnings = self._facts.get("warnings", [])
        if words not in warnings:
            log.warning("warning: %s", words)
            self.note(warnings=[*warnings, words])

    def record(self) -> dict[str, Any]:
        """What made this run's results so far: commit, versions, settings, facts noted, stages, machine."""
        return provenance.record(self.profile, self._facts, self._stages)

    def save_figure(self, name: str, table: pd.DataFrame, draw: Draw) -> Figure:
        """Write rows, picture and record of a figure (`report.figures.save_figure`) to this notebook's folder.

        Args:
            name: begins with the notebook's number, as in '03_pareto'.

        Raises:
            ValueError: a name of another notebook, and what `report.figures.save_figure` refuses.
        """
        if not re.fullmatch(rf"{self.notebook[:2]}_\w+", name):
            raise ValueError(f"figure name {name!r}: notebook {self.notebook} makes figures '{self.notebook[:2]}_...'")
        return save_figure(self.figures, name, table, draw, {"notebook": self.notebook, **self.record()})


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
    return Run(profile, notebook, runs, figures, overrides)
