"""What the notebooks cost on a model that nobody has run here: their arithmetic counted, and time and memory from it.

A stage's operations follow from the model's shape and the profile's sizes. A measured rate (operations a second, by
kind of work) turns them into seconds: a projection, and always to be called one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd
import torch

from helpers.attacks import PromptAttack, attacks_of
from helpers.loading.sources import question_source
from helpers.methods.attribution_clamp import AttributionClamp
from helpers.methods.dsg import DSG
from helpers.methods.method import Method
from helpers.methods.rmu import RMU
from helpers.methods.static_clamp import StaticClamp
from helpers.profiles import Profile, load_profile

# Assumed lengths in tokens: a question in chat form, and its 24 orders merged into trees.
PROMPT_TOKENS = 150
TREE_TOKENS = 1050
# gemma-2-2b-it knows 533 of 1,273 WMDP-bio questions and 383 of 725 of the MMLU subjects under all 24 orders.
KNOWN_SHARE = 916 / 1998
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
# Of the features that Farrell et al. clamped alone, 104, so many passed the filters and went on to the loss.
KEPT_SHARE = 49 / 104
# What a layer holds at once of a batch, in tensors as wide as its MLP and in float32 attention weights.
LIVE_TENSORS, LIVE_ATTENTION = 4, 3
# Models held at once beside the loaded one. 03 and 05: the one that RMU trains. 06: RMU's, the one attacked, its
# gradients and AdamW's two moments.
EXTRA_MODELS = {"03": 1, "05": 1, "06": 5}


@dataclass(frozen=True)
class Shape:
    """A language model's shape, as in its config."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    d_mlp: int
    vocab: int

    @property
    def block_weights(self) -> int:
        """Weights of one layer's matrices."""
        return self.d_model * (2 * self.head_dim * (self.heads + self.kv_heads) + 3 * self.d_mlp)

    @property
    def weights(self) -> int:
        """Weights of the model, whose embedding is its unembedding too."""
        return self.layers * self.block_weights + self.vocab * self.d_model

    def blocks(self, n: float, tokens: float, length: float) -> float:
        """Operations (two a multiply-add) of n layers on tokens in rows of a length, all pairs of a row included."""
        return n * tokens * (2 * self.block_weights + 4 * self.heads * self.head_dim * length)

    def head(self, positions: float) -> float:
        """Operations of the logits of the whole vocabulary at so many positions."""
        return 2.0 * self.vocab * self.d_model * positions


# By the hub id of a profile's model (config.json of each).
SHAPES = {
    "google/gemma-2-2b-it": Shape(26, 2304, 8, 4, 256, 9216, 256_000),
    "google/gemma-2-2b": Shape(26, 2304, 8, 4, 256, 9216, 256_000),
    "google/gemma-2b-it": Shape(18, 2048, 8, 1, 256, 16384, 256_000),
}


@dataclass(frozen=True)
class Work:
    """Operations by kind of work, each of which a machine does at a rate of its own.

    Attributes:
        statistics: text up to the SAE's layer, and all of its features.
        trees: questions in 24 orders, merged.
        answers: prompts in one order, and the layers above the SAE again for every setting.
        losses: the same of text, with the logits of every position.
        training: forward and backward passes.
    """

    statistics: float = 0.0
    trees: float = 0.0
    answers: float = 0.0
    losses: float = 0.0
    training: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, kind) + getattr(other, kind) for kind in KINDS))

    @property
    def total(self) -> float:
        """Operations of all kinds."""
        return sum(getattr(self, kind) for kind in KINDS)

    def seconds(self, rates: Mapping[str, float]) -> float:
        """Time at rates in operations a second, by kind."""
        return sum(getattr(self, kind) / rates[kind] for kind in KINDS if getattr(self, kind))


COUNTED = ("01", "02", "03", "05", "06", "11", "13")
KINDS = tuple(field.name for field in fields(Work))


def statistics_work(shape: Shape, layer: int, width: int, tokens: float, length: float) -> float:
    """Feature statistics on text: the layers up to `layer`, and an SAE of that width."""
    return shape.blocks(layer + 1, tokens, length) + 2.0 * shape.d_model * width * tokens


def sweep_work(shape: Shape, layer: int, settings: float, tokens: float, length: float, positions: float) -> float:
    """A sweep in which every setting changes every prompt: at most so much; logits are read at some positions."""
    above = shape.blocks(shape.layers - layer - 1, tokens, length) + shape.head(positions)
    return shape.blocks(layer + 1, tokens, length) + (1 + settings) * above


def rmu_work(shape: Shape, layer: int, tokens: float, length: float) -> float:
    """One RMU step on so many forget and as many retain tokens: three passes up to `layer`, two back over three."""
    trained = min(3, layer + 1)
    back = shape.blocks(trained, tokens, length) + 2.0 * shape.d_model * shape.d_mlp * trained * tokens
    return 3 * shape.blocks(layer + 1, tokens, length) + 2 * back


