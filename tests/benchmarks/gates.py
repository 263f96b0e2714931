"""What a running gate costs: a generation with DSG's clamp and each gate, asked at every token, against one without.

    python -m tests.benchmarks.gates [--rounds 5] [--length 128] [--new-tokens 32] [--out FOLDER]

Every gate opens, so that all of the method runs. The aim of notebook 13's issue is 3 % of the bare model.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch

from helpers.engine.generation import generate
from helpers.engine.interventions import Clamp, Gate
from helpers.methods.gates import GATES
from helpers.methods.gates.cusum import CusumGate
from helpers.methods.gates.detector import DetectorGate
from helpers.methods.gates.excess import ExcessGate
from helpers.methods.gates.segments import SegmentGate
from helpers.methods.gates.two_level import TwoLevelGate
from helpers.methods.gates.window import WindowGate
from tests.benchmarks.common import RESULTS, Draw, Sizes, describe, random_model, random_sae, report, side_by_side

N_FEATURES, WINDOW, TARGET = 20, 16, 0.03


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gates", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
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


@torch.no_grad()
def main(words: list[str]) -> None:
    """Run the benchmark and write its table."""
    options = arguments().parse_args(words)
    torch.set_num_threads(options.threads)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    model, draw = random_model(sizes, options.device), Draw(sizes.vocab, seed=3)
    sae, ids = random_sae(model, sizes, [draw.prompt() for _ in range(8)])
    prompt, ways = [2, *draw.tokens(options.length - 1)], {"without": None}
    for name, gate in gates_of(sae, ids[N_FEATURES : 3 * N_FEATURES]).items():
        ways[name] = Clamp(sae, ids[:N_FEATURES], -5.0, "any", gate)
    runs = {
        name: lambda clamp=clamp: generate(model, [prompt], options.new_tokens, clamp, "running")
        for name, clamp in ways.items()
    }
    said = {name: run()[0] for name, run in runs.items()}
    assert {len(words) for words in said.values()} == {options.new_tokens}, "an EOS ended a generation early"
    seconds = side_by_side(runs, options.rounds)
    bare = seconds.pop("without")
    rows = [
        {"gate": GATES[name].name, "prompt_tokens": options.length, "new_tokens": options.new_tokens, "without_s": bare,
         "with_s": with_s, "ratio": with_s / bare, "overhead": with_s / bare - 1,
         "target": TARGET, "reached": with_s / bare - 1 <= TARGET}
        for name, with_s in seconds.items()
    ]  # fmt: skip
    report("gates", pd.DataFrame(rows), {"sizes": describe(sizes), "rounds": options.rounds}, options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
