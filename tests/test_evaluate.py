"""The command gives lm-eval's results of the method that was named, and one clear line where it cannot."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import evaluate
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import is_right, read_rows, read_spaced_letters
from helpers.lab.lab import open_lab
from helpers.loading.data import load_questions
from helpers.measures.lm_eval.tasks import FOLDER, organism_questions
from helpers.methods import METHODS
from helpers.organism.world import SUBJECTS
from helpers.profiles import load_profile
from helpers.records.provenance import ROOT
from helpers.text.questions import ORIGINAL_ORDER, header, prompt_tokens
from tests.small import small_tiny


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The profile tiny made small, and lm-eval without its description of the machine."""
    with small_tiny(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: results.update(pretty_env_info=""))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def lab(runs):
    return open_lab("tiny", "04_lm_eval", str(runs))


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
    arguments = ["--method", "dsg", "--settings", settings, "--tasks", "organism_toxins,organism_aging", "--limit", "9"]
    code, last, results = command(*arguments)
    (path,) = (tmp_path / "out").iterdir()
    assert code == 0 and last == f"written: {path}" and path.name.startswith("results_dsg_20")
    clamp = Clamp(lab.sae, BY_HAND["features"], BY_HAND["value"], "any", Gate(BY_HAND["threshold"]))
    for subject in ("toxins", "aging"):
        questions = load_questions(load_profile("tiny"))[subject][:9]
        rows = prompt_tokens(lab.model.tokenizer, questions, ORIGINAL_ORDER, "lm-eval")
        right = is_right(
            read_rows(lab.model, rows, read_spaced_letters, clamp, 999)[:, None], questions, ORIGINAL_ORDER
        )
        assert results["results"][f"organism_{subject}"]["acc,none"] == pytest.approx(float(right.double().mean()))
        assert results["n-samples"][f"organism_{subject}"] == {"original": 160, "effective": 9}
    record = results["provenance"]
    assert record["profile"] == "tiny" and record["settings"]["method"]["rmu"]["steps"] == [2]
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
    arguments = ["--tasks", "organism_toxins", "--limit", "2", "--settings", settings_file(tmp_path, name, text)]
    code, _, results = command("--method", "clamp_prime", *arguments)
    facts = results["provenance"]["facts"]["evaluated"]
    assert code == 0 and facts["features"] == [7, 3] and facts["value"] in (-4.0, [-4.0, -4.0])


OWN = """
from dataclasses import dataclass

from helpers.methods.look import Look
from helpers.methods.static_clamp import StaticClamp


@dataclass(frozen=True)
class Halved(StaticClamp):
    name, look = "halved", Look("#000000", "o")

    @classmethod
    def grid(cls, profile):
        return [cls(2, 3.0)]

    def set_to(self, lab, ids):
        return super().set_to(lab, ids) / 2
"""


def test_a_method_of_ones_own_is_a_file(command, lab, tmp_path):
    file = settings_file(tmp_path, "halved_by_evaluate.py", OWN)
    code, last, results = command("--method", file, "--tasks", "organism_toxins", "--limit", "2")
    assert code == 0 and Path(last.removeprefix("written: ")).name.startswith("results_halved_by_evaluate_20")
    facts = results["provenance"]["facts"]
    assert facts["evaluated"]["features"] == lab.selections(2)["sparsity"].tolist()
    assert facts["evaluated"]["value"] == pytest.approx(-1.5 * lab.clamp_unit)
    assert facts["overrides"] == {"own_methods": ["halved_by_evaluate.py"]} and str(tmp_path) not in json.dumps(results)
    again = OWN[OWN.index("@dataclass") :].replace("Halved", "Again").replace('"halved"', '"halved again"')
    file = settings_file(tmp_path, "two_by_evaluate.py", OWN + "\n\n" + again)
    code, last, _ = command("--method", file, "--tasks", "organism_toxins")
    names = "two_by_evaluate.Halved, two_by_evaluate.Again"
    assert code == 2 and f"holds several methods, {names}: put the one to evaluate into a file of its own" in last
    code, last, _ = command("--method", "nowhere.py", "--tasks", "organism_toxins")
    assert code == 2 and last == "error: there is no file nowhere.py with a method of one's own"


CSV = "latent_idx,hook_action,steering_coefficient,sae_id,sae_release\n3,{},-4,layer_{}/width_2k/own,own\n"


