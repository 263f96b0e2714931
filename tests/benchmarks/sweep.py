"""A sweep the usual way against ours: seconds, ratio, peak memory, and whether every answer agrees.

    python -m tests.benchmarks.sweep [--rounds 3] [--questions 4] [--prompts 24] [--d-model 384 ...] [--out FOLDER]

The usual way is that of the public code (SAEBench): a HookedTransformer with the same weights, the whole SAE encoded
and decoded in a hook, the logits of every position, the prompts in the order they come. Ours is `Sweep` of
helpers/engine/scoring.py. Both start from token ids in every round; only the weights are there beforehand.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.gemma import convert_gemma_weights

from helpers.engine.forward import huggingface, residual_after
from helpers.engine.interventions import Clamp, Gate, hot_fraction
from helpers.engine.scoring import Sweep, read_letters, row_batches, tree_cost
from helpers.engine.trees import tree_batches
from helpers.profiles import CacheSettings
from helpers.text.tokens import letter_ids
from tests.benchmarks.common import (
    RESULTS,
    Draw,
    PeakMemory,
    Sizes,
    bare_inputs,
    bare_suffix,
    describe,
    random_model,
    random_sae,
    report,
    side_by_side,
)

USUAL_BATCH = 24
KEPT = CacheSettings(memory_mb=4096, disk_mb=0)
# of log-probabilities, in nats: a random model gives every word a small one
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One kind of sweep, and the ratio it must reach.

    Attributes:
        name: as the table shows it.
        groups: prompts; those of a group are one question in its 24 orders.
        settings: the interventions.
        target: seconds of the usual way over ours, at least.
    """

    name: str
    groups: list[list[list[int]]]
    settings: list[Clamp]
    target: float

    @property
    def rows(self) -> list[list[int]]:
        """All prompts in one list."""
        return [row for group in self.groups for row in group]


def hooked_transformer(model, sizes: Sizes) -> HookedTransformer:
    """TransformerLens' model with the same weights."""
    hf = huggingface(model)
    cfg = HookedTransformerConfig(
        d_model=sizes.d_model, d_head=sizes.head_dim, n_heads=sizes.heads, d_mlp=sizes.d_mlp, n_layers=sizes.layers,
        n_ctx=1024, eps=1e-6, d_vocab=sizes.vocab, act_fn="gelu_pytorch_tanh", normalization_type="RMS",
        rotary_base=10000, positional_embedding_type="rotary", use_attn_scale=True,
        n_key_value_heads=sizes.kv_heads, window_size=4096, use_local_attn=True,
        attn_types=(["local", "global"] * sizes.layers)[: sizes.layers], attn_scores_soft_cap=50.0,
        output_logits_soft_cap=30.0, gated_mlp=True, final_rms=True, use_normalization_before_and_after=True,
        rotary_dim=sizes.head_dim, dtype=torch.float32, device=str(hf.device), model_name="gemma-2-2b",
        attn_only=False, attention_dir="causal",
    )  # fmt: skip
    lens = HookedTransformer(cfg, tokenizer=None)
    lens.load_state_dict(convert_gemma_weights(hf, cfg), strict=False)
    return lens.requires_grad_(False)


def usual_edit(clamp: Clamp, residual: Tensor, mask: Tensor) -> Tensor:
    """The intervention as the public code writes it: the whole SAE, its error put back, BOS left out."""
    sae, ids = clamp.sae, list(clamp.features)
    f = sae.encode(residual)
    f[:, 0] = 0
    error = residual - sae.decode(f)
    fires = (f[..., ids] > 0) & mask[..., None]
    if clamp.where == "any":
        hot = fires.any(dim=-1)
        opens = hot_fraction(hot, mask) > clamp.gate.threshold
        fires = (hot & opens[:, None])[..., None].expand_as(fires)
    f[..., ids] = torch.where(fires, clamp.value, f[..., ids])
    return sae.decode(f) + error


