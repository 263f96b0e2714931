"""Cached stages: keyed by everything that goes into them, written atomically, verified whenever they are read.

An entry is a folder `<name>-<16 hex digits>/` with one data file (parquet, safetensors or JSON) and `manifest.json`,
which holds the full key and the data's size and SHA-256. Nothing here unpickles anything.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import linecache
import logging
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import numpy as np
import pandas as pd

from helpers.records.provenance import now, peak_memory

if TYPE_CHECKING:  # pictures are redrawn without a model, so nothing here may import torch before a tensor comes along
    import torch

    JSON: TypeAlias = dict[str, "JSON"] | list["JSON"] | str | float | int | bool | None
    Result: TypeAlias = pd.DataFrame | dict[str, np.ndarray | torch.Tensor] | JSON

log = logging.getLogger(__name__)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: a reader sees the old file or the new one.

    Raises:
        OSError: the folder cannot be made or written, named in one line.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write {path.name} in {path.parent}: {reason}; choose a folder you may write") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


# --- fingerprints -----------------------------------------------------------------------------------------------------


def fingerprint(
    value: object, known: Mapping[int, str] | None = None, code: dict[str, str | None] | None = None
) -> str:
    """SHA-256 (hex) of what a value means: equal values have equal fingerprints in every process and on every device.

    Known are None, bool, int, float, str, list and tuple (alike), dict (order does not matter), frozen dataclasses,
    module-level functions (by name), numpy and torch arrays, DataFrames, torch modules (weights and config), models
    wrapped by nnsight, tokenizers, and objects with a method `__fingerprint__`, whose result stands for them.
    Dataclasses, modules and functions of this package count with their code.

    Args:
        known: fingerprints of objects that do not change, by `id`, so that a large model is hashed once.
        code: those of modules of this package, by name, which are looked up there and added.

    Raises:
        TypeError: any other type, for a key that leaves something out would serve a wrong result later.
    """
    return _sha256(_dump(_Describer(known or {}, {} if code is None else code).canonical(value)))


class _Describer:
    """Values as JSON that says all that they mean."""

    def __init__(self, known: Mapping[int, str], code: dict[str, str | None]) -> None:
        self._known = known
        self._code = code  # by module, for a list may hold thousands of one dataclass

    def canonical(self, value: object) -> list:
        if id(value) in self._known:
            return ["known", self._known[id(value)]]
        if hasattr(type(value), "__fingerprint__"):
            return [_type_name(value), self.canonical(cast(Any, value).__fingerprint__())]
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value)
        # classes are found by name, so that torch and transformers need not be imported to know that this is not theirs
        for cls in type(value).__mro__:
            describe = self._DESCRIBE.get(f"{cls.__module__}.{cls.__qualname__}")
            if describe is not None:
                return [_KINDS.get(cls.__qualname__, cls.__qualname__), *describe(self, value)]
        raise TypeError(f"{_type_name(value)} cannot be part of a stage's key; pass settings, arrays or models instead")

    def _dataclass(self, value: Any) -> list:
        if not type(value).__dataclass_params__.frozen:
            raise TypeError(
                f"{_type_name(value)} is not frozen, so it cannot be part of a stage's key; use frozen=True"
            )
        content = [[field.name, self.canonical(getattr(value, field.name))] for field in fields(value)]
        return [_type_name(value), content, self._code_of(type(value))]

    def _code_of(self, thing: Any) -> str | None:
        if thing.__module__ == "__main__":
            return _cells_of(thing)
        if thing.__module__ not in self._code:
            self._code[thing.__module__] = _own_code(thing)
        return self._code[thing.__module__]

    def _function(self, value: Any) -> list:
        name = f"{value.__module__}.{value.__qualname__}"
        if "<" in name or value.__module__ == "__main__":
            raise TypeError(f"{name} has no name that says what it does: define it at the top of a module in helpers/")
        return [name, self._code_of(value)]

    def _sequence(self, value: Any) -> list:
        return [[self.canonical(item) for item in value]]

    def _mapping(self, value: Mapping) -> list:
        return [sorted(([self.canonical(key), self.canonical(item)] for key, item in value.items()), key=_dump)]

    def _array(self, value: np.ndarray) -> list:
        if value.dtype.hasobject:  # the bytes of such an array are addresses
            return ["object", list(value.shape), [self.canonical(item) for item in value.ravel().tolist()]]
        return [value.dtype.str, list(value.shape), _sha256(np.array(value, order="C").reshape(-1).view(np.uint8))]

    def _tensor(self, value: torch.Tensor) -> list:
        flat = value.detach().cpu().contiguous().reshape(-1)
        return [str(value.dtype), list(value.shape), _sha256(flat.view(sys.modules["torch"].uint8).numpy())]

    def _module(self, value: torch.nn.Module) -> list:
        weights = [[name, self._tensor(tensor)] for name, tensor in sorted(value.state_dict().items())]
        return [_type_name(value), weights, self._config(value), self._code_of(type(value))]

    def _config(self, value: Any) -> list:
        """The settings a model (transformers: `config`) or an SAE (sae-lens: `cfg`) keeps beside its weights."""
        config: Any = getattr(value, "config", None) or getattr(value, "cfg", None)
        settings = config.to_dict() if hasattr(config, "to_dict") else {}
        # where it was loaded from, by which version and onto what says nothing about what it is
        volatile = ("_name_or_path", "transformers_version", "device")
        kept = {name: str(setting) for name, setting in settings.items() if name not in volatile}
        # the kernel, which rounds in its own way, is in no dict
        return self.canonical(kept | {"attention": str(getattr(config, "_attn_implementation", None))})

    def _wrapped(self, value: Any) -> list:
        # stages tokenise with the model's own tokenizer, so it is part of what the model is
        return [*self._module(value._module), self.canonical(getattr(value, "tokenizer", None))]

    def _tokenizer(self, value: Any) -> list:
        state = json.loads(value.backend_tokenizer.to_str())
        # padding and truncation are leftovers of the latest call, so they would tie the key to what ran before
        state = {name: part for name, part in state.items() if name not in ("padding", "truncation")}
        return [_sha256(_dump(state)), value.padding_side, self.canonical(value.chat_template)]

    def _frame(self, value: pd.DataFrame) -> list:
        columns = [
            [self.canonical(name), str(column.dtype), self.canonical(column.to_numpy())]
            for name, column in value.items()
        ]
        return [columns, self.canonical(value.index.to_numpy())]

    _DESCRIBE: ClassVar[dict[str, Callable[[Any, Any], list]]] = {
        "builtins.NoneType": lambda self, value: [],
        "builtins.bool": lambda self, value: [value],
        "builtins.int": lambda self, value: [int(value)],
        "builtins.float": lambda self, value: [float(value).hex()],
        "builtins.str": lambda self, value: [str(value)],
        "builtins.list": _sequence,
        "builtins.tuple": _sequence,
        "builtins.dict": _mapping,
        "builtins.function": _function,
        "enum.Enum": lambda self, value: [_type_name(value), value.name],
        "numpy.generic": lambda self, value: self._array(np.asarray(value)),
        "numpy.ndarray": _array,
        "pandas.DataFrame": _frame,
        "torch.Tensor": _tensor,
        "torch.dtype": lambda self, value: [str(value)],
        "torch.device": lambda self, value: [str(value)],
        "torch.nn.modules.module.Module": _module,
        "nnsight.intervention.envoy.Envoy": _wrapped,
        "transformers.tokenization_utils_base.PreTrainedTokenizerBase": _tokenizer,
    }


_KINDS = {"tuple": "list"}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _dump(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


# --- fingerprints of code ---------------------------------------------------------------------------------------------


def code_fingerprint(function: Callable) -> str:
    """SHA-256 (hex) over the source of the function's module and of every module of this package that it reaches.

    Imports are read from the source, never executed: also those inside functions, and relative ones. A package counts
    where a name is taken from it, and not because a module lies in it: so a method that is new in the registry of
    `helpers.methods` leaves the others alone. What stands under `if TYPE_CHECKING:` never runs, and does not count.

    Raises:
        TypeError: the function was typed into a notebook or a console, so that it has no source file.
    """
    path = getattr(sys.modules.get(function.__module__), "__file__", None)
    if function.__module__ == "__main__" or path is None:
        raise TypeError(f"{function.__qualname__} has no source file: define it at the top of a module in helpers/")
    sources = {name: _source(path, path.stat().st_mtime_ns)[0] for name, path in _reached(function.__module__).items()}
    return _sha256(_dump(sources))


def _own_code(thing: Any) -> str | None:
    """Of this package, and of files of one's own; what is installed counts by its version."""
    module = thing.__module__
    return None if module.partition(".")[0] != "helpers" and _is_installed(module) else code_fingerprint(thing)


