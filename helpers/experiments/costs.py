"""What the notebooks cost on a model that nobody has run here: their arithmetic counted, and time and memory from it.

A stage's operations follow from the model's shape and the profile's sizes. A measured rate (operations a second, by
kind of work) turns them into seconds: a projection, and always to be called one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedConfig

from helpers.attacks import PromptAttack, attacks_of
from helpers.attacks.residual_vector import BATCH_PROMPTS
from helpers.engine.scoring import CHUNK_LOGITS
from helpers.experiments.clamp_units import OF_CHOSEN
from helpers.experiments.forget_requests import AT_ONCE, FEATURES_SO_FAR, ways_of
from helpers.experiments.guarded_answers import GATES
from helpers.experiments.little_text import parts
from helpers.experiments.recovery import ROTATIONS
from helpers.loading.data import load_questions, load_requests
from helpers.loading.finetuned import REFERENCE, TARGET
from helpers.loading.sources import MUSE_BYTES, MUSE_SPLITS, question_source, request_sources
from helpers.methods import METHODS
from helpers.methods.attribution_clamp import AttributionClamp
from helpers.methods.clamp_prime import ClampPrime
from helpers.methods.crisp import CRISP
from helpers.methods.dsg import DSG
from helpers.methods.grad_diff import GradDiff
from helpers.methods.gradient_ascent import GradientAscent
from helpers.methods.method import Method
from helpers.methods.npo import NPO
from helpers.methods.refusal_clamp import Grid as RefusalGrid
from helpers.methods.refusal_clamp import RefusalClamp
from helpers.methods.rmu import RMU
from helpers.methods.scrub import SCRUB
from helpers.methods.simnpo import SimNPO
from helpers.methods.ssd import SSD
from helpers.methods.static_clamp import StaticClamp
from helpers.methods.training import TrainedMethod
from helpers.methods.unconditional import Unconditional
from helpers.profiles import ModelSettings, Profile, load_profile
from helpers.records.provenance import ROOT

# Where the shares come from that a projection rests on.
MEASURED = ROOT / "tests" / "benchmarks" / "results" / "full_width.csv"
# Bytes of English that a token of Gemma's holds, about.
TOKEN_BYTES = 4.5
# Assumed lengths in tokens: a question in chat form, and its 24 orders merged into trees.
PROMPT_TOKENS = 150
TREE_TOKENS = 1050
# And a solved question of MUSE.
SOLVED_TOKENS = 40
# gemma-2-2b-it knows 533 of 1,273 WMDP-bio questions and 383 of 725 of the MMLU subjects under all 24 orders.
KNOWN_SHARE = 916 / 1998
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
# Of the features that Farrell et al. clamped alone, 104, so many passed the filters and went on to the loss.
KEPT_SHARE = 49 / 104
# What a layer holds at once of a batch, in tensors as wide as its MLP and in float32 attention weights.
LIVE_TENSORS, LIVE_ATTENTION = 4, 3
# Notebooks that train RMU, whose gradients go back over three layers, and those that train all weights of a model.
WITH_RMU = ("03", "04", "05", "06", "07", "08", "09", "10", "12")
WITH_WHOLE = ("06", "07", "10")
# Passes that a step of their methods keeps at once, of text to forget and of text to keep: SCRUB three, others two.
METHODS_PASSES = {"07": 3, "09": 2, "10": 2}
MUSE_NOTEBOOK = "10"
# Those that ask a copy of the model too.
WITH_LONGER = ("13",)
# Those that go back to the residual, through the layers above the SAE's (attribution); to the embeddings, through all.
WITH_GRADIENTS, WITH_ALL_GRADIENTS = ("01", "03", "14"), ("12",)
# What notebook 13 teaches its detector where nobody says what questions are about: as asked, in plain form, documents.
DETECTOR_LESSONS = 3
# Those that ask no exam.
WITHOUT_TREES = (MUSE_NOTEBOOK,)
# Of a training step, passes of the whole model over as many rows as a batch has: with gradients, and without.
PASSES: dict[type[Method], tuple[int, int]] = {
    GradientAscent: (1, 0), GradDiff: (2, 0), NPO: (2, 1), SimNPO: (2, 0), SCRUB: (3, 2),
}  # fmt: skip
# The methods of notebook 07 that are trained, in its order.
WEIGHTS_METHODS: tuple[type[Method], ...] = (GradientAscent, GradDiff, NPO, SimNPO, SCRUB, SSD, RMU, CRISP)
# What a layer keeps of a token for going backward, in bytes times its width (counted: tests/test_costs.py): norms and
# residual, which are float32, and attention weights, which are so too; the rest is in the dtype of the products.
KEPT_NORMS, KEPT_ATTENTION, KEPT_INPUT = 41, 8, 4
# Of a chunk of logits what is held at once: before and after the soft-cap, their softmax and its gradient, in float32.
LIVE_LOGITS = 4
# Of a weight that is trained, the gradient in float32, and what AdamW keeps: two float32 moments, or two bytes and of
# every 256 weights a float32 scale for each.
GRADIENT_BYTES, MOMENT_BYTES = 4, {"adamw": 8, "adamw 8-bit": 2 + 2 * 4 / 256}
# The settings under which a card holds most, beside fewer tokens at once: dtype, kept residuals, optimiser.
SMALLEST = {"model.dtype": "bfloat16", "cache.memory_mb": 0, "model.optimizer": "adamw 8-bit"}


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
    tied: bool = True

    @property
    def block_weights(self) -> int:
        """Weights of one layer's matrices."""
        return self.d_model * (2 * self.head_dim * (self.heads + self.kv_heads) + 3 * self.d_mlp)

    @property
    def sides(self) -> int:
        """Inputs and outputs of one layer's matrices together: an adapter of rank 1 on each has so many weights."""
        attention = 2 * self.head_dim * (self.heads + self.kv_heads)
        return 4 * self.d_model + attention + 3 * (self.d_model + self.d_mlp)

    @property
    def weights(self) -> int:
        """Weights of the model; where they are tied, the embedding is the unembedding too."""
        return self.layers * self.block_weights + (1 if self.tied else 2) * self.vocab * self.d_model

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
    "google/gemma-2-9b-it": Shape(42, 3584, 16, 8, 256, 14336, 256_000),
    "google/gemma-3-1b-it": Shape(26, 1152, 4, 1, 256, 6912, 262_144),
    "google/gemma-3-4b-it": Shape(34, 2560, 8, 4, 256, 10240, 262_208),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(32, 4096, 32, 8, 128, 14336, 128_256, tied=False),
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


