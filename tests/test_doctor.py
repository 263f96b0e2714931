"""The doctor says what is missing and what to do, shows no token and downloads nothing."""

import json
import os
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from helpers.doctor import (
    Device,
    Line,
    Need,
    amounts_of,
    cached_commit,
    device_lines,
    direct_dependencies,
    disk_lines,
    explained_lines,
    figure_records,
    finetuned_lines,
    hub_lines,
    locked,
    main,
    numbers_of,
    observed_finetuned,
    observed_optimizer,
    optimizer_lines,
    projection_lines,
    report,
    source_lines,
    sources_of,
    spares,
    temporary_lines,
    time_lines,
    token_lines,
    version_lines,
)
from helpers.experiments.fidelity import Answer
from helpers.loading.data import CHARACTERS_PER_TOKEN
from helpers.loading.finetuned import made_by
from helpers.loading.sources import MODELS, SAES, TEXTS, text_source
from helpers.organism import MODEL_DIR
from helpers.profiles import load_profile
from helpers.records.provenance import ROOT

MODEL = MODELS["google/gemma-2-2b-it"]
SAE_OF = "gemma-scope-2b-pt-res"
SAE = replace(SAES[SAE_OF], files=("layer_3/*",))
CORPUS = TEXTS["bio-forget-corpus"]
CPU, GPU = Device("cpu", "cpu", 16 * 10**9), Device("cuda:0", "a GPU", 24 * 10**9)
COMMIT = "0123456789abcdef"
REFUSED = Need(MODEL, None, "ask for it")


def states(lines: list[Line]) -> list[str]:
    return [line.state for line in lines]


def test_versions_against_the_lock():
    pins, direct = {"torch": "2.13.0", "rich": "1.0"}, ["torch"]
    good = version_lines((3, 12), pins, direct, {"torch": "2.13.0+cpu", "rich": "1.0"})
    assert states(good) == ["ok", "ok"] and good[1].found == "2 as the lock says"
    assert states(version_lines((3, 10), pins, direct, {"torch": "2.13.0", "rich": None})) == ["fails", "ok"]
    other = version_lines((3, 12), pins, direct, {"torch": "2.12.0", "rich": "0.9"})
    assert states(other) == ["ok", "warning"]
    assert other[1].found == "2 differ from the lock: torch 2.12.0, not 2.13.0; rich 0.9, not 1.0"
    missing = version_lines((3, 12), pins, direct, {"torch": None, "rich": "1.0"})
    assert states(missing) == ["ok", "fails"] and "make setup" in missing[1].step


def test_the_lock_and_the_dependencies_are_read():
    assert locked("# header==1\nA_b.c==2.0\n\nd==3.1\n") == {"a-b-c": "2.0", "d": "3.1"}
    assert direct_dependencies('[project]\ndependencies = ["A_b==2.0", "d==3.1"]') == ["a-b", "d"]
    pins = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert set(direct_dependencies((ROOT / "pyproject.toml").read_text(encoding="utf-8"))) <= set(pins)


def test_only_a_large_model_asks_for_a_gpu():
    tiny, gemma = load_profile("tiny"), load_profile("gemma-2-2b-it")
    assert states(device_lines(CPU, tiny) + device_lines(CPU, gemma) + device_lines(GPU, gemma)) == [
        "ok", "warning", "ok",
    ]  # fmt: skip


def test_disk_counts_what_is_not_in_the_cache():
    needs = [Need(MODEL, None), Need(SAE, COMMIT)]  # 5.3 to download, 2 for residuals, 1 for the run
    (enough,) = disk_lines(8.3e9, needs, 2e9, "here")
    assert enough.state == "ok" and "8.3 needed" in enough.found
    (short,) = disk_lines(8.2e9, needs, 2e9, "here")
    assert short.state == "fails" and "HF_HOME" in short.step
    assert states(disk_lines(8.2e9, [Need(MODEL, COMMIT), Need(SAE, COMMIT)], 2e9, "here")) == ["ok"]
    (making,) = disk_lines(8.3e9, needs, 2e9, "here", made=1e9)
    assert making.state == "fails" and "9.3 needed" in making.found and "1.0 to make models" in making.found


