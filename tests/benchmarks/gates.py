"""What a running gate costs: the seconds that DSG's clamp and each gate, asked at every token, add to a generation.

    python -m tests.benchmarks.gates [--rounds 3] [--length 128] [--new-tokens 32] [--out FOLDER]

Every gate opens, so that all of the method runs. What it takes to stop at a layer at all is `guard`'s to say.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor

from helpers.engine import generation
from helpers.engine.interventions import Clamp, DuringGeneration, Gate
from helpers.methods.gates import GATES
from helpers.methods.gates.cusum import CusumGate
from helpers.methods.gates.detector import DetectorGate
from helpers.methods.gates.excess import ExcessGate
from helpers.methods.gates.segments import SegmentGate
from helpers.methods.gates.two_level import TwoLevelGate
from helpers.methods.gates.window import WindowGate
from tests.benchmarks.common import RESULTS, Draw, Sizes, describe, random_model, random_sae, report, wait

N_FEATURES, WINDOW, TARGET = 20, 16, 0.03


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gates", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=size.default)
    return parser


def gates_of(sae, others: list[int]) -> dict[str, Gate]:
    """One of every kind whose score differs, by its name in `GATES`."""
    window, cusum, told = WindowGate(0.0, WINDOW), CusumGate(0.0, 1.0, -0.4), tuple(others[:N_FEATURES])
    shares = tuple(0.5**n for n in range(WINDOW + 1))
    return {
        "rho": Gate(0.0), "window": window, "segments": SegmentGate(0.0, WINDOW, shares),
        "cusum": cusum, "excess": ExcessGate(0.0, 1e-4), "two_level": TwoLevelGate(0.0, sae, told, window, window),
        "running_two_level": TwoLevelGate(0.0, sae, told, cusum, cusum),
        "detector": DetectorGate(0.0, sae, tuple(others), (1.0,) * len(others), WINDOW),
    }  # fmt: skip


class Timed(DuringGeneration):
    """An intervention that adds up the seconds it takes."""

    seconds = 0.0

    def __call__(self, residual: Tensor) -> Tensor:
        wait()
        start = time.perf_counter()
        edited = super().__call__(residual)
        wait()
        Timed.seconds += time.perf_counter() - start
        return edited


def measured(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """Medians over rounds: seconds of a generation without its intervention, and what share of them that adds.

    Both are of the same run, for a machine's speed drifts by more between two runs than a gate costs.
    """
    rest, shares = [], []
    for _ in range(rounds):
        Timed.seconds, start = 0.0, time.perf_counter()
        run()
        rest.append(time.perf_counter() - start - Timed.seconds)
        shares.append(Timed.seconds / rest[-1])
    return {"without_s": statistics.median(rest), "overhead": statistics.median(shares)}


@torch.no_grad()
def main(words: list[str]) -> None:
    """Run the benchmark and write its table."""
    options = arguments().parse_args(words)
    torch.set_num_threads(options.threads)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    model, draw = random_model(sizes, options.device), Draw(sizes.vocab, seed=3)
    sae, ids = random_sae(model, sizes, [draw.prompt() for _ in range(8)])
    prompt, rows = [2, *draw.tokens(options.length - 1)], []
    with patch.object(generation, "DuringGeneration", Timed):
        for name, gate in gates_of(sae, ids[N_FEATURES : 3 * N_FEATURES]).items():
            clamp = Clamp(sae, ids[:N_FEATURES], -5.0, "any", gate)
            run = partial(generation.generate, model, [prompt], options.new_tokens, clamp, "running")
            assert len(run()[0]) == options.new_tokens, "an EOS ended the generation early"
            of = {"gate": GATES[name].name, "prompt_tokens": options.length, "new_tokens": options.new_tokens}
            rows.append(of | measured(run, options.rounds))
    table = pd.DataFrame(rows).assign(target=TARGET)
    table["reached"] = table["overhead"] <= TARGET
    report("gates", table, {"sizes": describe(sizes), "rounds": options.rounds}, options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
