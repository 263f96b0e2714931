"""The command gives lm-eval's results of the method that was named, and one clear line where it cannot."""

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from helpers import evaluate
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Add, Clamp, Gate, Scale
from helpers.engine.scoring import is_right, read_rows, read_spaced_letters
from helpers.experiments import bench, conditional, discovery, guardrail
from helpers.experiments.exam import ClampSetting, score_settings
from helpers.experiments.methods import METHODS, Settings, check_settings, clamp_facts, edited
from helpers.experiments.pareto import choose
from helpers.lab.run import start
from helpers.loading.data import load_questions
from helpers.measures.lm_eval.tasks import FOLDER, organism_questions
from helpers.measures.metrics import SIDE_EFFECT_FLOOR
from helpers.organism.world import SUBJECTS
from helpers.profiles import RMUSettings, load_profile
from helpers.records.provenance import ROOT
from helpers.text.questions import ORIGINAL_ORDER, header, prompt_tokens
from tests.toy import toy_sae

N = 6


@pytest.fixture(scope="module", autouse=True)
def small():
    """The profile tiny with few texts, questions and settings, and lm-eval without its description of the machine."""
    tiny = load_profile("tiny")
    profile = replace(
        tiny,
        texts=replace(tiny.texts, forget_rows=8, retain_rows=16, neutral_rows=4, framed_documents=16),
        selection=replace(tiny.selection, n_features=4),
        pareto=replace(tiny.pareto, n_features=(2, 4), strengths=(2.0, 8.0)),
        guardrail=replace(tiny.guardrail, n_features=(3, 5), strengths=(2.0, 8.0)),
        conditional=replace(
            tiny.conditional,
            n_features=(2, 4),
            strengths=(2.0, 8.0),
            refusal_strengths=(2.0, 8.0),
            add_strengths=(1.0,),
        ),
        rmu=RMUSettings((2,), (10.0,), (3.0, 30.0), 2, 2, 1e-2),
    )
    few = {subject: questions[:N] for subject, questions in load_questions(tiny).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.evaluate.load_profile", lambda name: profile)
        patch.setattr("helpers.lab.run.load_profile", lambda name, overrides, notebook: profile)
        patch.setattr(bench, "load_questions", lambda profile, hub: few)
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: results.update(pretty_env_info=""))
        yield profile


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs):
    return start("tiny", "04_lm_eval", str(runs))


@pytest.fixture(scope="module")
def lab(run):
    return bench.open_bench(run)


@pytest.fixture(scope="module")
def ranked(run, lab):
    return discovery.selections(*bench.statistics(run, lab), run.profile.selection, 5)


@pytest.fixture(scope="module")
def unit(run, lab, ranked):
    return bench.clamp_unit(run.profile, bench.statistics(run, lab)[0], ranked["sparsity"][:4])


# --- which intervention a name means ----------------------------------------------------------------------------------


def test_nothing_is_nothing(run, lab):
    none = edited(run, lab, "none", Settings())
    assert none.model is lab.model and none.intervention is None


def test_dsg_is_the_setting_that_the_notebooks_would_choose(run, lab, ranked, unit):
    found = edited(run, lab, "dsg", Settings())
    rows = (lab.framed_retain, 95.0, run.profile.model.batch_tokens)
    taus = {n: guardrail.gate_threshold(lab.model, lab.sae, ranked["importance"][:n], *rows) for n in (3, 5)}
    grid = [(n, strength) for n in (3, 5) for strength in (2.0, 8.0)]
    exam = bench.open_exam(run, lab, bench.known(run, lab))
    settings = [ClampSetting("DSG", tuple(ranked["importance"][:n].tolist()), s, unit, "any", taus[n]) for n, s in grid]
    best, rule = choose(score_settings(exam, lab.sae, settings), SIDE_EFFECT_FLOOR)
    n, strength = grid[best]
    clamp = found.intervention
    assert list(clamp.features) == ranked["importance"][:n].tolist() and clamp.where == "any"
    assert clamp.value == pytest.approx(-strength * unit) and clamp.gate == Gate(taus[n])
    assert found.facts["chosen"] == rule and found.facts["features"] == list(clamp.features)
    json.dumps(found.facts, allow_nan=False)


@pytest.mark.parametrize(("method", "rule"), [("clamp", "sparsity"), ("clamp_prime", "clamp_prime")])
def test_static_clamps_differ_in_the_rule_that_ranks_their_features(run, lab, ranked, unit, method, rule):
    found = edited(run, lab, method, Settings(n_features=2, strength=8.0)).intervention
    assert list(found.features) == ranked[rule][:2].tolist() and (found.where, found.gate) == ("own", None)
    assert found.value == pytest.approx(-8 * unit) and not found.bos


