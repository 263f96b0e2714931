"""Counted work is what a model really computes, and estimates are that work at given rates."""

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.attacks.decomposition import Decomposition
from helpers.engine.features import feature_statistics
from helpers.engine.forward import final_state, huggingface, unembed
from helpers.engine.interventions import Clamp
from helpers.engine.residuals import MEGABYTE
from helpers.engine.scoring import NOTHING_KEPT, Sweep, read_loss, row_batches
from helpers.experiments.costs import (
    KINDS,
    KNOWN_SHARE,
    PROMPT_TOKENS,
    SHAPES,
    Shape,
    Work,
    finetuning_work,
    matrix_rate,
    measured_shares,
    notebook_memory,
    notebook_work,
    projections,
    rmu_work,
    statistics_work,
    sweep_work,
)
from helpers.methods.rmu import RMU
from helpers.methods.training import train
from helpers.profiles import load_profile
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
    trained = counted(lambda: train(model, text, text.flip(1), setting, 10_000)) - shape.blocks(LAYER + 1, 128, 32)
    assert found_within(trained, rmu_work(shape, LAYER, 128, 32), 0.3)


def found_within(found: float, expected: float, share: float) -> bool:
    return abs(found - expected) <= share * expected


def test_backward_counts_twice(shape):
    assert finetuning_work(shape, 128, 32) == 3 * (shape.blocks(4, 128, 32) + shape.head(128))


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
    with pytest.raises(ValueError, match="'04' has not been counted"):
        notebook_work(profile, GEMMA, 2142, "04")


def test_an_attack_by_the_prompt_costs_the_gate_and_two_answers_of_its_length():
    once = {"prompt_attacks.attacks": ["dilution"], "attack.dilution.tokens": [100], "attack.dilution.fillers": ["far"],
            "attack.dilution.places": ["before"]}  # fmt: skip
    one, two = (
        notebook_work(load_profile("gemma-2-2b-it", once | {"attack.dilution.places": places}), GEMMA, 2142, "11")
        for places in (["before"], ["before", "after"])
    )
    n, length = 1273 * KNOWN_SHARE / 2 + 100, PROMPT_TOKENS + 100
    expected = GEMMA.blocks(2 * 4 + 2 * 22, n * length, length) + 2 * GEMMA.head(n)
    assert two.answers - one.answers == pytest.approx(expected)
    assert (two.statistics, two.trees, two.training) == (one.statistics, one.trees, 0)


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
    n, length = 1273 * KNOWN_SHARE / 2 + 100 + 20 * 5, turns[0].length(PROMPT_TOKENS)
    expected = GEMMA.blocks(2 * 4 + 2 * 22, n * length, length) + 2 * GEMMA.head(n)
    assert attack.answers - one.answers == pytest.approx(expected)


def test_memory_counts_the_models_held_at_once():
    profile = load_profile("gemma-2-2b-it", {"model.dtype": "bfloat16"})
    one, two, six = (notebook_memory(profile, GEMMA, number) for number in ("01", "03", "06"))
    assert two - one == GEMMA.weights * 2 and six - one == 5 * GEMMA.weights * 2
    less = load_profile("gemma-2-2b-it", {"model.dtype": "bfloat16", "cache.memory_mb": 0})
    assert one - notebook_memory(less, GEMMA, "01") == profile.cache.memory_mb * MEGABYTE


def test_projections_are_work_at_rates():
    slow, fast = (projections("gemma-2-2b-it", "cpu", EVEN, product=p) for p in (1e12, 2e12))
    counted = [number for number in slow if slow[number] is not None]
    assert counted == ["01", "03", "05", "06", "11", "13"] and list(slow) == list(
        load_profile("gemma-2-2b-it").notebooks
    )
    for number in counted:
        assert slow[number][0] == pytest.approx(2 * fast[number][0]) and slow[number][1] == fast[number][1]
    assert projections("gemma-2-2b", "cpu", EVEN, product=1e12) == {"04": None}


def test_shares_come_from_the_benchmarks_table():
    table = pd.DataFrame({"kind": ["", *KINDS], "of_matrix_product": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]})
    assert measured_shares(table) == dict(zip(KINDS, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    with pytest.raises(KeyError):
        measured_shares(table[:-1])


def test_a_machine_does_some_operations_a_second():
    assert matrix_rate("cpu", "float32") > 1e8
