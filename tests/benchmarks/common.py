"""What the benchmarks share: a random Gemma-2 with an SAE that fires on it, prompts, and timing side by side."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path

import pandas as pd
import torch
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

from helpers.engine.forward import huggingface, residual_after, wrap
from helpers.engine.scoring import row_batches
from helpers.loading.data import WORLD_SEED
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.records.provenance import environment
from helpers.text.batches import Batch

RESULTS = Path(__file__).parent / "results"
ORDERS = tuple(permutations(range(4)))
# how often a feature of Gemma Scope's 16k SAEs fires, about
FIRING_RATE = 60 / 4096


@dataclass(frozen=True)
class Sizes:
    """A Gemma-2 and its SAE; the default is a thirteenth of gemma-2-2b's depth times width that two cores can bear."""

    layers: int = 13
    d_model: int = 384
    heads: int = 6
    kv_heads: int = 3
    head_dim: int = 64
    d_mlp: int = 1536
    vocab: int = 32768
    d_sae: int = 4096
    layer: int = 3


def gemma_config(sizes: Sizes) -> Gemma2Config:
    """A Gemma-2's config of these sizes."""
    return Gemma2Config(
        vocab_size=sizes.vocab, hidden_size=sizes.d_model, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads, head_dim=sizes.head_dim,
        intermediate_size=sizes.d_mlp, query_pre_attn_scalar=sizes.head_dim, sliding_window=4096,
        pad_token_id=0, eos_token_id=1, bos_token_id=2, attn_implementation="eager",
    )  # fmt: skip


def random_model(sizes: Sizes, device: str = "cpu"):
    """An nnsight model of random weights, drawn so that attention and layers do something."""
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(gemma_config(sizes)).requires_grad_(False)
    model.model.embed_tokens.weight.normal_(0, 0.05)
    for block in model.model.layers:
        block.self_attn.q_proj.weight.mul_(3)
        block.self_attn.k_proj.weight.mul_(3)
    return wrap(model.to(device), build_tokenizer(build_world(WORLD_SEED)))


@torch.no_grad()
def random_sae(model, sizes: Sizes, rows: Sequence[Sequence[int]]) -> tuple[SAE, list[int]]:
    """A JumpReLU SAE whose features fire on about 1.5 % of the rows' tokens, and their ids, those nearest 1 % first."""
    batch = next(row_batches(model, rows, 1 << 20))
    x = residual_after(model, batch, sizes.layer)[batch.mask].float()
    scale = x.std()
    encoder = torch.nn.functional.normalize(torch.randn(sizes.d_model, sizes.d_sae, device=x.device), dim=0) / scale
    thresholds = torch.quantile(x @ encoder, 1 - FIRING_RATE, dim=0).clamp(min=0.1)
    cfg = JumpReLUSAEConfig(
        d_in=sizes.d_model, d_sae=sizes.d_sae, dtype="float32", device=str(x.device), apply_b_dec_to_input=False,
        normalize_activations="none", metadata=SAEMetadata(hook_name=f"blocks.{sizes.layer}.hook_resid_post"),
    )  # fmt: skip
    sae = JumpReLUSAE(cfg).eval().requires_grad_(False)
    weights = {
        "W_enc": encoder, "b_enc": torch.zeros(sizes.d_sae), "threshold": thresholds,
        "W_dec": encoder.T.contiguous() * scale**2, "b_dec": x.mean(dim=0),
    }  # fmt: skip
    sae.load_state_dict(weights)
    rate = (sae.encode(x) > 0).float().mean(dim=0)
    return sae, (rate - 0.01).abs().argsort().tolist()


class Draw:
    """Random token rows from a seed."""

    def __init__(self, vocab: int, seed: int) -> None:
        self._vocab, self._random = vocab, torch.Generator().manual_seed(seed)

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high - 1."""
        return int(torch.randint(low, high, (1,), generator=self._random))

    def tokens(self, n: int) -> list[int]:
        """`n` arbitrary tokens after BOS, EOS and the letters."""
        return torch.randint(2000, self._vocab, (n,), generator=self._random).tolist()

    def question(self) -> list[list[int]]:
        """One question in its 24 orders: BOS and a stem of 41 to 90 tokens, choices of 7 to 17, and 5 at the end."""
        stem, end = [2, *self.tokens(self.number(40, 90))], self.tokens(5)
        choices, marks = [self.tokens(self.number(4, 15)) for _ in range(4)], [self.tokens(3) for _ in range(4)]
        return [
            [*stem, *(t for mark, i in zip(marks, order, strict=True) for t in (*mark, *choices[i])), *end]
            for order in ORDERS
        ]

    def prompt(self) -> list[int]:
        """A prompt of 40 to 400 tokens, most near 120, as long questions are among short ones."""
        length = torch.distributions.LogNormal(4.8, 0.5).icdf(torch.rand(1, generator=self._random))
        return [2, *self.tokens(int(length.clamp(40, 400)))]


def side_by_side(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way; every round runs them all, one after another, in turn first."""
    names, seconds = list(ways), {name: [] for name in ways}
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            start = time.perf_counter()
            ways[name]()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class PeakMemory:
    """Bytes in use when a block of code begins (`before`), and those it needs beyond them at its peak (`extra`)."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self.before = self.extra = 0

    def __enter__(self) -> "PeakMemory":
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            # writing 5 sets the kernel's high-water mark of this process back to what it holds now (proc(5))
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.extra = (torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")) - self.before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system tells no {field}: memory is measured on Linux only")


def report(name: str, table: pd.DataFrame, facts: dict, out: Path) -> None:
    """Print the table, and write it as CSV beside a JSON of what was run where."""
    print(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{name}.csv", index=False, float_format="%.6g")
    facts = {"benchmark": name, "threads": torch.get_num_threads(), **facts, "environment": environment()}
    (out / f"{name}.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")


def describe(sizes: Sizes) -> dict[str, int]:
    """Sizes as a dictionary, for the JSON."""
    return asdict(sizes)


def bare_inputs(batch: Batch) -> dict[str, Tensor]:
    """Positions and additive mask of a batch, made beforehand so that the bare layers need do nothing but compute."""
    inputs = batch.inputs()
    if "position_ids" in inputs:
        return inputs
    n = batch.ids.shape[1]
    sees = torch.ones(n, n, dtype=torch.bool, device=batch.ids.device).tril() & batch.mask[:, None]
    mask = torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, torch.finfo(torch.float32).min)
    positions = torch.arange(n, device=sees.device).expand(batch.ids.shape)
    return {"attention_mask": mask[:, None], "position_ids": positions}


def bare_suffix(model, inputs: dict[str, Tensor], residual: Tensor, layer: int) -> Tensor:
    """The layers above `layer` and the final norm and nothing else: what no short cut of ours can go below."""
    inner = huggingface(model).model
    mask, positions = inputs["attention_mask"], inputs["position_ids"]
    state, rotary = residual, inner.rotary_emb(residual, positions)
    for block in inner.layers[layer + 1 :]:
        state = block(state, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
    return inner.norm(state)
