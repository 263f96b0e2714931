"""Work in small pieces for whichever process is free: this one, several on this machine, or workers of a cluster.

A piece carries names and plain values, never a model: a worker opens its own lab once and keeps it. What a piece gives
does not depend on who computes it, so one process, several, and a cluster end with the same rows.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import process_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from helpers.lab.forks import DEATHS, can_fork, forked
from helpers.methods.method import Method
from helpers.profiles import load_profile

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

# Starting a worker and opening its lab takes about as long; for less work none is started. A fork is there at once.
WORTH_SECONDS = 15.0
WORTH_A_FORK = 1.0
CLUSTER_PATIENCE = 120  # seconds until a cluster must have its first worker

log = logging.getLogger(__name__)


class PieceError(RuntimeError):
    """Pieces that could not be computed; the message says which and why. All others are stored."""


@dataclass(frozen=True)
class Place:
    """All that a worker needs to open the same lab: its arguments, the overrides as JSON."""

    profile: str
    notebook: str
    runs: str | None
    figures: str | None
    overrides: str
    published_features: bool


@dataclass(frozen=True)
class Piece:
    """Some results of one kind that are computed together.

    Attributes:
        words: what it is, in progress and in errors.
        stage: the name under which its results are stored.
        keys: of each of its results.
        compute: a function of a module of this package, called as `compute(lab, *args)`; it returns the results.
        args: plain values, and methods' settings.
    """

    words: str
    stage: str
    keys: tuple[Mapping[str, str], ...]
    compute: Callable[..., list]
    args: tuple = field(default=())


@dataclass(frozen=True)
class Named:
    """A method's setting by names, for a process that has not yet loaded the file that defines it."""

    module: str
    name: str
    values: tuple[tuple[str, Any], ...]

    def resolved(self) -> Method:
        """The setting itself. The worker's lab has loaded its method, ours or one's own."""
        return getattr(importlib.import_module(self.module), self.name)(**dict(self.values))


@dataclass(frozen=True)
class Computed:
    """What became of a piece: its results, or why there are none."""

    number: int
    results: list
    seconds: float
    fault: str = ""


def spread(
    lab: Lab, place: Place, pieces: Sequence[Piece], jobs: int, scheduler: str, dear: bool
) -> Iterator[Computed]:
    """The pieces computed, as they are finished; one that raises does not stop the others.

    Args:
        lab: this process's own, for what is computed here.
        place: where a worker opens the same.
        jobs: processes on this machine, if more than one: forks of this one where it can be forked (`can_fork`).
        scheduler: address of a dask scheduler whose workers take the pieces instead, '' for none.
        dear: each piece takes long, so workers are started at once, and what trains is begun first, lest a process wait
            for a last training; otherwise the first ones are computed here until it shows that what is left takes
            longer than starting workers does.
    """
    forks = not scheduler and can_fork(lab.model.device)
    away = [number for number, piece in enumerate(pieces) if forks or all(map(_travels, piece.args))]
    for number in sorted(set(range(len(pieces))) - set(away)):
        yield _here(lab, number, pieces[number])
    if dear:
        away.sort(key=lambda number: not _trains(pieces[number]))
    worth = WORTH_A_FORK if forks else WORTH_SECONDS
    while away and not scheduler and (jobs == 1 or len(away) == 1 or not dear):
        done = _here(lab, away[0], pieces[away[0]])
        away = away[1:]
        yield done
        dear = dear or done.seconds * len(away) > worth
    if away and forks:
        yield from forked(lambda number: _here(lab, number, pieces[number]), away, min(jobs, len(away)))
    elif away:
        yield from _elsewhere(place, {number: _packed(pieces[number]) for number in away}, jobs, scheduler)


def _here(lab: Lab, number: int, piece: Piece) -> Computed:
    return _timed(number, lambda: piece.compute(lab, *piece.args))


def _timed(number: int, compute: Callable[[], list]) -> Computed:
    start = time.perf_counter()
    try:
        results, fault = compute(), ""
    except Exception as error:
        results, fault = [], "".join(traceback.format_exception_only(error)).strip()
        log.debug("%s", traceback.format_exc())
    return Computed(number, results, time.perf_counter() - start, fault)