KINDS = tuple(field.name for field in fields(Work))


def statistics_work(shape: Shape, layer: int, width: int, tokens: float, length: float) -> float:
    """Feature statistics on text: the layers up to `layer`, and an SAE of that width."""
    return shape.blocks(layer + 1, tokens, length) + 2.0 * shape.d_model * width * tokens


def sweep_work(shape: Shape, layer: int, settings: float, tokens: float, length: float, positions: float) -> float:
    """A sweep in which every setting changes every prompt: at most so much; logits are read at some positions."""
    above = shape.blocks(shape.layers - layer - 1, tokens, length) + shape.head(positions)
    return shape.blocks(layer + 1, tokens, length) + (1 + settings) * above


def rmu_work(shape: Shape, layer: int, tokens: float, length: float, checkpointing: bool = False) -> float:
    """One RMU step on so many forget and as many retain tokens: three passes up to `layer`, two back over three.

    Args:
        checkpointing: the layers that are gone back over run once more.
    """
    trained = min(3, layer + 1)
    forward = shape.blocks(trained, tokens, length)
    back = forward + 2.0 * shape.d_model * shape.d_mlp * trained * tokens
    return 3 * shape.blocks(layer + 1, tokens, length) + 2 * (back + checkpointing * forward)


def finetuning_work(shape: Shape, tokens: float, length: float, checkpointing: bool = False) -> float:
    """Next-token training of all weights on so many tokens: backward counts twice.

    Args:
        checkpointing: all layers run once more. What chunks of logits cost that are computed again is left out.
    """
    return (3 + checkpointing) * shape.blocks(shape.layers, tokens, length) + 3 * shape.head(tokens)


def kept_bytes(
    shape: Shape,
    layers: int,
    tokens: float,
    length: float,
    size: int,
    checkpointing: bool = False,
    frozen: bool = False,
) -> float:
    """What so many layers keep of one pass for going backward, its rows of a length.

    Args:
        size: bytes of a number in the dtype of the products.
        checkpointing: layers keep their input, and one at a time all of it.
        frozen: no weight asks for a gradient, so that of matrices and norms nothing is kept that goes in.
    """
    wide = 4 * shape.d_mlp + shape.head_dim * (3 * shape.heads + 1.5 * shape.kv_heads)
    norms = KEPT_NORMS * shape.d_model
    if frozen:  # four norms in float32; queries, keys and values share an input, as do the MLP's first two matrices
        wide, norms = wide - shape.d_mlp - shape.heads * shape.head_dim - 2 * shape.d_model, norms - 16 * shape.d_model
    layer = tokens * (norms + size * wide + KEPT_ATTENTION * shape.heads * length)
    return layers * tokens * KEPT_INPUT * shape.d_model + layer if checkpointing else layers * layer


def training_memory(
    profile: Profile, shape: Shape, trained: float, layers: int, passes: int = 1, tokens: float | None = None
) -> float:
    """Bytes that a training takes at its peak beside the model that it starts from.

    Its float32 copy, gradients and moments of what is trained, its copy in the dtype of the products, what a pass
    keeps, and a chunk of logits.

    Args:
        trained: how many weights.
        layers: how many gradients go back through.
        passes: kept at once; methods have one of forget and one of retain text.
        tokens: of a pass; by default as many as the profile takes at once.
    """
    of, length = profile.model, profile.texts.row_length
    size, tokens = DTYPE_BYTES[_products(of)], tokens or max(of.training_tokens, length)
    own = GRADIENT_BYTES + MOMENT_BYTES[of.optimizer]
    weights = 4 * shape.weights + own * trained + (size * shape.weights if size < 4 else 0)
    kept = passes * kept_bytes(shape, layers, tokens, length, size, of.gradient_checkpointing)
    return weights + kept + _logits_bytes(shape, tokens)