def finetuning_work(shape: Shape, tokens: float, length: float) -> float:
    """Next-token training of all weights on so many tokens: backward counts twice."""
    return 3 * (shape.blocks(shape.layers, tokens, length) + shape.head(tokens))


def notebook_work(profile: Profile, shape: Shape, questions: int, notebook: str) -> Work:
    """Operations of one notebook as if it ran alone and every setting changed every prompt.

    Stages that notebooks share (statistics, known questions, RMU) are computed once when they run together.

    Args:
        profile: in its version for this notebook.
        questions: how many there are in all subjects.
        notebook: its number, one of `COUNTED`.
    """
    job, curve = _Job(profile, shape, questions), profile.clamp_curve
    static, dsg, curves = job.settings(StaticClamp), job.settings(DSG), len(curve.n_features) * len(curve.strengths)
    start = job.statistics() + job.trees()
    match notebook:
        case "01":
            return start + job.attribution()
        case "02":
            # each feature alone, on both halves, then sets that grow by one, on one half
            sets = replace(job.asked(1.5 * profile.selection.n_features), losses=0.0)
            along = 2 * len({setting.strength for setting in StaticClamp.grid(profile)})
            return start + sets + job.asked(along) + job.asked(curves)
        case "03":
            attributed = job.attribution() + job.asked(job.settings(AttributionClamp))
            return start + job.asked(static) + job.rmu() + attributed
        case "05":
            ablation = job.asked(4 * len({setting.strength for setting in DSG.grid(profile)}), share=0.5)
            return start + job.thresholds() + job.asked(dsg + 2 * static) + job.rmu() + ablation
        case "06":
            return start + job.thresholds() + job.asked(dsg) + job.rmu() + job.attacks()
        case "11":
            return start + job.thresholds() + job.asked(dsg) + job.prompt_attacks()
        case "13":
            return start + job.thresholds() + job.asked(dsg) + job.gates()
    raise ValueError(f"the work of notebook {notebook!r} has not been counted, that of {', '.join(COUNTED)} has")


@dataclass(frozen=True)
class _Job:
    """The parts that notebooks are made of, under one profile."""

    profile: Profile
    shape: Shape
    questions: int

    def settings(self, method: type[Method]) -> int:
        return len(method.grid(self.profile))

    def statistics(self) -> Work:
        sizes, sae = self.profile.texts, self.profile.sae
        packed = (sizes.forget_rows + sizes.retain_rows) * sizes.row_length
        tokens = packed + sizes.framed_documents * PROMPT_TOKENS
        return Work(statistics=statistics_work(self.shape, sae.layer, sae.width, tokens, sizes.row_length))

    def thresholds(self) -> Work:
        sets = len({setting.n_features for setting in DSG.grid(self.profile)})
        tokens = sets * self.profile.texts.framed_documents * PROMPT_TOKENS
        return Work(statistics=statistics_work(self.shape, self.profile.sae.layer, 0, tokens, PROMPT_TOKENS))

    def trees(self) -> Work:
        return Work(trees=self.shape.blocks(self.shape.layers, self.questions * TREE_TOKENS, TREE_TOKENS))

    def asked(self, settings: float, share: float = 1.0) -> Work:
        """Known questions and neutral text once, and again for every setting."""
        n, text, layer = self.questions * KNOWN_SHARE * share, self.profile.texts, self.profile.sae.layer
        neutral = text.neutral_rows * text.row_length
        return Work(
            answers=sweep_work(self.shape, layer, settings, n * PROMPT_TOKENS, PROMPT_TOKENS, n),
            losses=sweep_work(self.shape, layer, settings, neutral, text.row_length, neutral),
        )

    def attribution(self) -> Work:
        """Half of the known questions forward and back once, then under the clamp of every candidate alone."""
        shape, layer, candidates = self.shape, self.profile.sae.layer, self.profile.selection.attribution_candidates
        tokens = self.questions * KNOWN_SHARE * 0.5 * PROMPT_TOKENS
        above = shape.blocks(shape.layers - layer - 1, tokens, PROMPT_TOKENS)
        alone = self.asked(candidates, share=0.5)
        losses = self.asked(candidates * KEPT_SHARE).losses
        return Work(training=shape.blocks(layer + 1, tokens, PROMPT_TOKENS) + 3 * above) + replace(alone, losses=losses)

    def rmu(self) -> Work:
        grid, length = RMU.grid(self.profile), self.profile.texts.row_length
        work = [s.steps * rmu_work(self.shape, s.layer, s.batch_rows * length, length) for s in grid]
        return sum([self.asked(0)] * len(grid), Work(training=sum(work)))

    def attacks(self) -> Work:
        """Three trainings a run: the attacks of every seed and rate, few documents, and the other half."""
        attack, length = self.profile.relearning, self.profile.texts.row_length
        runs = 3 * (len(attack.seeds) + len(attack.learning_rates) - 1)
        few, half = 3 * len(attack.few_seeds) * len(attack.few_documents), 3 * len(attack.half_seeds)
        rows = (runs + half) * attack.epochs * attack.rows + few * attack.few_steps * attack.batch_rows
        asked = runs * (len(attack.asked_after) + 2) + 2 * (few + half)
        training = finetuning_work(self.shape, rows * length, length)
        return Work(training=training, answers=asked * self.asked(1, share=0.5).answers)

    def prompt_attacks(self) -> Work:
        """Half of the known questions to forget in every attack's way, by model and guard, whose gate is read.

        Those that choose the settings as if by both too; benign ones as if under the longest setting of each attack and
        a control of equal length.
        """
        asked, sizes, every = self.profile.questions, self.profile.prompt_attacks, attacks_of(self.profile)
        forget = (question_source(asked.forget).rows or 0) * KNOWN_SHARE / 2
        choosing = min(sizes.choosing_questions, forget)
        benign = 2 * sizes.benign_questions * (1 + len(asked.side_effect))
        longest = {attack.name: _length(attack) for attack in sorted(every, key=_length)}
        lengths = [(forget + choosing * (not attack.control), _length(attack)) for attack in every]
        lengths += [(benign, n) for n in longest.values()]
        return sum((self._asked_long(*of) for of in lengths), Work())

    def gates(self) -> Work:
        """Every gate set on half of the known questions; then what is asked in every attack's way, by three passes.

        The layers below serve all gates at once; above them there are the unedited model and the clamp without a gate.
        """
        asked, sizes, shape = self.profile.questions, self.profile.prompt_attacks, self.shape
        forget = (question_source(asked.forget).rows or 0) * KNOWN_SHARE / 2
        n = forget + min(sizes.choosing_questions, forget) + sizes.benign_questions * (1 + len(asked.side_effect))
        passes = len(self.profile.gates.names) * self.questions * KNOWN_SHARE / 2 * PROMPT_TOKENS
        setting = statistics_work(shape, self.profile.sae.layer, 0, passes, PROMPT_TOKENS)
        return sum((self._asked_long(n, _length(a)) for a in attacks_of(self.profile)), Work(statistics=setting))

    def _asked_long(self, n: float, length: int) -> Work:
        shape, layer = self.shape, self.profile.sae.layer
        gate = shape.blocks(layer + 1, n * length, length)
        return Work(answers=gate + sweep_work(shape, layer, 1, n * length, length, n))


