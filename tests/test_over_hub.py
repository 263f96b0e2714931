"""The notebooks of the Gemma profiles, run without a screen on what the loopback hub serves; and all that can fail.

The runner is a child process with the real clients and a fresh cache, told by its environment where the hub is. One
fixture runs all that ends well, another all that fails, two processes at a time; the tests read what they left.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pytest

from helpers.loading.data import WORLD_SEED
from helpers.loading.finetuned import REFERENCE, TARGET
from helpers.measures.knowledge import known_ids
from helpers.organism.world import build_world, load_words
from helpers.profiles import load_profile
from helpers.records.provenance import ROOT
from tests.hub import Hub
from tests.hub_files import GATED, MODELS, QUESTIONS, SPREAD, make_deep, make_files, served_questions

TOKEN = "hf_FakeTokenThatMayStandNowhere"
READER = "hf_FakeTokenThatMayReadTheModelsOnly"
STRANGER = "hf_FakeTokenThatTheHubDoesNotKnow"
N = 2  # questions of each subject
# Small grids in the organism's sizes; strengths are Gemma's, and far more than the organism needs.
SMALL = {
    "model.attention": "eager",  # what is served as Gemma 1 is the organism, a Gemma 2
    "model.batch_tokens": 128, "sae.explained_variance": 0.5, "compute.jobs": 1, "compute.threads": 1,
    "texts.row_length": 64, "texts.forget_rows": 8, "texts.retain_rows": 8, "texts.neutral_rows": 2,
    "texts.framed_documents": 6, "selection.n_features": 5,
    "selection.attribution_candidates": 12, "selection.attribution_strength": 100.0,
    "selection.attribution_side_lost": 1,
    "clamp_curve.strengths": [0.0, 20.0], "clamp_curve.n_features": [1, 5], "clamp_curve.decoder_features": 2,
    "clamp_curve.random_features": 1,
    "method.static_clamp.n_features": [5], "method.static_clamp.strengths": [0.0, 100.0],
    "method.attribution_clamp.n_features": [1], "method.attribution_clamp.strengths": [100.0],
    "little_text.shares": [1.0, 0.5], "little_text.trained_shares": [1.0],
    "method.rmu.layers": [3], "method.rmu.steering": [10.0], "method.rmu.alphas": [100.0], "method.rmu.steps": [2],
    "method.gradient_ascent.learning_rates": [1e-5], "method.gradient_ascent.steps": [1],
    "method.grad_diff.retain_weights": [1.0], "method.grad_diff.steps": [1], "method.npo.betas": [0.1],
    "method.npo.steps": [1], "method.simnpo.betas": [0.1], "method.simnpo.steps": [1],
    "method.scrub.forget_weights": [0.1], "method.scrub.steps": [1], "method.ssd.thresholds": [1.0],
    "method.ssd.dampenings": [0.1], "method.ssd.embeddings": [True], "method.ssd.rows": 2,
    "method.crisp.n_features": [5], "method.crisp.steps": [1],
    **{f"method.{name}.batch_rows": 2 for name in
       ("rmu", "gradient_ascent", "grad_diff", "npo", "simnpo", "scrub", "crisp")},
    "method.clamp_prime.n_features": [5], "method.clamp_prime.strengths": [100.0],
    "method.clamp_prime.proportional": [False],
    "method.refusal_clamp.n_features": [5], "method.refusal_clamp.strengths": [100.0],
    "method.refusal_clamp.answer_tokens": 4,
    "method.unconditional.n_features": [5], "method.unconditional.strengths": [10.0],
    "method.dsg.n_features": [5], "method.dsg.strengths": [100.0],
    "conditional.control_features": 1, "conditional.resamples": 50, "conditional.ordered_questions": 1,
    "conditional.told_questions": 1, "conditional.new_tokens": 2,
    "relearning.epochs": 1, "relearning.rows": 4, "relearning.batch_rows": 4, "relearning.seeds": [0],
    "relearning.few_documents": [1], "relearning.few_steps": 1, "relearning.few_seeds": [0], "relearning.drift_rows": 2,
    "relearning.side_effect_floor": 0.0,
    # all but cloze, which 13 cannot ask, and spaced letters, for the served tokenizer has words only
    "prompt_attacks.attacks": ["dilution", "decomposition", "interleaving", "near_interleaving", "middle_padding",
                               "few_shot", "combined", "options_only"],
    "attack.middle_padding.tokens": [20], "attack.middle_padding.places": ["above the choices"],
    "prompt_attacks.new_tokens": 2,
    "prompt_attacks.benign_questions": 1, "attack.dilution.tokens": [20], "attack.dilution.places": ["before"],
    "attack.decomposition.turns": [2], "attack.interleaving.between": [1], "attack.near_interleaving.between": [1],
    "gates.names": ["rho", "window", "excess", "two_level", "detector"],  # two questions tell CUSUM no rates
    "gates.hazard_features": 2, "gates.detector_features": 3, "attack.few_shot.examples": [1],
    "attack.combined.questions": [1],
    "finetuning.epochs": 1, "finetuning.kept_every": 2, "muse.head": 2,
    "recovery.bounds": [0.5], "recovery.steps": 1, "recovery.each_steps": 1, "recovery.bits": [4],
    "recovery.groups": [64], "recovery.pruned_shares": [0.3], "recovery.side_questions": 4,
    "theorems.features": 10, "theorems.resamples": 50,
    "muse.new_tokens": 4, "muse.answer_tokens": 2, "muse.resamples": 50,
}  # fmt: skip
MUSE = "gemma-2-2b-muse-news"
# its texts are a handful: one batch; requests without trainings, which are the dearest of all that it runs
OF_PROFILE = {MUSE: {
    "model.batch_tokens": 1024, "muse.request_methods": ["dsg"],
    # in steps of eight rows the few texts are an epoch
    **{f"method.{name}.batch_rows": 8 for name in ("gradient_ascent", "grad_diff", "npo", "simnpo")},
}}  # fmt: skip


def settings_of(profile: str) -> list[str]:
    """A profile's small settings as `--set` takes them."""
    return [f"{key}={toml(value)}" for key, value in (SMALL | OF_PROFILE.get(profile, {})).items()]


