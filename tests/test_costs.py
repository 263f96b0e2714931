"""Counted work is what a model really computes, and estimates are that work at given rates."""

import copy
import functools

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from helpers.attacks.decomposition import Decomposition
from helpers.engine.features import feature_statistics
from helpers.engine.finetuning import lm_loss
from helpers.engine.forward import clone, final_state, final_state_from, huggingface, residual_after, unembed, wrap
from helpers.engine.interventions import Clamp
from helpers.engine.residuals import MEGABYTE
from helpers.engine.scoring import CHUNK_LOGITS, NOTHING_KEPT, Sweep, read_loss, row_batches
from helpers.engine.steps import Passes, keep_only_what_goes_in
from helpers.experiments.costs import (
    DTYPE_BYTES,
    KINDS,
    KNOWN_SHARE,
    MEASURED,
    NOTEBOOKS,
    PASSES,
    PROMPT_TOKENS,
    SHAPES,
    SOLVED_TOKENS,
    TREE_TOKENS,
    WEIGHTS_METHODS,
    Shape,
    Work,
    asked_of,
    crisp_work,
    finetuning_costs,
    finetuning_disk,
    finetuning_work,
    gone_back_through,
    in_words,
    kept_bytes,
    matrix_rate,
    measured_shares,
    method_memory,
    notebook_memory,
    notebook_work,
    projections,
    rmu_work,
    shape_of,
    statistics_work,
    sweep_work,
    target_costs,
)
from helpers.methods import METHODS
from helpers.methods.crisp import CRISP
from helpers.methods.dsg import DSG
from helpers.methods.grad_diff import GradDiff
from helpers.methods.gradient_ascent import GradientAscent
from helpers.methods.npo import NPO
from helpers.methods.rmu import RMU
from helpers.methods.scrub import SCRUB
from helpers.methods.simnpo import SimNPO
from helpers.methods.ssd import SSD
from helpers.methods.training import train
from helpers.profiles import available_profiles, load_profile
from helpers.text.batches import packed_batch
from tests.toy import D_SAE, LAYER, toy_model, toy_sae

GEMMA = SHAPES["google/gemma-2-2b-it"]
ROWS = [[2, *range(5, 36)]] * 4  # 128 tokens in rows of 32
EVEN = dict.fromkeys(KINDS, 0.5)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shape(model):
    return Shape(4, 16, 2, 1, 8, 32, huggingface(model).config.vocab_size)


def counted(work) -> int:
    """Operations of every matrix product that really runs."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_gemmas_size_is_the_known_one(model, shape):
    assert GEMMA.block_weights == 77_856_768 and round(GEMMA.weights / 1e9, 3) == 2.614
    matrices = [p for p in huggingface(model).parameters() if p.dim() > 1]
    assert shape.weights == sum(p.numel() for p in matrices)


@torch.no_grad()
def test_a_forward_pass_is_counted_to_the_operation(model, shape):
    batch = next(row_batches(model, ROWS, 1000))
    passed = counted(lambda: unembed(model, final_state(model, batch)))
    # one product of the model makes no part of any layer: positions times rotary frequencies
    assert passed == pytest.approx(shape.blocks(4, 128, 32) + shape.head(128), rel=1e-3)


def test_statistics_sweeps_and_training_are_counted(model, shape):
    sae = toy_sae()
    found = counted(lambda: feature_statistics(model, sae, ROWS, 1000))
    assert found == pytest.approx(statistics_work(shape, LAYER, D_SAE, 128, 32), rel=1e-2)

    def sweep():
        swept = Sweep(model, row_batches(model, ROWS, 1000), LAYER, read_loss, NOTHING_KEPT)
        return swept.unedited, swept.edited(Clamp(sae, range(D_SAE), -3.0))

    # nothing is kept, so the layers below run for each of the two; a setting adds its own columns of the SAE
    expected = sweep_work(shape, LAYER, 1, 128, 32, 124) + shape.blocks(LAYER + 1, 128, 32)
    assert found_within(counted(sweep), expected, 0.1)
    setting = RMU(LAYER, 1.0, 1.0, steps=1, batch_rows=4, learning_rate=1e-3)
    text = torch.tensor(ROWS)
    trained = counted(lambda: train(model, text, text.flip(1), setting, Passes(10_000))) - shape.blocks(
        LAYER + 1, 128, 32
    )
    assert found_within(trained, rmu_work(shape, LAYER, 128, 32), 0.3)


def found_within(found: float, expected: float, share: float) -> bool:
    return abs(found - expected) <= share * expected


def test_backward_counts_twice_and_checkpointing_once_more(model, shape):
    assert finetuning_work(shape, 128, 32) == 3 * (shape.blocks(4, 128, 32) + shape.head(128))
    for checkpointing in (False, True):
        student = clone(model)
        if checkpointing:
            keep_only_what_goes_in(student)
        batch = next(row_batches(student, ROWS, 1000))
        found = counted(lambda s=student, b=batch: lm_loss(s, b, None).backward())
        assert found == pytest.approx(finetuning_work(shape, 128, 32, checkpointing), rel=0.03)


def kept(layers: int, length: int, dtype: torch.dtype, checkpointing: bool) -> int:
    """Bytes that a model of some layers really keeps of one row, beside its weights."""
    model = wide_model(layers)
    if checkpointing:
        keep_only_what_goes_in(model)
    low = dtype != torch.float32
    with torch.autocast("cpu", dtype=dtype, enabled=low):
        return saved(lambda: final_state(model, next(row_batches(model, [[2, *range(5, 4 + length)]], 1000))), model)


def saved(forward, *models) -> int:
    """Bytes that are really kept for going backward, beside the models' weights."""
    weights = {p.untyped_storage().data_ptr() for model in models for p in huggingface(model).parameters()}
    held = {}

    def keep(tensor):
        place = tensor.untyped_storage()
        if place.data_ptr() not in weights:
            held[place.data_ptr()] = place.nbytes(), tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        kept_alive = forward()
    assert kept_alive is not None
    return sum(nbytes for nbytes, _ in held.values())