def _cells_of(thing: Any) -> str:
    """What a class of a notebook and its bases there say: plain attributes, and the cells that hold their functions."""
    said: list[Any] = []
    for cls in (cls for cls in thing.__mro__ if cls.__module__ == "__main__"):
        for name, value in sorted(vars(cls).items()):
            function = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
            if hasattr(function, "__code__"):
                said.append([name, linecache.getlines(function.__code__.co_filename)])
            elif isinstance(value, str | int | float | tuple):
                said.append([name, repr(value)])
    return hashlib.sha256(_dump(said)).hexdigest()


def _is_installed(module: str) -> bool:
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None:  # built in
        return True
    packages = {"site-packages", "dist-packages"} & set(Path(path).parts)
    return bool(packages) or Path(path).is_relative_to(sysconfig.get_path("stdlib"))


def _reached(module: str) -> dict[str, Path]:
    reached: dict[str, Path] = {}
    roots, waiting = _roots(module), [module]
    while waiting:
        name = waiting.pop()
        path = _source_file(name, roots)
        if path is not None and name not in reached:
            reached[name] = path
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for level, target in _source(path, path.stat().st_mtime_ns)[1]:
                waiting.append(_module_of(_absolute(package, level, target), roots))
    return reached


def _roots(module: str) -> dict[str, Path]:
    """Where the code that counts lies: this package, and the package or file that the module itself is part of."""
    top = sys.modules[module.partition(".")[0]]
    own = Path(next(iter(top.__path__))) if hasattr(top, "__path__") else Path(cast(str, top.__file__))
    return {"helpers": Path(__file__).parent.parent, top.__name__: own}


