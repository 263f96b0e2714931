"""The style is counted, not hoped for: our own notebooks and helpers, measured."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest

from helpers.methods import METHODS
from helpers.records.provenance import ROOT

HELPERS = ROOT / "helpers"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Rooms that never see a model: figures and tables are made again where none can be loaded.
MODEL_FREE = (
    "profiles",
    "measures.metrics",
    "report.claims",
    "published",
    "records.store",
    "records.progress",
    "reproduce",
)
# Rooms that serve every method and know none by its name; the selection rules have names of their own.
NAME_FREE = ("measures", "engine", "lab")
# Objects of other packages whose type would be longer than it is worth; everything else is annotated.
NAMES_ENOUGH = {"self", "cls", "model", "tokenizer", "sae"}
# lm-eval's `steered` model takes tensors from a .pt file and from nothing else, so one of ours writes such a file, of
# tensors, numbers and words only; nobody reads one.
WRITES_FOR_OTHERS = {("helpers/methods/steering_files.py", "torch.save")}
# Farrell's SAE exists as such a file only; torch's restricted unpickler (weights_only) builds tensors and runs nothing.
READS_TENSORS_OF_OTHERS = {("helpers/loading/saes.py", "torch.load")}
# A piece of work that fails does not stop the others: whatever it raised is kept with its name, and raised at the end.
CATCHES_FOR_LATER = {("helpers/lab/pieces.py", "_timed")}
# Of joblib what shares work among processes; what it stores is pickled, and is not for us.
JOBLIB = {"Parallel", "cpu_count", "delayed", "parallel_config"}

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
    opened = re.findall(r"""open_lab\(\s*profile,\s*["'](\w+)["']""", "\n".join(code_of(path)))
    assert opened == [path.stem], "open_lab() is given another notebook's name, or called more than once"


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


def imported(node: ast.AST) -> list[str]:
    """What an import names, as 'module' or 'module.name'; nothing for anything else."""
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def may_be_imported(name: str) -> bool:
    top, _, rest = name.partition(".")
    if top == "joblib":
        return rest in JOBLIB or rest.startswith("externals.loky.")
    return top not in ("pickle", "cPickle", "dill", "shelve", "cloudpickle")


def broad_and_silent(handler: ast.ExceptHandler) -> bool:
    """Whether it catches every error and raises none."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)
    return broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))


def faults(path: str, tree: ast.Module) -> Iterator[str]:
    """Everything in a module that unpickles, trusts foreign code or swallows errors."""
    allowed = WRITES_FOR_OTHERS | READS_TENSORS_OF_OTHERS
    excused = {handler for function in ast.walk(tree) if isinstance(function, Function)
               and (path, function.name) in CATCHES_FOR_LATER for handler in ast.walk(function)}  # fmt: skip
    for node in ast.walk(tree):
        yield from (f"{path}:{node.lineno} imports {name}" for name in imported(node) if not may_be_imported(name))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            if (path, ast.unparse(node)) not in allowed:
                yield f"{path}:{node.lineno} {ast.unparse(node)}"
        elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            if ast.unparse(node.value) != "False":
                yield f"{path}:{node.value.lineno} {node.arg}"
        elif isinstance(node, ast.keyword) and node.arg == "weights_only":
            if ast.unparse(node.value) != "True":
                yield f"{path}:{node.value.lineno} weights_only"
        elif isinstance(node, ast.ExceptHandler) and node not in excused and broad_and_silent(node):
            yield f"{path}:{node.lineno} swallows every error"


def test_nothing_unpickles_trusts_remote_code_or_swallows_errors() -> None:
    assert [fault for path, tree in modules().items() for fault in faults(path, tree)] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", "imports pickle"),
        ("from dill import load", "imports dill.load"),
        ("import joblib", "imports joblib"),
        ("from joblib import load", "imports joblib.load"),
        ("from joblib import dump, Parallel", "imports joblib.dump"),
        ("from joblib.numpy_pickle import load", "imports joblib.numpy_pickle.load"),
        ("from joblib.externals import cloudpickle", "imports joblib.externals.cloudpickle"),
        ("torch.load(path)", "torch.load"),
        ("f(allow_pickle=True)", "allow_pickle"),
        ("f(weights_only=False)", "weights_only"),
        ("def f():\n    try: g()\n    except (OSError, Exception): pass", "swallows every error"),
        ("def _timed():\n    try: g()\n    except: pass", "swallows every error"),
    ],
)
def test_the_rules_find_what_they_forbid(code: str, found: str) -> None:
    (fault,) = faults("helpers/text/batches.py", ast.parse(code))
    assert fault.endswith(found)
    loky = (
        "from joblib import Parallel, delayed\nfrom joblib.externals.loky.process_executor import TerminatedWorkerError"
    )
    assert list(faults("helpers/text/batches.py", ast.parse(loky))) == []


# --- rooms ------------------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """import-linter on the package in a folder, by the contract in its pyproject.toml."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)


def test_nobody_imports_upwards() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0 and "Contracts: 1 kept, 0 broken." in done.stdout, done.stdout + done.stderr


def test_an_upward_import_is_found_wherever_it_stands_and_so_is_a_room_without_a_row(tmp_path: Path) -> None:
    shutil.copytree(HELPERS, tmp_path / "helpers", ignore=lambda folder, names: [n for n in names if n == "weights"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint_imports(tmp_path).returncode == 0
    low = tmp_path / "helpers" / "text" / "batches.py"
    text = low.read_text(encoding="utf-8")
    low.write_text(text + "\n\ndef upwards():\n    from helpers.lab import run\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode == 1 and "helpers.text is not allowed to import helpers.lab" in done.stdout
    low.write_text(text, encoding="utf-8")
    (tmp_path / "helpers" / "cellar.py").write_text("")
    done = lint_imports(tmp_path)
    assert done.returncode == 1 and "cellar" in done.stdout


def test_imports_are_absolute() -> None:
    relative = [f"{path}:{node.lineno}" for path, tree in modules().items() for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.level]  # fmt: skip
    assert relative == []


def names_of_methods() -> list[str]:
    """What methods are called: in commands, in figures, in code."""
    labels = {label for method in METHODS.values() for label in method.looks()}
    return sorted({*METHODS, *labels, *(method.__name__ for method in METHODS.values())})


def words_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every identifier and every string of the code, docstrings left out."""
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | Function)]
    docstrings = {node.body[0].value for node in documented if ast.get_docstring(node) is not None}
    kinds = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg", ast.alias: "asname",
             ast.FunctionDef: "name", ast.ClassDef: "name"}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value
        yield from ((node.lineno, name) for name in imported(node))
        if type(node) in kinds and getattr(node, kinds[type(node)]):
            yield getattr(node, "lineno", 0), getattr(node, kinds[type(node)])


def named_in(tree: ast.Module) -> list[str]:
    """Where in the code methods are named; an underline parts words as a space does."""
    apart = r"(?<![A-Za-z0-9])(?:{})(?![A-Za-z0-9])"
    pattern = re.compile(apart.format("|".join(map(re.escape, names_of_methods()))))
    return [f"{line} {text}" for line, text in words_of(tree) if pattern.search(text)]


def test_what_serves_every_method_names_none() -> None:
    rooms = tuple(f"helpers/{name}/" for name in NAME_FREE)
    found = {path: named for path, tree in modules().items() if path.startswith(rooms) and (named := named_in(tree))}
    assert found == {}


@pytest.mark.parametrize(
    "code",
    ["x = 'static_clamp'", "from helpers.methods.rmu import train", "dsg = 1", "f(rmu=1)", "def train_rmu(): pass",
     "DSG", "x = f'{y} by Clamp Prime, proportional'", "class A:\n    refusal_clamp: int",
     "lab.sweep(*lab.unconditional)"],
)  # fmt: skip
def test_a_methods_name_is_found_wherever_it_stands(code: str) -> None:
    assert named_in(ast.parse(code))
    assert named_in(ast.parse('"""RMU and DSG, by static_clamp."""\n# RMU\nnone = "none", "dsgs", clamp, static')) == []


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
