"""Every notebook of every Gemma profile, run without a screen on what the loopback hub serves; and all that can fail.

The runner is a child process with the real clients and a fresh cache, told by its environment where the hub is. One
fixture runs all that ends well, another all that fails, two processes at a time; the tests read what they left.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from helpers.provenance import ROOT
from tests.hub import Hub
from tests.hub_files import GATED, QUESTIONS, SPREAD, make_files, served_questions

TOKEN = "hf_FakeTokenThatMayStandNowhere"
STRANGER = "hf_FakeTokenThatTheHubDoesNotKnow"
N = 4  # questions of each subject
# Small grids in the organism's sizes; strengths are Gemma's, and far more than the organism needs.
SMALL = {
    "model.batch_tokens": 2048, "sae.explained_variance": 0.5,
    "texts.row_length": 64, "texts.forget_rows": 24, "texts.retain_rows": 48, "texts.neutral_rows": 4,
    "texts.framed_documents": 20, "selection.n_features": 5,
    "clamp_curve.strengths": [0.0, 20.0], "clamp_curve.n_features": [5], "clamp_curve.random_features": 1,
    "pareto.n_features": [5], "pareto.strengths": [0.0, 100.0],
    "rmu.layers": [3], "rmu.steering": [10.0], "rmu.alphas": [100.0], "rmu.steps": 2,
    "guardrail.n_features": [5], "guardrail.strengths": [100.0],
    "relearning.epochs": 1, "relearning.rows": 8, "relearning.batch_rows": 4, "relearning.seeds": [0],
    "relearning.side_effect_floor": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A finished child process: exit code, everything it printed, and the folder of its runs and figures."""

    code: int
    log: str
    out: Path

    def figures(self, profile: str) -> Path:
        """The folder of a trial's figures."""
        return self.out / "figures" / f"{profile}+changed"


def reproduce(out: Path, environment: Mapping[str, str], profile: str, *more: str) -> Done:
    """Run the runner on a profile in a process that knows only this hub and token."""
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    command = [sys.executable, "-m", "helpers.reproduce", "--profile", profile, "--limit", str(N), *more,
               "--runs", str(out / "runs"), "--figures", str(out / "figures"), "--set", *settings]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    threads = {"OMP_NUM_THREADS": "1"}  # two processes at a time, on two cores
    done = subprocess.run(command, cwd=ROOT, env=inherited | threads | dict(environment), capture_output=True, text=True)
    return Done(done.returncode, done.stdout + done.stderr, out)