def _source_file(module: str, roots: Mapping[str, Path]) -> Path | None:
    top, *rest = module.split(".")
    if top not in roots:
        return None
    place = roots[top].joinpath(*rest)
    candidates = (place, place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in candidates if path.is_file()), None)


@lru_cache(maxsize=1024)
def _source(path: Path, changed: int) -> tuple[str, tuple[tuple[int, str], ...]]:
    """SHA-256 of a source file last changed at that time, and its imports as (level, dotted name)."""
    source = path.read_bytes()
    imports: set[tuple[int, str]] = set()
    for node in ast.walk(_AsRun().visit(ast.parse(source))):
        if isinstance(node, ast.Import):
            imports |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = f"{node.module}." if node.module else ""
            imports |= {(node.level, f"{stem}{alias.name}") for alias in node.names}
    return _sha256(source), tuple(sorted(imports))


class _AsRun(ast.NodeTransformer):
    """Code without what stands under `if TYPE_CHECKING:`, which never runs and so changes no result."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def _absolute(package: str, level: int, target: str) -> str:
    if level == 0:
        return target
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], target])


def _module_of(name: str, roots: Mapping[str, Path]) -> str:
    """The module that an imported name is, or is taken from."""
    while _source_file(name, roots) is None and "." in name:
        name = name.rpartition(".")[0]
    return name


# --- the store --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A stage's result as it lies on disk, the seconds it took when it was made, and whether it came from the cache."""

    name: str
    result: Result
    seconds: float
    cached: bool


class CorruptEntryError(ValueError):
    """A stored entry is not what its manifest says; the message is the reason."""