@torch.no_grad()
def usual_way(lens: HookedTransformer, letters: Tensor, case: Case) -> Tensor:
    """p(A..D) under every setting, [settings, prompts, 4]."""
    found, rows = [], case.rows
    for clamp in case.settings:
        parts = []
        for start in range(0, len(rows), USUAL_BATCH):
            part = rows[start : start + USUAL_BATCH]
            ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.long, device=lens.cfg.device)
            for i, row in enumerate(part):
                ids[i, : len(row)] = torch.tensor(row)
            mask, last = ids > 0, torch.tensor([len(row) - 1 for row in part])
            hook = (f"blocks.{clamp.layer}.hook_resid_post", lambda x, hook, c=clamp, m=mask: usual_edit(c, x, m))
            logits = lens.run_with_hooks(ids, fwd_hooks=[hook])
            p = logits[torch.arange(len(part)), last].softmax(dim=-1)
            parts.append(p[:, letters].amax(dim=1).cpu())
        found.append(torch.cat(parts))
    return torch.stack(found)


def our_sweep(model, case: Case, batch_tokens: int) -> Sweep:
    """The sweep of a case: trees where prompts come in groups."""
    if len(case.groups[0]) == 1:
        batched = row_batches(model, case.rows, batch_tokens)
    else:
        batched = tree_batches(case.groups, tree_cost(model), batch_tokens, model.tokenizer.pad_token_id, model.device)
    return Sweep(model, batched, case.settings[0].layer, read_letters, KEPT)


def our_way(model, case: Case, batch_tokens: int) -> Tensor:
    """p(A..D) under every setting, [settings, prompts, 4]."""
    return our_sweep(model, case, batch_tokens).edited_by_each(case.settings)


@torch.no_grad()
def over_the_limit(model, case: Case, batch_tokens: int, rounds: int) -> float:
    """Seconds of one more setting, residuals at hand, over those of the bare layers above on the same tokens."""
    sweep, clamp = our_sweep(model, case, batch_tokens), case.settings[0]
    residuals = [sweep._residuals[i] for i in range(len(sweep._residuals.batches))]
    inputs = [bare_inputs(batch) for batch in sweep._residuals.batches]

    def bare() -> None:
        for i, x in zip(inputs, residuals, strict=True):
            bare_suffix(model, i, x, clamp.layer)

    seconds = side_by_side({"ours": lambda: sweep.edited(clamp), "bare": bare}, 2 * rounds + 1)
    return seconds["ours"] / seconds["bare"]


def clamps(sae, features: Sequence[int], n: int) -> list[Clamp]:
    """`n` settings: 5, 20, 50 and 20 features, each set where it fires to ever lower values."""
    numbers = (5, 20, 50, 20)
    return [Clamp(sae, features[: numbers[i % 4]], -5.0 * (1 + i)) for i in range(n)]


@torch.no_grad()
def guarded(model, sae, features: Sequence[int], n: int, rows: list[list[int]], share: float) -> list[Clamp]:
    """`n` settings of DSG whose gate opens for that share of the prompts."""
    settings = []
    for i, k in zip(range(n), (10, 20, 30, 50) * n, strict=False):
        clamp = Clamp(sae, features[:k], -5.0 * (1 + i), "any")
        rho = []
        for batch in row_batches(model, rows, 1 << 14):
            hot = clamp.hot(residual_after(model, batch, clamp.layer))
            rho.append(hot_fraction(hot, batch.mask))
        tau = float(torch.cat(rho).quantile(1 - share))
        settings.append(Clamp(sae, features[:k], -5.0 * (1 + i), "any", Gate(tau)))
    return settings


