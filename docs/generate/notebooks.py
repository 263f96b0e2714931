"""A page a notebook: as executed, its code folded, with the price, the source, and the notebook itself to download."""

import base64
import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from generate.place import ROOT, Place
from helpers.profiles import load_profile
from helpers.report.figures import in_few_colours

# of a cell's and a notebook's metadata: times and paths of the run, which are nobody's business
OF_THE_RUN = ("papermill", "execution", "widgets")
UNTIL_THEN = "Until then it stands here without outputs."
WIDGETS = "application/vnd.jupyter.widget-view+json"


def stage(place: Place) -> list[str]:
    """Write every notebook's page and its download; returns their names in order."""
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name in names:
        _stage_one(place, name)
    return names


def toctree(names: list[str]) -> str:
    """The notebooks in order, called as in docs/notebooks.md."""
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    called = {name: words for words, name in re.findall(r"\[([^\]]+)\]\(\.\./notebooks/(\w+)\.ipynb\)", page)}
    lines = [f"{called.get(name, name.replace('_', ' '))} <notebooks/{name}>" for name in names]
    return "\n".join(["```{toctree}", ":hidden:", "", *lines, "```", ""])


def _stage_one(place: Place, name: str) -> None:
    executed = place.runs / place.profile / "notebooks" / f"{name}.ipynb"
    plain = ROOT / "notebooks" / f"{name}.ipynb"
    note = _withheld(place, executed) if executed.is_file() else _never_run(place, name)
    shown = plain if note else executed
    notebook = nbformat.read(shown, as_version=4)
    older = "" if note else _older(place, notebook, nbformat.read(plain, as_version=4), name)
    seconds = notebook.metadata.get("papermill", {}).get("duration")
    clean(notebook)
    downloads = place.source / "downloads"
    downloads.mkdir(exist_ok=True)
    nbformat.write(notebook, downloads / f"{name}.ipynb")
    page = _as_page(notebook)
    page.cells.insert(1, _cell(_bar(place, name, seconds, note, older)))
    path = place.source / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(page, path)


def _never_run(place: Place, name: str) -> str:
    number, profile = name[:2], place.profile
    command = f"python -m helpers.reproduce --profile {profile} --only {number}"
    return f"{place.lacks(f'The executed notebook {name} is not there', command)} {UNTIL_THEN}"


def _older(place: Place, executed: NotebookNode, committed: NotebookNode, name: str) -> str:
    """What to say where a notebook was changed after it was executed, else ''."""
    ran = [cell.source for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    if ran == [cell.source for cell in committed.cells]:
        return ""
    command = f"python -m helpers.reproduce --profile {place.profile} --only {name[:2]}"
    return place.lacks(f"The notebook {name} was changed after it was executed, and stands here as it was", command)


def _withheld(place: Place, executed: Path) -> str:
    """Why an executed notebook may not be shown, or '': questions of others stay ids, whatever a run was told."""
    about = json.loads(executed.read_text(encoding="utf-8")).get("metadata", {}).get("papermill", {})
    given = (about.get("parameters") or {}).get("overrides") or {}
    asked = load_profile(place.profile).questions
    if asked.source == "organism" or not (asked.show_text or "show_text" in json.dumps(given)):
        return ""
    command = f"python -m helpers.reproduce --profile {place.profile} --only {executed.stem[:2]}"
    why = f"{executed.stem} was run with the text of questions (--show-text), which is not published"
    return f"{place.lacks(why, command)} {UNTIL_THEN}"


def clean(notebook: NotebookNode) -> None:
    """Leave cells and their outputs; take out what only says where and when it ran, warnings and progress bars.

    Pictures are left in few colours, as those of the figures.
    """
    for key in OF_THE_RUN:
        notebook.metadata.pop(key, None)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    for cell in notebook.cells:
        for key in OF_THE_RUN:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [_in_few_colours(output) for output in cell.outputs if _worth_showing(output)]


def _worth_showing(output: NotebookNode) -> bool:
    return output.get("name") != "stderr" and WIDGETS not in output.get("data", {})


def _in_few_colours(output: NotebookNode) -> NotebookNode:
    if "image/png" in output.get("data", {}):
        few = in_few_colours(base64.b64decode(output.data["image/png"]))
        output.data["image/png"] = base64.b64encode(few).decode("ascii")
    return output


def _as_page(notebook: NotebookNode) -> NotebookNode:
    page = nbformat.from_dict(notebook)
    page.cells = [nbformat.from_dict(cell) for cell in notebook.cells]
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        else:
            cell.source = cell.source.replace("](../docs/", "](../")
    return page


def _cell(text: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text)


def _bar(place: Place, name: str, seconds: float | None, note: str, older: str) -> str:
    """What stands below a notebook's introduction: how long it took, where to get it, how to run it elsewhere."""
    outputs = "without outputs" if note else "with outputs"
    source = f"{place.repository}/blob/main/notebooks/{name}.ipynb" if place.repository else f"../source/{name}.ipynb"
    took = f"<span>took {_minutes(seconds)} when it was run</span>" if seconds and not note else ""
    bar = (
        f'<div class="notebook-bar">{took}'
        f'<a href="../downloads/{name}.ipynb" download>Download {outputs} (.ipynb)</a>'
        f'<a href="{source}">Source, as committed</a>'
        '<button type="button" class="all-code" hidden>Show all code</button></div>'
    )
    warning = f":::{{warning}}\n{note or older}\n:::\n\n" if note or older else ""
    return f"{warning}{bar}\n\n{_colab(place, name)}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _colab(place: Place, name: str) -> str:
    """The way into Colab. Without an address of the repository the reader has to put in one's own."""
    hub = place.repository.removeprefix("https://github.com/")
    known = place.repository.startswith("https://github.com/")
    start = "https://colab.research.google.com/"
    link = f"{start}github/{hub}/blob/main/notebooks/{name}.ipynb" if known else f"{start}#create=true"
    how = "" if known else " (the notebook is uploaded by hand there)"
    clone = place.repository or "ADDRESS_OF_THIS_REPOSITORY"
    return (
        f":::{{dropdown}} Open in Colab, untested\n[Open in Colab]({link}){how}. Nobody has tried it here. "
        "A first cell has to hold these two lines:\n\n```\n"
        f"!git clone {clone} sae-unlearning\n%cd sae-unlearning/notebooks\n```\n\nand a second one, after which "
        "Colab wants its runtime restarted:\n\n```\n%pip install -e ..\n```\n:::\n"
    )