def _logits_bytes(shape: Shape, tokens: float) -> float:
    """What the logits of a chunk hold at once, or of all tokens where they are fewer."""
    return LIVE_LOGITS * 4 * min(CHUNK_LOGITS, tokens * shape.vocab)


def method_memory(profile: Profile, shape: Shape, setting: Method) -> float:
    """Bytes that making a setting's weights takes at its peak beside the model it starts from; 0 where none are made.

    As `training_memory`, of one step: what the frozen model computes beside it is let go, and so is the copy that the
    weights are put into. SSD takes gradients row by row, and holds a float32 copy, its gradients and the importances of
    both texts.
    """
    length = profile.texts.row_length
    if isinstance(setting, SSD):
        kept = kept_bytes(shape, shape.layers, length, length, DTYPE_BYTES["float32"])
        return 4 * DTYPE_BYTES["float32"] * shape.weights + kept + _logits_bytes(shape, length)
    if not isinstance(setting, TrainedMethod):
        return 0.0
    tokens = min(max(profile.model.training_tokens, length), setting.batch_rows * length)
    found = training_memory(profile, shape, *gone_back_through(profile, shape, setting), tokens)
    # RMU's loss is of a residual, and CRISP's of that and of the last state
    return found - _logits_bytes(shape, tokens) if isinstance(setting, RMU | CRISP) else found


def gone_back_through(profile: Profile, shape: Shape, setting: TrainedMethod) -> tuple[int, int, int]:
    """How many weights a method trains, how many layers a pass goes back through, and how many passes a step keeps.

    At most so much: RMU keeps less of the lowest of its layers, whose input asks for no gradient.
    """
    if isinstance(setting, RMU):
        near = min(3, setting.layer + 1)
        return near * shape.d_model * shape.d_mlp, near, 2
    if isinstance(setting, CRISP):  # forget text up to the SAE's layer, retain text to the end
        return setting.rank * shape.layers * shape.sides, shape.layers + profile.sae.layer + 1, 1
    return shape.weights, shape.layers, _passes(setting)[0]


def _passes(setting: TrainedMethod) -> tuple[int, int]:
    """`PASSES` of a method or of what it derives from; of one's own, a pass of each text with gradients."""
    return next((PASSES[kind] for kind in type(setting).__mro__ if kind in PASSES), (2, 0))


def _products(of: ModelSettings) -> str:
    """The dtype of the products of training."""
    return of.dtype if of.training_dtype == "same" else of.training_dtype


def crisp_work(
    shape: Shape, layer: int, width: int, tokens: float, length: float, checkpointing: bool = False
) -> float:
    """One CRISP step on so many forget and as many retain tokens; backward counts once, for only adapters are trained.

    The frozen model reads both texts up to `layer` and retain text to the end, and so does the student, once more back.
    On forget text the whole SAE reads the residual of both.

    Args:
        checkpointing: the student's layers run once more.
    """
    passes = 2 * shape.blocks(layer + 1, tokens, length) + shape.blocks(shape.layers, tokens, length)
    return (3 + checkpointing) * passes + 6.0 * shape.d_model * width * tokens


