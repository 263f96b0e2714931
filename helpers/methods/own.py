"""Methods of one's own: a file anywhere that defines subclasses of `Method`, loaded by its path."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path

from helpers.methods import METHODS
from helpers.methods.method import Method


def load_own(files: Sequence[str]) -> dict[str, type[Method]]:
    """The methods that some files define, by the file's name, or by file and class where it defines several.

    A file is loaded once a process; its name becomes a module's name, so it may be none that is taken.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a name that is no module's or is taken, a file without a method that can be applied, a method that
            is no frozen dataclass, or one that figures would take for another.
    """
    found = {name: method for file in files for name, method in _methods_of(Path(file)).items()}
    taken = {label: method for method in METHODS.values() for label in method.looks()}
    for name, method in found.items():
        if not is_dataclass(method):
            raise ValueError(
                f"method {name}: {method.__name__} is no dataclass; write @dataclass(frozen=True) above it"
            )
        if same := method.looks().keys() & taken.keys():
            raise ValueError(
                f"method {name}: the name {same.pop()!r} is taken, and figures would take one for the other"
            )
        taken |= dict.fromkeys(method.looks(), method)
    return found


def _methods_of(path: Path) -> dict[str, type[Method]]:
    module = _module(path)
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Method)
        and thing.__module__ == module.__name__
        and not thing.__abstractmethods__
    ]
    if not found:
        raise ValueError(
            f"{path.name} defines no method: a subclass of helpers.methods.method.Method with grid and apply is needed"
        )
    return {path.stem if len(found) == 1 else f"{path.stem}.{method.__name__}": method for method in found}


def _module(path: Path):
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name} with a method of one's own")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or not path.stem.isidentifier() or importlib.util.find_spec(path.stem) is not None:
        raise ValueError(f"{path.name}: its name must be a module's that is not taken, as in my_method.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path.name}: a file of Python is needed, as my_method.py is one")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickled names look their module up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[path.stem]
        raise ValueError(f"{path.name}, line {error.lineno}: {error.msg}") from None
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