def test_the_hub_and_the_token_matter_only_for_what_is_not_in_the_cache():
    cached = [Need(MODEL, COMMIT), Need(SAE, COMMIT)]
    assert states(hub_lines("ConnectError", cached) + token_lines(False, cached)) == ["ok", "ok"]
    missing = [Need(MODEL, COMMIT), Need(SAE, None)]
    assert states(hub_lines("ConnectError", missing) + hub_lines("", missing)) == ["fails", "ok"]
    assert states(token_lines(False, missing) + token_lines(False, [REFUSED])) == ["ok", "fails"]
    assert states(token_lines(True, [REFUSED])) == ["ok"]


def test_a_refused_source_fails_unless_something_takes_its_place():
    needs = [Need(MODEL, COMMIT), Need(MODEL, None, ""), REFUSED, Need(CORPUS, None, "ask for it"), Need(SAE, None)]
    lines = source_lines(needs, {CORPUS.repo: "the local file x.jsonl"})
    assert states(lines) == ["ok", "ok", "fails", "warning", "warning"]
    assert lines[0].found == "in the cache (0123456789ab)" and lines[1].found == "access granted, 5.3 GB to download"
    assert lines[2].step == "ask for it" and lines[3].found == "refused; instead: the local file x.jsonl"


def test_only_the_gated_corpus_has_a_spare(monkeypatch, tmp_path):
    monkeypatch.delenv("SAE_UNLEARNING_FORGET_CORPUS", raising=False)
    found = {name: spares(load_profile(name)) for name in ("tiny", "gemma-2-2b-it-cyber", "gemma-2b-it")}
    assert set(map(str, found.values())) == {"{}"}
    assert list(spares(load_profile("gemma-2-2b-it"))) == [CORPUS.repo]
    monkeypatch.setenv("SAE_UNLEARNING_FORGET_CORPUS", str(tmp_path / "x.jsonl"))
    assert spares(load_profile("gemma-2-2b-it")) == {}, "it is not there, and a run would stop"
    (tmp_path / "x.jsonl").touch()
    assert spares(load_profile("gemma-2-2b-it")) == {CORPUS.repo: "the local file x.jsonl"}


def test_estimates_say_what_they_rest_on():
    lines = time_lines(load_profile("tiny"), {"01": 0.5, "03": 3.0})
    assert [line.found.partition(",")[0] for line in lines] == ["0.5 min", "3.0 min"]
    found = {"01": (5400.0, 20e9), "03": (60.0, 30e9), "06": (200000.0, 64e9), "04": None}
    least = {"01": (1.0, 9e9), "03": (1.0, 22e9), "06": (1.0, 48e9), "04": None}
    basis, fits, small, large, unknown = projection_lines(GPU, found, least)
    assert "projections" in basis.found and (fits.state, unknown.state) == ("ok", "ok")
    assert fits.found == "about 90.0 min, 20 GB of memory (projected)"
    assert large.state == "warning" and large.found.startswith("about 2.3 days, 64 GB")
    settings = "--set model.dtype=bfloat16 cache.memory_mb=0 'model.optimizer=\"adamw 8-bit\"'"
    assert large.step == f"{settings} takes 48 GB, which does not fit either: leave it out with --only"
    assert small.step == f"{settings} takes 22 GB, which fits"
    assert projection_lines(GPU, {"06": (1.0, 64e9)})[1].step == "leave it out: --only"
    less = projection_lines(GPU, {"10": (1.0, 64e9)}, {"10": (1.0, 22e9)}, smallest={"cache.memory_mb": 0})[1].step
    assert less == "--set cache.memory_mb=0 takes 22 GB, which fits"