@dataclass(frozen=True)
class Done:
    """A finished child process: exit code, everything it printed, and the folder of its runs and figures."""

    code: int
    log: str
    out: Path

    def figures(self, profile: str) -> Path:
        """The folder of a trial's figures."""
        return self.out / "figures" / f"{profile}+changed"


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A folder with what the hub serves, and room for caches and outputs beside it."""
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder) / "hub")
        yield Path(folder)


def reproduce(run: Callable, out: Path, environment: Mapping[str, str], profile: str, *more: str) -> Done:
    """Run the runner on a profile in a process that knows only this hub and token."""
    arguments = ["--profile", profile, "--limit", str(N), *more, "--runs", str(out / "runs"),
                 "--figures", str(out / "figures"), "--set", *settings_of(profile)]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    code, log = run("helpers.reproduce", arguments, inherited | dict(environment))
    return Done(code, log, out)


def toml(value: object) -> str:
    """A setting as `--set` takes it."""
    return json.dumps(value) if isinstance(value, list) else str(value)


def finetuned_over(run: Callable, environment: Mapping[str, str], profile: str, data: str) -> tuple[int, str]:
    """Fine-tune a profile's model in such a process: its code and what it said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    arguments = ["--profile", profile, "--data", data, "--set", *settings_of(profile)]
    return run("helpers.finetune", arguments, inherited | dict(environment))