@dataclass(frozen=True)
class _Job:
    """The parts that notebooks are made of, under one profile."""

    profile: Profile
    shape: Shape
    questions: int
    known_share: float = KNOWN_SHARE

    def settings(self, *methods: type[Method]) -> int:
        return sum(len(method.grid(self.profile)) for method in methods)

    def statistics(self, passes: int = 1) -> Work:
        """Feature statistics on forget and retain text, with so many products of the whole SAE."""
        sizes, sae = self.profile.texts, self.profile.sae
        packed = (sizes.forget_rows + sizes.retain_rows) * sizes.row_length
        tokens = packed + sizes.framed_documents * PROMPT_TOKENS
        return Work(statistics=statistics_work(self.shape, sae.layer, passes * sae.width, tokens, sizes.row_length))

    def forget_statistics(self, share: float) -> Work:
        """Feature statistics on a share of the forget text, where that on retain text is known."""
        sizes, sae = self.profile.texts, self.profile.sae
        tokens = share * sizes.forget_rows * sizes.row_length
        return Work(statistics=statistics_work(self.shape, sae.layer, sae.width, tokens, sizes.row_length))

    def residuals(self, tokens: float, length: float) -> Work:
        """Text up to the SAE's layer, and a few of its features."""
        return Work(statistics=statistics_work(self.shape, self.profile.sae.layer, 0, tokens, length))

    def thresholds(self, sets: int | None = None) -> Work:
        """Rho on framed retain text for so many sets of features, by default those of DSG's grid."""
        n = len({setting.n_features for setting in DSG.grid(self.profile)}) if sets is None else sets
        return self.residuals(n * self.profile.texts.framed_documents * PROMPT_TOKENS, PROMPT_TOKENS)

    def trees(self) -> Work:
        return Work(trees=self.shape.blocks(self.shape.layers, self.questions * TREE_TOKENS, TREE_TOKENS))

    def asked(self, settings: float, share: float = 1.0) -> Work:
        """Known questions and neutral text once, and again for every setting."""
        n, text, layer = self.questions * self.known_share * share, self.profile.texts, self.profile.sae.layer
        neutral = text.neutral_rows * text.row_length
        return Work(
            answers=sweep_work(self.shape, layer, settings, n * PROMPT_TOKENS, PROMPT_TOKENS, n),
            losses=sweep_work(self.shape, layer, settings, neutral, text.row_length, neutral),
        )

    def attribution(self) -> Work:
        """Half of the known questions forward and back once, then under the clamp of every candidate alone."""
        shape, layer, candidates = self.shape, self.profile.sae.layer, self.profile.selection.attribution_candidates
        tokens = self.questions * self.known_share * 0.5 * PROMPT_TOKENS
        above = shape.blocks(shape.layers - layer - 1, tokens, PROMPT_TOKENS)
        alone = self.asked(candidates, share=0.5)
        losses = self.asked(candidates * KEPT_SHARE).losses
        return Work(training=shape.blocks(layer + 1, tokens, PROMPT_TOKENS) + 3 * above) + replace(alone, losses=losses)

    @property
    def known_tokens(self) -> float:
        """Of all known questions in one order."""
        return self.questions * self.known_share * PROMPT_TOKENS

    def attacked(self) -> float:
        """How many questions to forget are attacked: half of those that are known, or as many as the profile says."""
        known = asked_of(self.profile)[self.profile.questions.forget] * self.known_share
        return min(self.profile.prompt_attacks.questions, known / 2)

    def trained(self, *methods: type[Method]) -> Work:
        """Every setting of some methods trained, and all asked under its weights."""
        grids = [method.grid(self.profile) for method in methods]
        asked = [self.asked(0)] * sum(map(len, grids))
        return sum(asked, Work(training=sum(self.training(grid) for grid in grids)))

    def training(self, settings: Sequence[Method]) -> float:
        """Operations of training some settings of one method, of which those that differ in steps are one training."""
        longest: dict[Method, int] = {}
        for setting in settings:
            steps = setting.steps if isinstance(setting, TrainedMethod) else 1
            longest[setting.course] = max(steps, longest.get(setting.course, 0))
        if settings and isinstance(settings[0], SSD):  # the gradients of single rows, once for all settings
            length = self.profile.texts.row_length
            return 2 * finetuning_work(self.shape, settings[0].rows * length, length)
        return sum(steps * self.step(course) for course, steps in longest.items())

    def step(self, setting: Method) -> float:
        """Operations of one training step."""
        length, sae, again = self.profile.texts.row_length, self.profile.sae, self.profile.model.gradient_checkpointing
        if not isinstance(setting, TrainedMethod):
            raise ValueError(f"{setting.label} takes no training steps")
        tokens = setting.batch_rows * length
        if isinstance(setting, RMU):
            return rmu_work(self.shape, setting.layer, tokens, length, again)
        if isinstance(setting, CRISP):
            return crisp_work(self.shape, sae.layer, sae.width, tokens, length, again)
        back, forward = _passes(setting)
        only_forward = finetuning_work(self.shape, tokens, length) / 3
        return back * finetuning_work(self.shape, tokens, length, again) + forward * only_forward

    def one_training(self, method: type[Method]) -> float:
        """Operations of training the dearest setting of a method; nothing for one that is not trained."""
        grid = method.grid(self.profile) if method.trains else []
        return max((self.training([setting]) for setting in grid), default=0.0)

    def attacks(self) -> Work:
        """Three trainings a run: the attacks of every seed and rate, few documents, and the other half."""
        attack, length = self.profile.relearning, self.profile.texts.row_length
        runs = 3 * (len(attack.seeds) + len(attack.learning_rates) - 1)
        few, half = 3 * len(attack.few_seeds) * len(attack.few_documents), 3 * len(attack.half_seeds)
        few_rows = few * attack.few_steps * attack.batch_rows
        asked = runs * (len(attack.asked_after) + 2) + 2 * (few + half)
        training = finetuning_work(self.shape, few_rows * length, length, self.profile.model.gradient_checkpointing)
        training += (runs + half) * self.main_attack()
        return Work(training=training, answers=asked * self.asked(1, share=0.5).answers)

    def main_attack(self) -> float:
        """Operations of one fine-tuning on the relearning text."""
        attack, length = self.profile.relearning, self.profile.texts.row_length
        tokens = attack.epochs * attack.rows * length
        return finetuning_work(self.shape, tokens, length, self.profile.model.gradient_checkpointing)


# --- what each notebook does beside its start: statistics and known questions -----------------------------------------


def _clamp_curve(job: _Job) -> Work:
    # each feature alone, on both halves, then sets that grow by one, on one half
    sets = replace(job.asked(1.5 * job.profile.selection.n_features), losses=0.0)
    along = 2 * len({setting.strength for setting in StaticClamp.grid(job.profile)})
    curve = job.profile.clamp_curve
    return sets + job.asked(along) + job.asked(len(curve.n_features) * len(curve.strengths))


def _pareto(job: _Job) -> Work:
    clamps = job.asked(job.settings(StaticClamp)) + job.asked(job.settings(AttributionClamp))
    return clamps + job.trained(RMU) + job.attribution()


