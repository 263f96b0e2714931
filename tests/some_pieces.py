"""Pieces of work for tests of the workers, in a module that workers can import."""

import os
import signal
import time
from pathlib import Path

import pandas as pd
import torch


def square(lab, number: int) -> list[pd.DataFrame]:
    """The square of a number, in a process that has opened its own lab."""
    assert lab.profile.name == "tiny"
    return [pd.DataFrame({"number": [number], "square": [number**2], "threads": [torch.get_num_threads()]})]


def killed_once(lab, number: int, folder: str, victim: int) -> list[pd.DataFrame]:
    """`square`, but the process that takes the victim is killed the first time, as by `kill -9`."""
    mark = Path(folder) / "killed"
    if number == victim and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(lab, number)


def always_killed(lab, number: int) -> list[pd.DataFrame]:
    """Every process that takes it is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    return square(lab, number)


def wrong_for(lab, number: int, wrong: int) -> list[pd.DataFrame]:
    """`square`, which raises for one number."""
    if number == wrong:
        raise ValueError(f"{number} cannot be squared")
    return square(lab, number)


def grown(lab, number: int) -> list[pd.DataFrame]:
    """The process that took it, which has grown by 400 MB and took a second."""
    lab.kept = [*getattr(lab, "kept", []), torch.ones(100_000_000)]
    time.sleep(1.1)  # loky looks at a process's memory once a second
    return [pd.DataFrame({"process": [os.getpid()]})]