def test_temporary_files_need_room_for_residuals_on_their_own_disk():
    (fits,), (full,) = (temporary_lines(free, 16e9, "/scratch") for free in (20e9, 1e9))
    assert (fits.state, full.state) == ("ok", "fails") and "TMPDIR=FOLDER" in full.step
    assert full.found == "1.0 GB free in /scratch, 16.0 for residuals"


def test_a_profile_that_names_no_notebooks_needs_what_all_of_them_need():
    every = replace(load_profile("gemma-2-2b-it"), notebooks=())
    assert set(numbers_of(every)) >= {f"{n:02d}" for n in range(16)}
    assert numbers_of(load_profile("gemma-2-2b")) == ("04",)
    assert set(sources_of(load_profile("gemma-2-2b-it"))) <= set(sources_of(every))


def test_of_a_streamed_text_every_amount_has_to_be_there(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.loading.hub.own_cache", lambda: tmp_path)
    profile, source = load_profile("gemma-2-2b-it"), text_source("openwebtext")
    wanted = amounts_of(profile, source)
    assert wanted == {profile.texts.neutral_rows * profile.texts.row_length * CHARACTERS_PER_TOKEN}
    other = tmp_path / "Skylion007__openwebtext" / "main-196608.json"
    other.parent.mkdir()
    other.touch()
    assert cached_commit(source, wanted) is None
    (other.parent / f"main-{wanted.pop()}.json").touch()
    assert cached_commit(source, amounts_of(profile, source)) == "main"


def test_an_optimiser_that_cannot_be_had_fails():
    plain, eight = load_profile("tiny"), load_profile("tiny", {"model.optimizer": "adamw 8-bit"})
    assert optimizer_lines(plain, observed_optimizer(plain)) == []
    (missing,), (there,) = optimizer_lines(eight, "install it"), optimizer_lines(eight, "")
    assert (missing.state, missing.found, missing.step) == ("fails", "adamw 8-bit", "install it")
    assert (there.state, there.step) == ("ok", "")


def test_a_target_that_is_not_there_fails_with_its_price_and_how_to_make_it():
    profile = load_profile("gemma-2-2b-muse-news")
    faults = {"forget+retain": "make it with `this`", "retain": ""}
    missing, there = finetuned_lines(profile, GPU, faults, {"forget+retain": (3600.0, 48e9), "retain": None})
    assert missing.what == "fine-tuned on forget+retain" and missing.step == "make it with `this`"
    assert missing.found == ("not there; to make it: about 60.0 min, 48 GB of memory (projected), and 24 GB are here")
    assert states([missing, there]) == ["fails", "ok"]
    (small,) = finetuned_lines(profile, GPU, {"retain": "x"}, {"retain": (10800.0, 2e9)})
    assert small.found == "not there; to make it: about 3.0 h, 2 GB of memory (projected)"
    (unknown,) = finetuned_lines(profile, GPU, {"retain": "x"}, {"retain": None})
    assert unknown.found == "not there; to make it: no estimate"


def test_a_profile_says_which_models_have_to_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.loading.finetuned.own_cache", lambda: tmp_path)
    found = observed_finetuned(load_profile("gemma-2-2b-muse-news"))
    assert list(found) == ["forget+retain", "retain"]
    assert all(f"helpers.finetune --profile gemma-2-2b-muse-news --data {texts}`" in f for texts, f in found.items())
    assert observed_finetuned(load_profile("gemma-2-2b-it")) == observed_finetuned(load_profile("tiny")) == {}
    other = load_profile("gemma-2-2b-muse-news", {"model.optimizer": "adamw 8-bit"})
    asked = "--data retain --set 'model.optimizer=\"adamw 8-bit\"'`"
    assert asked in observed_finetuned(other)["retain"], "or what is made would be refused again"
    assert {"model.dtype", "model.optimizer"} <= made_by(other) and not made_by(load_profile("gemma-2-2b-it"))


def test_the_latest_figures_say_what_the_sae_explained():
    def figure(explained: float | None) -> dict:
        return {"facts": {} if explained is None else {"explained_variance": explained}}

    assert explained_lines([], 0.93) == explained_lines([figure(None), {}], 0.93) == []
    (short,) = explained_lines([figure(0.95), figure(0.9249), figure(None)], 0.975)
    assert short.state == "warning" and "sae.id" in short.step
    assert short.found == "explained 0.925 of the variance in the latest figures, the profile says 0.975"
    (good,) = explained_lines([figure(0.5), figure(0.9251)], 0.975)
    assert good == Line("ok", "SAE", "explained 0.925 of the variance in the latest figures, the profile says 0.975")


def test_records_of_figures_come_oldest_first(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.doctor.ROOT", tmp_path)
    assert figure_records(load_profile("tiny")) == []
    folder = tmp_path / "figures" / "tiny"
    folder.mkdir(parents=True)
    for name, made in (("a", "2026-01-02"), ("b", "2026-01-01"), ("c", "2026-01-03")):
        (folder / f"{name}.json").write_text(json.dumps({"made": made}))
    assert [record["made"] for record in figure_records(load_profile("tiny"))] == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]


def test_the_report_counts():
    lines = [Line("ok", "a", "b"), Line("fails", "c", "d", "do this"), Line("warning", "e", "f")]
    text = report(load_profile("tiny"), lines)
    assert text[2:4] == ["fails    c: d", "           -> do this"] and text[-1] == "1 fail, 1 warnings"


def test_a_profile_needs_the_saes_of_all_its_notebooks():
    found = [source.files[0] for source in sources_of(load_profile("gemma-2-2b-it")) if source.what == "SAE"]
    assert found == [f"layer_3/width_16k/average_l0_{l0}/*" for l0 in (59, 142)]
    assert sources_of(load_profile("tiny")) == ()


@pytest.fixture
def doctor(run_forked, tmp_path):
    """The command in a process of its own, which knows no hub but the one it is told of."""

    def doctor(*words: str, **variables: str) -> tuple[int, str]:
        here = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
        return run_forked("helpers.doctor", words, os.environ | here | variables)

    return doctor


def test_the_embedded_model_needs_no_hub(doctor):
    code, text = doctor(HF_HUB_OFFLINE="1")
    assert code == 0 and "nothing is loaded from it" in text and text.rstrip().endswith("0 fail, 0 warnings")
    assert text.count("(measured on two cores)") == len(list((ROOT / "notebooks").glob("*.ipynb")))


def test_without_a_hub_gemma_fails_and_says_why_once(doctor, tmp_path):
    code, text = doctor("--profile", "gemma-2-2b-it", HF_TOKEN="hf_secret", HF_HUB_OFFLINE="0")
    assert code == 1 and text.count("\nfails") == 1 and "fails    hub: not reachable" in text
    assert "hf_secret" not in text and "token: there is one (not shown)" in text
    assert not list((tmp_path / "hf").rglob("*.*")), "the doctor downloads nothing"


def test_known_answers_are_said_beside_ours(monkeypatch, capsys):
    answers = [Answer("tau", "0.5460", "0.5458", True), Answer("known questions of x", "3", "108 to 110", False)]
    opened = []
    monkeypatch.setattr("helpers.doctor.open_lab", lambda *names, overrides: opened.append(names))
    monkeypatch.setattr("helpers.doctor.fidelity", lambda lab, known: answers)
    assert main(["--profile", "gemma-2-2b-it", "--fidelity", "--runs", "there"]) == 0
    told = capsys.readouterr().out
    # one of each SAE of which something is known
    assert opened == [("gemma-2-2b-it", f"{n}_fidelity", "there") for n in ("01", "05")]
    assert told.count("ok       tau: 0.5460, as known\n") == 2
    assert "warning  known questions of x: 3, differs\n           -> known: 108 to 110\n" in told
    assert main(["--fidelity"]) == 2 and "nothing is known of organism" in capsys.readouterr().out


def test_an_unknown_profile_is_an_error(capsys):
    assert main(["--profile", "gemma-3"]) == 2 and "'gemma-3' is unknown" in capsys.readouterr().out


@pytest.fixture
def hub(tmp_path):
    """All that gemma-2-2b-it needs, a byte a file; token 'hf_in' may read all of it, 'hf_out' only what is open."""
    served = pytest.importorskip("tests.hub")
    gated = frozenset([MODEL.repo, CORPUS.repo])
    for source in sources_of(load_profile("gemma-2-2b-it")):
        for pattern in source.files or ("data.parquet",):
            path = tmp_path / "served" / f"{source.kind}s" / source.repo / pattern.replace("*", "x")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    with served.Hub(tmp_path / "served", gated, {"hf_in": gated, "hf_out": frozenset()}) as running:
        yield running


def asked(doctor, hub, tmp_path, token: str) -> tuple[int, str]:
    code, text = doctor("--profile", "gemma-2-2b-it", **hub.environment(tmp_path / "hf", token))
    assert not token or token not in text
    assert not [request for request in hub.requests if "/resolve/" in request], "the doctor downloads nothing"
    return code, text


def test_with_access_to_everything_nothing_fails(doctor, hub, tmp_path):
    code, text = asked(doctor, hub, tmp_path, "hf_in")
    assert code == 0 and "0 fail" in text and text.count("access granted") == 2
    assert "ok       hub: reachable" in text and " notebook 01: about" in text


@pytest.mark.parametrize(
    ("token", "fails", "step"),
    [("", 2, "hf auth login"), ("hf_out", 1, f"ask at {MODEL.page}"), ("hf_wrong", 1, "the hub refuses your token")],
)
def test_without_access_the_model_fails_and_the_corpus_has_a_spare(doctor, hub, tmp_path, token, fails, step):
    code, text = asked(doctor, hub, tmp_path, token)
    assert code == 1 and f"fails    model {MODEL.repo}: refused" in text and step in text
    assert f"warning  text {CORPUS.repo}: refused; instead: published features in notebook 03, " in text
    if token != "hf_wrong":  # with that one even what is open is refused
        assert text.count("\nfails") == fails


# --- the probe --------------------------------------------------------------------------------------------------------

PROFILE = "gemma-2-2b-it"
SERVED_SAE = "models/google/gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_59/params.npz"


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """The small files of all that gemma-2-2b-it needs, in the real layouts: no weights, and a byte for an SAE."""
    hub_files = pytest.importorskip("tests.hub_files")
    root = tmp_path_factory.mktemp("layout")
    model = root / "models" / MODEL.repo
    model.mkdir(parents=True)
    for path in MODEL_DIR.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, model)
    (root / SERVED_SAE).parent.mkdir(parents=True)
    (root / SERVED_SAE).write_text("x")
    hub_files.write_datasets(root / "datasets")
    return root