def _conditional(job: _Job) -> Work:
    """Answers to requests, every clamp, RMU, letters and controls, answers in words, and five protocols."""
    sizes = job.profile.conditional
    words = job.profile.grid_of(RefusalClamp.table, RefusalGrid).answer_tokens
    requests = _requests(job.profile) * (PROMPT_TOKENS + words)
    clamps: tuple[type[Method], ...] = (ClampPrime, RefusalClamp, Unconditional)
    # under no edit and under the best of each clamp
    told = (1 + len(clamps)) * sizes.told_questions * (PROMPT_TOKENS + sizes.new_tokens)
    spoken = job.shape.blocks(job.shape.layers, requests + told, PROMPT_TOKENS) + job.shape.head(requests + told)
    # the refusal feature in three ways, the one by contrast and random ones; letters under one edit more
    controls = job.asked(4 + sizes.control_features) + replace(job.asked(len(clamps) + 1), losses=0.0)
    swept = job.asked(job.settings(*clamps)) + job.trained(RMU) + controls
    return swept + _protocols(job, len(clamps)) + Work(answers=spoken)


def _protocols(job: _Job, edits: int) -> Work:
    """All questions in two frames, known ones, and a few of every subject in one order and in all 24."""
    few = job.profile.conditional.ordered_questions * (1 + len(job.profile.questions.side_effect))
    layer, known = job.profile.sae.layer, job.questions * job.known_share
    prompts = 2 * job.questions + known + few
    orders = sweep_work(job.shape, layer, edits, few * TREE_TOKENS, TREE_TOKENS, few)
    return Work(
        trees=orders, answers=sweep_work(job.shape, layer, edits, prompts * PROMPT_TOKENS, PROMPT_TOKENS, prompts)
    )


def _guardrail(job: _Job) -> Work:
    static = job.settings(StaticClamp)
    return job.thresholds() + job.asked(job.settings(DSG) + 2 * static) + job.trained(RMU)


def _attacked(job: _Job) -> Work:
    return job.thresholds() + job.asked(job.settings(DSG)) + job.trained(RMU) + job.attacks()


def _side_by_side(job: _Job) -> Work:
    """Every method's grid; the chosen setting of each trained anew, asked on one half, read on two texts, and attacked.

    A clamp is attacked without it and with it in place.
    """
    clamps: tuple[type[Method], ...] = (StaticClamp, DSG)
    sizes = job.profile.texts
    swept = job.thresholds() + job.asked(job.settings(*clamps)) + job.trained(*WEIGHTS_METHODS)
    chosen = len(clamps) + len(WEIGHTS_METHODS)
    packed, framed = sizes.neutral_rows * sizes.row_length, sizes.framed_documents * PROMPT_TOKENS
    read = finetuning_work(job.shape, packed, sizes.row_length) + finetuning_work(job.shape, framed, PROMPT_TOKENS)
    attacked = (len(clamps) + chosen) * job.main_attack()
    return swept + Work(
        training=sum(job.one_training(method) for method in WEIGHTS_METHODS) + attacked,
        answers=chosen * job.asked(1, share=0.5).answers,
        losses=chosen * 2 * read / 3,  # forward only, with the edit and without
    )


def _forget_requests(job: _Job) -> Work:
    """The methods' grids; then, of each, 1 to so many folds at once, and the same one after another in every way."""
    folds, work = job.profile.forget_requests.folds, job.thresholds()
    for name in job.profile.forget_requests.methods:
        method = METHODS[name]
        ways = (AT_ONCE, *ways_of(method.grid(job.profile)[0]))
        work += job.trained(method) if method.trains else job.asked(job.settings(method))
        # at each request all folds so far together, or for the features of every request each fold by itself too
        shares = [(folds + 1) / 2 * (1 + (way == FEATURES_SO_FAR)) for way in ways if not method.trains]
        work += job.forget_statistics(sum(shares)) + job.thresholds(folds * len(ways) * issubclass(method, DSG))
        work += Work(training=folds * len(ways) * job.one_training(method))
        work += Work(answers=folds * len(ways) * job.asked(1, share=0.5).answers)
    return work


def _little_text(job: _Job) -> Work:
    """The methods' grids; then, of each, every share of the text with every seed; and every tau without any text."""
    sizes, named, work = job.profile.little_text, job.profile.named_features, job.thresholds()
    for name in sizes.methods:
        method = METHODS[name]
        given = parts(sizes, method.grid(job.profile)[0])
        work += job.trained(method) if method.trains else job.asked(job.settings(method))
        work += job.forget_statistics(0 if method.trains else sum(share for share, _ in given))
        work += job.thresholds(len(given) * issubclass(method, DSG))
        work += Work(training=len(given) * job.one_training(method))
        one = job.asked(1, share=0.5)
        work += Work(answers=len(given) * one.answers, losses=len(given) * one.losses)
    return work + job.asked(len(named.thresholds) + 1)


def _theorems(job: _Job) -> Work:
    """DSG's grid; the SAE's error on both texts; each feature alone, and attribution; rho of all known questions."""
    sizes, shape, layer = job.profile.theorems, job.shape, job.profile.sae.layer
    # the SAE encodes every token for its activations, and once more with the decoder for its error
    error = job.statistics(passes=3)
    saes = [error] * (1 + (sizes.other_layer >= 0))
    tokens = sizes.questions * PROMPT_TOKENS
    alone = sweep_work(shape, layer, sizes.features, 2 * tokens, PROMPT_TOKENS, 2 * sizes.questions)
    above = shape.blocks(shape.layers - layer - 1, tokens, PROMPT_TOKENS)
    gradient = shape.blocks(layer + 1, tokens, PROMPT_TOKENS) + 3 * above
    swept = job.thresholds() + job.asked(job.settings(DSG)) + job.residuals(job.known_tokens, PROMPT_TOKENS)
    return sum(saes, swept) + Work(answers=alone, training=gradient)


