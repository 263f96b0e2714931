"""The doctor over a loopback hub: known answers and a trial on the served Gemma, and the other families' files."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from helpers.experiments.fidelity import known_by_notebook
from helpers.profiles import load_profile
from tests.hub import Hub
from tests.hub_families import GATED as OTHERS
from tests.hub_families import PROFILES, make_families
from tests.hub_files import GATED, SAES, write_datasets, write_gemma_scope, write_model

TOKEN = "hf_in"
PROFILE = "gemma-2-2b-it"
# Of each set; documents fill a row or two of 1,024 tokens, and every third row of WikiText holds one.
QUESTIONS, DOCUMENTS = 2, 22


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the families' probe asks for: their models and SAEs, all rows of the questions, and every text."""
    root = tmp_path_factory.mktemp("families")
    make_families(root)
    write_datasets(root / "datasets")
    return root


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    """gemma-2-2b-it with both SAEs, a few of its questions, and so little text that two cores read it in seconds."""
    root = tmp_path_factory.mktemp("little")
    write_model(root / "models/google" / PROFILE, 2304, 8, (2, 3, 4, 5, 6, 7))  # the SAE is after layer 3
    scope = root / "models/google/gemma-scope-2b-pt-res"
    write_gemma_scope(scope / SAES[0])
    (scope / SAES[1]).parent.mkdir(parents=True)
    (scope / SAES[1]).hardlink_to(scope / SAES[0])
    for path in (files / "datasets").rglob("*"):
        other = root / path.relative_to(files)
        if path.is_file() and "muse" not in path.as_posix():
            other.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".parquet":
                few = {"wmdp": QUESTIONS, "mmlu": QUESTIONS, "wikitext": 3 * DOCUMENTS}.get(path.parts[-3], DOCUMENTS)
                pd.read_parquet(path).head(few).to_parquet(other, index=False)
            else:
                other.write_bytes(path.read_bytes())
    return root


@dataclass(frozen=True)
class Said:
    """What the lines of a process were, each with its exit code or as JSON, and the folder of all that it wrote."""

    lines: list
    folder: Path


@pytest.fixture(scope="module")
def of_hub(run_forked: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Said]:
    """Runs a module in a process that knows one hub, with a home of its own and nothing in it; all lines are JSON."""

    def run(root: Path, module: str, *words: str) -> Said:
        folder, gated = tmp_path_factory.mktemp("first"), GATED | OTHERS
        words = tuple(word.replace("HOME", str(folder / "home")) for word in words)
        with Hub(root, gated, {TOKEN: gated}) as hub:
            here = hub.environment(folder / "home", TOKEN)
            code, said = run_forked(module, words, os.environ | here)
        assert code == 0 and "Traceback" not in said and TOKEN not in said, said
        return Said([json.loads(line) for line in said.splitlines()[-len(words) :]], folder)

    return run


# --- the other families -----------------------------------------------------------------------------------------------


def test_every_other_family_is_probed_and_loaded_as_its_files_lie_on_the_hub(of_hub, files):
    found = {line["profile"]: line for line in of_hub(files, "tests.loaded", *PROFILES).lines}
    kinds = {"gemma-2-9b-it": "gemma2", "gemma-3-1b-it": "gemma3_text", "gemma-3-4b-it": "gemma3_text",
             "llama-3.1-8b-it": "llama"}  # fmt: skip
    assert {name: line["family"] for name, line in found.items()} == kinds
    for name, line in found.items():
        profile = load_profile(name)
        assert line["code"] == 0 and "0 fail" in line["probe"], line["probe"]
        assert f"ok       SAE {profile.sae.source} {profile.sae.id}" in line["probe"]
        assert (line["layer"], line["width"], line["bos"]) == (profile.sae.layer, profile.sae.width, True)
        # two features that always fire and write one dimension each: BOS stays, every other token moves
        assert line["moved"][0] == 0 and min(line["moved"][1:]) > 1
        assert line["fires"] == 2 * (len(line["moved"]) - 1)


# --- known answers and a trial ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(of_hub: Callable, little: Path) -> Said:
    """Both runs on the served model; the trial first, so that its peak of memory is its own."""
    of = f"--profile {PROFILE}"
    return of_hub(little, "tests.doctored", f"{of} --try 2", f"{of} --fidelity --runs HOME/runs")


def answered(said: str) -> dict[str, list[tuple[str, str, str]]]:
    """Of the doctor's lines, by what was looked at: state, what was found, and what is known where it differs."""
    found = re.findall(r"^(ok|warning) +([^:]+): (.+)\n(?: +-> (?:known: )?(.+)\n)?", said, flags=re.MULTILINE)
    lines: dict[str, list[tuple[str, str, str]]] = {}
    for state, what, ours, known in found:
        lines.setdefault(what, []).append((state, ours, known))
    return lines


def test_every_known_answer_is_set_beside_ours_on_the_served_model(runs):
    """The served model is another, so answers differ; none is missing, and a prompt begins with BOS as Gemma's does."""
    code, said = runs.lines[1]
    lines = answered(said)
    assert code == 0
    known = pd.concat(known_by_notebook(PROFILE).values())
    subjects = known.loc[known["quantity"] == "known questions", "subject"]
    assert list(lines) == [
        "features by sparsity", "of them the same", *(f"known questions of {subject}" for subject in subjects),
        "a prompt's first tokens", "tokens where the model's turn begins", "features by importance, released",
        "tau of their features on packed retain text",
    ]  # fmt: skip
    assert len(subjects) == 6 and f"0 fail, {len(subjects) + 7} warnings" in said
    assert lines["known questions of wmdp-bio"] == [("warning", f"{QUESTIONS}, differs", "533 to 538")]
    ((_, _, farrell),) = lines["features by sparsity"]
    assert farrell.split()[:4] == ["8786", "3025", "11913", "14227"] and len(farrell.split()) == 20
    ((_, ours, theirs),) = lines["a prompt's first tokens"]
    assert theirs == "2 106 1645 108" and ours.startswith("2 ")


def test_a_trial_on_the_served_model_projects_every_notebook(runs):
    code, said = runs.lines[0]
    lines = answered(said)
    served = load_profile(PROFILE).notebooks
    assert code == 0 and [w for w in lines if w.startswith("notebook")] == [f"notebook {number}" for number in served]
    assert re.match(r"notebook 03 with 2 known questions of wmdp-bio, 12 of all subjects, on", lines["tried"][0][1])
    for kind in ("statistics", "trees", "answers", "losses", "training"):
        assert re.search(r"x 10\^12 operations in [\d.]+ s", lines[kind][0][1])


def test_neither_leaves_anything_outside_its_home(runs):
    (home,) = runs.folder.iterdir()
    assert home.name == "home"
    assert {path.name for path in home.iterdir()} <= {"hub", "sae-unlearning", "datasets", "xet", "runs"}
    assert [path.name for path in (home / "runs").iterdir()] == [PROFILE]  # the trial's are gone