def side_by_side(run: Callable, jobs: Mapping[str, tuple]) -> dict[str, Done]:
    """`reproduce` with each job's arguments, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(jobs, pool.map(lambda job: reproduce(run, *job), jobs.values()), strict=True))


# --- all that ends well -----------------------------------------------------------------------------------------------

SERVED = {
    "gemma-2-2b-it": ("01", "03", "05", "06", "07", "09", "11", "12", "13", "14", "15"),
    "gemma-2-2b-it-layer-7": ("01", "03"),
    "gemma-2-2b-it-cyber": ("05", "07", "09", "11", "12", "13", "14", "15"),
    "gemma-2b-it": ("01", "02"), "gemma-2-2b": ("04",),
}  # fmt: skip
# Where a profile differs from one above in few settings, the notebooks that read what differs: 09 the named features'
# words, 11 the fillers, both questions and corpora. The others go the same way there as in the first profile.
RUN = SERVED | {"gemma-2-2b-it-cyber": ("09", "11")}
SHARD = "gemma-2-2b-it/model-00001-of-00002.safetensors"
DEEP = "gemma-2-2b-it-layer-7"  # needs a model with such a layer
WITHOUT_TEXT = "without forget text"
each_profile = pytest.mark.parametrize("profile", SERVED)


@dataclass(frozen=True)
class Online:
    """Every profile run against the hub, and one without access to the forget text; what the hub was asked; and the
    environment with the cache that is left, while the hub is gone."""

    done: dict[str, Done]
    requests: list[str]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def online(run_forked: Callable, files: Path) -> Online:
    """All profiles but one over one cache; the hub breaks off in the middle of the first shard that is asked for."""
    tokens = {TOKEN: GATED, READER: frozenset(MODELS)}
    make_deep(files / "hub", files / "deep hub")
    with (
        Hub(files / "hub", GATED, tokens, cuts={SHARD: 20_000_000}) as hub,
        Hub(files / "deep hub", GATED, tokens, requests=hub.requests) as deep,
    ):
        environment = hub.environment(files / "home", TOKEN)
        asked = dict.fromkeys(RUN, environment) | {DEEP: deep.environment(files / "deep home", TOKEN)}
        jobs = {name: (files / "online" / name, asked[name], name, "--only", *RUN[name]) for name in RUN}
        other = hub.environment(files / "reader's home", READER)
        jobs[WITHOUT_TEXT] = (files / "online" / WITHOUT_TEXT, other, "gemma-2-2b-it", "--only", "03")
        return Online(side_by_side(run_forked, jobs), hub.requests, environment)


@each_profile
def test_the_notebooks_of_a_profile_run_and_make_their_figures(online: Online, profile: str) -> None:
    done = online.done[profile]
    assert done.code == 0, done.log
    made = {path.name[:2] for path in done.figures(profile).glob("*.pdf")}
    assert made == set(RUN[profile]) <= set(SERVED[profile]) == set(load_profile(profile).notebooks)


@each_profile
def test_every_table_has_the_columns_of_the_committed_one(online: Online, profile: str) -> None:
    check_columns(online.done[profile].figures(profile))


def check_columns(folder: Path) -> None:
    """Hold the tables of a folder of figures to those of the embedded model."""
    for path in folder.glob("*.csv"):
        ours, committed = (pd.read_csv(file, nrows=0).columns for file in (path, ROOT / "figures" / "tiny" / path.name))
        assert ours.tolist() == committed.tolist(), path.name


def test_what_a_profile_changes_in_a_notebook_that_is_not_run_it_changes_in_one_that_is() -> None:
    first = "gemma-2-2b-it"
    for profile in RUN:
        changed = {name: settings_changed(first, profile, name) for name in set(SERVED[profile]) & set(SERVED[first])}
        run = set().union(*(changed[name] for name in changed if name in RUN[profile]))
        assert all(changed[name] <= run for name in changed), (profile, changed)


def settings_changed(profile: str, other: str, notebook: str) -> set[str]:
    """The settings that two profiles differ in within a notebook, as 'table.key'."""
    ours, theirs = (asdict(load_profile(name, notebook=notebook)) for name in (profile, other))
    tables = [name for name in ours if isinstance(ours[name], dict)]
    return {f"{table}.{key}" for table in tables for key in ours[table] if ours[table][key] != theirs[table].get(key)}


def test_a_cut_download_is_resumed_where_it_broke_off(online: Online) -> None:
    asked = [line for line in online.requests if line.startswith("GET") and "bytes=" in line and "00001-of" in line]
    assert len(asked) == 1 and int(asked[0].split("bytes=")[1].rstrip("-")) > 10_000_000


@each_profile
def test_results_say_from_which_commits_they_are_and_what_is_not_as_known(online: Online, profile: str) -> None:
    served = set(re.findall(r"/tree/(\w{40})", "\n".join(online.requests)))
    for path in online.done[profile].figures(profile).glob("*.json"):
        facts = json.loads(path.read_text())["facts"]
        assert len(facts["sources"]) >= 4 and set(facts["sources"].values()) <= served
        assert set(facts["overrides"]) == {*SMALL, "questions.limit"}
        # the served WikiText is longer than the real one
        assert any("known are 4358" in w for w in facts.get("warnings", [])) == (
            "Salesforce/wikitext" in facts["sources"]
        )


def test_requests_for_help_are_fetched_by_the_notebook_that_needs_them_only(online: Online) -> None:
    noted = {}
    for profile, done in online.done.items():
        records = [json.loads(path.read_text()) for path in done.out.glob("figures/*/*.json")]
        noted[profile] = {"JailbreakBench/JBB-Behaviors" in record["facts"]["sources"] for record in records}
    assert noted == {profile: {profile == "gemma-2-2b"} for profile in online.done}


def test_the_served_model_knows_what_the_organism_knows(online: Online, model) -> None:
    questions = {name: served_questions(name) for name in QUESTIONS if name != "wmdp-cyber"}
    known = {name: len(known_ids(model, asked, "chat", 2048, N)["known"]) for name, asked in questions.items()}
    points = pd.read_csv(online.done["gemma-2-2b-it"].figures("gemma-2-2b-it") / "03_pareto.csv")
    sides = sum(known.values()) - known["wmdp-bio"] - known["college_biology"]
    assert set(known.values()) == {N}
    assert points[["forget_n", "near_n", "side_n"]].drop_duplicates().values.tolist() == [
        [known["wmdp-bio"], known["college_biology"], sides]
    ]


def test_without_the_forget_text_published_features_are_used_and_named(online: Online) -> None:
    done = online.done[WITHOUT_TEXT]
    assert done.code == 0, done.log
    assert "published features: no forget text" in done.log and "your token has no access yet" in done.log
    points = pd.read_csv(done.figures("gemma-2-2b-it") / "03_pareto.csv")
    assert set(points["method"]) == {"static clamp, published features"}
    # attribution needs questions and no text, so its features are its own
    both = pd.read_csv(done.figures("gemma-2-2b-it") / "03_attribution.csv")
    assert set(both["method"]) == {"static clamp, published features", "attribution clamp"}


def test_only_features_of_the_organism_fire(online: Online) -> None:
    rates = pd.read_csv(online.done["gemma-2-2b-it"].figures("gemma-2-2b-it") / "01_firing_rates.csv")
    firing = set(rates.loc[(rates["forget_rate"] > 0) | (rates["retain_rate"] > 0), "feature"])
    assert firing <= set(SPREAD.tolist()) and len(firing) > 100


def test_what_was_fetched_once_loads_without_a_network(run_forked: Callable, online: Online) -> None:
    told = online.environment | {"HF_HUB_OFFLINE": "1"}  # the other has to find out that nobody answers
    out = {profile: online.done[profile].out for profile in ("gemma-2-2b-it", "gemma-2b-it")}
    table = {profile: done.figures(profile) / "01_firing_rates.csv" for profile, done in online.done.items()}
    before = {profile: table[profile].read_bytes() for profile in out}
    again = side_by_side(run_forked, {
        "gemma-2-2b-it": (out["gemma-2-2b-it"], online.environment, "gemma-2-2b-it", "--only", "01"),
        "gemma-2b-it": (out["gemma-2b-it"], told, "gemma-2b-it", "--only", "01"),
    })  # fmt: skip
    assert {profile: done.code for profile, done in again.items()} == dict.fromkeys(out, 0)
    assert {profile: table[profile].read_bytes() for profile in out} == before


# --- all that fails ---------------------------------------------------------------------------------------------------

MESSAGES = {
    "no token": "google/gemma-2-2b-it (model) needs a token",
    "wrong token": "the hub refuses your token",
    "no access yet": "google/gemma-2-2b-it (model): your token has no access yet",
    "missing file": "google/gemma-scope-2b-pt-res has no file layer_3/width_16k/average_l0_59/*",
    "broken row": "cais/wmdp wmdp-bio/test-*, row 2 is not a four-choice question: question '2' of 'wmdp-bio' needs",
    "away": "the hub cannot be reached and the cache has not all of it",
}
TOKENS = {"no token": "", "wrong token": STRANGER}


@pytest.fixture(scope="module")
def failed(run_forked: Callable, files: Path) -> dict[str, Done]:
    """Notebook 01 under each fault, with a fresh cache each."""
    faulty = files / "faulty"
    shutil.copytree(files / "hub", faulty, copy_function=os.link)
    (faulty / "models/google/gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_59/params.npz").unlink()
    broken = files / "broken"
    shutil.copytree(files / "hub", broken, copy_function=os.link)
    parquet = broken / "datasets/cais/wmdp/wmdp-bio/test-00000-of-00001.parquet"
    rows = pd.read_parquet(parquet)
    rows.at[2, "choices"] = rows.at[2, "choices"][:3]
    parquet.unlink()
    rows.to_parquet(parquet)
    with (
        Hub(files / "hub", GATED, {TOKEN: GATED}) as hub,
        Hub(files / "hub", GATED, {TOKEN: frozenset()}) as reserved,
        Hub(faulty, GATED, {TOKEN: GATED}) as lacking,
        Hub(broken, GATED, {TOKEN: GATED}) as spoilt,
    ):
        hubs = {"no access yet": reserved, "missing file": lacking, "broken row": spoilt}
        jobs = {}
        for fault in MESSAGES:
            environment = hubs.get(fault, hub).environment(files / f"home {fault}", TOKENS.get(fault, TOKEN))
            environment |= {"HF_HUB_OFFLINE": "1"} if fault == "away" else {}
            jobs[fault] = (files / "failed" / fault, environment, "gemma-2-2b-it", "--only", "01")
        return side_by_side(run_forked, jobs)


@pytest.mark.parametrize("fault", MESSAGES)
def test_a_fault_is_one_clear_message_and_a_code(failed: dict[str, Done], fault: str) -> None:
    done = failed[fault]
    assert done.code == 1, done.log
    assert done.log.count(MESSAGES[fault]) == 1, done.log
    assert "Traceback" not in done.log
    assert not list(done.figures("gemma-2-2b-it").glob("*.csv"))


# --- what may stand nowhere -------------------------------------------------------------------------------------------


def test_no_token_and_no_question_stands_in_anything_written_or_said(
    online: Online, failed: dict[str, Done], files: Path
) -> None:
    done = [*online.done.values(), *failed.values()]
    texts = {str(path): path.read_bytes() for run in done for path in run.out.rglob("*") if path.is_file()}
    texts |= {f"log {number}": run.log.encode() for number, run in enumerate(done)}
    notebooks = sum(map(len, RUN.values())) + 1 + len(MESSAGES)  # one without forget text
    assert len([name for name in texts if name.endswith(".ipynb")]) == notebooks
    # the invented words of questions and texts; the tokenizer splits them in two, so the second half is enough
    secrets = [TOKEN, READER, STRANGER, *(ending for subject in load_words().subjects for ending in subject.endings)]
    found = [(name, secret) for name, text in texts.items() for secret in secrets if secret.encode() in text]
    assert found == []


# --- MUSE, whose target is made here ----------------------------------------------------------------------------------

MUSE_FIGURES = ("10_criteria", "10_gates", "10_requests", "10_training")


@dataclass(frozen=True)
class Learned:
    """A MUSE profile's notebook before its target and reference are there, what makes them, and the notebook after."""

    before: Done
    made: dict[str, tuple[int, str]]
    folder: Path
    done: Done

    def rows(self, figure: str) -> pd.DataFrame:
        """The rows behind a figure."""
        return pd.read_csv(self.done.figures(MUSE) / f"{figure}.csv")