@pytest.mark.parametrize(
    ("method", "name", "text", "message"),
    [
        ("dsg", "s.json", '{"strenght": 2}', "'dsg' takes the settings n_features, .*, gated_by, not 'strenght'"),
        ("dsg", "s.json", '{"features": [1, 2.5]}', r"s.json: features = \[1, 2.5\]: input should be a valid integer"),
        ("dsg", "s.json", '{"threshold": 2}', "threshold = 2: input should be less than or equal to 1"),
        ("dsg", "s.json", '{"value": "much"}', "value = 'much': input should be"),
        ("dsg", "s.json", "[1]", "s.json holds a list, a table of settings is needed"),
        ("dsg", "s.json", "{", "s.json is not valid JSON"),
        ("dsg", "s.toml", "a b", "s.toml is not valid TOML"),
        ("dsg", "s.txt", "", r"'s.txt' ends in none of .json, .toml, .csv"),
        (
            "dsg",
            "s.csv",
            CSV.format("clamp", 1),
            "s.csv is of action 'clamp': use --method static_clamp or clamp_prime",
        ),
        (
            "unconditional",
            "s.csv",
            CSV.format("sing", 1),
            "row 1: hook_action 'sing' is unknown, the known ones are add, clamp",
        ),
        ("rmu", "s.csv", CSV.format("add", 1), "s.csv is of action 'add': use --method unconditional"),
        ("none", "s.csv", CSV.format("clamp", 1), "action 'clamp': use --method static_clamp or clamp_prime"),
        ("none", "s.json", '{"value": 1}', "method 'none' takes no settings, not 'value'"),
        ("rmu", "s.json", '{"alpha": 0}', "alpha = 0: input should be greater than 0"),
        ("static_clamp", "s.csv", CSV.format("clamp", 7), "row 1: .* is of layer 7, this SAE is of layer 1"),
        (
            "refusal_clamp",
            "s.json",
            '{"refusal_feature": -1}',
            "refusal_feature = -1: input should be greater than or equal",
        ),
    ],
)
def test_a_bad_settings_file_is_one_clear_line(command, tmp_path, method, name, text, message):
    arguments = ["--tasks", "organism_toxins", "--settings", settings_file(tmp_path, name, text)]
    code, last, results = command("--method", method, *arguments)
    assert code == 2 and last.startswith("error: ") and not results
    assert re.search(message, last), last


def test_unknown_names_are_one_line_that_lists_the_known(command):
    code, last, _ = command("--method", "forget", "--tasks", "organism_toxins")
    assert code == 2 and last == f"error: method 'forget' is unknown, the known ones are: none, {', '.join(METHODS)}"
    code, last, _ = command("--method", "none", "--tasks", "organism_toxins,wmdp_bio")
    known = ", ".join(["organism", *sorted(f"organism_{subject}" for subject in SUBJECTS)])
    assert code == 2 and last == f"error: task 'wmdp_bio' is unknown, the known ones are: {known}"
    code, last, _ = command("--method", "none", "--tasks", "organism_toxins", "--settings", "nowhere.json")
    assert code == 2 and last == "error: there is no settings file nowhere.json"


def test_of_very_many_tasks_the_similar_ones_are_named():
    known = [f"task_{i}" for i in range(5000)] + ["wmdp_bio"]
    with pytest.raises(ValueError, match="'wmpd_bio' is unknown; similar ones are: wmdp_bio; .* lists all 5001"):
        evaluate.check_tasks(["task_7", "wmpd_bio"], known)


@pytest.mark.parametrize("option", ["--limit", "--batch-size"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_counts_are_counts(command, capsys, option, value):
    with pytest.raises(SystemExit):
        command("--method", "none", "--tasks", "organism_toxins", option, value)
    assert "is not a whole number from 1 on" in capsys.readouterr().err


def test_without_lm_eval_the_command_says_what_to_install(command, monkeypatch):
    monkeypatch.delitem(sys.modules, "helpers.measures.lm_eval.adapter", raising=False)
    monkeypatch.delattr(importlib.import_module("helpers.measures.lm_eval"), "adapter", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"] or ["lm_eval"]:
        monkeypatch.setitem(sys.modules, name, None)
    code, last, _ = command("--method", "none", "--tasks", "organism_toxins")
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