def cases(model, sae, features: Sequence[int], n_questions: int, n_prompts: int, share: float) -> list[Case]:
    """The four sweeps of the table."""
    draw = Draw(huggingface(model).config.vocab_size, seed=1)
    questions = [draw.question() for _ in range(n_questions)]
    prompts = [[draw.prompt()] for _ in range(n_prompts)]
    rows = [row for group in prompts for row in group]
    return [
        Case("24 orders, 4 settings", questions, clamps(sae, features, 4), 7),
        Case("24 orders, 40 settings", questions[: max(1, n_questions // 4)], clamps(sae, features, 40), 8),
        Case("one order, 16 settings, nothing skipped", prompts, clamps(sae, features, 16), 4),
        Case(
            f"one order, 16 settings of DSG, {share:.0%} of prompts touched",
            prompts, guarded(model, sae, features, 16, rows, share), 10,
        ),
    ]  # fmt: skip


def peak_memory_of(way: str, index: int, words: list[str]) -> int:
    """Extra bytes of one way in a process of its own, where no other way has left anything behind."""
    # every tensor is mapped by itself, so what is freed leaves the process at once
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "tests.benchmarks.sweep", *words, "--measure-memory", way, str(index)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sweep", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="each way runs so often; medians count")
    parser.add_argument(
        "--questions", type=int, default=4, help="questions in 24 orders; a fourth of them for 40 settings"
    )
    parser.add_argument("--prompts", type=int, default=24, help="prompts in one order")
    parser.add_argument("--share", type=float, default=0.1, help="share of prompts whose gate opens under DSG")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="tokens per forward pass of ours")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the cases to run, from 0")
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out peak memory, which starts two processes a case"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=size.default)
    parser.add_argument("--measure-memory", nargs=2, help=argparse.SUPPRESS)
    return parser


def main(words: list[str]) -> None:
    """Run the benchmark and write its table."""
    options = arguments().parse_args(words)
    torch.set_num_threads(options.threads)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    model = random_model(sizes, options.device)
    draw = Draw(sizes.vocab, seed=7)
    sae, features = random_sae(model, sizes, [draw.question()[0] for _ in range(6)])
    todo = cases(model, sae, features, options.questions, options.prompts, options.share)
    lens, letters = hooked_transformer(model, sizes), letter_ids(model.tokenizer)

    def both(case: Case) -> dict[str, Callable[[], Tensor]]:
        return {
            "usual": lambda: usual_way(lens, letters, case),
            "ours": lambda: our_way(model, case, options.batch_tokens),
        }

    if options.measure_memory:
        way, index = options.measure_memory
        # two settings hold as much at a time as forty
        case = replace(todo[int(index)], settings=todo[int(index)].settings[:2])
        with PeakMemory(options.device) as peak:
            both(case)[way]()
        return print(peak.extra)
    rows = []
    for i, case in enumerate(todo):
        if options.only is not None and i not in options.only:
            continue
        rows.append(measured(case, i, both(case), options, words) | {
            "over_the_limit": over_the_limit(model, case, options.batch_tokens, options.rounds),
        })  # fmt: skip
        print(rows[-1], flush=True)
    facts = {"command": "python -m tests.benchmarks.sweep " + " ".join(words), "sizes": describe(sizes)}
    report(
        "sweep",
        pd.DataFrame(rows),
        facts | {"rounds": options.rounds, "batch_tokens": options.batch_tokens},
        options.out,
    )
    return None


def measured(case: Case, i: int, ways: dict[str, Callable[[], Tensor]], options, words: list[str]) -> dict[str, object]:
    """One row of the table. Raises AssertionError if the two ways do not give the same answers."""
    found: dict[str, Tensor] = {}
    seconds = side_by_side(
        {n: lambda n=n, way=way: found.update({n: way()}) for n, way in ways.items()}, options.rounds
    )
    usual, ours = found["usual"], found["ours"]
    difference = float((usual.log() - ours.log()).abs().max())
    agree = float((usual.argmax(dim=-1) == ours.argmax(dim=-1)).float().mean())
    assert difference < TOLERANCE and agree == 1, (
        f"{case.name}: log-probabilities differ by {difference}, {agree:.4f} of answers agree"
    )
    memory = {way: float("nan") if options.no_memory else peak_memory_of(way, i, words) / 2**20 for way in ways}
    ratio = seconds["usual"] / seconds["ours"]
    return {
        "case": case.name, "prompts": len(case.rows), "answers": usual[..., 0].numel(), "agree": agree,
        "largest_difference": difference, "usual_s": seconds["usual"], "ours_s": seconds["ours"], "ratio": ratio,
        "target": case.target, "reached": ratio >= case.target, "usual_mb": memory["usual"], "ours_mb": memory["ours"],
        "memory_ratio": memory["usual"] / memory["ours"],
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