@pytest.fixture(scope="module")
def learned(run_forked: Callable, files: Path) -> Learned:
    with Hub(files / "hub", GATED, {TOKEN: GATED}) as hub:
        environment = hub.environment(files / "muse's home", TOKEN)
        before = reproduce(run_forked, files / "before" / MUSE, environment, MUSE)
        made = {data: finetuned_over(run_forked, environment, MUSE, data) for data in (TARGET, REFERENCE)}
        done = reproduce(run_forked, files / "after" / MUSE, environment, MUSE)
    return Learned(before, made, files / "muse's home" / "sae-unlearning" / "finetuned" / MUSE, done)


def test_a_target_and_its_reference_are_asked_for_and_made(learned: Learned) -> None:
    asked = f"`python -m helpers.finetune --profile {MUSE} --data forget+retain --set "  # with what is changed here
    assert learned.before.code != 0 and asked in learned.before.log
    for code, log in learned.made.values():
        assert code == 0 and "GB of memory (projected)" in log, log
    records = [json.loads((learned.folder / data / "record.json").read_text()) for data in (TARGET, REFERENCE)]
    assert records[0]["rows"] > records[1]["rows"] and records[0]["recipe"]["dtype"] == "bfloat16"
    assert records[0]["recipe"]["base"] == records[1]["recipe"]["base"]
    assert {"google/gemma-2-2b-it", "muse-bench/MUSE-News"} <= records[0]["commits"].keys()


