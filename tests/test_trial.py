"""A trial's rates are what was done over the time it took, and its projections the notebooks' counts at these rates."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.doctor import Device, main, trial_lines
from helpers.engine.forward import huggingface
from helpers.experiments.costs import KINDS, NOTEBOOKS, Shape, asked_of, notebook_work
from helpers.experiments.trial import STEPS, Part, Trial, check_known, path_of, try_profile
from helpers.methods.rmu import RMU
from helpers.profiles import load_profile
from helpers.records.provenance import ROOT

N = 2


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> Iterator[tuple[Trial, Path]]:
    """A trial of tiny on one batch of each text, and the folder in which temporary files were made."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr("helpers.experiments.trial.BATCHES", 1)
        yield try_profile("tiny", N), folder


def test_every_kind_of_work_is_done_once_and_timed(tried):
    trial, _ = tried
    assert tuple(part.kind for part in trial.parts) == KINDS and all(part.seconds > 0 for part in trial.parts)
    assert (trial.notebook, trial.forget) == ("03", N) and trial.asked >= trial.known == 6 * N
    assert trial.loading > 0 and trial.memory > 10**8


def test_operations_are_those_of_the_sizes_that_ran(tried, model):
    trial, _ = tried
    operations = {part.kind: part.operations for part in trial.parts}
    config = huggingface(model).config
    # a batch of 2,048 tokens is 16 rows of 128; a layer on a token in such a row, in multiply-adds times two
    d, heads, kv, head, mlp = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads,
                               config.head_dim, config.intermediate_size)  # fmt: skip
    weights = d * (2 * head * (heads + kv) + 3 * mlp)
    layer = 2 * weights + 4 * heads * head * 128
    rows = 16 * 128
    assert operations["losses"] == rows * (2 * layer + 5 * (4 * layer + 2 * config.vocab_size * d))
    setting = RMU.grid(load_profile("tiny", notebook="03"))[0]
    trained = min(3, setting.layer + 1)
    back = trained * (layer + 2 * d * mlp)
    step = setting.batch_rows * 128 * (3 * (setting.layer + 1) * layer + 2 * back)
    assert operations["training"] == pytest.approx(STEPS * step)
    per_question = 1050 * 6 * (2 * weights + 4 * heads * head * 1050)
    assert operations["trees"] == trial.asked * per_question


def test_notebooks_are_projected_from_the_rates_reached(tried, model):
    trial, _ = tried
    assert tuple(trial.full) == tuple(NOTEBOOKS) and [n for n, found in trial.full.items() if found is None] == ["10"]
    config = huggingface(model).config
    shape = Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                  config.num_key_value_heads, config.head_dim, config.intermediate_size, config.vocab_size)  # fmt: skip
    questions = sum(asked_of(load_profile("tiny")).values())
    for number in ("01", "04", "12"):
        work = notebook_work(load_profile("tiny", notebook=number), shape, questions, number, trial.known / trial.asked)
        expected = sum(getattr(work, part.kind) * part.seconds / part.operations for part in trial.parts)
        assert trial.full[number][0] == pytest.approx(expected)


def test_nothing_is_left_behind(tried):
    _, folder = tried
    assert list(folder.iterdir()) == []
    assert not [path for base in ("runs", "figures") for path in (ROOT / base).glob("*/stages/*trial*")]


def test_the_notebook_is_the_first_with_a_clamp_and_a_training():
    names = ("tiny", "gemma-2-2b-it", "gemma-2-2b-it-cyber", "gemma-2-2b", "gemma-2b-it", "llama-3.1-8b-it")
    assert [path_of(load_profile(name)) for name in names] == ["03", "03", "05", "04", "01", "03"]
    with pytest.raises(ValueError, match="gemma-2-2b-muse-news serves notebook 10 only, which asks no exam"):
        path_of(load_profile("gemma-2-2b-muse-news"))


@pytest.mark.parametrize("n", [-1, 0, 1, 10_000])
def test_too_few_and_too_many_questions_are_one_line_before_anything_is_loaded(n, capsys):
    n_there = asked_of(load_profile("tiny"))["toxins"]
    assert main(["--try", str(n)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"error: --try {n}: toxins has {n_there} questions, and one half of them chooses: try 2 to {n_there}"


def test_more_than_the_model_knows_is_one_line():
    lab = SimpleNamespace(
        profile=load_profile("tiny"), known={"toxins": range(3)}, questions={"toxins": range(120), "biology": range(9)}
    )
    check_known(lab, 3)
    with pytest.raises(ValueError, match=r"^--try 4: of 120 questions of toxins the model knows 3: try 2 to 3$"):
        check_known(lab, 4)


def test_a_trial_is_said_with_its_rates_and_what_follows():
    parts = (Part("statistics", "text", 4e12, 2.0), Part("losses", "more text", 3e12, 0.5))
    trial = Trial("03", 8, 60, 45, 1.5, 3 * 10**9, parts, {"03": (7200.0, 5e9), "05": (3600.0, 20e9), "10": None})
    said = trial_lines(load_profile("tiny"), Device("cuda:0", "a GPU", 10 * 10**9), trial)
    text = {line.what: line.found for line in said}
    assert text["tried"] == (
        "notebook 03 with 8 known questions of toxins, 45 of all subjects, on a GPU: loaded in 1.5 s, computed in "
        "2.5 s, 3.0 GB of memory at the peak"
    )
    assert text["losses"] == "more text: 3 x 10^12 operations in 0.50 s, 6 x 10^12 a second"
    assert "with 45 of 60 questions known" in text["estimates"]
    assert text["notebook 03"] == "about 2.0 h, 5 GB of memory (projected)" and "no estimate" in text["notebook 10"]
    assert text["all"] == "2 notebooks one after another: about 3.0 h, and 1 of unknown length"
    assert [line.what for line in said if line.state != "ok"] == ["notebook 05"]  # 20 GB do not fit