def _ablations(job: _Job) -> Work:
    """DSG's grid; one half under every p_ratio, p_dyn, and both ideas on and off at every strength; rho of texts."""
    sizes, text = job.profile.ablations, job.profile.texts
    ideas = 4 * len({setting.strength for setting in DSG.grid(job.profile)})
    varied = len(sizes.ratio_percentiles) + len(sizes.gate_percentiles) + ideas
    rho = job.residuals(job.known_tokens / 2, PROMPT_TOKENS)
    rho += job.residuals(text.retain_rows * text.row_length, text.row_length)
    taus = job.thresholds() + job.thresholds(len(sizes.ratio_percentiles) + 1)
    return taus + job.asked(job.settings(DSG)) + job.asked(varied, share=0.5) + rho


def _muse(job: _Job) -> Work:
    """Every setting trained and measured; half 1 by each way of a gate, and after requests at once and in turn."""
    sizes, splits, work = job.profile.muse, MUSE_SPLITS[job.profile.muse.name], Work()
    folds = sum(split.startswith("scal/") for split in splits) + sum(split.startswith("sust/") for split in splits)
    for name in sizes.methods:
        grid = METHODS[name].grid(job.profile)
        work += Work(training=job.training(grid) if METHODS[name].trains else 0.0) + _criteria(job, len(grid))
    for name in sizes.request_methods:
        work += Work(training=folds * job.one_training(METHODS[name])) + _criteria(job, folds / 2)
    # target and reference; half 1 under every way of a gate but the first, under which methods are compared
    return work + job.thresholds() + _criteria(job, 2 + (len(sizes.gates) - 1) / 2)


def _criteria(job: _Job, edits: float) -> Work:
    """MUSE's four criteria under so many edits: passages and answers are said, texts are read."""
    sizes, rows, length = job.profile.muse, MUSE_SPLITS[job.profile.muse.name], job.profile.texts.row_length
    asked = (rows["knowmem/forget_qa"] or 0) + (rows["knowmem/retain_qa"] or 0)
    passages, texts = rows["verbmem/forget"] or 0, (rows["privleak/forget"] or 0) + (rows["privleak/holdout"] or 0)
    given = passages * sizes.prompt_tokens + asked * (1 + sizes.head) * SOLVED_TOKENS
    said = passages * sizes.new_tokens + asked * sizes.answer_tokens
    spoken = job.shape.blocks(job.shape.layers, given + said, length) + job.shape.head(said)
    return Work(answers=edits * spoken, losses=edits * finetuning_work(job.shape, texts * length, length) / 3)


def _prompt_attacks(job: _Job) -> Work:
    """DSG's grid; questions to forget of both halves in every attack's way, by model and guard, whose gate is read.

    Those that choose settings as if by both too; benign ones as if under the longest setting of each attack and a
    control of equal length. Half of all is answered freely: unguarded, and with the gate asked in every way.
    """
    asked, sizes, every = job.profile.questions, job.profile.prompt_attacks, attacks_of(job.profile)
    forget = job.attacked()
    benign = 2 * sizes.benign_questions * (1 + len(asked.side_effect))
    longest = {attack.name: _length(attack) for attack in sorted(every, key=_length)}
    lengths = [(forget * (1 + (not attack.control)), _length(attack)) for attack in every]
    lengths += [(benign, n) for n in longest.values()]
    swept = job.thresholds() + job.asked(job.settings(DSG)) + _free_answers(job, forget + benign / 2)
    return sum((_asked_long(job, *of) for of in lengths), swept)


def _free_answers(job: _Job, n: float) -> Work:
    shape, new = job.shape, job.profile.prompt_attacks.new_tokens
    length = PROMPT_TOKENS + new
    spoken = shape.blocks(shape.layers, n * length, length) + shape.head(n * new)
    below = shape.blocks(job.profile.sae.layer + 1, n * length, length)  # where the gate opened is read off the answer
    gates = len(GATES)
    read = shape.blocks(shape.layers, n * length, length) + shape.head(n * length)  # how likely the answer is
    return Work(answers=(1 + gates) * (spoken + read) + gates * below)


def _gates(job: _Job) -> Work:
    """DSG's grid; every gate set on half of the known questions; then what is asked in every attack's way.

    The layers below serve all gates at once; above them there are the unedited model and the clamp without a gate.
    The detector's lessons are read twice, to learn and to set a threshold, and those who judge once. Last, a few
    strengths in two units on two residuals.
    """
    asked, sizes, layer = job.profile.questions, job.profile.prompt_attacks, job.profile.sae.layer
    known = job.questions * job.known_share / 2 * PROMPT_TOKENS
    passes = (len(job.profile.gates.names) + 2 * DETECTOR_LESSONS + 1) * known
    setting = Work(statistics=statistics_work(job.shape, layer, 0, passes, PROMPT_TOKENS))
    forget = job.attacked()
    strengths = sweep_work(job.shape, layer, len(OF_CHOSEN), forget * PROMPT_TOKENS, PROMPT_TOKENS, forget)
    setting += Work(answers=4 * strengths)
    n = 2 * forget + sizes.benign_questions * (1 + len(asked.side_effect))
    swept = job.thresholds() + job.asked(job.settings(DSG))
    return sum((_asked_long(job, n, _length(attack)) for attack in attacks_of(job.profile)), swept + setting)


