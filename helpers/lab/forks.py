"""Processes that are forked from this one: they have its lab, and all that it holds, at once.

Starting a process anew and opening a lab in it takes about eight seconds of imports, a fork a few hundredths of one.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe, get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from helpers.records.progress import hide_progress

# A process that dies is replaced; when so many die without a single call being answered, something kills them all.
DEATHS = 3

log = logging.getLogger(__name__)


class WorkersError(RuntimeError):
    """Every process that was started for some calls was killed."""


def can_fork(device: torch.device) -> bool:
    """Whether forks of this process can compute: on Linux, with one thread, on the CPU of a machine without a GPU.

    Neither CUDA nor OpenMP's threads outlive a fork, nor do macOS' libraries.
    """
    one_thread = torch.get_num_threads() == 1
    return sys.platform == "linux" and device.type == "cpu" and one_thread and not torch.cuda.is_available()


def is_worker() -> bool:
    """Whether this process was started by another one for its work."""
    return parent_process() is not None


def forked(call: Callable[[int], Any], numbers: Sequence[int], processes: int) -> Iterator[Any]:
    """`call` of every number, as they are finished, each number taken by whichever process is free.

    Args:
        call: nothing of it travels, for a fork has it; what it gives is sent back.
        numbers: in the order in which they are begun.

    Raises:
        WorkersError: so many processes in a row were killed (`DEATHS`); until then others take over from them.
    """
    waiting, busy, deaths = deque(numbers), list[_Worker](), 0
    try:
        while waiting or busy:
            while waiting and len(busy) < processes:
                busy.append(_Worker(call))
                busy[-1].take(waiting.popleft())
            ready = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                try:
                    done = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    deaths += 1
                    waiting.appendleft(worker.number)
                    busy.remove(worker)
                    worker.end()
                    if deaths == DEATHS:
                        raise WorkersError(
                            f"{deaths} worker processes in a row were killed: is memory short?"
                        ) from None
                    log.warning("a worker process was killed; another takes over from it")
                    continue
                deaths = 0
                if waiting:
                    worker.take(waiting.popleft())
                else:
                    busy.remove(worker)
                    worker.end()
                yield done
    finally:
        for worker in busy:
            worker.end()


class _Worker:
    """A forked process, which answers one call after another.

    Attributes:
        pipe: its answers come from here.
        number: of the call that it is busy with.
    """

    def __init__(self, call: Callable[[int], Any]) -> None:
        self.number = -1  # of none yet
        self.pipe, theirs = Pipe()
        self._process = get_context("fork").Process(target=_serve, args=(call, self.pipe, theirs), daemon=True)
        self._process.start()
        theirs.close()  # or it would not show that the process has died

    def take(self, number: int) -> None:
        """Give it a call."""
        self.number = number
        with suppress(BrokenPipeError):  # it has died, which shows where its answer is awaited
            self.pipe.send(number)

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.pipe.close()
        self._process.terminate()
        self._process.join()


def _serve(call: Callable[[int], Any], other_end: Connection, pipe: Connection) -> None:
    other_end.close()  # or it would not show that the process that asks has died
    hide_progress()
    with suppress(EOFError):
        while True:
            pipe.send(call(pipe.recv()))
