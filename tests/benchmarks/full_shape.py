"""gemma-2-2b at its real size with random weights: the work of notebook 05, in seconds and peak memory per stage.

    python -m tests.benchmarks.full_shape [--profile gemma-2-2b-it] [--out FOLDER]
    python -m tests.benchmarks.full_shape --device cuda --questions 8 --row-length 1024 --batch-tokens 16384
    python -m tests.benchmarks.full_shape --name full_width --dtype float32 --layers 6 --settings 2 --rows 2
        --row-length 256 --steps 8

The weights are random, so nothing is learned of answers; the work is the real one. Each stage's operations are counted
(helpers/experiments/costs.py) and divided by its seconds, and from these rates the time of every notebook on this
device is projected: a projection, which no one has run. The default needs 14 GB of memory, and 15 minutes on two cores
that know no bfloat16, most of them for one step of training, which such cores are worst at. So what projections rest on
elsewhere is the last command: fewer layers of the same width, in float32.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd
import torch
from transformers import Gemma2ForCausalLM

from helpers.engine.features import feature_statistics
from helpers.engine.forward import check_hook, wrap
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import (
    Sweep,
    read_batches,
    read_letter_logits,
    read_letters,
    read_loss,
    row_batches,
    tree_cost,
)
from helpers.engine.steps import Passes
from helpers.engine.trees import tree_batches
from helpers.experiments.costs import (
    DTYPE_BYTES,
    SHAPES,
    Shape,
    matrix_rate,
    measured_shares,
    projections,
    rmu_work,
    statistics_work,
    sweep_work,
)
from helpers.methods.rmu import RMU
from helpers.methods.training import train
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.profiles import CacheSettings
from tests.benchmarks.common import (
    RESULTS,
    Draw,
    PeakMemory,
    Sizes,
    describe,
    gemma_config,
    random_sae,
    report,
)

GEMMA = asdict(SHAPES["google/gemma-2-2b-it"]) | {"d_sae": 16384, "layer": 3}
KEPT = CacheSettings(memory_mb=2048, disk_mb=0)


@torch.no_grad()
def full_model(sizes: Sizes, dtype: torch.dtype, device: str):
    """An nnsight model of random weights, built without a copy in float32, so that its own size is all it needs."""
    with torch.device("meta"):
        model = Gemma2ForCausalLM(gemma_config(sizes))
    model = model.to(dtype).to_empty(device=device)
    model.tie_weights()
    # neither is among the weights, and both are lost on the way
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(device)
    model.model.embed_tokens.embed_scale.fill_(math.sqrt(sizes.d_model))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        wide = 3 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1  # so that attention chooses
        weight.normal_(0, 0.02 * wide) if weight.dim() > 1 else weight.zero_()
    return wrap(model.requires_grad_(False), build_tokenizer(build_world(0)))


class Stages:
    """Runs stages one after another and keeps a row of each: seconds, operations, peak memory of the process."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.rows: list[dict[str, object]] = []

    def run(self, name: str, work: Callable[[], object], kind: str = "", operations: float = 0.0) -> object:
        """What `work()` returns; `kind` and `operations` as in `helpers.experiments.costs.Work`."""
        with PeakMemory(self._device) as peak:
            start = time.perf_counter()
            result = work()
            if self._device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        self.rows.append({
            "stage": name, "kind": kind, "seconds": seconds, "tera_operations": operations / 1e12,
            "rate": operations / seconds / 1e12, "peak_gb": (peak.before + peak.extra) / 1e9,
        })  # fmt: skip
        print(self.rows[-1], flush=True)
        return result


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.full_shape", description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=1, help="questions, asked in 24 orders and in one")
    parser.add_argument("--settings", type=int, default=1, help="settings of DSG")
    parser.add_argument("--rows", type=int, default=1, help="rows of forget text, and as many of retain text")
    parser.add_argument("--row-length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=1, help="steps of RMU")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=sorted(DTYPE_BYTES), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", default="gemma-2-2b-it", help="whose notebooks are projected")
    parser.add_argument("--name", default="full_shape", help="of the files that are written")
    parser.add_argument("--out", type=Path, default=RESULTS)
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=GEMMA[size.name])
    return parser