def _asked_long(job: _Job, n: float, length: int) -> Work:
    shape, layer = job.shape, job.profile.sae.layer
    gate = shape.blocks(layer + 1, n * length, length)
    return Work(answers=gate + sweep_work(shape, layer, 1, n * length, length, n))


def _length(attack: PromptAttack) -> int:
    return attack.length(PROMPT_TOKENS)


def _recovery(job: _Job) -> Work:
    """The methods' grids; then every attack on the chosen of each, as if half of all known questions were to forget."""
    of, shape, layer = job.profile.recovery, job.shape, job.profile.sae.layer
    work = job.thresholds()
    for method in (METHODS[name] for name in of.methods):
        work += job.trained(method) if method.trains else job.asked(job.settings(method))
        work += Work(training=job.one_training(method))
    both, side = job.known_tokens / 2, of.side_questions * PROMPT_TOKENS  # two halves of them
    one, above = (shape.blocks(n, 1, PROMPT_TOKENS) for n in (shape.layers, shape.layers - layer - 1))
    # right and wrong letters as targets, in the residual and in the embeddings; a vector a question in one place
    steps = len(of.bounds) * of.steps * BATCH_PROMPTS * PROMPT_TOKENS * (above + one)
    fitted = 2 * 3 * (steps + of.each_steps * both / 2 * above)
    said = 2 * (2 * len(of.bounds) + 1) * both
    turned = (shape.layers - layer) * 2 * (both + side)
    weighed = (len(of.bits) * len(of.groups) + len(of.pruned_shares) + 1) * (both + side)
    asked = (said + len(ROTATIONS) * both + turned + weighed) * one
    return work + Work(training=len(of.methods) * fitted, answers=len(of.methods) * asked)


NOTEBOOKS: dict[str, Callable[[_Job], Work]] = {
    "01": _Job.attribution,
    "02": _clamp_curve,
    "03": _pareto,
    "04": _conditional,
    "05": _guardrail,
    "06": _attacked,
    "07": _side_by_side,
    "08": _forget_requests,
    "09": _little_text,
    "10": _muse,
    "11": _prompt_attacks,
    "12": _recovery,
    "13": _gates,
    "14": _theorems,
    "15": _ablations,
}


def asked_of(profile: Profile) -> dict[str, int]:
    """How many questions there are, by subject: as many as a hub's set is known to have, or the organism's world."""
    asked = profile.questions
    if asked.source == "organism":
        return {subject: len(questions) for subject, questions in load_questions(profile).items()}
    return {subject: question_source(subject).rows or 0 for subject in (asked.forget, asked.near, *asked.side_effect)}


def _requests(profile: Profile) -> int:
    if profile.texts.requests == "organism":
        found = load_requests(profile)
        return len(found.harmful) + len(found.benign)
    return sum(source.rows or 0 for source in request_sources(profile.texts.requests))


def notebook_work(
    profile: Profile, shape: Shape, questions: int, notebook: str, known_share: float = KNOWN_SHARE
) -> Work:
    """Operations of one notebook as if it ran alone and every setting changed every prompt.

    Stages that notebooks share (statistics, known questions, RMU) are computed once when they run together.

    Args:
        profile: in its version for this notebook.
        questions: how many there are in all subjects.
        notebook: its number, one of `NOTEBOOKS`.
        known_share: of the questions, those that the model knows.
    """
    if notebook not in NOTEBOOKS:
        raise ValueError(f"the work of notebook {notebook!r} has not been counted, that of {', '.join(NOTEBOOKS)} has")
    job = _Job(profile, shape, questions, known_share)
    start = job.statistics() + (Work() if notebook in WITHOUT_TREES else job.trees())
    return start + NOTEBOOKS[notebook](job)


def projections(
    name: str,
    device: str,
    shares: Mapping[str, float],
    product: float | None = None,
    overrides: Mapping[str, Any] | None = None,
    shape: Shape | None = None,
    known_share: float = KNOWN_SHARE,
    training: float | None = None,
) -> dict[str, tuple[float, float] | None]:
    """Seconds and bytes of each notebook that a profile serves; None where the work has not been counted.

    Args:
        name: the profile.
        device: torch's name of what it would run on.
        shares: as `measured_shares` gives them.
        product: operations a second of a matrix product there; None measures it (`matrix_rate`).
        overrides: of the profile's values, as `load_profile` takes them.
        shape: of the model; by default the one that `SHAPES` has.
        known_share: of the questions, those that the model knows.
        training: as `product`, of the products of training.
    """
    profile = load_profile(name, overrides)
    shape, found = shape or SHAPES.get(profile.model.source), dict.fromkeys(profile.notebooks or NOTEBOOKS)
    if shape is None:
        return found
    speed = product or matrix_rate(device, profile.model.dtype)
    rates = {kind: share * speed for kind, share in shares.items()}
    if _products(profile.model) != profile.model.dtype:
        rates["training"] = shares["training"] * (training or matrix_rate(device, _products(profile.model)))
    questions = sum(asked_of(profile).values())
    for number in (n for n in found if n in NOTEBOOKS):
        version = load_profile(name, overrides, number)
        if number == MUSE_NOTEBOOK and version.muse.name not in MUSE_SPLITS:  # the organism's own
            continue
        seconds = notebook_work(version, shape, questions, number, known_share).seconds(rates)
        found[number] = seconds, notebook_memory(version, shape, number)
    return found