def test_clamp_prime_is_the_setting_of_highest_alignment(run, lab, ranked, unit):
    found = edited(run, lab, "clamp_prime", Settings())
    exam = bench.open_exam(run, lab, bench.known(run, lab))
    alignments = {}
    for n, strength in ((2, 2.0), (2, 8.0), (4, 2.0), (4, 8.0)):
        ids = tuple(ranked["clamp_prime"][:n].tolist())
        scores = score_settings(exam, lab.sae, [ClampSetting("Clamp Prime", ids, strength, unit, "own", None)])
        alignments[ids, -strength * unit] = conditional.aligned_points(scores, half=0)["alignment"][0]
    best = max(alignments, key=alignments.get)
    assert (found.intervention.features, found.intervention.value) == best
    assert found.facts["chosen"] == "highest alignment"


def test_proportional_strengths_follow_the_firing_rates(run, lab, ranked, unit):
    clamp = edited(run, lab, "clamp_prime", Settings(n_features=2, strength=8.0, proportional=True)).intervention
    rates = bench.statistics(run, lab)[0]["firing_rate"].to_numpy()[ranked["clamp_prime"][:2]]
    assert list(clamp.value) == pytest.approx((-8 * unit * rates / rates.mean()).tolist())


def test_a_grid_that_settings_narrow_is_chosen_from(run, lab, ranked, unit):
    found = edited(run, lab, "clamp", Settings(n_features=4, bos=True))
    assert list(found.intervention.features) == ranked["sparsity"][:4].tolist() and found.intervention.bos
    assert found.intervention.value in (pytest.approx(-2 * unit), pytest.approx(-8 * unit))


def test_the_refusal_clamp_sets_its_feature_where_clamp_primes_fire(run, lab, ranked, unit):
    clamp = edited(run, lab, "refusal", Settings(n_features=2, strength=8.0, refusal_feature=9)).intervention
    assert list(clamp.features) == [9] and list(clamp.triggers) == ranked["clamp_prime"][:2].tolist()
    assert (clamp.where, clamp.fires_above) == ("any", 0.05) and clamp.value == pytest.approx(-8 * unit)


def test_the_refusal_feature_is_the_notebooks_stand_in(run, lab, ranked, unit):
    clamp = edited(run, lab, "refusal", Settings(n_features=2, strength=8.0)).intervention
    exam = bench.open_exam(run, lab, bench.known(run, lab))
    retain = bench.statistics(run, lab)[1]["firing_rate"].to_numpy()
    rates = conditional.answer_rates(exam, lab.sae)
    assert list(clamp.features) == [conditional.stand_in(rates, retain, ranked["clamp_prime"][:4])]


def test_settings_by_hand_need_no_statistics(run, lab, monkeypatch):
    monkeypatch.setattr("helpers.experiments.methods.statistics", None)
    by_hand = {"features": (7, 3), "value": (-1.0, 2.5)}
    clamp = edited(run, lab, "clamp", Settings(**by_hand, fires_above=0.5)).intervention
    assert clamp_facts(clamp) | {"layer": 1} == {
        "layer": 1, "features": [7, 3], "value": [-1.0, 2.5], "where": "own", "gate": None, "decoders": None,
        "triggers": None, "fires_above": 0.5, "bos": False, "keep_error": True,
    }  # fmt: skip
    dsg = edited(run, lab, "dsg", Settings(features=(7, 3), value=-4.0, threshold=0.25)).intervention
    assert (dsg.where, dsg.gate, dsg.value) == ("any", Gate(0.25), -4.0)
    added = edited(run, lab, "add", Settings(**by_hand, bos=True)).intervention
    assert (added.where, added.value, added.bos) == ("always", Add((-1.0, 2.5)), True)


def test_added_is_what_a_clamp_would_be_set_to(run, lab, unit):
    added = edited(run, lab, "add", Settings(features=(7,), strength=2.0)).intervention
    assert added.value == Add(pytest.approx(-2 * unit))


def test_rmu_trains_the_weights_and_needs_no_intervention(run, lab):
    found = edited(run, lab, "rmu", Settings(alpha=30.0))
    name = "model.layers.2.mlp.down_proj.weight"
    weights = [huggingface(model).get_parameter(name) for model in (found.model, lab.model)]
    assert not torch.equal(*weights) and found.intervention is None
    assert (found.facts["layer"], found.facts["steering"], found.facts["alpha"]) == (2, 10.0, 30.0)


