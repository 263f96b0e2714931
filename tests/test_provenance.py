"""What a record says, and what it must never say."""

import getpass
import json
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from helpers.records import provenance


def git(folder: Path, *command: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *command], check=True, capture_output=True)


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert provenance.commit(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "helper.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = provenance.commit(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.csv").write_text("new figures do not make the code that drew them dirty")
    assert provenance.commit(tmp_path) == clean
    (tmp_path / "helper.py").write_text("2")
    assert provenance.commit(tmp_path) == clean | {"dirty": True}


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    nothing = {"commit": None, "dirty": None}
    assert provenance.commit(tmp_path) == nothing
    git(tmp_path, "init")  # a copy inside somebody else's checkout is not that commit either
    (tmp_path / "copy").mkdir()
    assert provenance.commit(tmp_path / "copy") == nothing


def test_a_record_names_settings_facts_stages_versions_and_cost(profile: Any) -> None:
    facts, stages = {"model": "organism", "seeds": [0, 1]}, {"rates": {"seconds": 1.5, "cached": False}}
    record = json.loads(json.dumps(provenance.record(profile, facts, stages)))
    assert (record["facts"], record["stages"], record["profile"]) == (facts, stages, "tiny")
    assert record["settings"] == json.loads(json.dumps(asdict(profile)))
    assert record["environment"]["python"] == platform.python_version()
    assert record["environment"]["packages"]["numpy"] == __import__("numpy").__version__
    # a python with pandas loaded takes more than 20 MB, and this machine's memory is under 100 TB
    assert 2e7 < record["peak_memory_bytes"]["ram"] < 1e14
    assert {"commit", "dirty", "made", "dtype"} <= set(record)


def test_a_record_names_no_host_no_user_no_path_and_no_secret(profile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_testtoken")
    text = json.dumps(provenance.record(profile, {}, {}))
    for secret in ("hf_testtoken", str(Path.home()) + "/", str(provenance.ROOT), platform.node()):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


@pytest.mark.parametrize("value", [str(Path.home() / "models"), [f"{provenance.ROOT}/helpers"]])
def test_a_fact_that_names_a_path_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"fact model = .* names a path of this machine"):
        provenance.check_facts({"model": value})


def test_a_fact_that_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fact seeds = .* is not JSON"):
        provenance.check_facts({"seeds": {1, 2}})


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert provenance.versions(("numpy", "no-such-package"))["no-such-package"] is None


def test_where_the_home_is_the_root_an_address_is_no_path_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    provenance.check_facts({"warnings": ["ask at https://huggingface.co/google/gemma-2-2b-it"]})


def test_a_schedulers_address_is_not_in_a_record() -> None:
    overrides = {"compute.scheduler": "tcp://node17.example.org:8786", "compute": {"scheduler": "", "jobs": 2}}
    scrubbed = provenance.without_folders(overrides)
    assert scrubbed == {"compute.scheduler": provenance.HIDDEN_HOST, "compute": {"scheduler": "", "jobs": 2}}


def test_local_files_are_named_without_their_folders() -> None:
    settings = {"own_methods": ("/some/where/mine.py", "/else/yours.py"), "texts": {"forget_file": "/some/copy.jsonl"}}
    assert provenance.without_folders(settings) == {
        "own_methods": ["mine.py", "yours.py"], "texts": {"forget_file": "copy.jsonl"},
    }  # fmt: skip
    overrides = {"own_methods": ["/some/where/mine.py"], "texts.forget_file": "", "questions.limit": 3}
    expected = {"own_methods": ["mine.py"], "texts.forget_file": "", "questions.limit": 3}
    assert provenance.without_folders(overrides) == expected