def main(words: list[str]) -> None:
    """Run the benchmark, write its table and print the projections."""
    options = arguments().parse_args(words)
    torch.set_num_threads(options.threads)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    # the model is built with the embedding tied to the unembedding, which is how a shape is counted by default
    shape = Shape(**{field.name: getattr(sizes, field.name) for field in fields(Shape) if hasattr(sizes, field.name)})
    product = matrix_rate(options.device, options.dtype)
    table = measured(sizes, shape, options)
    # before and after, for another process may have had the processor at one of the two times
    product = max(product, matrix_rate(options.device, options.dtype))
    table["of_matrix_product"] = table["rate"] * 1e12 / product
    facts = {"sizes": describe(sizes), "dtype": options.dtype, "matrix_product_rate": product / 1e12}
    sizes_of_work = ("questions", "settings", "rows", "row_length", "steps", "batch_tokens")
    facts |= {name: getattr(options, name) for name in sizes_of_work}
    report(options.name, table, facts, options.out)
    for notebook, found in projections(options.profile, options.device, measured_shares(table)).items():
        said = "its work has not been counted" if found is None else f"{found[0] / 3600:.3g} h, {found[1] / 1e9:.0f} GB"
        print(f"projected, {options.profile} on this device, notebook {notebook} alone: {said}")


def measured(sizes: Sizes, shape: Shape, options: argparse.Namespace) -> pd.DataFrame:
    """A row a stage: stage, kind, seconds, tera_operations, rate (10^12 a second), peak_gb."""
    stages, draw, layer = Stages(options.device), Draw(sizes.vocab, seed=11), sizes.layer
    model = stages.run("model drawn", lambda: full_model(sizes, getattr(torch, options.dtype), options.device))
    stages.run("hook checked", lambda: check_hook(model, layer))
    questions = [draw.question() for _ in range(options.questions)]
    prompts = [question[0] for question in questions]
    sae, features = stages.run("SAE drawn", lambda: random_sae(model, sizes, [draw.prompt() for _ in range(2)]))
    text = [[2, *draw.tokens(options.row_length - 1)] for _ in range(2 * options.rows)]
    n, length, tokens = options.settings, options.row_length, options.batch_tokens

    count = statistics_work(shape, layer, sizes.d_sae, len(text) * length, length)
    stages.run("feature statistics", lambda: feature_statistics(model, sae, text, tokens), "statistics", count)

    trees = list(tree_batches(questions, tree_cost(model), tokens, 0, options.device))
    count = sum(shape.blocks(shape.layers, batch.ids.numel(), batch.ids.shape[1]) for batch in trees)
    stages.run("24 orders", lambda: read_batches(model, trees, read_letter_logits), "trees", count)

    settings = [Clamp(sae, features[:20], -5.0 * (1 + i), "any", Gate(0.0)) for i in range(n)]
    rows = list(row_batches(model, prompts, tokens))
    count = sum(sweep_work(shape, layer, n, b.ids.numel(), b.ids.shape[1], len(b.ids)) for b in rows)
    stages.run(
        "DSG, questions", lambda: _sweep(Sweep(model, rows, layer, read_letters, KEPT), settings), "answers", count
    )
    neutral = list(row_batches(model, text[:1], tokens))
    count = sweep_work(shape, layer, n, length, length, length - 1)
    stages.run(
        "DSG, loss on text", lambda: _sweep(Sweep(model, neutral, layer, read_loss, KEPT), settings), "losses", count
    )
    forget, retain = torch.tensor(text).chunk(2)
    setting = RMU(layer, 4.0, 100.0, steps=options.steps, batch_rows=1, learning_rate=5e-5, seed=0)
    # the target's length takes one more pass up to the layer over the first rows
    count = options.steps * rmu_work(shape, layer, length, length) + shape.blocks(layer + 1, forget.numel(), length)
    name = f"RMU with a copy of the model, steps: {options.steps}"
    stages.run(name, lambda: train(model, forget, retain, setting, Passes(8192)), "training", count)
    return pd.DataFrame(stages.rows)


def _sweep(sweep: Sweep, settings: list[Clamp]) -> None:
    before, after = sweep.unedited, sweep.edited_by_each(settings)
    assert (after != before).flatten(2).any(dim=2).all(), "a prompt is not touched, so its work is not done either"


if __name__ == "__main__":
    main(sys.argv[1:])