class Store:
    """Cached stages in one folder. Entries are checked in full when they are read; a faulty one is computed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def stage(self, name: str, compute: Callable[[], Result], key: Mapping[str, str]) -> Stage:
        """The result under that name and key: read if it is stored, else computed, stored, and read back.

        So an undisturbed run and one that was resumed go on with identical values. Tensors come back on the CPU.

        Args:
            name: letters, digits, `_` and `-`.
            compute: returns a DataFrame with a plain index, a dict of arrays or tensors, or a JSON value.
            key: what the result depends on, each part as a fingerprint; its names appear in the log.

        Raises:
            TypeError: the result would come back from disk as something else.
            OSError: the folder cannot be written.
        """
        stored = self.read(name, key)
        if stored is not None:
            return stored
        self._say_what_changed(name, key)
        start = time.perf_counter()
        result = compute()
        return self.write(name, result, key, time.perf_counter() - start)

    def read(self, name: str, key: Mapping[str, str]) -> Stage | None:
        """The stored result, verified; None where there is none, or a faulty one, which is then removed."""
        entry = self._entry(name, key)
        if not entry.exists():
            return None
        try:
            return _read(entry, name, key, cached=True)
        except CorruptEntryError as fault:
            log.warning("stage %s is corrupt (%s), computing again", name, fault)
            shutil.rmtree(entry, ignore_errors=True)
            return None

    def write(self, name: str, result: Result, key: Mapping[str, str], seconds: float) -> Stage:
        """Store a result that took so many seconds, and read it back; arguments and errors are those of `stage`."""
        entry = self._entry(name, key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=self.folder))
        except OSError as error:
            raise OSError(f"cannot write stage {name} in {self.folder}: {error.strerror}") from error
        try:
            _write(partial, result, {"name": name, "key": dict(key), "seconds": round(seconds, 3)})
            stage = _read(partial, name, key, cached=False)
            _check_round_trip(name, result, stage.result)
            try:
                os.rename(partial, entry)
            except OSError:
                if not entry.exists():  # a run beside this one may have made it meanwhile
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return stage

    def _entry(self, name: str, key: Mapping[str, str]) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"stage name {name!r}: letters, digits, '_' and '-' are allowed")
        return self.folder / f"{name}-{_sha256(_dump([name, dict(key)]))[:16]}"

    def _say_what_changed(self, name: str, key: Mapping[str, str]) -> None:
        differences = [_differing(old, key) for old in self._keys(name)]
        if differences:
            fewest = min(differences, key=len)
            log.info("%s: computed anew (%s changed)", name, ", ".join(fewest))

    def _keys(self, name: str) -> Iterable[Mapping[str, str]]:
        for manifest in self.folder.glob(f"{name}-*/manifest.json"):
            with contextlib.suppress(CorruptEntryError):
                content = _read_manifest(manifest.parent)
                if content["name"] == name:
                    yield content["key"]


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return sorted(part for part in {*old, *new} if old.get(part) != new.get(part))


# --- entries on disk --------------------------------------------------------------------------------------------------


def _write(folder: Path, result: Result, facts: dict[str, Any]) -> None:
    suffix = _suffix(result)
    data = folder / f"data{suffix}"
    _WRITE[suffix](data, result)
    _sync(data)
    manifest = facts | {
        "file": data.name,
        "bytes": data.stat().st_size,
        "sha256": file_sha256(data),
        "peak_memory_bytes": peak_memory(),
        "made": now(),
    }
    if suffix == ".safetensors":
        manifest["torch"] = sorted(
            name for name, array in cast(dict, result).items() if not isinstance(array, np.ndarray)
        )
    write_atomically(folder / "manifest.json", lambda path: path.write_text(json.dumps(manifest, indent=1)))


def _read(folder: Path, name: str, key: Mapping[str, str], cached: bool) -> Stage:
    manifest = _read_manifest(folder)
    if manifest["name"] != name or manifest["key"] != dict(key):
        different = ", ".join(_differing(manifest["key"], key)) or "name"
        raise CorruptEntryError(f"it was made from something else: {different}")
    data = folder / manifest["file"]
    if not data.is_file():
        raise CorruptEntryError(f"{data.name} is missing")
    if data.stat().st_size != manifest["bytes"]:
        raise CorruptEntryError(f"{data.name} has {data.stat().st_size} bytes, expected {manifest['bytes']}")
    if file_sha256(data) != manifest["sha256"]:
        raise CorruptEntryError(f"the SHA-256 of {data.name} is not the one in its manifest")
    return Stage(name, _READ[data.suffix](data, manifest), manifest["seconds"], cached)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except OSError:
        raise CorruptEntryError("manifest.json is missing") from None
    except ValueError:
        raise CorruptEntryError("manifest.json is not JSON") from None
    needed = {"name": str, "key": dict, "file": str, "bytes": int, "sha256": str, "seconds": float}
    for field, kind in needed.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(field), kind):
            raise CorruptEntryError(f"manifest.json has no valid {field!r}")
    if manifest["file"] not in {f"data{suffix}" for suffix in _READ}:
        raise CorruptEntryError(f"manifest.json names an unknown data file {manifest['file']!r}")
    return manifest


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _suffix(result: Result) -> str:
    if isinstance(result, pd.DataFrame):
        return ".parquet"
    arrays = isinstance(result, dict) and result and all(_is_array(item) for item in result.values())
    return ".safetensors" if arrays else ".json"


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) or ("torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor))


def _write_table(path: Path, table: pd.DataFrame) -> None:
    if not table.index.equals(pd.RangeIndex(len(table))) or table.index.name is not None:
        raise TypeError("the table has an index that would be lost: call reset_index() and keep it as a column")
    try:
        table.to_parquet(path, index=False)
    except (ValueError, TypeError) as error:  # pyarrow's own errors are both
        raise TypeError(f"the table cannot be stored: {error}") from error


def _write_arrays(path: Path, arrays: dict[str, np.ndarray | torch.Tensor]) -> None:
    if all(isinstance(array, np.ndarray) for array in arrays.values()):
        from safetensors.numpy import save_file

        return save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path)
    import torch
    from safetensors.torch import save_file as save_tensors

    # cloned, since safetensors refuses tensors that share memory
    tensors = {name: torch.as_tensor(array).detach().cpu().clone().contiguous() for name, array in arrays.items()}
    return save_tensors(tensors, path)


def _read_arrays(path: Path, manifest: dict[str, Any]) -> Mapping[str, np.ndarray | torch.Tensor]:
    if not manifest.get("torch"):
        from safetensors.numpy import load_file

        return load_file(path)
    from safetensors.torch import load_file as load_tensors

    tensors = load_tensors(path)
    return {name: tensor if name in manifest["torch"] else tensor.numpy() for name, tensor in tensors.items()}


def _write_json(path: Path, value: JSON) -> None:
    _check_json(value, "the result")
    path.write_text(json.dumps(value), encoding="utf-8")


def _check_json(value: object, place: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{place} has the key {name!r}, which JSON would turn into text")
            _check_json(item, f"{place}[{name!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{place}[{i}]")
    elif type(value) not in (str, float, int, bool, type(None)):
        kinds = "a DataFrame, a dict of arrays or tensors, or a JSON value"
        raise TypeError(f"{place} is {_type_name(value)}; a stage returns {kinds}")


def _check_round_trip(name: str, result: Result, read: Result) -> None:
    if isinstance(result, pd.DataFrame):
        try:
            pd.testing.assert_frame_equal(read, result, check_exact=True)
        except AssertionError as error:
            why = " ".join(str(error).split())
            raise TypeError(f"the table of stage {name} comes back from parquet as another one: {why}") from None


_WRITE: dict[str, Callable] = {".parquet": _write_table, ".safetensors": _write_arrays, ".json": _write_json}
_READ: dict[str, Callable] = {
    ".parquet": lambda path, manifest: pd.read_parquet(path),
    ".safetensors": _read_arrays,
    ".json": lambda path, manifest: json.loads(path.read_text(encoding="utf-8")),
}