def test_every_figure_of_muse_is_made_of_the_models_that_were_trained_here(learned: Learned) -> None:
    assert learned.done.code == 0, learned.done.log
    made = {path.stem for path in learned.done.figures(MUSE).glob("*.pdf")}
    assert made == set(MUSE_FIGURES) and load_profile(MUSE).notebooks == ("10",)
    check_columns(learned.done.figures(MUSE))
    target = json.loads((learned.folder / TARGET / "record.json").read_text())["sha256"]
    for figure in MUSE_FIGURES:
        sources = json.loads((learned.done.figures(MUSE) / f"{figure}.json").read_text())["facts"]["sources"]
        assert "muse-bench/MUSE-News" in sources and sources[f"fine-tuned on {TARGET}"] == target, figure


def test_the_target_recites_and_every_method_and_way_of_a_gate_is_measured(learned: Learned) -> None:
    rows = learned.rows("10_criteria")
    ours = rows[rows["world"] == "ours"].set_index(["method", "rule", "criterion"]).sort_index()
    target = ours["value"]["target", "its only setting"]
    assert target["VerbMem"] > 50 and target["KnowMem retain"] > 50
    methods = {"target", "retrained", "DSG", "static clamp", "RMU", "GA", "GradDiff", "NPO", "SimNPO"}
    assert set(ours.index.get_level_values("method")) == methods
    # passages of half 1, questions, texts of both kinds
    n = ours["n"]["target", "its only setting"]
    assert n[["VerbMem", "KnowMem forget", "PrivLeak", "KnowMem retain"]].tolist() == [4, 5, 8, 5]
    assert ours["value"]["retrained", "its only setting", "PrivLeak"] == 0
    sweep = learned.rows("10_training")
    # RMU's two steps are less than an epoch; a strong clamp takes something of what is remembered
    assert set(sweep[sweep["stopped"]]["method"]) == {"GA", "GradDiff", "NPO", "SimNPO"}
    assert sweep[sweep["setting"] == "5 features x100"].set_index("method")["memory"]["static clamp"] < 1
    assert set(learned.rows("10_gates")["gate"]) == set(load_profile(MUSE).muse.gates)


