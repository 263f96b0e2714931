"""One list of versions for pip and conda, and a set-up that says what is wrong."""

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.records.provenance import ROOT

PAPERS = ("2410.19278", "2503.11127", "2504.08192")


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def pins(lines: list[str]) -> dict[str, str]:
    parsed = [Requirement(line) for line in lines]
    return {
        canonicalize_name(pin.name): str(pin.specifier) for pin in parsed if not pin.marker or pin.marker.evaluate()
    }


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_line_of_the_lock_is_one_exact_version() -> None:
    for line in lock_lines():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
    names = [canonicalize_name(line.partition("==")[0]) for line in lock_lines()]
    assert len(set(names)) == len(names) > 100
    assert not [name for name in names if name.startswith("nvidia") or name in ("triton", "sae-unlearning")]


def test_the_direct_dependencies_are_the_pins_of_the_lock() -> None:
    extras = project()["optional-dependencies"]
    direct = pins(project()["dependencies"] + extras["test"])
    assert pins(extras["lm-eval"]).items() <= direct.items()
    locked = pins(lock_lines())
    assert direct == {name: locked.get(name) for name in direct}
    header = "".join(line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("#"))
    assert all(name in header for name in direct)


def test_conda_gets_the_same_list() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"][0] == "conda-forge"
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.lock", "-e ."]}]
    assert Requirement(f"python{project()['requires-python']}").specifier.contains("3.11.0")


def test_what_is_installed_is_what_the_lock_says() -> None:
    installed = {name: "==" + metadata.version(name).partition("+")[0] for name in pins(lock_lines())}
    assert installed == pins(lock_lines())


def test_the_papers_are_cited_and_the_licence_is_mit() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert [reference["url"].rpartition("/")[2] for reference in citation["references"]] == list(PAPERS)
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert citation["license"] == project()["license"] == "MIT"
    assert citation["version"] == project()["version"] == metadata.version("sae-unlearning")


# --- make -------------------------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_old_python_is_refused_with_the_way_out(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" || exit 1\n')
    old.chmod(0o755)
    done = make("figures", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0 and not (tmp_path / "venv").exists()
    assert f"error: {old} is Python 3.9.1, Python 3.11, 3.12 or 3.13 is needed; name one: make figures" in done.stderr


def test_packages_are_installed_when_missing_or_older_than_the_lock(tmp_path: Path) -> None:
    venv, stamp = f"VENV={tmp_path}", tmp_path / "installed"
    assert "-r requirements.lock" in make("-n", "test", venv).stdout
    stamp.touch()
    assert make("-q", "setup", venv).returncode == 0
    assert "pip install" not in make("-n", "figures", venv).stdout
    os.utime(stamp, (1, 1))
    assert "-r requirements.lock" in make("-n", "figures", venv).stdout


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("figures", "-m helpers.reproduce --profile tiny\n"),
        ("redraw", "-m helpers.reproduce --profile tiny --figures-only\n"),
        ("site", "docs/build.py --profile tiny\n"),
        ("test", "-m pytest -n logical\n"),
        ("organism", "-m helpers.organism\n"),
        ("lint", "ruff check .\n"),
    ],
)
def test_make_targets_call_the_environments_own_tools(tmp_path: Path, target: str, command: str) -> None:
    assert f"{tmp_path}/bin/" in (line := make("-n", target, f"VENV={tmp_path}").stdout) and command in line


def test_cleaning_keeps_figures_and_environment() -> None:
    removed = make("-n", "clean").stdout
    assert "runs" in removed and "figures" not in removed and ".venv" not in removed


def test_ci_is_a_script_that_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    places = [text.index(part) for part in ('make -C "$root" test\n', "git clone", "-m helpers.reproduce", "make site")]
    assert places == sorted(places)
