"""One process, several, or a cluster, with one of its workers killed: the same rows, and what fails is named."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from helpers.lab.forks import WorkersError
from helpers.lab.lab import Lab
from helpers.lab.pieces import Named, Piece, PieceError, jobs_of, own_device
from helpers.measures.knowledge import knowledge_under
from helpers.methods.dsg import DSG
from helpers.methods.gradient_ascent import GradientAscent
from helpers.methods.rmu import RMU
from helpers.records.provenance import ROOT
from helpers.records.store import fingerprint
from tests import some_pieces

# The embedded model with few texts, questions and settings.
SMALL = {
    "texts.forget_rows": 8, "texts.retain_rows": 16, "texts.neutral_rows": 4, "texts.framed_documents": 16,
    "questions.limit": 3, "selection.n_features": 4,
    "method.static_clamp.n_features": [2, 4], "method.static_clamp.strengths": [2.0, 8.0],
    "method.rmu.layers": [2], "method.rmu.steering": [10.0], "method.rmu.alphas": [3.0, 30.0], "method.rmu.steps": [2],
}  # fmt: skip

pytestmark = pytest.mark.xdist_group("pieces")


def small_lab(folder: Path, **compute: object) -> Lab:
    how = {f"compute.{name}": value for name, value in compute.items()}
    return Lab("tiny", "03_pieces", str(folder / "runs"), str(folder / "figures"), SMALL | how)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> Iterator[str]:
    """Address of a real `dask scheduler` on loopback with two real `dask worker` processes of one thread."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command, folder = [sys.executable, "-m", "dask"], tmp_path_factory.mktemp("dask")
    port = address.rpartition(":")[2]
    started = [["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]]
    started += [["worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]] * 2
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, "env": environment}
    processes = [subprocess.Popen([*command, *arguments], **quiet) for arguments in started]
    yield address
    for process in reversed(processes):
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    """A lab that computes all by itself."""
    return small_lab(tmp_path_factory.mktemp("one"), jobs=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Lab:
    """A lab with two processes that are forked from this one."""
    return small_lab(tmp_path_factory.mktemp("two"), jobs=2)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Lab:
    """Another lab with two processes, for `anew`."""
    return small_lab(tmp_path_factory.mktemp("anew"), jobs=2)


@pytest.fixture
def anew(elsewhere: Lab, monkeypatch) -> Lab:
    """A lab whose two processes are started and not forked, as where there is a GPU."""
    monkeypatch.setattr("helpers.lab.pieces.can_fork", lambda device: False)
    return elsewhere


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, scheduler: str) -> Lab:
    """A lab with two workers of a cluster."""
    return small_lab(tmp_path_factory.mktemp("cluster"), jobs=1, scheduler=scheduler)


def pieces_of(numbers: list[int], compute, *more) -> list[Piece]:
    return [
        Piece(f"number {n}", "squares", ({"number": str(n), "more": fingerprint(more)},), compute, (n, *more))
        for n in numbers
    ]


# --- the same rows ----------------------------------------------------------------------------------------------------


def test_one_process_two_and_a_cluster_give_the_same_bytes(lab: Lab, two: Lab, anew: Lab, cluster: Lab) -> None:
    found, files = [], []
    for one in (lab, anew, cluster, two):
        scores = one.sweep("rmu", "static_clamp")
        found.append(pd.concat([scored.table.assign(words=scored.setting.words) for scored in scores]))
        stages = one.store.folder.glob("knowledge-*/data.parquet")
        files.append({path.parent.name: path.read_bytes() for path in stages})
    assert len(files[0]) == 6  # two trainings and four clamps
    assert files[0] == files[1] == files[2] == files[3]
    for table in found[1:]:
        pd.testing.assert_frame_equal(table, found[0], check_exact=True)


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["lab", "two", "anew"])
def test_a_piece_that_raises_is_named_and_the_others_are_stored(where: str, request) -> None:
    lab, pieces = request.getfixturevalue(where), pieces_of([1, 2, 3, 4], some_pieces.wrong_for, 2)
    with pytest.raises(
        PieceError, match=r"^1 of 4 pieces failed:\nsquares: number 2: ValueError: 2 cannot be squared$"
    ):
        lab.computed(pieces, dear=True)
    stored = [lab.store.read(piece.stage, piece.keys[0]) for piece in pieces]
    assert [stage is not None for stage in stored] == [True, False, True, True]
    # what is stored is not computed again
    with pytest.raises(PieceError, match="1 of 1 pieces failed"):
        lab.computed(pieces, dear=True)


def test_a_training_that_turns_to_nan_is_named_with_its_step_and_others_are_kept(lab: Lab, monkeypatch) -> None:
    turned, kept = (GradientAscent(steps=2, batch_rows=1, learning_rate=rate) for rate in (1.0, 1e-4))
    factors, plain = iter([1.0, float("nan")]), GradientAscent.objective

    def objective(setting, *given):
        loss = plain(setting, *given)
        return (lambda *seen: next(factors) * loss(*seen)) if setting == turned.course else loss

    monkeypatch.setattr(GradientAscent, "objective", objective)
    words = "GA, rate 1, 2 steps: FloatingPointError: GA, rate 1: the loss is nan at step 2; lower learning_rate"
    with pytest.raises(PieceError, match=f"^1 of 2 pieces failed:\nknowledge-gradient-ascent: {words}$"):
        lab.sweep([turned, kept], half=0)
    keys = [lab.key(knowledge_under, lab.knowledge_on(0), setting.apply(lab)) for setting in (turned, kept)]
    assert [lab.store.read("knowledge-gradient-ascent", key) is not None for key in keys] == [False, True]


def test_every_finished_piece_is_a_line(lab: Lab, caplog) -> None:
    with caplog.at_level("INFO", logger="helpers"):
        lab.computed(pieces_of([7, 8], some_pieces.square), dear=False)
        lab.computed(pieces_of([7, 8], some_pieces.square), dear=False)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("squares: number 7: 0.0 s (1 of 2, about") and "(2 of 2, about 0 s left)" in lines[1]


# --- who computes -----------------------------------------------------------------------------------------------------


def test_cheap_pieces_are_computed_at_home_until_it_shows_that_others_are_worth_it(lab: Lab, monkeypatch) -> None:
    import helpers.lab.pieces as module

    sent: list[list[int]] = []

    def elsewhere(place, waiting, jobs, scheduler):
        sent.append(list(waiting))
        yield from (module.Computed(n, [], 0.0) for n in list(waiting))

    monkeypatch.setattr(module, "_elsewhere", elsewhere)
    monkeypatch.setattr(module, "can_fork", lambda device: False)
    pieces = pieces_of([1, 2, 3, 4], some_pieces.square)

    def spread(jobs: int = 2, scheduler: str = "", dear: bool = False) -> list:
        return list(module.spread(lab, None, pieces, jobs, scheduler, dear))

    assert len(spread()) == 4 and sent == []  # they take no time
    monkeypatch.setattr(module, "WORTH_SECONDS", 0.0)
    assert len(spread()) == 4 and sent == [[1, 2, 3]]
    assert len(spread(jobs=1)) == 4 and len(sent) == 1  # there is nobody else
    assert len(spread(dear=True)) == 4 and sent[1] == [0, 1, 2, 3]
    assert len(spread(jobs=1, scheduler="tcp://host:1")) == 4 and sent[2] == [0, 1, 2, 3]


def test_what_trains_is_begun_first(lab: Lab, monkeypatch) -> None:
    import helpers.lab.pieces as module

    sent: list[int] = []
    monkeypatch.setattr(module, "_elsewhere", lambda place, waiting, jobs, scheduler: sent.extend(waiting) or iter(()))
    monkeypatch.setattr(module, "can_fork", lambda device: False)
    trained = RMU(1, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)
    pieces = [Piece("", "s", ({},), some_pieces.square, (s,)) for s in (DSG(1, 2.0), trained, DSG(1, 3.0), trained)]
    list(module.spread(lab, None, pieces, jobs=2, scheduler="", dear=True))
    assert sent == [1, 3, 0, 2]


def test_a_lab_that_keeps_much_is_no_leak(anew: Lab) -> None:
    """Loky would end a process that has grown by 300 MB; the same two processes compute all pieces."""
    found = anew.computed(pieces_of(list(range(6)), some_pieces.grown), dear=True)
    assert len({table["process"].item() for (table,) in found}) <= 2


# --- who is killed ----------------------------------------------------------------------------------------------------
# After all that needs the same processes alive: new ones take seconds to start.


@pytest.mark.parametrize("where", ["two", "anew", "cluster"])
def test_a_killed_worker_loses_nothing(tmp_path: Path, where: str, request) -> None:
    several, numbers = request.getfixturevalue(where), list(range(6))
    found = several.computed(pieces_of(numbers, some_pieces.killed_once, str(tmp_path), 3), dear=True)
    assert (tmp_path / "killed").exists()
    assert [table["square"].item() for (table,) in found] == [0, 1, 4, 9, 16, 25]
    # the profile says one thread, in every process
    assert {table["threads"].item() for (table,) in found} == {1}


def test_when_every_process_dies_it_ends(two: Lab) -> None:
    with pytest.raises(WorkersError, match="3 worker processes in a row were killed"):
        two.computed(pieces_of([8, 9], some_pieces.always_killed), dear=True)


def test_when_every_process_that_was_started_dies_it_ends(anew: Lab, monkeypatch) -> None:
    monkeypatch.setattr("helpers.lab.pieces.DEATHS", 1)
    with pytest.raises(TerminatedWorkerError):
        anew.computed(pieces_of([8, 9], some_pieces.always_killed), dear=True)


def test_killed_between_pieces_a_run_goes_on_with_the_next(lab: Lab, tmp_path: Path) -> None:
    """A child process is killed after it has stored two pieces; the next one computes the others only."""
    pieces = pieces_of([0, 1, 2, 3], some_pieces.killed_once, str(tmp_path), 2)
    child = os.fork()
    if child == 0:
        lab.computed(pieces, dear=False)  # and is killed in it
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in map(partial(entry_of, lab), pieces) if path.exists()}
    assert len(kept) == 2
    time.sleep(0.01)
    assert [table["square"].item() for (table,) in lab.computed(pieces, dear=False)] == [0, 1, 4, 9]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def entry_of(lab: Lab, piece: Piece) -> Path:
    return lab.store._entry(piece.stage, piece.keys[0]) / "manifest.json"


# --- methods and devices that a piece takes along ---------------------------------------------------------------------


@dataclass(frozen=True)
class OfANotebook(DSG):
    """A method as one would define it in a notebook."""


def test_a_method_of_a_notebook_is_computed_where_it_is_known(lab: Lab, monkeypatch) -> None:
    import helpers.lab.pieces as module

    monkeypatch.setattr(OfANotebook, "__module__", "__main__")
    monkeypatch.setattr(module, "_elsewhere", lambda *_: pytest.fail("sent away"))
    monkeypatch.setattr(module, "can_fork", lambda device: False)
    known, other = Piece("a", "s", ({},), lambda lab, s: [s.strength], (OfANotebook(1, 2.0),)), OfANotebook(1, 3.0)
    pieces = [known, Piece("b", "s", ({},), lambda lab, s: [s.strength], (other,))]
    done = module.spread(lab, None, pieces, jobs=2, scheduler="", dear=True)
    assert [computed.results for computed in done] == [[2.0], [3.0]]


def test_a_fork_has_what_cannot_travel(two: Lab, monkeypatch) -> None:
    """A method of a notebook, and a view of the lab, are at hand in it, and its own pieces it computes itself."""
    monkeypatch.setattr(OfANotebook, "__module__", "__main__")
    here = os.getpid()

    def process(lab: Lab) -> list[pd.DataFrame]:
        return [pd.DataFrame({"process": [os.getpid()]})]

    def compute(lab: Lab, setting: DSG) -> list[pd.DataFrame]:
        inner = [Piece("", "inner", ({"of": f"{setting.words} {i}"},), process) for i in (0, 1)]
        (found,), _ = lab.computed(inner, dear=True)
        assert lab._view_of is two and found["process"].item() == os.getpid() != here
        return [pd.DataFrame({"strength": [setting.strength]})]

    view = two.given(documents=two.forget_documents[:40])
    settings = [OfANotebook(1, 2.0), OfANotebook(1, 3.0)]
    pieces = [Piece("outer", "outer", ({"of": s.words},), compute, (s,)) for s in settings]
    assert [table["strength"].item() for (table,) in view.computed(pieces, dear=True)] == [2.0, 3.0]


def parted(model: object, numbers: tuple[int, ...]) -> list[int]:
    return [os.getpid(), *numbers]


def test_calls_of_one_function_are_shared_and_each_is_a_stage(two: Lab, monkeypatch) -> None:
    monkeypatch.setattr("helpers.lab.pieces.WORTH_A_FORK", 0.0)
    calls = [(two.model, (1, 2)), (two.model, (3,)), (two.model, (4,))]
    first = two.stages("parted", parted, calls)
    assert [numbers for _, *numbers in first] == [[1, 2], [3], [4]]
    assert len({process for process, *_ in first}) > 1  # the model went to forks
    assert two.stages("parted", parted, calls) == first  # the same processes: from the cache
    assert two.stage("parted", parted, *calls[1]) == first[1]


def test_a_call_of_a_function_stays_where_there_are_no_forks(two: Lab, monkeypatch) -> None:
    monkeypatch.setattr("helpers.lab.pieces.can_fork", lambda device: False)
    monkeypatch.setattr("helpers.lab.pieces._elsewhere", lambda *_: pytest.fail("a model cannot travel"))
    found = two.stages("parted", parted, [(two.model, (5,)), (two.model, (6,))])
    assert found == [[os.getpid(), 5], [os.getpid(), 6]]


def test_a_setting_travels_by_names() -> None:
    setting = DSG(20, 5.0, threshold=0.25)
    values = tuple({"n_features": 20, "strength": 5.0, "features": None, "value": None, "fires_above": 0.0,
                    "bos": False, "threshold": 0.25}.items())  # fmt: skip
    assert Named("helpers.methods.dsg", "DSG", values).resolved() == setting


@pytest.mark.parametrize(
    ("device", "process", "gpus", "expected"),
    [
        ("auto", "LokyProcess-1", 2, "cuda:0"),
        ("auto", "LokyProcess-2", 2, "cuda:1"),
        ("cuda", "LokyProcess-3", 2, "cuda:0"),  # it took the place of one that died
        ("auto", "LokyProcess-2", 1, "auto"),
        ("cuda:1", "LokyProcess-1", 4, "cuda:1"),  # what is named is meant
        ("cpu", "LokyProcess-2", 4, "cpu"),
        ("auto", "MainProcess", 2, "auto"),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(monkeypatch, device, process, gpus, expected) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert own_device(device, process) == expected


def test_jobs_are_one_a_core_or_one_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr("helpers.lab.pieces.cpu_count", lambda: 3)
    assert (jobs_of(0, "cpu"), jobs_of(5, "cpu")) == (3, 5)
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: True, device_count=lambda: 4))
    assert (jobs_of(0, "auto"), jobs_of(0, "cuda"), jobs_of(2, "cuda"), jobs_of(0, "cpu")) == (4, 4, 2, 3)
