"""The style is counted, not hoped for: our own notebooks and helpers, measured."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest

from helpers.records.provenance import ROOT

HELPERS = ROOT / "helpers"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Who may know whom: a room imports from rows above its own, never from its own row or below.
ROOMS = (
    ("profiles", "published"),
    ("records",),
    ("text",),
    ("engine",),
    ("organism",),
    ("loading",),
    ("measures",),
    ("report",),
    ("methods", "attacks"),
    ("lab",),
    ("experiments",),
    ("steering", "reproduce"),
    ("evaluate",),
    ("doctor",),
)
# Rooms that never see a model: figures and tables are made again where none can be loaded.
MODEL_FREE = (
    "profiles",
    "measures.metrics",
    "report.plots",
    "report.claims",
    "published",
    "records.store",
    "lab.run",
    "reproduce",
)
# Objects of other packages whose type would be longer than it is worth; everything else is annotated.
NAMES_ENOUGH = {"self", "cls", "model", "tokenizer", "sae"}
# lm-eval's `steered` model takes tensors from a .pt file and from nothing else, so one of ours writes such a file, of
# tensors, numbers and words only; nobody reads one.
WRITES_FOR_OTHERS = {("helpers/steering.py", "torch.save")}
# Farrell's SAE exists as such a file only; torch's restricted unpickler (weights_only) builds tensors and runs nothing.
READS_TENSORS_OF_OTHERS = {("helpers/loading/saes.py", "torch.load")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


# --- notebooks --------------------------------------------------------------------------------------------------------


@cache
def cells_of(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in cells_of(path) if cell.cell_type == "code"]


def lines_of(source: str) -> int:
    return sum(bool(line.strip()) for line in source.splitlines())


def test_the_notebooks_are_there() -> None:
    assert len(NOTEBOOKS) >= 6
    assert all(re.fullmatch(r"\d\d_\w+", path.stem) for path in NOTEBOOKS)
    assert len({path.stem[:2] for path in NOTEBOOKS}) == len(NOTEBOOKS)


def test_code_cells_are_short() -> None:
    sizes = [lines_of(source) for path in NOTEBOOKS for source in code_of(path)]
    assert statistics.median(sizes) <= 6
    assert statistics.quantiles(sizes, n=20, method="inclusive")[-1] <= 20


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_a_notebook_has_as_much_prose_as_code(path: Path) -> None:
    prose = [cell.source for cell in cells_of(path) if cell.cell_type == "markdown"]
    assert len(prose) >= len(code_of(path))
    assert sum(len(text.split()) for text in prose) >= sum(map(lines_of, code_of(path)))
    assert cells_of(path)[0].cell_type == "markdown"


@each_notebook
def test_a_notebook_is_committed_stripped(path: Path) -> None:
    for cell in cells_of(path):
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert "papermill" not in cell.metadata and "execution" not in cell.metadata


@each_notebook
def test_a_notebook_has_one_parameters_cell_and_lists_its_figures(path: Path) -> None:
    tagged = [cell for cell in cells_of(path) if "parameters" in cell.metadata.get("tags", ())]
    lines = ['profile = "tiny"', "runs = None", "figures = None", "overrides = None"]
    assert [cell.source.split("\n") for cell in tagged] == [lines]
    figures = nbformat.read(path, as_version=4).metadata["reproduce"]["figures"]
    saved = re.findall(r"""save_figure\(\s*["'](\w+)["']""", "\n".join(code_of(path)))
    assert sorted(figures) == sorted(saved)
    assert f'"{path.stem}"' in "\n".join(code_of(path)), "start() is given another notebook's name"


@each_notebook
def test_a_notebook_defines_nothing_and_knows_no_path(path: Path) -> None:
    for source in code_of(path):
        nodes = list(ast.walk(ast.parse(source)))
        assert not [node for node in nodes if isinstance(node, Function | ast.ClassDef)], source
        assert not re.search(r"Path\(|pathlib|os\.path", source), source
    text = "\n".join(cell.source for cell in cells_of(path))
    assert not re.search(r"(?<![\w.:/])/(home|Users|root|tmp|work|opt|mnt|data)/", text)


# --- helpers ----------------------------------------------------------------------------------------------------------


@cache
def modules() -> dict[str, ast.Module]:
    paths = sorted(HELPERS.rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def functions() -> Iterator[tuple[str, Function]]:
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{path}:{node.lineno} {node.name}", node


def body_lines(path: str, function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    source = (ROOT / path.partition(":")[0]).read_text(encoding="utf-8").splitlines()
    return lines_of("\n".join(source[body[0].lineno - 1 : function.end_lineno])) if body else 0


def public(tree: ast.Module) -> Iterator[ast.ClassDef | Function]:
    """Public functions and classes of a module, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            methods = node.body if isinstance(node, ast.ClassDef) else []
            yield from (m for m in methods if isinstance(m, Function) and not m.name.startswith("_"))


def test_functions_are_short() -> None:
    sizes = {where: body_lines(where, function) for where, function in functions()}
    assert statistics.median(sizes.values()) <= 12
    assert [where for where, size in sizes.items() if size > 60] == []


def test_every_public_name_has_a_docstring() -> None:
    trees = modules().items()
    bare = [f"{path}:{node.lineno} {node.name}" for path, tree in trees for node in public(tree)
            if ast.get_docstring(node) is None]  # fmt: skip
    assert bare == [] and [path for path, tree in trees if ast.get_docstring(tree) is None and tree.body] == []


def test_every_public_function_is_annotated() -> None:
    missing = []
    for path, tree in modules().items():
        for function in (node for node in public(tree) if isinstance(node, Function)):
            spec = function.args
            given = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
            names = [arg.arg for arg in given if arg.annotation is None and arg.arg not in NAMES_ENOUGH]
            names += ["return"] if function.returns is None else []
            missing += [f"{path}:{function.lineno} {function.name}({', '.join(names)})"] if names else []
    assert missing == []


def test_nothing_unpickles_trusts_remote_code_or_swallows_errors() -> None:
    banned = {"pickle", "cPickle", "dill", "joblib", "shelve"}
    found = []
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", None) or ""}
                found += [f"{path}:{node.lineno} imports {name}" for name in names & banned]
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
                allowed = (path, ast.unparse(node)) in WRITES_FOR_OTHERS | READS_TENSORS_OF_OTHERS
                found += [] if allowed else [f"{path}:{node.lineno} {ast.unparse(node)}"]
            elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                found += [f"{path}:{node.lineno} {node.arg}"] if ast.unparse(node.value) != "False" else []
            elif isinstance(node, ast.keyword) and node.arg == "weights_only":
                found += [f"{path}:{node.lineno} weights_only"] if ast.unparse(node.value) != "True" else []
            elif isinstance(node, ast.ExceptHandler):
                broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                swallows = not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                found += [f"{path}:{node.lineno} swallows every error"] if broad and swallows else []
    assert found == []


# --- rooms ------------------------------------------------------------------------------------------------------------


def room(module: str) -> str:
    """'helpers/organism/world.py' and 'helpers.organism.world' are both of the room 'organism'."""
    return re.split(r"[./]", module.removesuffix(".py"))[1]


def imports(tree: ast.Module) -> Iterator[str]:
    """Rooms that a module imports, wherever in it, in whatever form."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (room(name) for name in names if name.startswith("helpers."))


def test_nobody_imports_upwards() -> None:
    height = {name: row for row, names in enumerate(ROOMS) for name in names}
    wrong = []
    for path, tree in modules().items():
        if path == "helpers/__init__.py":
            continue
        here = room(path)
        assert here in height, f"{path}: give the room {here!r} a row in ROOMS"
        wrong += [f"{path} imports {name}" for name in imports(tree) if name != here and height[name] >= height[here]]
    assert wrong == []


def test_tables_and_pictures_need_no_model() -> None:
    names = ", ".join(f"helpers.{name}" for name in MODEL_FREE)
    script = (
        f"import sys, {names}; print(sorted({{'torch', 'transformers', 'nnsight', 'sae_lens'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_of_ours_names_this_machine() -> None:
    kinds = (".py", ".ipynb", ".toml", ".md", ".json", ".csv", ".cff", ".yml", ".lock", ".jinja")
    folders = [ROOT / name for name in ("helpers", "notebooks", "tests", "figures", "docs")]
    ours = [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    ours += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in kinds]
    places = (str(ROOT) + "/", str(Path.home()) + "/")
    assert [path for path in ours if any(place in path.read_text(encoding="utf-8") for place in places)] == []