def probed(doctor, root, home, token: str = "hf_in") -> tuple[int, dict[str, str], list[str]]:
    """Exit code, by assumption what its lines say, and what the hub was asked for."""
    served = pytest.importorskip("tests.hub")
    gated = frozenset([MODEL.repo, CORPUS.repo])
    with served.Hub(root, gated, {"hf_in": gated, "hf_out": frozenset()}) as running:
        code, text = doctor("--profile", PROFILE, "--probe", **running.environment(home, token))
    assert "Traceback" not in text and token not in text, text
    found, name = {}, ""
    for line in text.splitlines()[1:-1]:
        if line.startswith(("ok ", "fails ")):
            name = line[9:].partition(": ")[0]
            found[name] = line
        elif line.strip().startswith("->"):
            found[name] += line
    return code, found, running.requests


def test_the_probe_finds_every_assumption_right_and_fetches_no_weights(doctor, layout, tmp_path):
    code, found, requests = probed(doctor, layout, tmp_path / "home")
    assert code == 0 and all(line.startswith("ok ") for line in found.values()), found
    subjects = ["wmdp-bio", "college_biology", "high_school_us_history", "high_school_geography", "human_aging",
                "college_computer_science"]  # fmt: skip
    assert list(found) == [
        f"model {MODEL.repo}", f"tokenizer {MODEL.repo}", f"SAE {SAE_OF} layer_3/width_16k/average_l0_59",
        *(f"questions {subject}" for subject in subjects), "prompt of high_school_us_history",
        "text bio-forget-corpus", "text wikitext", "text openwebtext", "text alpaca",
    ]  # fmt: skip
    assert "gemma2, 6 layers of 128" in found[f"model {MODEL.repo}"] and "1273 rows" in found["questions wmdp-bio"]
    ids = json.loads(found["prompt of high_school_us_history"].partition("tokens: ")[2])
    assert ids[0] == 2 and ids.count(2) == 1 and len(ids) > 40
    assert "columns title, abstract, text, doi" in found["text bio-forget-corpus"]
    fetched = [request for request in requests if "/resolve/" in request and request.startswith("GET")]
    assert not [request for request in fetched if "safetensors" in request or "params" in request]
    # what was fetched is not taken for all of the model
    assert not list((tmp_path / "home" / "hub").glob("models--*"))