def wide_model(layers: int):
    """Wide enough that what is not counted, as masks and rotary angles, is little beside what is."""
    small = huggingface(toy_model()).config
    config = copy.deepcopy(small)
    config.update({"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32})
    config.update({"intermediate_size": 128, "num_hidden_layers": layers})
    config.layer_types = ["full_attention"] * layers
    return wrap(AutoModelForCausalLM.from_config(config), toy_model().tokenizer)


@pytest.mark.parametrize("length", [64, 128])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_layer_keeps_for_going_backward_is_counted(dtype, length):
    wide, size = Shape(1, 64, 4, 2, 32, 128, 100), DTYPE_BYTES[dtype]
    deep, flat = (kept(layers, length, getattr(torch, dtype), checkpointing=False) for layers in (4, 2))
    casts = 2 * wide.block_weights if size < 4 else 0  # training_memory has them with the weights
    assert (deep - flat) / 2 - casts == pytest.approx(kept_bytes(wide, 1, length, length, size), rel=0.05)
    deep, flat = (kept(layers, length, getattr(torch, dtype), checkpointing=True) for layers in (4, 2))
    inputs = kept_bytes(wide, 4, length, length, size, True) - kept_bytes(wide, 2, length, length, size, True)
    assert deep - flat == inputs == 2 * length * 64 * 4


@pytest.mark.parametrize("length", [64, 128])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_frozen_layer_keeps_for_the_residuals_gradient_is_counted(dtype, length):
    found = []
    for layers in (5, 3):
        model = wide_model(layers)
        huggingface(model).to(getattr(torch, dtype)).requires_grad_(False)
        (batch,) = row_batches(model, [[2, *range(5, 4 + length)]], 1000)
        residual = residual_after(model, batch, 0).detach().requires_grad_()
        found.append(saved(functools.partial(final_state_from, model, batch, 0, residual), model))
    counted = kept_bytes(Shape(1, 64, 4, 2, 32, 128, 100), 1, length, length, DTYPE_BYTES[dtype], frozen=True)
    assert (found[0] - found[1]) / 2 == pytest.approx(counted, rel=0.07)


def test_what_checkpointing_saves_is_counted():
    plain, less = (
        notebook_memory(load_profile("gemma-2-2b-it", {"model.gradient_checkpointing": on}), GEMMA, "06")
        for on in (False, True)
    )
    assert plain - less == kept_bytes(GEMMA, 26, 2048, 1024, 4) - kept_bytes(GEMMA, 26, 2048, 1024, 4, True)
    longer = load_profile("gemma-2-2b-it", {"model.training_tokens": 8192})
    assert notebook_memory(longer, GEMMA, "06") > less


def test_what_training_holds_follows_its_optimiser_and_its_products():
    plain, eight, low, both = (
        notebook_memory(load_profile("gemma-2-2b-it", changes), GEMMA, "06")
        for changes in (
            {},
            {"model.optimizer": "adamw 8-bit"},
            {"model.training_dtype": "bfloat16"},
            {"model.training_dtype": "bfloat16", "model.optimizer": "adamw 8-bit"},
        )
    )
    # two float32 moments against two bytes and a 32nd of one for the scales
    assert plain - eight == low - both == pytest.approx((8 - 2.03125) * GEMMA.weights)
    # a copy of all weights for the products, and less kept of a pass
    saved = kept_bytes(GEMMA, 26, 2048, 1024, 4, True) - kept_bytes(GEMMA, 26, 2048, 1024, 2, True)
    assert low - plain == pytest.approx(2 * GEMMA.weights - saved)


def test_training_in_another_dtype_goes_at_its_own_rate():
    low = {"model.training_dtype": "bfloat16"}
    plain, fast = (projections("gemma-2-2b-it", "cpu", EVEN, 1e12, changes, training=8e12) for changes in ({}, low))
    for number, (seconds, _) in fast.items():
        work = notebook_work(load_profile("gemma-2-2b-it", low, number), GEMMA, 2142, number)
        assert plain[number][0] - seconds == pytest.approx(7 / 8 * work.training / (EVEN["training"] * 1e12))


def test_work_adds_up_and_takes_its_time():
    work = Work(trees=6.0, training=4.0) + Work(trees=2.0)
    assert work == Work(trees=8.0, training=4.0) and work.total == 12
    assert work.seconds({"trees": 2.0, "training": 8.0}) == 4.5


def test_notebooks_cost_what_they_are_made_of():
    profile = load_profile("gemma-2-2b-it")
    found = {number: notebook_work(profile, GEMMA, 2142, number) for number in ("01", "03", "05", "06")}
    assert found["01"].statistics == found["03"].statistics > 0
    assert found["01"].trees == found["03"].trees == GEMMA.blocks(26, 2142 * 1050, 1050)
    # attribution is one pass forward and back over half of the known questions, in 01 and in 03
    attribution = found["01"].training
    assert found["03"].training - attribution == found["05"].training < found["06"].training
    twice = notebook_work(load_profile("gemma-2-2b-it", {"method.rmu.steps": [600]}), GEMMA, 2142, "03")
    assert twice.training - attribution == 2 * found["05"].training
    half = 2142 * KNOWN_SHARE / 2 * PROMPT_TOKENS
    assert attribution == pytest.approx(GEMMA.blocks(4 + 3 * 22, half, PROMPT_TOKENS))
    fewer = {"selection.attribution_candidates": 60}
    saved = found["01"].answers - notebook_work(load_profile("gemma-2-2b-it", fewer), GEMMA, 2142, "01").answers
    asked = 2142 * KNOWN_SHARE / 2
    assert saved == pytest.approx(40 * (GEMMA.blocks(22, half, PROMPT_TOKENS) + GEMMA.head(asked)))
    with pytest.raises(ValueError, match="'00' has not been counted, that of 01, 02, .* has"):
        notebook_work(profile, GEMMA, 2142, "00")


HOW = {"steps": 1, "batch_rows": 4, "learning_rate": 1e-4}
STEPS = [GradientAscent(**HOW), GradDiff(1.0, **HOW), NPO(0.1, 1.0, **HOW), SimNPO(0.1, 0.0, 1.0, **HOW),
         SCRUB(1.0, 2.0, **HOW)]  # fmt: skip


@pytest.mark.parametrize("setting", [*STEPS, RMU(2, 1.0, 1.0, **HOW), CRISP(2, 5.0, 0.1, 0.01, 2, **HOW)],
                         ids=lambda setting: setting.label)  # fmt: skip
def test_a_method_keeps_as_many_passes_as_are_counted_for_its_memory(setting, monkeypatch):
    """Two rows of 64 tokens of either text, logits in chunks; RMU keeps a part of the lowest of its layers."""
    crisp, rows = isinstance(setting, CRISP), torch.arange(10, 138).view(2, 64)
    model = toy_model() if crisp else wide_model(4)
    shape = shape_of(huggingface(model).config)
    monkeypatch.setattr("helpers.engine.scoring.CHUNK_LOGITS", 8 * shape.vocab)
    profile = load_profile("tiny", {"texts.row_length": 64, "sae.layer": LAYER})
    trained, layers, passes = gone_back_through(profile, shape, setting)
    student = setting.student(model)
    loss = setting.objective(model, rows, *((toy_sae(), (3, 5)) if crisp else ()))
    texts = [packed_batch(text) for text in (rows, rows.flip(1))]
    found = saved(lambda: loss(student, *texts), student, model)
    share = found / (passes * kept_bytes(shape, layers, 128, 64, DTYPE_BYTES["float32"]))
    # CRISP's SAE and adapters are in what is found
    low, high = {"RMU": (0.5, 1.0), "CRISP": (1.0, 1.3)}.get(setting.label, (0.97, 1.06))
    assert low < share < high
    assert trained == sum(p.numel() for p in huggingface(student).parameters() if p.requires_grad and p.dim() > 1)


def test_what_a_training_holds_by_hand():
    """Steps of 4 rows of 10 tokens: float32 copy, gradient and two moments, what is kept, all logits; SSD a row."""
    profile, shape = load_profile("tiny", {"texts.row_length": 10}), Shape(4, 16, 2, 1, 8, 32, 100)
    logits, one_pass = 4 * 4 * 40 * 100, kept_bytes(shape, 4, 40, 10, 4)
    expected = {"GA": 1, "GradDiff": 2, "NPO": 2, "SimNPO": 2, "SCRUB": 3}
    for setting in STEPS:
        held = 16 * shape.weights + expected[setting.label] * one_pass + logits
        assert method_memory(profile, shape, setting) == held
    near = kept_bytes(shape, 3, 40, 10, 4)
    assert method_memory(profile, shape, RMU(2, 1.0, 1.0, **HOW)) == 4 * shape.weights + 12 * 3 * 16 * 32 + 2 * near
    adapters = 2 * 4 * ((16 + 16) + 2 * (16 + 8) + (16 + 16) + 3 * (16 + 32))  # of rank 2, on seven matrices a layer
    crisp = 4 * shape.weights + 12 * adapters + kept_bytes(shape, 4 + profile.sae.layer + 1, 40, 10, 4)
    assert method_memory(profile, shape, CRISP(2, 5.0, 0.1, 0.01, 2, **HOW)) == crisp
    of_a_row = kept_bytes(shape, 4, 10, 10, 4) + 4 * 4 * 10 * 100
    assert method_memory(profile, shape, SSD(1.0, 0.1, True, 64)) == 16 * shape.weights + of_a_row
    assert method_memory(profile, shape, DSG(20, 5.0)) == 0
    # no more than a profile takes at once
    assert method_memory(load_profile("tiny", {"texts.row_length": 10, "model.training_tokens": 20}), shape,
                         STEPS[0]) == 16 * shape.weights + kept_bytes(shape, 4, 20, 10, 4) + logits / 2  # fmt: skip


@pytest.mark.parametrize("setting", STEPS, ids=lambda setting: setting.label)
def test_a_step_runs_as_many_passes_as_are_counted(model, shape, setting):
    """Backward counts twice. SCRUB's logits, most of this small model, are computed once more going backward."""
    text, (back, forward) = torch.tensor(ROWS), PASSES[type(setting)]
    found = counted(lambda: train(model, text, text.flip(1), setting, Passes(10_000)))
    once = shape.blocks(4, 128, 32) + shape.head(128)
    recomputed = 4 * shape.head(128) if isinstance(setting, SCRUB) else 0
    assert found_within(found, (3 * back + forward) * once + recomputed, 0.05)


def test_a_step_of_crisp_goes_back_through_both_texts(model, shape):
    text, setting = torch.tensor(ROWS), CRISP(2, 5.0, 0.1, 0.01, 2, **HOW)
    found = counted(lambda: train(model, text, text.flip(1), setting, toy_sae(), (3, 5), Passes(10_000)))
    assert found_within(found, crisp_work(shape, LAYER, D_SAE, 128, 32), 0.25)  # the adapters are not counted


# In sizes that can be added up by hand: 2 rows of 10 tokens of every text, one setting of every method.
SIZES = {
    "model.gradient_checkpointing": False,
    "texts.row_length": 10, "texts.forget_rows": 2, "texts.retain_rows": 2, "texts.neutral_rows": 2,
    "texts.framed_documents": 2, "texts.requests": "jailbreakbench", "selection.n_features": 5,
    "method.static_clamp.n_features": [5], "method.static_clamp.strengths": [1.0], "method.dsg.n_features": [5],
    "method.dsg.strengths": [1.0], "method.rmu.layers": [3], "method.rmu.steering": [1.0], "method.rmu.alphas": [1.0],
    "method.rmu.steps": [7], "method.gradient_ascent.learning_rates": [1e-5], "method.gradient_ascent.steps": [2, 4],
    "method.grad_diff.retain_weights": [1.0], "method.grad_diff.steps": [4], "method.npo.betas": [0.1],
    "method.npo.steps": [4], "method.simnpo.betas": [0.1], "method.simnpo.steps": [4],
    "method.scrub.forget_weights": [0.1], "method.scrub.steps": [4], "method.ssd.thresholds": [0.1, 1.0],
    "method.ssd.dampenings": [0.1], "method.ssd.embeddings": [False], "method.ssd.rows": 2,
    "method.crisp.n_features": [5], "method.crisp.steps": [4],
    "method.clamp_prime.n_features": [5], "method.clamp_prime.strengths": [1.0],
    "method.clamp_prime.proportional": [False], "method.refusal_clamp.n_features": [5],
    "method.refusal_clamp.strengths": [1.0], "method.refusal_clamp.answer_tokens": 10,
    "method.unconditional.n_features": [5], "method.unconditional.strengths": [1.0],
}  # fmt: skip


def work_of(notebook: str, **changed) -> Work:
    """Of a notebook in those sizes, less what every notebook begins with; every question is known, 100 of them."""
    profile = load_profile("gemma-2-2b-it", SIZES | {key.replace("__", "."): value for key, value in changed.items()})
    found, start = notebook_work(profile, GEMMA, QUESTIONS, notebook), (2 + 2) * 10 + 2 * PROMPT_TOKENS
    assert found.trees >= GEMMA.blocks(26, QUESTIONS * TREE_TOKENS, TREE_TOKENS)
    return found + Work(
        statistics=-statistics_work(GEMMA, 3, 16384, start, 10),
        trees=-GEMMA.blocks(26, QUESTIONS * TREE_TOKENS, TREE_TOKENS),
    )


QUESTIONS = 100 / KNOWN_SHARE
TAU = statistics_work(GEMMA, 3, 0, 2 * PROMPT_TOKENS, PROMPT_TOKENS)  # rho on framed retain text, for one set


def asked(settings: float, share: float = 1.0) -> Work:
    """100 known questions and 20 tokens of neutral text under so many settings."""
    n = 100 * share
    answers = sweep_work(GEMMA, 3, settings, n * PROMPT_TOKENS, PROMPT_TOKENS, n)
    return Work(answers=answers, losses=sweep_work(GEMMA, 3, settings, 20, 10, 20))


def assert_same(found: Work, expected: Work) -> None:
    for kind in KINDS:
        one, other = getattr(found, kind), getattr(expected, kind)
        assert one == pytest.approx(other, rel=1e-9, abs=1e6), kind


def test_notebook_04_by_hand():
    """3 settings of clamps, RMU, 4 + 5 controls, letters under 4, 200 requests, 4 x 5 answers, 5 protocols of 3."""
    spoken = 200 * (PROMPT_TOKENS + 10) + 4 * 5 * (PROMPT_TOKENS + 20)
    few, prompts = 5 * 20, 2 * QUESTIONS + 100 + 5 * 20
    swept = asked(3) + asked(0) + asked(9) + Work(answers=asked(4).answers)
    expected = swept + Work(
        answers=GEMMA.blocks(26, spoken, PROMPT_TOKENS) + GEMMA.head(spoken)
        + sweep_work(GEMMA, 3, 3, prompts * PROMPT_TOKENS, PROMPT_TOKENS, prompts),
        trees=sweep_work(GEMMA, 3, 3, few * TREE_TOKENS, TREE_TOKENS, few),
        training=7 * rmu_work(GEMMA, 3, 30, 10),
    )  # fmt: skip
    assert_same(work_of("04"), expected)


def test_notebook_07_by_hand():
    """Steps of 8 rows: GA's two settings are one training of 4; SSD takes gradients of 2 + 2 rows once, for both.

    Eight trained models are attacked, and the model itself without and with each of two clamps.
    """
    step = finetuning_work(GEMMA, 80, 10)
    of_passes = 4 * (1 + 2 + (2 + 1 / 3) + 2 + (3 + 2 / 3)) * step
    ssd, rmu = 2 * finetuning_work(GEMMA, 20, 10), 7 * rmu_work(GEMMA, 3, 30, 10)
    once = of_passes + ssd + rmu + 4 * crisp_work(GEMMA, 3, 16384, 40, 10)
    read = (finetuning_work(GEMMA, 20, 10) + finetuning_work(GEMMA, 2 * PROMPT_TOKENS, PROMPT_TOKENS)) / 3
    settings = [asked(0)] * (2 + 1 + 1 + 1 + 1 + 2 + 1 + 1)
    expected = sum(settings, asked(2)) + Work(
        statistics=TAU, training=2 * once + 12 * 3 * finetuning_work(GEMMA, 5 * 10, 10),
        answers=10 * asked(1, 0.5).answers, losses=10 * 2 * read,
    )  # fmt: skip
    assert_same(work_of("07", relearning__epochs=3, relearning__rows=5), expected)
    assert {method for method in METHODS.values() if method.trains} == set(WEIGHTS_METHODS)


def test_notebook_08_by_hand():
    """4 folds in 3 ways for DSG and the static clamp: 2.5 + 2.5 + 2 x 2.5 times the text; in 2 ways for RMU."""
    text = 10 * statistics_work(GEMMA, 3, 16384, 20, 10)
    expected = asked(1) + asked(1) + asked(0) + Work(
        statistics=TAU + 2 * text + 12 * TAU, answers=(12 + 12 + 8) * asked(1, 0.5).answers,
        training=(1 + 8) * 7 * rmu_work(GEMMA, 3, 30, 10),
    )  # fmt: skip
    assert_same(work_of("08"), expected)


def test_notebook_09_by_hand():
    """DSG with all of the text and thrice with half of it; RMU and NPO with all, twice with half; two taus, its own."""
    shares = {"shares": [1.0, 0.5], "seeds": [0, 1, 2], "trained_shares": [1.0, 0.5], "trained_seeds": [0, 1]}
    changed = {f"little_text__{key}": value for key, value in shares.items()}
    text = 2.5 * statistics_work(GEMMA, 3, 16384, 20, 10)
    half = asked(1, 0.5)
    npo = 4 * (2 + 1 / 3) * finetuning_work(GEMMA, 80, 10)
    expected = asked(1) + asked(0) + asked(0) + asked(3) + Work(
        statistics=TAU + text + 4 * TAU, answers=10 * half.answers, losses=10 * half.losses,
        training=(1 + 3) * (7 * rmu_work(GEMMA, 3, 30, 10) + npo),
    )  # fmt: skip
    assert_same(work_of("09", named_features__thresholds=[0.2, 0.4], **changed), expected)


def test_notebook_14_by_hand():
    """Forget and retain text with three products of the SAE; 2 x 6 questions under 10 clamps; 6 forward and back."""
    changed = {"theorems__features": 10, "theorems__questions": 6}
    error, rho = statistics_work(GEMMA, 3, 3 * 16384, 40 + 300, 10), statistics_work(GEMMA, 3, 0, 100 * 150, 150)
    expected = asked(1) + Work(
        statistics=TAU + error + rho, answers=sweep_work(GEMMA, 3, 10, 12 * 150, 150, 12),
        training=GEMMA.blocks(4 + 3 * 22, 6 * 150, 150),
    )  # fmt: skip
    assert_same(work_of("14", **changed), expected)
    other = work_of("14", theorems__other_layer=7, **changed)
    assert other.statistics - expected.statistics == pytest.approx(error)


def test_notebook_15_by_hand():
    """One half under 2 p_ratio, 1 p_dyn and 4 ideas at one strength; tau of the grid, of 2 sets, of the chosen one."""
    changed = {"ablations__ratio_percentiles": [80.0, 95.0], "ablations__gate_percentiles": [95.0]}
    rho = statistics_work(GEMMA, 3, 0, 50 * 150, 150) + statistics_work(GEMMA, 3, 0, 20, 10)
    assert_same(work_of("15", **changed), asked(1) + asked(7, 0.5) + Work(statistics=4 * TAU + rho))


def test_an_attack_by_the_prompt_costs_the_gate_and_two_answers_of_its_length():
    once = {"prompt_attacks.attacks": ["dilution"], "attack.dilution.tokens": [100], "attack.dilution.fillers": ["far"],
            "attack.dilution.places": ["before"]}  # fmt: skip
    one, two = (
        notebook_work(load_profile("gemma-2-2b-it", once | {"attack.dilution.places": places}), GEMMA, 2142, "11")
        for places in (["before"], ["before", "after"])
    )
    n, length = 2 * 200, PROMPT_TOKENS + 100
    expected = GEMMA.blocks(2 * 4 + 2 * 22, n * length, length) + 2 * GEMMA.head(n)
    assert two.answers - one.answers == pytest.approx(expected)
    assert (two.statistics, two.trees, two.training) == (one.statistics, one.trees, 0)


def test_a_free_answer_costs_five_times_saying_and_reading_it_and_four_gates():
    few, more = (
        notebook_work(load_profile("gemma-2-2b-it", {"prompt_attacks.new_tokens": new}), GEMMA, 2142, "11").answers
        for new in (10, 30)
    )

    def said(new):
        n, length = 200 + 20 * 5, PROMPT_TOKENS + new
        whole, below = (GEMMA.blocks(layers, n * length, length) for layers in (26, 4))
        return 5 * (2 * whole + GEMMA.head(n * new) + GEMMA.head(n * length)) + 4 * below

    assert more - few == pytest.approx(said(30) - said(10))


def test_a_vector_costs_three_passes_for_every_prompt_that_a_step_sees():
    found = [notebook_work(load_profile("gemma-2-2b-it", {"recovery.steps": n}), GEMMA, 2142, "12") for n in (10, 20)]
    # four methods, four bounds, two targets; ten more steps of 16 prompts, above layer 3 and through all 26 layers
    more = 4 * 4 * 2 * 10 * 3 * GEMMA.blocks(22 + 26, 16 * PROMPT_TOKENS, PROMPT_TOKENS)
    assert found[1].training - found[0].training == pytest.approx(more)
    assert found[0].answers == found[1].answers > 0


def test_notebook_10_by_hand():
    """One setting of two methods; half 1 after requests in eight ways and by a second way of the gate; both models."""
    changed = {"muse.methods": ["dsg", "gradient_ascent"], "muse.request_methods": ["gradient_ascent"],
               "muse.gates": ["held", "each"], "muse.prompt_tokens": 5, "muse.new_tokens": 3, "muse.answer_tokens": 2,
               "muse.head": 1, "method.gradient_ascent.steps": [4]}  # fmt: skip
    profile = load_profile("gemma-2-2b-muse-news", SIZES | changed, "10")
    found = notebook_work(profile, GEMMA, 0, "10")
    said = 100 * 3 + 200 * 2
    spoken = GEMMA.blocks(26, 100 * 5 + 200 * 2 * SOLVED_TOKENS + said, 10) + GEMMA.head(said)
    times = 1 + 1 + 8 / 2 + 2 + 1 / 2  # of each method one setting; requests; target, reference; gate
    step = finetuning_work(GEMMA, 8 * 10, 10)
    assert found.answers == pytest.approx(times * spoken) and found.trees == 0
    assert found.losses == pytest.approx(times * finetuning_work(GEMMA, 200 * 10, 10) / 3)
    assert found.training == pytest.approx((1 + 8) * 4 * step)


def test_memory_counts_what_a_training_holds_beside_the_model():
    profile = load_profile("gemma-2-2b-it", {"model.dtype": "bfloat16"})
    one, three, six = (notebook_memory(profile, GEMMA, number) for number in ("01", "03", "06"))
    rest = 2 * GEMMA.weights + 4 * (2 * 2304 + 2) * 16384 + profile.cache.memory_mb * MEGABYTE
    # of 01 more than a batch of the sweeps: what 22 layers keep of 2,048 tokens of prompts on the way to the residual
    assert one == rest + kept_bytes(GEMMA, 22, 2048, 150, 2, frozen=True)
    assert notebook_memory(profile, GEMMA, "11") == rest + 8192 * (4 * 9216 * 2 + 3 * 8 * 1024 * 4)
    # the model that RMU made, its float32 copy and that in bfloat16, three down-projections' gradients and moments
    weights = (2 + 4 + 2) * GEMMA.weights + 12 * 3 * 2304 * 9216
    kept, logits = 2 * kept_bytes(GEMMA, 3, 2048, 1024, 2, checkpointing=True), 16 * CHUNK_LOGITS
    assert three == pytest.approx(rest + weights + kept + logits)
    attacked = (2 + 2 + 16 + 2) * GEMMA.weights + kept_bytes(GEMMA, 26, 2048, 1024, 2, checkpointing=True)
    assert six == pytest.approx(rest + attacked + logits)
    # of notebook 07 SCRUB's three passes at once, of 09 and 10 two
    for number, passes in (("07", 3), ("09", 2), ("10", 2)):
        whole = (16 + 2) * GEMMA.weights + passes * kept_bytes(GEMMA, 26, 2048, 1024, 2, checkpointing=True)
        expected = max(whole, attacked) if number in ("07", "10") else whole
        assert notebook_memory(profile, GEMMA, number) == pytest.approx(rest + expected + logits)
    # of notebook 13 the copy with a longer residual
    assert notebook_memory(profile, GEMMA, "13") == rest + 2 * GEMMA.weights
    less = load_profile("gemma-2-2b-it", {"model.dtype": "bfloat16", "cache.memory_mb": 0})
    assert one - notebook_memory(less, GEMMA, "01") == profile.cache.memory_mb * MEGABYTE


def test_strengths_in_two_units_on_two_residuals_cost_four_sweeps(monkeypatch):
    profile = load_profile("gemma-2-2b-it", {}, "13")
    five = notebook_work(profile, GEMMA, 2142, "13").answers
    monkeypatch.setattr("helpers.experiments.costs.OF_CHOSEN", (1.0,))
    tokens = profile.prompt_attacks.questions * PROMPT_TOKENS
    above = GEMMA.blocks(22, tokens, PROMPT_TOKENS) + GEMMA.head(profile.prompt_attacks.questions)
    assert five - notebook_work(profile, GEMMA, 2142, "13").answers == pytest.approx(4 * 4 * above)


def test_a_further_gate_costs_a_pass_below_and_a_further_attack_three_parts():
    few = {"gates.names": ["rho"], "prompt_attacks.attacks": ["decomposition"], "attack.decomposition.turns": [2]}
    one, gate, attack = (
        notebook_work(load_profile("gemma-2-2b-it", few | more, "13"), GEMMA, 2142, "13")
        for more in ({}, {"gates.names": ["rho", "cusum"]}, {"attack.decomposition.turns": [2, 3]})
    )
    known = 2142 * KNOWN_SHARE / 2 * PROMPT_TOKENS
    assert gate.statistics - one.statistics == pytest.approx(GEMMA.blocks(4, known, PROMPT_TOKENS))
    assert gate.answers == one.answers and attack.statistics == one.statistics
    turns = Decomposition.grid(load_profile("gemma-2-2b-it", {"attack.decomposition.turns": [3]}, "13"))
    sizes = load_profile("gemma-2-2b-it").prompt_attacks
    n, length = 2 * sizes.questions + sizes.benign_questions * 5, turns[0].length(PROMPT_TOKENS)
    assert sizes.questions < 1273 * KNOWN_SHARE / 2
    expected = GEMMA.blocks(2 * 4 + 2 * 22, n * length, length) + 2 * GEMMA.head(n)
    assert attack.answers - one.answers == pytest.approx(expected)


def test_projections_are_work_at_rates():
    slow, fast = (projections("gemma-2-2b-it", "cpu", EVEN, product=p) for p in (1e12, 2e12))
    assert list(slow) == list(load_profile("gemma-2-2b-it").notebooks) and None not in slow.values()
    for number in slow:
        assert slow[number][0] == pytest.approx(2 * fast[number][0]) and slow[number][1] == fast[number][1]
    assert list(projections("gemma-2-2b", "cpu", EVEN, product=1e12)) == ["04"]


def test_every_notebook_that_a_profile_of_the_hub_serves_is_counted():
    served = {number for name in available_profiles() for number in load_profile(name).notebooks}
    assert served <= set(NOTEBOOKS)


def test_a_training_keeps_its_state_twice_while_it_writes_it():
    news = load_profile("gemma-2-2b-muse-news")
    # two models of 2 bytes a weight; weight and two moments of 4 bytes each, the old ones and the new ones
    assert finetuning_disk(news, 2) == GEMMA.weights * (2 * 2 + 2 * 3 * 4)
    assert finetuning_disk(news, 0) == finetuning_disk(load_profile("tiny"), 1) == 0


def test_a_targets_price_is_its_texts_in_epochs():
    news = load_profile("gemma-2-2b-muse-news")
    seconds, memory = finetuning_costs(news, GEMMA, 1e6, "cpu", product=1e12)
    share = measured_shares(pd.read_csv(MEASURED))["training"]
    assert seconds == pytest.approx(finetuning_work(GEMMA, 3e6, 1024, checkpointing=True) / (1e12 * share))
    weights = (16 + 2) * GEMMA.weights
    assert memory == pytest.approx(
        weights + kept_bytes(GEMMA, 26, 2048, 1024, 2, checkpointing=True) + 16 * CHUNK_LOGITS
    )
    found = target_costs(news, "cpu", product=1e12)
    texts = {"forget+retain": 13_219_611 + 6_456_895 + 6_437_312, "retain": 6_456_895 + 6_437_312}
    assert found.keys() == texts.keys()
    assert found["retain"][0] / found["forget+retain"][0] == pytest.approx(texts["retain"] / texts["forget+retain"])
    assert found["retain"][0] == pytest.approx(seconds * texts["retain"] / 4.5 / 1e6)
    assert (
        target_costs(load_profile("gemma-2-2b-it"), "cpu", 1e12)
        == target_costs(load_profile("tiny"), "cpu", 1e12)
        == {}
    )


def test_a_models_config_gives_its_shape(model, shape):
    assert shape_of(huggingface(model).config) == shape
    assert in_words(90.0, 4.81e10) == "about 1.5 min, 48 GB of memory (projected)"
    assert in_words(7200.0, 1e9).startswith("about 2.0 h") and in_words(3 * 86400, 0).startswith("about 3.0 days")


def test_shares_come_from_the_benchmarks_table():
    table = pd.DataFrame({"kind": ["", *KINDS], "of_matrix_product": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]})
    assert measured_shares(table) == dict(zip(KINDS, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    with pytest.raises(KeyError):
        measured_shares(table[:-1])


def test_a_machine_does_some_operations_a_second():
    assert matrix_rate("cpu", "float32") > 1e8


def test_more_known_questions_are_more_answers_and_nothing_else(shape):
    profile = load_profile("gemma-2-2b-it", notebook="01")
    few, all_known = (notebook_work(profile, shape, 1998, "01", share) for share in (0.25, 1.0))
    assert all_known.answers == pytest.approx(4 * few.answers) and all_known.training == pytest.approx(4 * few.training)
    assert (all_known.statistics, all_known.trees, all_known.losses) == (few.statistics, few.trees, few.losses)


def test_questions_of_the_hub_are_those_of_the_sets_and_of_the_organism_those_of_its_world(shape):
    assert sum(asked_of(load_profile("gemma-2-2b-it")).values()) == 1273 + 144 + 204 + 198 + 223 + 100
    subjects = ("toxins", "biology", "geography", "history", "aging", "astronomy")
    assert asked_of(load_profile("tiny")) == dict.fromkeys(subjects, 160)
    found = projections("tiny", "cpu", EVEN, 1e9, shape=shape)
    assert [number for number, cost in found.items() if cost is None] == ["10"]


def test_an_unembedding_of_its_own_is_counted():
    tied, untied = (wide_model(1) for _ in range(2))
    huggingface(untied).config.tie_word_embeddings = False
    wide = shape_of(huggingface(tied).config)
    assert shape_of(huggingface(untied).config).weights - wide.weights == wide.vocab * wide.d_model