def finetuning_costs(
    profile: Profile, shape: Shape, tokens: float, device: str, product: float | None = None
) -> tuple[float, float]:
    """Seconds and bytes of making a target of MUSE (`helpers.finetune`), projected.

    Args:
        tokens: of its texts.
        device: torch's name of what it would run on.
        product: operations a second of a matrix product there; None measures it (`matrix_rate`).
    """
    of, length = profile.model, profile.texts.row_length
    speed = product or matrix_rate(device, _products(of))
    work = finetuning_work(shape, profile.finetuning.epochs * tokens, length, of.gradient_checkpointing)
    seconds = work / (speed * measured_shares(pd.read_csv(MEASURED))["training"])
    return seconds, training_memory(profile, shape, shape.weights, shape.layers)


def target_costs(profile: Profile, device: str, product: float | None = None) -> dict[str, tuple[float, float] | None]:
    """`finetuning_costs` of a profile's target and of its reference, from the size of the hub's texts, by those texts.

    None where the model's shape is not known; nothing where the profile takes its model as it is.
    """
    shape, sizes = SHAPES.get(profile.model.source), MUSE_BYTES.get(profile.muse.name, {})
    if not profile.model.finetuned or not sizes:
        return {}
    read = {TARGET: sum(sizes.values()), REFERENCE: sum(n for split, n in sizes.items() if "/retain" in split)}
    return {
        texts: None if shape is None else finetuning_costs(profile, shape, n / TOKEN_BYTES, device, product)
        for texts, n in read.items()
    }


def finetuning_disk(profile: Profile, models: int) -> float:
    """Bytes on disk while so many models are fine-tuned, one after the other; 0 where the shape is not known.

    Each one's weights in the model's dtype, taken for two bytes, and of the one at work what it kept last and what it
    is keeping: weights and AdamW's two moments in float32.
    """
    shape = SHAPES.get(profile.model.source)
    return float((2 * models + 2 * 12) * shape.weights) if models and shape else 0.0


def shape_of(config: PreTrainedConfig) -> Shape:
    """The shape that a model's config gives."""
    heads = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    widths = config.intermediate_size, config.vocab_size
    return Shape(config.num_hidden_layers, config.hidden_size, *heads, *widths, tied=config.tie_word_embeddings)


def in_words(seconds: float, memory: float) -> str:
    """'about 2.5 h, 48 GB of memory (projected)'."""
    return f"{duration(seconds)}, {memory / 1e9:.0f} GB of memory (projected)"


def duration(seconds: float) -> str:
    """'about 2.5 h'."""
    units = (("days", 86400), ("h", 3600), ("min", 60))
    unit, size = next(((unit, size) for unit, size in units if seconds >= 2 * size), units[-1])
    return f"about {seconds / size:.1f} {unit}"


def notebook_memory(profile: Profile, shape: Shape, notebook: str) -> float:
    """Bytes that a notebook needs at its peak beside the packages: models, SAE, kept residuals and one batch."""
    size, tokens = DTYPE_BYTES[profile.model.dtype], profile.model.batch_tokens
    model, needed = shape.weights * size, 0.0
    if notebook in WITH_RMU:  # beside what RMU trains, the model that it made is asked
        layers = min(3, profile.sae.layer + 1)
        needed = model + training_memory(profile, shape, layers * shape.d_model * shape.d_mlp, layers, passes=2)
    if notebook in WITH_LONGER:  # a copy with a longer residual
        needed = model
    if notebook in WITH_WHOLE:  # the model attacked, and what has become of it as it is asked
        needed = max(needed, 2 * model + training_memory(profile, shape, shape.weights, shape.layers))
    if notebook in (*WITH_GRADIENTS, *WITH_ALL_GRADIENTS):
        deep = notebook in WITH_ALL_GRADIENTS
        layers = shape.layers - (0 if deep else profile.sae.layer + 1)
        needed = max(needed, kept_bytes(shape, layers, profile.model.training_tokens, PROMPT_TOKENS, size, frozen=True))
    if notebook in METHODS_PASSES:
        passes = METHODS_PASSES[notebook]
        needed = max(needed, training_memory(profile, shape, shape.weights, shape.layers, passes))
    sae = 4 * (2 * shape.d_model + 2) * profile.sae.width
    attention = LIVE_ATTENTION * shape.heads * profile.texts.row_length * 4
    batch = tokens * (LIVE_TENSORS * shape.d_mlp * size + attention)
    return model + sae + profile.cache.memory_mb * 2**20 + max(batch, needed)


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
