"""What a guardrail costs in use: a forward pass and a generation with DSG in place, against the same without.

    python -m tests.benchmarks.guard [--rounds 15] [--lengths 256 512 1024] [--new-tokens 64] [--out FOLDER]

The gate is open, so that every part of the method runs. Beside it stands what the paper reports for its own code (DSG,
Table 15: forward passes of gemma-2-2b-it on a GPU).
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch

from helpers.engine.forward import final_state, unembed
from helpers.engine.generation import generate
from helpers.engine.interventions import Clamp, Gate
from helpers.published import load_published
from helpers.text.batches import Batch
from tests.benchmarks.common import RESULTS, Draw, Sizes, describe, random_model, random_sae, report, side_by_side

N_FEATURES = 20
TARGETS = {"forward": 0.02, "generation": 0.05}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.guard", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=size.default)
    return parser


@torch.no_grad()
def main(words: list[str]) -> None:
    """Run the benchmark and write its table."""
    options = arguments().parse_args(words)
    torch.set_num_threads(options.threads)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    model, draw = random_model(sizes, options.device), Draw(sizes.vocab, seed=3)
    sae, features = random_sae(model, sizes, [draw.prompt() for _ in range(8)])
    clamp = Clamp(sae, features[:N_FEATURES], -5.0, "any", Gate(0.0))
    rows = []
    for length in options.lengths:
        ids = torch.tensor([[2, *draw.tokens(length - 1)]], device=options.device)
        batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(1))
        before, after = (unembed(model, final_state(model, batch, edit)[:, -1]) for edit in (None, clamp))
        assert not torch.equal(before, after), "the guardrail does nothing here, so its cost would say nothing"
        ways = {
            "without": lambda b=batch: unembed(model, final_state(model, b)[:, -1]),
            "with": lambda b=batch: unembed(model, final_state(model, b, clamp)[:, -1]),
        }
        rows.append(compared("forward", length, ways, options.rounds))
    prompt = [2, *draw.tokens(options.lengths[0] - 1)]
    ways = {
        "without": lambda: generate(model, [prompt], options.new_tokens),
        "with": lambda: generate(model, [prompt], options.new_tokens, clamp),
    }
    lengths = {name: len(way()[0]) for name, way in ways.items()}
    assert set(lengths.values()) == {options.new_tokens}, f"an EOS ended a generation early: {lengths}"
    rows.append(compared("generation", options.lengths[0], ways, options.rounds))
    facts = {"sizes": describe(sizes), "rounds": options.rounds, "new_tokens": options.new_tokens}
    report("guard", pd.DataFrame(rows), facts, options.out)


def published_overhead(tokens: int, method: str = "DSG") -> float:
    """The share of time that the paper's own code adds to a forward pass; nan for a length that it does not have."""
    seconds = load_published("dsg2025_latency").query("tokens == @tokens").set_index("method")["seconds"]
    return float(seconds[method] / seconds["unedited"] - 1) if len(seconds) else float("nan")


def compared(work: str, tokens: int, ways: dict, rounds: int) -> dict[str, object]:
    """One row of the table."""
    seconds = side_by_side(ways, rounds)
    overhead = seconds["with"] / seconds["without"] - 1
    target = TARGETS[work]
    return {
        "work": work, "prompt_tokens": tokens, "without_s": seconds["without"], "with_s": seconds["with"],
        "overhead": overhead, "target": target, "reached": overhead <= target,
        "published": published_overhead(tokens) if work == "forward" else float("nan"),
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
