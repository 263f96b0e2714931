"""The benchmarks run, their two ways agree, and their tables hold what they promise; how fast is not asked here."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.engine.forward import huggingface
from helpers.experiments.costs import KINDS, measured_shares
from helpers.methods.gates import GATES
from helpers.profiles import load_profile
from tests.benchmarks import full_shape, gates, growth, guard, sweep
from tests.benchmarks.common import PeakMemory, Sizes, side_by_side
from tests.benchmarks.readme import COSTS_PAGE, SPEED_PAGE, with_benchmarks, with_costs

ON_LINUX = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory of a block of code is measured on Linux only"
)
SMALL = "--layers 4 --d-model 32 --heads 2 --kv-heads 1 --head-dim 16 --d-mlp 64 --vocab 4096 --d-sae 256 --layer 1"


def run(benchmark, name, words, out):
    benchmark.main([*f"{SMALL} {words}".split(), "--out", str(out), "--threads", "1"])
    assert json.loads((out / f"{name}.json").read_text())["sizes"]["layers"] == 4
    return pd.read_csv(out / f"{name}.csv")


def test_sweep_checks_that_both_ways_agree(tmp_path):
    table = run(sweep, "sweep", "--rounds 1 --questions 1 --prompts 6 --only 0 3 --no-memory", tmp_path)
    assert table["prompts"].tolist() == [24, 6]
    assert table["agree"].eq(1).all() and table["largest_difference"].lt(1e-3).all()
    assert (table[["usual_s", "ours_s", "over_the_limit"]] > 0).all(axis=None)
    np.testing.assert_allclose(table["ratio"], table["usual_s"] / table["ours_s"], rtol=1e-4)


def test_sweep_notices_different_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "usual_edit", lambda clamp, residual, mask: residual)
    with pytest.raises(AssertionError, match="log-probabilities differ"):
        run(sweep, "sweep", "--rounds 1 --questions 1 --prompts 2 --only 0", tmp_path)


@ON_LINUX
def test_sweep_measures_the_memory_of_each_way_in_a_process_of_its_own(tmp_path):
    """A full vocabulary of logits at every position is what the usual way holds: 24 prompts of 100 tokens and more."""
    words = f"{SMALL} --threads 1 --questions 1 --prompts 2".split()
    assert sweep.peak_memory_of("usual", 0, words) > 24 * 100 * 4096 * 4


def test_guard_measures_forward_and_generation(tmp_path):
    table = run(guard, "guard", "--rounds 1 --lengths 16 32 --new-tokens 3", tmp_path)
    assert table["work"].tolist() == ["forward", "forward", "generation"]
    np.testing.assert_allclose(table["overhead"], table["with_s"] / table["without_s"] - 1, atol=1e-4)


def test_gates_measures_a_generation_with_each(tmp_path):
    table = run(gates, "gates", "--rounds 1 --length 24 --new-tokens 3", tmp_path)
    names = {kind.name for name, kind in GATES.items() if name != "rho_near"}  # which has rho's score
    assert set(table["gate"]) == names and table["new_tokens"].eq(3).all()
    assert table["without_s"].gt(0).all() and table["reached"].equals(table["overhead"] <= gates.TARGET)


def test_what_a_gate_adds_is_the_intervention_over_the_rest_of_the_same_run(monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 26.0])  # two runs, of 10 and of 6 seconds, of which the intervention takes 2 and 1
    monkeypatch.setattr(gates.time, "perf_counter", lambda: next(clock))
    spent = iter([2.0, 1.0])
    found = gates.measured(lambda: setattr(gates.Timed, "seconds", next(spent)), 2)
    assert found == {"without_s": 6.5, "overhead": pytest.approx((2 / 8 + 1 / 5) / 2)}


@ON_LINUX
def test_growth_fits_its_lines(tmp_path):
    table = run(growth, "growth", "--rounds 1 --steps 1", tmp_path)
    assert table["what"].tolist() == ["prompts", "settings", "share touched", "tokens of statistics"]
    exact = pd.DataFrame({"what": "x", "size": [1, 2, 4], "seconds": [3.0, 5.0, 9.0], "extra_mb": [1.0, 1.0, 2.0]})
    found = growth.line(exact)
    assert found["seconds_per_unit"] == pytest.approx(2) and found["seconds_at_0"] == pytest.approx(1)
    assert found["r2"] == pytest.approx(1) and found["extra_mb_last"] == 2


@ON_LINUX
def test_full_shape_measures_every_kind_of_work_and_projects_gemmas_notebooks(tmp_path, capsys):
    table = run(full_shape, "full_shape", "--row-length 32 --dtype float32", tmp_path)
    kinds = table.dropna(subset=["kind"])
    assert kinds["kind"].tolist() == list(KINDS) and (kinds[["tera_operations", "rate"]] > 0).all(axis=None)
    np.testing.assert_allclose(kinds["rate"], kinds["tera_operations"] / kinds["seconds"], rtol=1e-4)
    assert table["peak_gb"].between(0.1, 4).all() and set(measured_shares(table)) == set(KINDS)
    said = capsys.readouterr().out
    notebooks = load_profile("gemma-2-2b-it").notebooks
    assert said.count("projected, gemma-2-2b-it on this device, notebook") == len(notebooks)


def test_a_model_built_without_a_copy_is_the_model_that_is_loaded(tmp_path):
    sizes = Sizes(layers=2, d_model=32, heads=2, kv_heads=1, head_dim=16, d_mlp=64, vocab=4096)
    built = huggingface(full_shape.full_model(sizes, torch.bfloat16, "cpu"))
    built.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    ids = torch.arange(40)[None]
    assert torch.equal(built(ids).logits, loaded(ids).logits)


def test_side_by_side_runs_each_way_once_a_round_and_in_turn_first():
    ran = []
    seconds = side_by_side({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert "".join(ran) == "abbaab" and set(seconds) == {"a", "b"}


@ON_LINUX
def test_peak_memory_sees_a_large_array_that_is_gone_again():
    with PeakMemory("cpu") as peak:
        np.ones(64 << 20, dtype=np.uint8).sum()
    assert 60 << 20 < peak.extra < 90 << 20


def test_the_pages_costs_are_not_stale():
    text = COSTS_PAGE.read_text(encoding="utf-8")
    assert with_costs(text) == text, "run python -m tests.benchmarks.readme"


def test_the_pages_table_is_not_stale():
    text = SPEED_PAGE.read_text(encoding="utf-8")
    assert with_benchmarks(text) == text, "run python -m tests.benchmarks.readme"
