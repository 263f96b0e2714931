"""A page a method, made from the method's own file: what it does, what can be set, the papers' values, its figures."""

import inspect
import os
import re
from dataclasses import MISSING, fields
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.markers import MarkerStyle

from generate.figures import Shown, shown
from generate.gallery import path_of
from generate.place import ROOT, Place
from helpers.methods import METHODS, Method
from helpers.methods.clamping import ClampMethod
from helpers.methods.look import Look
from helpers.methods.method import HIGHEST_ALIGNMENT

PROFILES = {"tiny": "the embedded model", "gemma-2-2b-it": "Gemma, the papers' values"}
FORMULA = "    x' = x + sum over chosen i of  m_i(x) * (v_i - f_i) * W_dec[i]\n"
HELD_OUT = ("05_held_out", "04_alignment", "03_held_out", "07_held_out")
ROLES = {"forget": "forget (lower is better)", "near": "near domain", "side": "side effects"}


def stage(place: Place) -> str:
    """Write the pages; returns their list and toctree."""
    figures = shown(place.pictures)
    cards, tree = [], []
    for key, method in METHODS.items():
        place.write(f"methods/{key}.md", _page(place, key, method, figures))
        cards.append(_card(key, method))
        tree.append(f"{_title(method)} <methods/{key}>")
    grid = "\n".join(["::::{grid} 1 1 2 3", ":gutter: 3", "", *cards, "::::", ""])
    return "\n".join([grid, "```{toctree}", ":hidden:", "", *tree, "```", ""])


def _title(method: type[Method]) -> str:
    return f"{method.name[0].upper()}{method.name[1:]}"


def _card(key: str, method: type[Method]) -> str:
    summary, _ = _docstring(method)
    head = f":::{{grid-item-card}} {_title(method)}\n:link: methods/{key}\n:link-type: doc\n"
    return f"{head}\n{swatches(method)}\n\n{summary}\n+++\n{method.source}\n:::\n"