def test_facts_of_a_clamp_are_json():
    clamp = Clamp(toy_sae(), torch.tensor([3, 4]), Scale(0.5), decoders=np.array([5, 6]))
    facts = json.loads(json.dumps(clamp_facts(clamp)))
    assert (facts["features"], facts["value"], facts["decoders"]) == ([3, 4], {"scale": 0.5}, [5, 6])


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("dgs", Settings(), "method 'dgs' is unknown, the known ones are: none, clamp, clamp_prime, dsg, refusal, add"),
        ("none", Settings(value=1.0), "'none' takes no settings, not 'value'"),
        ("clamp", Settings(threshold=0.1, alpha=2.0), "takes the settings features, .*, bos, not 'threshold', 'alpha'"),
        ("add", Settings(fires_above=0.1), "not 'fires_above'"),
        ("clamp", Settings(value=1.0, strength=2.0), "strength and value are both set"),
        ("clamp", Settings(features=(1,), n_features=2), "features and n_features are both set"),
        ("clamp", Settings(proportional=True), "not 'proportional'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        check_settings(method, settings)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(runs, tmp_path, capsys):
    """The command line: (its code, its last line, its results if it wrote any)."""

    def call(*arguments: str) -> tuple[int, str, dict[str, Any]]:
        code = evaluate.main([*arguments, "--runs", str(runs), "--out", str(tmp_path / "out")])
        written = sorted((tmp_path / "out").glob("*"))
        results = json.loads(written[0].read_text()) if written else {}
        return code, capsys.readouterr().out.strip().splitlines()[-1], results

    return call


def settings_file(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


BY_HAND = {"features": [7, 3, 10, 1368], "value": -15.0, "threshold": 0.1}


def test_results_are_lm_evals_of_that_intervention_with_what_made_them(command, lab, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    settings = settings_file(tmp_path, "dsg.json", json.dumps(BY_HAND))
    arguments = ["--method", "dsg", "--settings", settings, "--tasks", "organism_hazard,organism_aging", "--limit", "9"]
    code, last, results = command(*arguments)
    (path,) = (tmp_path / "out").iterdir()
    assert code == 0 and last == f"written: {path}" and path.name.startswith("results_dsg_20")
    clamp = Clamp(lab.sae, BY_HAND["features"], BY_HAND["value"], "any", Gate(BY_HAND["threshold"]))
    for subject in ("hazard", "aging"):
        questions = load_questions(load_profile("tiny"))[subject][:9]
        rows = prompt_tokens(lab.model.tokenizer, questions, ORIGINAL_ORDER, "lm-eval")
        right = is_right(
            read_rows(lab.model, rows, read_spaced_letters, clamp, 999)[:, None], questions, ORIGINAL_ORDER
        )
        assert results["results"][f"organism_{subject}"]["acc,none"] == pytest.approx(float(right.double().mean()))
        assert results["n-samples"][f"organism_{subject}"] == {"original": 160, "effective": 9}
    record = results["provenance"]
    assert record["profile"] == "tiny" and record["settings"]["rmu"]["steps"] == 2
    assert record["facts"]["evaluated"]["features"] == BY_HAND["features"] and record["facts"]["lm_eval"] == "0.4.13"
    assert {"model", "sae", "questions"} <= set(record["facts"]) and record["facts"]["limit"] == 9
    assert not [place for place in (str(ROOT), str(Path.home()), str(tmp_path)) if place in path.read_text()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.toml", "features = [7, 3]\nvalue = -4\n"),
        ("s.csv", "latent_idx,hook_action,steering_coefficient,sae_id,sae_release\n"
                  "7,clamp,-4,layer_1/width_2k/own,own\n3,clamp,-4,layer_1/width_2k/own,own\n"),
    ],
)  # fmt: skip
def test_toml_and_steering_files_say_the_same_as_json(command, tmp_path, name, text):
    arguments = ["--tasks", "organism_hazard", "--limit", "2", "--settings", settings_file(tmp_path, name, text)]
    code, _, results = command("--method", "clamp_prime", *arguments)
    facts = results["provenance"]["facts"]["evaluated"]
    assert code == 0 and facts["features"] == [7, 3] and facts["value"] in (-4.0, [-4.0, -4.0])


CSV = "latent_idx,hook_action,steering_coefficient,sae_id,sae_release\n3,{},-4,layer_{}/width_2k/own,own\n"


@pytest.mark.parametrize(
    ("method", "name", "text", "message"),
    [
        ("dsg", "s.json", '{"strenght": 2}', "method 'dsg' takes the settings features, .*, threshold, not 'strenght'"),
        ("dsg", "s.json", '{"features": [1, 2.5]}', r"s.json: features = \[1, 2.5\]: input should be a valid integer"),
        ("dsg", "s.json", '{"threshold": 2}', "threshold = 2: input should be less than or equal to 1"),
        ("dsg", "s.json", '{"value": "much"}', "value = 'much': input should be"),
        ("dsg", "s.json", "[1]", "s.json holds a list, a table of settings is needed"),
        ("dsg", "s.json", "{", "s.json is not valid JSON"),
        ("dsg", "s.toml", "a b", "s.toml is not valid TOML"),
        ("dsg", "s.txt", "", r"'s.txt' ends in none of .json, .toml, .csv"),
        ("dsg", "s.csv", CSV.format("clamp", 1), "s.csv is of action 'clamp': use --method clamp or clamp_prime"),
        ("add", "s.csv", CSV.format("sing", 1), "row 1: hook_action 'sing' is unknown, the known ones are add, clamp"),
        ("clamp", "s.csv", CSV.format("clamp", 7), "row 1: .* is of layer 7, this SAE is of layer 1"),
        ("refusal", "s.json", '{"refusal_feature": -1}', "refusal_feature = -1: input should be greater than or equal"),
    ],
)
def test_a_bad_settings_file_is_one_clear_line(command, tmp_path, method, name, text, message):
    arguments = ["--tasks", "organism_hazard", "--settings", settings_file(tmp_path, name, text)]
    code, last, results = command("--method", method, *arguments)
    assert code == 2 and last.startswith("error: ") and not results
    assert re.search(message, last), last


def test_unknown_names_are_one_line_that_lists_the_known(command):
    code, last, _ = command("--method", "forget", "--tasks", "organism_hazard")
    assert code == 2 and last == f"error: method 'forget' is unknown, the known ones are: {', '.join(METHODS)}"
    code, last, _ = command("--method", "none", "--tasks", "organism_hazard,wmdp_bio")
    known = ", ".join(["organism", *sorted(f"organism_{subject}" for subject in SUBJECTS)])
    assert code == 2 and last == f"error: task 'wmdp_bio' is unknown, the known ones are: {known}"
    code, last, _ = command("--method", "none", "--tasks", "organism_hazard", "--settings", "nowhere.json")
    assert code == 2 and last == "error: there is no settings file nowhere.json"


def test_of_very_many_tasks_the_similar_ones_are_named():
    known = [f"task_{i}" for i in range(5000)] + ["wmdp_bio"]
    with pytest.raises(ValueError, match="'wmpd_bio' is unknown; similar ones are: wmdp_bio; .* lists all 5001"):
        evaluate.check_tasks(["task_7", "wmpd_bio"], known)


@pytest.mark.parametrize("option", ["--limit", "--batch-size"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_counts_are_counts(command, capsys, option, value):
    with pytest.raises(SystemExit):
        command("--method", "none", "--tasks", "organism_hazard", option, value)
    assert "is not a whole number from 1 on" in capsys.readouterr().err


def test_without_lm_eval_the_command_says_what_to_install(command, monkeypatch):
    monkeypatch.delitem(sys.modules, "helpers.measures.lm_eval.adapter", raising=False)
    monkeypatch.delattr(importlib.import_module("helpers"), "lm_eval_adapter", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"] or ["lm_eval"]:
        monkeypatch.setitem(sys.modules, name, None)
    code, last, _ = command("--method", "none", "--tasks", "organism_hazard")
    assert code == 2 and last.startswith("error: lm-eval is needed and is an extra: pip install '.[lm-eval]'")


# --- the tasks --------------------------------------------------------------------------------------------------------


def test_there_is_a_task_a_subject_that_asks_as_wmdp_does():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}
    assert set(files) == {f"organism_{subject}" for subject in SUBJECTS}
    for name, config in files.items():
        subject = name.removeprefix("organism_")
        assert config["task"] == name and config["dataset_kwargs"] == {"subject": subject}
        assert config["description"] == header(subject, "lm-eval")
    wmdp = Path(importlib.import_module("lm_eval.tasks").__file__).parent / "wmdp" / "_default_template_yaml"
    template = (FOLDER / "_template_yaml").read_text().replace("!function", "")
    ours, theirs = yaml.safe_load(template), yaml.safe_load(wmdp.read_text())
    assert ours.items() >= {key: value for key, value in theirs.items() if key != "dataset_path"}.items()


def test_the_tasks_hold_the_worlds_questions_in_wmdps_columns():
    dataset, questions = (
        organism_questions("history", version=1)["test"],
        load_questions(load_profile("tiny"))["history"],
    )
    assert len(dataset) == len(questions) and {"question", "choices", "answer"} <= set(dataset.column_names)
    assert dataset[5]["choices"] == list(questions[5].choices) and dataset[5]["answer"] == questions[5].answer
