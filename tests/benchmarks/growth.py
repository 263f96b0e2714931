"""How time and memory grow: with questions, settings, the share of prompts touched, and tokens of statistics.

    python -m tests.benchmarks.growth [--rounds 3] [--steps 4] [--out FOLDER]

Each is doubled again and again while the rest stays. Straight lines are what the engine promises: the table gives the
slope, and how much of the variation a straight line explains (r2).
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers.engine.features import feature_statistics
from helpers.engine.scoring import Sweep, read_letters, row_batches
from tests.benchmarks.common import (
    RESULTS,
    Draw,
    PeakMemory,
    Sizes,
    describe,
    random_model,
    random_sae,
    report,
    side_by_side,
)
from tests.benchmarks.sweep import KEPT, clamps, guarded

SMALL = {
    "layers": 6,
    "d_model": 128,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 32,
    "d_mlp": 512,
    "vocab": 8192,
    "layer": 1,
}
PROMPT = 96


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="how often each is doubled")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=SMALL.get(size.name, size.default))
    return parser


def main(words: list[str]) -> None:
    """Run the benchmark and write its table."""
    options = arguments().parse_args(words)
    torch.set_num_threads(options.threads)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    model, draw = random_model(sizes, options.device), Draw(sizes.vocab, seed=5)
    sae, features = random_sae(model, sizes, [draw.prompt() for _ in range(8)])
    doubled = [2**k for k in range(options.steps + 1)]
    prompts = [[2, *draw.tokens(PROMPT - 1)] for _ in range(8 * doubled[-1])]

    def sweep(n_prompts: int, settings: list) -> None:
        batched = row_batches(model, prompts[:n_prompts], options.batch_tokens)
        Sweep(model, batched, sizes.layer, read_letters, KEPT).edited_by_each(settings)

    shares = np.linspace(0, 1, options.steps + 1).tolist()
    gates = {share: guarded(model, sae, features, 8, prompts[:64], share) for share in shares}
    work: dict[str, dict[float, Callable[[], object]]] = {
        "prompts": {8 * n: lambda n=n: sweep(8 * n, clamps(sae, features, 4)) for n in doubled},
        "settings": {n: lambda n=n: sweep(32, clamps(sae, features, n)) for n in doubled},
        "share touched": {share: lambda share=share: sweep(64, gates[share]) for share in shares},
        "tokens of statistics": {
            8 * n * PROMPT: lambda n=n: feature_statistics(model, sae, prompts[: 8 * n], options.batch_tokens)
            for n in doubled
        },
    }
    points = [measured(what, ways, options.rounds, options.device) for what, ways in work.items()]
    facts = {"sizes": describe(sizes), "rounds": options.rounds, "prompt_tokens": PROMPT}
    report("growth_points", pd.concat(points, ignore_index=True), facts, options.out)
    report("growth", pd.DataFrame([line(table) for table in points]), facts, options.out)


def measured(what: str, ways: dict[float, Callable[[], object]], rounds: int, device: str) -> pd.DataFrame:
    """Seconds and extra megabytes of every size: what, size, seconds, extra_mb."""
    ways[max(ways)]()  # what is allocated once for all is there before memory is measured
    memory = {}
    for size, way in ways.items():
        with PeakMemory(device) as peak:
            way()
        memory[size] = peak.extra / 2**20
    seconds = side_by_side({str(size): way for size, way in ways.items()}, rounds)
    rows = [(what, size, seconds[str(size)], memory[size]) for size in ways]
    return pd.DataFrame(rows, columns=["what", "size", "seconds", "extra_mb"])


def line(points: pd.DataFrame) -> dict[str, object]:
    """The straight line through the seconds, and the memory at the smallest and the largest size."""
    x, y = points["size"].to_numpy(), points["seconds"].to_numpy()
    slope, start = np.polyfit(x, y, 1)
    explained = 1 - ((y - start - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    first, last = points["extra_mb"].iloc[[0, -1]]
    return {
        "what": points["what"].iloc[0], "from": x[0], "to": x[-1], "seconds_at_0": start, "seconds_per_unit": slope,
        "r2": explained, "extra_mb_first": first, "extra_mb_last": last,
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