def _page(place: Place, key: str, method: type[Method], figures: list[Shown]) -> str:
    summary, paper = _docstring(method)
    about = inspect.cleandoc(inspect.getmodule(method).__doc__ or "").partition("\n\n")[2].strip()
    own = Path(inspect.getfile(method)).relative_to(ROOT)
    parts = [
        f"# {_title(method)}",
        swatches(method),
        f"**{summary}**",
        about,
        f"Source: {method.source}. In the code: {{py:class}}`{method.__module__}.{method.__name__}`.",
        _formula(method),
        "## Settings",
        _settings(method),
        paper,
        *[_grid(key, profile) for profile in PROFILES],
        "## What it does",
        _held_out(place, method),
        _figures(key, figures),
        f"## Its file, `{own.as_posix()}`",
        f"```{{literalinclude}} {os.path.relpath(ROOT / own, place.source / 'methods')}\n:language: python\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _formula(method: type[Method]) -> str:
    if not issubclass(method, ClampMethod):
        return ""
    return f"One formula for all clamps; *where* (m), *when* and *what* (v) are the method's:\n\n{FORMULA}"


def _docstring(method: type[Method]) -> tuple[str, str]:
    """The first sentence of a method's docstring, and what it says of the paper."""
    paragraphs = inspect.cleandoc(method.__doc__ or "").split("\n\n")
    paper = next((" ".join(words.split()) for words in paragraphs if words.startswith("Paper: ")), "")
    return " ".join(paragraphs[0].split()), paper.replace("Paper: ", "**In the paper:** ", 1)


# --- settings ---------------------------------------------------------------------------------------------------------


def _settings(method: type[Method]) -> str:
    if not fields(method):
        return "None: there is nothing to set."
    said = attributes(method)
    lines = ["| setting | unless set | meaning |", "|---|---|---|"]
    for field in fields(method):
        usual = "of the grid" if field.default is MISSING else f"`{field.default}`"
        lines.append(f"| `{field.name}` | {usual} | {said.get(field.name, '')} |")
    return "\n".join(lines)


def attributes(method: type[Method]) -> dict[str, str]:
    """What the docstrings of a method and of those it inherits from say of each attribute."""
    found: dict[str, str] = {}
    for kind in reversed(method.__mro__):
        _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
        for name, words in re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", listed, re.MULTILINE):
            found[name] = " ".join(words.split())
    return found


def _grid(key: str, profile: str) -> str:
    """A method's table in a profile as it stands there, with the source of every value in a comment."""
    text = (ROOT / "helpers" / "profiles" / f"{profile}.toml").read_text(encoding="utf-8")
    found = re.search(rf"^\[method\.{key}\]\n.*?(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    # comments at its end are the next table's
    table = re.sub(r"(\n#.*)+\Z", "", re.sub(r"\n\n+", "\n", found[0].strip())) if found else ""
    return f"Swept on {PROFILES[profile]} (profile `{profile}`):\n\n```toml\n{table}\n```" if found else ""


# --- what the figures' rows say ---------------------------------------------------------------------------------------


def _held_out(place: Place, method: type[Method]) -> str:
    """The setting chosen on one half of the questions, as the first figure that has the method reports it."""
    # by the rule that the method is chosen by where it is shown first
    for name in sorted(HELD_OUT, key=lambda name: (name == "04_alignment") != (method.chosen_by == HIGHEST_ALIGNMENT)):
        path = place.pictures / f"{name}.csv"
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["method", "protocol"])
        rows = table[(table["method"] == method.name) & table["protocol"].str.startswith("chosen on one half")]
        if len(rows) and rows.iloc[0]["setting"] != "none":
            return _reported(rows.iloc[0], name, method.chosen_by)
    return ""


def _reported(row: pd.Series, figure: str, rule: str) -> str:
    found = [f"{row[f'{r}_accuracy']:.2f} [{row[f'{r}_low']:.2f}, {row[f'{r}_high']:.2f}]" for r in ROLES]
    return "\n".join([
        f"The setting chosen on one half of the questions ({rule}), its accuracy on the other with 95 % intervals "
        f"(`{figure}`):",
        "",
        "| setting | " + " | ".join(ROLES.values()) + " |",
        "|---" * 4 + "|",
        f"| {row['setting']} | {' | '.join(found)} |",
    ])  # fmt: skip


def _figures(key: str, figures: list[Shown]) -> str:
    of = [figure for figure in figures if key in figure.methods]
    pictures = "".join(
        f'<a href="../{path_of(figure)}.png"><img src="../{path_of(figure)}.png" alt="{escape(figure.caption)}" '
        f'loading="lazy"><span>{figure.name}</span></a>'
        for figure in of
    )
    body = f'```{{raw}} html\n<div class="thumbnails">{pictures}</div>\n```\n' if of else ""
    return f"Figures that show it, with their rows in [the gallery](../gallery.md):\n\n{body}" if of else ""


# --- label and marker -------------------------------------------------------------------------------------------------


def swatches(method: type[Method]) -> str:
    """The method's labels in figures, each with its marker."""
    return " ".join(
        f'<span class="swatch">{marker(look)} {escape(label)}</span>' for label, look in method.looks().items()
    )


def marker(look: Look) -> str:
    """A method's marker as a small picture."""
    style = MarkerStyle(look.marker)
    path = style.get_path().transformed(style.get_transform())
    outline = path.to_polygons(closed_only=True)[0] if path.codes is not None or len(path) else []
    points = " ".join(f"{x:.3f},{-y:.3f}" for x, y in outline)
    black = ' class="black"' if look.colour == "#000000" else ""
    return (
        f'<svg{black} viewBox="-0.7 -0.7 1.4 1.4" width="16" height="16" aria-hidden="true">'
        f'<polygon points="{points}" fill="{look.colour}"/></svg>'
    )