# --- other processes --------------------------------------------------------------------------------------------------


def _elsewhere(
    place: Place, waiting: dict[int, tuple[Callable, tuple]], jobs: int, scheduler: str
) -> Iterator[Computed]:
    """Pieces computed by other processes; those of a process that died are given to the ones that take its place."""
    deaths = 0
    while waiting:
        try:
            for done in _workers(place, waiting, jobs, scheduler):
                del waiting[done.number]
                deaths = 0
                yield done
        except TerminatedWorkerError:
            deaths += 1
            if deaths == DEATHS:
                raise
            log.warning("a worker process was killed; the %d pieces that are left go to new ones", len(waiting))


def _workers(
    place: Place, waiting: Mapping[int, tuple[Callable, tuple]], jobs: int, scheduler: str
) -> Iterator[Computed]:
    calls = [delayed(_away)(place, number, *packed) for number, packed in waiting.items()]
    options: dict[str, Any] = {"backend": "loky", "n_jobs": min(jobs, len(calls))}
    if scheduler:
        options = {"backend": "dask", "scheduler_host": scheduler, "wait_for_workers_timeout": CLUSTER_PATIENCE}
    with parallel_config(**options):
        # one at a time: a piece is long, and a batch of several would wait for its last
        yield from Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")(calls)


def _away(place: Place, number: int, compute: Callable[..., list], args: tuple) -> Computed:
    """In a worker: the piece in this process's own lab."""
    return _timed(number, lambda: compute(_opened(place), *(_unpacked(arg, place) for arg in args)))


@lru_cache(maxsize=1)
def _opened(place: Place) -> Lab:
    """The worker's lab, opened once; a worker that is asked from another place lets the former go."""
    from helpers.lab.lab import Lab  # which imports this module

    # loky ends a process that has grown by 300 MB since its first piece: a lab does so by design, when it keeps
    # residuals, and opening another would cost more than any piece
    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    overrides = json.loads(place.overrides) or {}
    named = load_profile(place.profile, overrides, place.notebook[:2]).model.device
    overrides["model.device"] = own_device(named, current_process().name)
    overrides |= {"compute.jobs": 1, "compute.scheduler": ""}  # what it needs beside its piece it computes itself
    return Lab(place.profile, place.notebook, place.runs, place.figures, overrides, place.published_features)


def own_device(device: str, process: str) -> str:
    """The device of a worker: of several GPUs each process takes its own, by the number at the end of its name."""
    import torch

    gpus, number = torch.cuda.device_count(), re.search(r"\d+$", process)
    if device not in ("auto", "cuda") or gpus < 2 or number is None:
        return device
    return f"cuda:{(int(number[0]) - 1) % gpus}"


def jobs_of(jobs: int, device: str) -> int:
    """How many processes: as many as are asked for; 0 is one a core it may use, or where a GPU computes one a GPU."""
    if jobs:
        return jobs
    import torch

    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return max(1, torch.cuda.device_count()) if on_gpu else cpu_count()


# --- settings on their way --------------------------------------------------------------------------------------------


def _trains(piece: Piece) -> bool:
    return any(isinstance(arg, Method) and arg.trains for arg in piece.args)


def _travels(arg: Any) -> bool:
    """Whether another process can make the value from names.

    A method defined in a notebook is known there alone, and a function stands for a call with models and the like.
    """
    return not callable(arg) and (not isinstance(arg, Method) or type(arg).__module__ != "__main__")


def _packed(piece: Piece) -> tuple[Callable[..., list], tuple]:
    return piece.compute, tuple(_by_names(arg) if isinstance(arg, Method) else arg for arg in piece.args)


def _by_names(setting: Method) -> Named:
    values = tuple((f.name, getattr(setting, f.name)) for f in fields(setting))
    return Named(type(setting).__module__, type(setting).__qualname__, values)


def _unpacked(arg: Any, place: Place) -> Any:
    _opened(place)  # before the setting is made, for it may be of a method in a file that the lab loads
    return arg.resolved() if isinstance(arg, Named) else arg
