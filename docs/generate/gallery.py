"""The gallery: every figure as a card, with its files, filtered by paper and by method in the browser."""

from html import escape

from generate.figures import PAPERS, SUFFIXES, Shown, shown
from generate.place import Place
from helpers.methods import METHODS


def stage(place: Place) -> None:
    """Write the gallery's page."""
    found = shown(place.pictures)
    if not found:
        command = f"python -m helpers.reproduce --profile {place.profile}"
        cards = f":::{{warning}}\n{place.lacks(f'No figure of profile {place.profile} is there', command)}\n:::\n"
    else:
        cards = "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *map(_card, found), "::::", ""])
        cards = f"{_filters(found)}\n{cards}"
    place.write("gallery.md", f"{INTRODUCTION}\n{cards}")


INTRODUCTION = """# Gallery

Every figure with the rows from which alone it is drawn (csv) and the record of what made them (json). A click shows the
picture in full.
"""


def hyphened(key: str) -> str:
    """A key as a class of HTML has it, where docutils writes '-' for '_'."""
    return key.replace("_", "-")


def path_of(figure: Shown) -> str:
    """Where the site has a figure's files, without their ending."""
    return f"figures/{figure.csv.parent.name}/{figure.name}"


def picture(figure: Shown, up: str = "") -> str:
    """A figure as a picture that opens in full."""
    path = f"{up}{path_of(figure)}.png"
    return f'<a href="{path}"><img src="{path}" alt="{escape(figure.caption)}" loading="lazy"></a>'


def _card(figure: Shown) -> str:
    kinds = [f"paper-{paper}" for paper in figure.papers] + [f"method-{hyphened(key)}" for key in figure.methods]
    files = " ".join(f'<a href="{path_of(figure)}{suffix}">{suffix[1:]}</a>' for suffix in SUFFIXES)
    notebook = next(iter(figure.record.get("notebook", "").split()), "")
    made = f" · [notebook {figure.number}](notebooks/{notebook}.ipynb)" if notebook else ""
    return "\n".join([
        f":::{{grid-item-card}} {figure.name}",
        f":class-item: figure-card {' '.join(kinds)}",
        "",
        f"{picture(figure)}",
        "",
        figure.caption,
        "+++",
        f"{files} · {figure.record['rows']:,} rows{made}",
        ":::",
        "",
    ])  # fmt: skip


def _filters(found: list[Shown]) -> str:
    papers = {key: name for key, name in PAPERS.items() if any(key in figure.papers for figure in found)}
    methods = {key: method.name for key, method in METHODS.items() if any(key in figure.methods for figure in found)}
    groups = _group("paper", papers) + _group("method", methods)
    return (
        f'```{{raw}} html\n<form id="filters" hidden>\n{groups}<p class="count" aria-live="polite"></p>\n</form>\n```\n'
    )


def _group(kind: str, names: dict[str, str]) -> str:
    boxes = "".join(
        f'<label><input type="radio" name="{kind}" value="{hyphened(key)}"{" checked" * (not key)}>'
        f"<span>{escape(name)}</span></label>"
        for key, name in {"": "all", **names}.items()
    )
    return f"<fieldset><legend>{kind}</legend>{boxes}</fieldset>\n"