def test_requests_of_the_hub_come_at_once_and_in_turn(learned: Learned) -> None:
    rows = learned.rows("10_requests")
    assert set(rows["method"]) == {"DSG"} and rows.groupby("how")["requests"].nunique().tolist() == [4, 4]
    # the four passages of half 1: those asked for by then and those not yet, and after the last request all are
    counts = rows.pivot_table(values="n", index=["how", "requests"], columns="criterion")
    memory = counts.filter(like="VerbMem").fillna(0).sum(axis=1)
    assert memory.eq(4).all() and counts.groupby("how")["VerbMem, to be forgotten"].last().eq(4).all()


def test_no_text_of_muse_stands_in_what_its_notebook_writes_or_says(learned: Learned) -> None:
    done = (learned.before, learned.done)
    texts = [path.read_bytes() for run in done for path in run.out.rglob("*") if path.is_file()]
    texts += [log.encode() for log in (*(run.log for run in done), *(log for _, log in learned.made.values()))]
    chronicles = [c for which in ("forget", "retain", "holdout") for c in build_world(WORLD_SEED).chronicles(which)]
    questions = [question for chronicle in chronicles for question, _ in chronicle.answers]
    secrets = [TOKEN, *(chronicle.text[:30] for chronicle in chronicles), *questions]
    assert [secret for secret in secrets if any(secret.encode() in text for text in texts)] == []
