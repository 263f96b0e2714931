"""The reference: a page a room of `helpers`, its modules from their docstrings."""

import ast
import tomllib
from pathlib import Path

from generate.place import ROOT, Place

HELPERS = ROOT / "helpers"


def stage(place: Place) -> str:
    """Write the pages; returns their toctree."""
    rooms = [room for room in _rooms() if _modules(room)]
    for room in rooms:
        place.write(f"reference/{room}.md", _page(room))
    return "\n".join(["```{toctree}", ":hidden:", "", *[f"{room} <reference/{room}>" for room in rooms], "```", ""])


def _rooms() -> list[str]:
    """From the top, in the order that import-linter checks."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return [room.strip() for row in contracts[0]["layers"] for room in row.split("|")]


def _modules(room: str) -> list[str]:
    path = HELPERS / room
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [_module(file) for file in files if file.name != "__main__.py" and file.read_text(encoding="utf-8").strip()]


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _public(module: str) -> list[str]:
    """Classes and functions that a module defines: left to look itself, autodoc reads the sources of all it imports."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in nodes if isinstance(node, defined) and not node.name.startswith("_")]


def _page(room: str) -> str:
    modules = _modules(room)
    title = f"helpers.{room}"
    methods = " [The methods](../methods.md) have a page each, with figures." if room == "methods" else ""
    sections = [f"# {title}\n\nFrom the docstrings.{methods}\n"]
    for module in modules:
        heading = f"## {module}\n\n" if len(modules) > 1 else ""
        members = ", ".join(_public(module))
        shown = f"\n   :members: {members}" if members else ""
        sections.append(f"{heading}```{{eval-rst}}\n.. automodule:: {module}{shown}\n```\n")
    return "\n".join(sections)