def test_the_probe_names_each_assumption_that_fails_and_looks_at_the_others(doctor, layout, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(layout, other)
    config = other / "models" / MODEL.repo / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "qwen2", "layer_types": None}))
    (other / SERVED_SAE).parent.rename((other / SERVED_SAE).parent.with_name("average_l0_60"))
    for place, change in {
        "cais/wmdp/wmdp-bio/test-00000-of-00001.parquet": lambda rows: rows.rename(columns={"answer": "label"}),
        "cais/mmlu/human_aging/test-00000-of-00001.parquet": lambda rows: rows[:-1],
        "cais/wmdp-bio-forget-corpus/default/train-00000-of-00001.parquet": lambda rows: rows.drop(columns="text"),
    }.items():
        path = other / "datasets" / place
        change(pd.read_parquet(path)).to_parquet(path, index=False)
    code, found, _ = probed(doctor, other, tmp_path / "home")
    wrong = {name: line for name, line in found.items() if line.startswith("fails")}
    expected = {
        f"model {MODEL.repo}": "'qwen2' model: the engine knows gemma, gemma2, gemma3_text, llama",
        f"SAE {SAE_OF} layer_3/width_16k/average_l0_59": "beside them are layer_3/width_16k/average_l0_60",
        "questions wmdp-bio": "has no column answer, it has question, choices, label",
        "questions human_aging": "222 rows, all of that form   -> expected: 223 rows",
        "text bio-forget-corpus": "NoneType in `text`, columns are title, abstract, doi",
    }
    assert code == 1 and set(wrong) == set(expected)
    for name, words in expected.items():
        assert words in re.sub(r" +->", "   ->", wrong[name]), wrong[name]


def test_the_probe_says_what_is_not_given(doctor, layout, tmp_path):
    code, found, _ = probed(doctor, layout, tmp_path / "home", "hf_out")
    assert code == 1
    for name in (f"model {MODEL.repo}", "text bio-forget-corpus"):
        assert found[name].startswith("fails") and "your token has no access yet" in found[name]
    assert found["questions wmdp-bio"].startswith("ok") and found["text wikitext"].startswith("ok")


def test_the_embedded_model_has_nothing_to_probe(doctor):
    code, text = doctor("--probe", HF_HUB_OFFLINE="1")
    assert code == 0 and "nothing is loaded from it" in text
