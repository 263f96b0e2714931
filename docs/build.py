"""Build the site from what is there: `make site`. It runs no notebook and asks the network for nothing.

What is missing is named with the command that makes it, and a page says so in its place.
"""

import argparse
import os
import re
import shutil
import sys
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
# these rooms are looked up from here, and read no model from the hub
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

from sphinx.cmd.build import build_main  # noqa: E402

from generate import claims, gallery, methods, moving, notebooks, reference  # noqa: E402
from generate.figures import SUFFIXES, shown  # noqa: E402
from generate.lean import lean  # noqa: E402
from generate.place import ROOT, Place, repository  # noqa: E402

LIMIT_MB = 25
# stands in a page of docs/ for what is made here
GENERATED = re.compile(r"^```\{generated\} ([\w-]+)\n```$", re.MULTILINE)
BROKEN = """```{raw} html
<script>
function stillPicture(picture) {
  if (picture.querySelector("img.still")) return;
  const still = new Image();
  still.src = picture.dataset.still; still.alt = "The same as a still picture"; still.className = "still";
  picture.append(still);
}
function stillPictures() { document.querySelectorAll(".moving").forEach(stillPicture); }
</script>
<script src="_static/vega.js" onerror="stillPictures()"></script>
<script src="_static/moving.js" onerror="stillPictures()"></script>
```
"""


def main() -> int:
    """Build the site."""
    parser = argparse.ArgumentParser(prog="python docs/build.py", description=main.__doc__)
    parser.add_argument("--profile", default="tiny", help="whose figures and executed notebooks are shown")
    for name in ("figures", "runs"):
        parser.add_argument(f"--{name}", type=Path, default=ROOT / name, help=f"where {name}/<profile> lies")
    parser.add_argument("--source", type=Path, default=ROOT / "build" / "site", help="what Sphinx reads, made anew")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="the site, made anew")
    began, place = time.perf_counter(), Place(**vars(parser.parse_args()), repository=repository())
    place.out, place.source = place.out.resolve(), place.source.resolve()
    for folder in (place.source, place.out):
        _emptied(folder)
    stage(place)
    code = render(place)
    copy(place)
    return max(code, _report(place, time.perf_counter() - began))


def _emptied(folder: Path) -> None:
    """An empty folder; one that holds something else than a site is left as it is.

    Raises:
        SystemExit: the folder is not one that this command has made.
    """
    mark = folder / ".made-by-docs-build"
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise SystemExit(f"{folder} holds something else than a site; name another folder or empty it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()


def stage(place: Place) -> None:
    """Write everything that Sphinx reads."""
    for figure in shown(place.pictures):
        _copied(figure.csv.with_suffix(".png"), place.source / "figures" / place.profile)
    gallery.stage(place)
    made = {
        "notebooks": notebooks.toctree(notebooks.stage(place)),
        "methods": methods.stage(place),
        "reference": reference.stage(place),
        "verdicts": claims.in_short(place),
        **moving.stage(place),
        "moving-scripts": BROKEN,
    }
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8") if page.stem != "changelog" else _changelog()
        text = GENERATED.sub(lambda found: made[found[1]], text)
        place.write(page.name, place.relinked(claims.with_badges(text) if page.stem == "claims" else text))


def render(place: Place) -> int:
    """Let Sphinx make pages of it; its exit status. Warnings are errors, so that no reader meets what it warned of."""
    work = place.source / ".sphinx"
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(DOCS), "-d", str(work / "doctrees")]
    # not at once to where they go, for myst-nb leaves a folder beside them
    code = build_main([*options, str(place.source), str(work / "html")])
    # a template of the theme's, which is no page, and maps for who mends its scripts
    left_out = shutil.ignore_patterns("webpack-macros.html", "*.map")
    shutil.copytree(work / "html", place.out, dirs_exist_ok=True, ignore=left_out)
    for path in place.out.rglob("*.html"):
        path.write_text(lean(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    return code


def _changelog() -> str:
    path = ROOT / "CHANGELOG.md"
    return path.read_text(encoding="utf-8") if path.is_file() else "# Changelog\n\nNothing is noted yet.\n"


def copy(place: Place) -> None:
    """Put beside the pages what they link to: figures with their rows, notebooks, scripts, files of the repository."""
    for figure in shown(place.pictures):
        for suffix in SUFFIXES:
            _copied(figure.csv.with_suffix(suffix), place.out / "figures" / place.profile)
    for path in sorted((place.source / "downloads").glob("*.ipynb")):
        _copied(path, place.out / "downloads")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        _copied(path, place.out / "source")
    for name in sorted(place.files):
        _copied(ROOT / name, (place.out / "files" / name).parent)
    (place.out / "_static" / "vega.js").write_text(moving.scripts(), encoding="utf-8")
    (place.out / ".nojekyll").touch()  # GitHub Pages leaves folders that begin with _ alone only then


def _copied(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / path.name)


def _report(place: Place, seconds: float) -> int:
    """Say what was built and what is missing; 1 where the site is too large."""
    size = sum(path.stat().st_size for path in place.out.rglob("*") if path.is_file()) / 1e6
    pages = len(list(place.out.rglob("*.html")))
    for sentence in place.missing:
        print(f"missing: {sentence}")
    print(f"{pages} pages, {size:.1f} MB, {seconds:.0f} s: open {_near(place.out / 'index.html')}")
    if size > LIMIT_MB:
        print(f"error: the site is larger than {LIMIT_MB} MB", file=sys.stderr)
        return 1
    return 0


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