def _length(attack: PromptAttack) -> int:
    return attack.length(PROMPT_TOKENS)


def projections(
    name: str,
    device: str,
    shares: Mapping[str, float],
    product: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, tuple[float, float] | None]:
    """Seconds and bytes of each notebook of a profile of the hub; None where the work has not been counted.

    Args:
        name: the profile.
        device: torch's name of what it would run on.
        shares: as `measured_shares` gives them.
        product: operations a second of a matrix product there; None measures it (`matrix_rate`).
        overrides: of the profile's values, as `load_profile` takes them.
    """
    profile = load_profile(name, overrides)
    shape, asked, found = SHAPES.get(profile.model.source), profile.questions, dict.fromkeys(profile.notebooks)
    if shape is None:
        return found
    speed = product or matrix_rate(device, profile.model.dtype)
    rates = {kind: share * speed for kind, share in shares.items()}
    questions = sum(question_source(subject).rows or 0 for subject in (asked.forget, asked.near, *asked.side_effect))
    for number in (n for n in profile.notebooks if n in COUNTED):
        version = load_profile(name, overrides, number)
        seconds = notebook_work(version, shape, questions, number).seconds(rates)
        found[number] = seconds, notebook_memory(version, shape, number)
    return found


def notebook_memory(profile: Profile, shape: Shape, notebook: str) -> float:
    """Bytes that a notebook needs at its peak beside the packages: models, SAE, kept residuals and one batch."""
    size, tokens = DTYPE_BYTES[profile.model.dtype], profile.model.batch_tokens
    models = (1 + EXTRA_MODELS.get(notebook, 0)) * shape.weights * size
    sae = 4 * (2 * shape.d_model + 2) * profile.sae.width
    attention = LIVE_ATTENTION * shape.heads * profile.texts.row_length * 4
    batch = tokens * (LIVE_TENSORS * shape.d_mlp * size + attention)
    return models + sae + profile.cache.memory_mb * 2**20 + batch


def measured_shares(table: pd.DataFrame) -> dict[str, float]:
    """Each kind's rate as a share of `matrix_rate`, from the table of tests/benchmarks/full_shape.py.

    Raises:
        KeyError: a kind is missing in it.
    """
    shares = table.set_index("kind")["of_matrix_product"]
    return {kind: float(shares[kind]) for kind in KINDS}


@torch.no_grad()
def matrix_rate(device: str, dtype: str) -> float:
    """Operations a second of Gemma-2-2b's widest layer on this device, best of ten: its yardstick."""
    rows = 8192 if device.startswith("cuda") else 256
    kind = {"dtype": getattr(torch, dtype), "device": device}
    tokens, weight, seconds = torch.ones(rows, 2304, **kind), torch.ones(9216, 2304, **kind), []
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)[0, 0].item()  # reading a number waits for all of them
        seconds.append(time.perf_counter() - start)
    return 2.0 * rows * weight.numel() / min(seconds)
