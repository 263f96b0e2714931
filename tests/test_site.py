"""The site: built once from committed figures and a made-up execution, then read in a real browser.

It needs the extra `site` and, for the second half, Chromium from the system's packages (`apt-get install chromium`).
"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pandas as pd
import pytest
from PIL import Image

from helpers.methods import METHODS
from helpers.records.provenance import ROOT
from helpers.report.figures import in_few_colours

NEEDED = ("altair", "myst_nb", "pydata_sphinx_theme", "sphinx", "sphinx_design", "vl_convert")
for name in NEEDED:
    pytest.importorskip(name, reason=f"{name} is missing, which the site is built with: pip install '.[site]'")

pytestmark = pytest.mark.xdist_group("site")

EXECUTED, NEVER_RUN = "02_clamp_curve", "05_dsg_vs_rmu"
ELSEWHERE, QUESTION = "/elsewhere/on/a/machine", "Which of these is a question of somebody else's exam?"
# points of the picture that can be moved, the settings of notebook 05
POINTS = pd.read_csv(ROOT / "figures" / "tiny" / "05_pareto.csv")
SETTINGS = len(POINTS)
TINY_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# as Hugging Face writes its tokens
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
# of all, and of it what sixteen executed notebooks take; here next to none is
MAX_MB, NOTEBOOKS_MB = 25, 5.5


# --- building ---------------------------------------------------------------------------------------------------------


def executed(name: str, overrides: dict | None = None) -> nbformat.NotebookNode:
    """A committed notebook as papermill leaves one: outputs, and traces of where it ran."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    about = {"duration": 42.0, "input_path": f"{ELSEWHERE}/x.ipynb", "parameters": {"overrides": overrides}}
    notebook.metadata["papermill"] = about
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    output = nbformat.v4.new_output
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "a progress bar"}
    code[1].outputs = [
        output("stream", name="stdout", text="said while it ran\n"),
        output("stream", name="stderr", text=f"{ELSEWHERE}: a warning\n"),
        output("display_data", widget),
    ]
    code[2].outputs = [output("execute_result", {"image/png": TINY_PNG, "text/plain": QUESTION})]
    code[3].outputs = [output("execute_result", {"text/html": f"<table><tr><td>{QUESTION}</td></tr></table>"})]
    injected = nbformat.v4.new_code_cell(f'runs = "{ELSEWHERE}"')
    injected.metadata["tags"] = ["injected-parameters"]
    notebook.cells.insert(2, injected)
    return notebook


def write_executed(folder: Path, profile: str, *given: object) -> Path:
    path = folder / profile / "notebooks" / f"{EXECUTED}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(executed(EXECUTED, *given), path)
    return folder


@dataclass(frozen=True)
class Built:
    folder: Path
    said: str

    def pages(self, sources: bool = True) -> list[Path]:
        found = sorted(self.folder.rglob("*.html"))
        return [path for path in found if sources or "_modules" not in path.parts]

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def words(self, name: str) -> str:
        return unescape(re.sub(r"<[^>]+>", "", self.text(name)))


def build(work: Path, *options: str) -> subprocess.CompletedProcess:
    where = ["--source", work / "source", "--out", work / "site", *options]
    return subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", *where], cwd=work, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("site")
    done = build(work, "--runs", write_executed(work / "runs", "tiny"))
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(work / "site", done.stdout + done.stderr)


def test_it_is_small_and_sphinx_warns_of_nothing(site: Built) -> None:
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < (MAX_MB - NOTEBOOKS_MB) * 1e6
    assert "WARNING" not in site.said


def test_pictures_of_pages_are_in_few_colours_and_nobody_gets_maps_of_scripts(site: Built) -> None:
    pictures = sorted((site.folder / "_images").glob("*.png"))
    assert pictures and not list(site.folder.rglob("*.map"))
    shown = [
        output.data["image/png"]
        for path in sorted((site.folder / "downloads").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert shown
    for png in (*(path.read_bytes() for path in pictures), *map(base64.b64decode, shown)):
        with Image.open(io.BytesIO(png)) as picture:  # a transparent one keeps its colours
            assert picture.mode == "P" or in_few_colours(png) == png


def test_a_listing_marks_no_word_that_looks_like_plain_text(site: Built) -> None:
    name = "_modules/helpers/text/batches.html"
    assert '<span class="n">' not in site.text(name)
    assert "class Batch:" in site.words(name)
    signatures = "reference/text.html"
    assert '<span class="pre">' not in site.text(signatures) and "class helpers.text.batches.Batch" in site.words(
        signatures
    )


def test_a_lean_page_has_its_words_and_its_code_as_they_were(generate: None) -> None:
    from generate.lean import lean

    code = "<pre>\n  code\n\n    more</pre>"
    page = f'<div>\n    <p>a\n  b</p>\n\n  {code}\n <script>\n  x</script>\n  <b><span class="n">'
    page += '<span class="pre">name</span></span></b>\n</div>'
    assert lean(page) == f"<div>\n<p>a\nb</p>\n{code}\n<script>\n  x</script>\n<b>name</b>\n</div>"


def test_what_is_missing_is_named_with_the_command_that_makes_it(site: Built) -> None:
    command = "python -m helpers.reproduce --profile tiny --only 05"
    assert f"missing: The executed notebook {NEVER_RUN} is not there. To make it: `{command}`." in site.said
    assert command in site.words(f"notebooks/{NEVER_RUN}.html")
    assert EXECUTED not in site.said


def test_nothing_of_the_machine_no_token_and_no_module_from_elsewhere(site: Built) -> None:
    places = (ELSEWHERE, f"{ROOT}/", f"{Path.home()}/", str(site.folder.parent))
    wrong = []
    for path in site.folder.rglob("*"):
        if path.suffix in (".html", ".js", ".json", ".csv", ".ipynb", ".css", ".txt", ".svg"):
            text = path.read_text(encoding="utf-8")
            wrong += [f"{path.name}: {place}" for place in places if place in text]
            wrong += [f"{path.name}: {token}" for token in TOKEN.findall(text)]
            wrong += [f"{path.name}: {scheme}" for scheme in re.findall(r"(?:src|href)=\"(http\S+\.(?:js|css))", text)]
    assert wrong == []


def test_an_executed_notebook_is_shown_and_downloads_with_its_outputs(site: Built) -> None:
    page = site.text(f"notebooks/{EXECUTED}.html")
    assert "said while it ran" in page and "a progress bar" not in page and "42 s" in page
    assert f'href="../downloads/{EXECUTED}.ipynb"' in page and f'href="../source/{EXECUTED}.ipynb"' in page
    words = site.words(f"notebooks/{EXECUTED}.html")
    assert "Open in Colab, untested" in words and "!git clone" in words and "%pip install" in words
    download = nbformat.read(site.folder / "downloads" / f"{EXECUTED}.ipynb", as_version=4)
    nbformat.validate(download)
    kept = [output for cell in download.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(kept) == 3 and not {"papermill", "widgets"} & set(download.metadata)
    committed = nbformat.read(ROOT / "notebooks" / f"{EXECUTED}.ipynb", as_version=4)
    assert [cell.source for cell in download.cells] == [cell.source for cell in committed.cells]


def test_every_notebook_figure_and_method_has_its_page(site: Built) -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = site.text(f"notebooks/{path.stem}.html")
        assert f'href="notebooks/{path.stem}.html"' in site.text("notebooks.html")
        assert 'class="left-prev"' in page or path.stem.startswith("00")
        assert 'class="right-next"' in page
    gallery = site.text("gallery.html")
    for csv in (ROOT / "figures" / "tiny").glob("*.csv"):
        for suffix in (".png", ".pdf", ".csv", ".json"):
            assert f"figures/tiny/{csv.stem}{suffix}" in gallery
            assert (site.folder / "figures" / "tiny" / f"{csv.stem}{suffix}").read_bytes() == csv.with_suffix(
                suffix
            ).read_bytes()
    for key, method in METHODS.items():
        page = site.words(f"methods/{key}.html")
        assert method.source in page and f"class {method.__name__}(" in page
        grids = re.findall(rf"\[method\.{key}\]\n(?:#.*\n)*\w+ = [\[\"]", page)
        assert len(grids) == 2, f"{key}: its values on the embedded model, and the paper's"
    assert "05_pareto" in site.text("methods/dsg.html") and "05_pareto" not in site.text("methods/refusal_clamp.html")


def test_the_four_verdicts_are_on_the_home_page(site: Built) -> None:
    home = site.text("index.html")
    assert all(f">{verdict}</span>" in home for verdict in ("agrees", "partly", "undecided", "disagrees"))


def test_a_profile_without_figures_and_runs_has_pages_that_say_so(tmp_path: Path) -> None:
    nothing = ["--figures", tmp_path / "none", "--runs", tmp_path / "none"]
    done = build(tmp_path, "--profile", "gemma-2-2b-it", *nothing)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr
    site = Built(tmp_path / "site", done.stdout)
    assert "No figure of profile gemma-2-2b-it is there" in site.words("gallery.html")
    assert "python -m helpers.reproduce --profile gemma-2-2b-it --only 05" in site.words("move-it.html")
    assert "not run" in site.words("index.html")


def test_another_folder_than_a_site_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    done = build(tmp_path)
    assert done.returncode != 0 and "holds something else than a site" in done.stderr
    assert (tmp_path / "site" / "mine.txt").read_text() == "mine"


# --- questions of others ----------------------------------------------------------------------------------------------


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))


@pytest.mark.parametrize(
    ("profile", "overrides", "shown"),
    [
        ("gemma-2-2b-it", {"questions.show_text": True}, False),
        ("gemma-2-2b-it", {"questions.limit": 8}, True),
        ("tiny", {"questions.show_text": True}, True),
    ],
)
def test_a_run_with_the_text_of_others_questions_is_not_published(
    generate: None, tmp_path: Path, profile: str, overrides: dict, shown: bool
) -> None:
    from generate import notebooks
    from generate.place import Place

    runs = write_executed(tmp_path / "runs", profile, overrides)
    place = Place(profile, ROOT / "figures", runs, tmp_path / "source", tmp_path / "site")
    place.source.mkdir()
    notebooks.stage(place)
    text = "".join(path.read_text() for path in place.source.rglob(f"{EXECUTED}.ipynb"))
    assert (QUESTION in text) == shown
    assert any("not published" in sentence for sentence in place.missing) != shown


def test_figures_with_the_text_of_others_questions_are_not_published(generate: None, tmp_path: Path) -> None:
    from generate.figures import shown

    for name in ("02_clamp_curve", "05_pareto"):
        for path in (ROOT / "figures" / "tiny").glob(f"{name}.*"):
            shutil.copyfile(path, tmp_path / path.name)
    path = tmp_path / "05_pareto.json"
    record = json.loads(path.read_text())
    record["settings"]["questions"] = {"source": "hub", "show_text": True}
    path.write_text(json.dumps(record))
    assert [figure.name for figure in shown(tmp_path)] == ["02_clamp_curve"]


# --- links ------------------------------------------------------------------------------------------------------------


@dataclass
class Links(HTMLParser):
    ids: set[str] = field(default_factory=set)
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in ("href", "src", "data-still") and value:
                self.found.append(value)


def test_no_link_inside_is_dead(site: Built) -> None:
    read = {}
    for path in site.pages():
        read[path] = Links()
        read[path].feed(path.read_text(encoding="utf-8"))
    dead = []
    for page, links in read.items():
        for link in links.found:
            address, fragment = urldefrag(link)
            if re.match(r"[a-z]+:", address):
                continue
            target = (page.parent / unquote(address).partition("?")[0]).resolve() if address else page
            missing = not target.is_file() or (
                fragment and target in read and unquote(fragment) not in read[target].ids
            )
            dead += [f"{page.relative_to(site.folder)}: {link}"] if missing and not link.startswith("#") else []
    assert dead == []


# --- in a browser -----------------------------------------------------------------------------------------------------

LIGHT, NARROW, DARK = ((1400, "light"), (400, "light"), (1400, "dark"))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install '.[site]'")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here to read the site with: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=quiet)
        yield running
        running.close()


@dataclass
class Seen:
    """A page in a browser, with what it complained about and what it asked for outside the site."""

    page: object
    faults: list[str] = field(default_factory=list)


@contextmanager
def reading(browser, site: Built, width: int = 1400, scheme: str = "light", **options: object) -> Iterator[Seen]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    page = context.new_page()
    seen, inside = Seen(page), (site.folder.as_uri(), "data:", "blob:")
    page.on("console", lambda said: seen.faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(inside) else seen.faults.append(request.url))
    page.on("requestfailed", lambda request: seen.faults.extend(failure(request)))
    yield seen
    context.close()


def failure(request) -> list[str]:
    # whoever goes on to the next page drops what the last one still asked for
    return [] if "ERR_ABORTED" in request.failure else [f"failed: {request.url}"]


BROKEN = """async () => {
  const images = [...document.images];
  images.forEach((image) => { image.loading = "eager"; });
  const whole = await Promise.all(images.map((image) => image.decode().then(() => true, () => false)));
  return images.filter((_, i) => !whole[i]).map((image) => image.src);
}"""


def check_every_page(browser, site: Built, mode: tuple[int, str], sources: bool) -> list[str]:
    faults = []
    with reading(browser, site, *mode) as seen:
        for path in site.pages(sources):
            seen.page.goto(path.as_uri())
            wider = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            seen.faults += [f"{wider} pixels wider than the window"] if wider > 0 else []
            seen.faults += [f"broken: {image}" for image in seen.page.evaluate(BROKEN)]
            faults += [f"{path.relative_to(site.folder)}: {fault}" for fault in seen.faults]
            seen.faults.clear()
    return faults


def test_every_page_reads_without_a_fault(browser, site: Built) -> None:
    assert check_every_page(browser, site, LIGHT, sources=True) == []


def test_every_page_reads_on_a_narrow_window(browser, site: Built) -> None:
    assert check_every_page(browser, site, NARROW, sources=False) == []


def test_every_page_reads_in_the_dark(browser, site: Built) -> None:
    assert check_every_page(browser, site, DARK, sources=False) == []


def open_moving(seen: Seen, site: Built) -> object:
    seen.page.goto((site.folder / "move-it.html").as_uri())
    seen.page.wait_for_selector("#trade_off.drawn")
    seen.page.wait_for_selector("#clamp_curve.drawn")
    return seen.page


@pytest.mark.parametrize("mode", [LIGHT, NARROW, DARK], ids=["light", "narrow", "dark"])
def test_the_slider_moves_letters_and_bars(browser, site: Built, mode: tuple[int, str]) -> None:
    with reading(browser, site, *mode) as seen:
        page = open_moving(seen, site)
        picture = page.locator("#clamp_curve")
        read = picture.locator(".reading")
        bars = picture.locator("path[aria-roledescription=bar]")
        assert "no edit" in read.inner_text() and "C (right) 0.998" in read.inner_text()
        before = bars.evaluate_all("bars => bars.map((bar) => bar.getAttribute('d'))")
        picture.locator("input[type=range]").fill("8")
        assert "c = 8" in picture.locator("output").inner_text() and "B 0.787" in read.inner_text()
        page.wait_for_timeout(100)
        assert bars.evaluate_all("bars => bars.map((bar) => bar.getAttribute('d'))") != before
        picture.locator("select").select_option(index=1)
        assert "A (right)" in read.inner_text()
        assert seen.faults == []


def points(page, panel: int) -> object:
    groups = page.locator("#trade_off .chart g.mark-symbol.role-mark")
    return groups.nth(panel).locator("path")


def opacities(page, panel: int) -> list[str]:
    page.wait_for_timeout(100)
    return points(page, panel).evaluate_all("marks => marks.map((mark) => mark.getAttribute('opacity'))")


@pytest.mark.parametrize("mode", [LIGHT, NARROW, DARK], ids=["light", "narrow", "dark"])
def test_hovering_a_point_reads_its_setting_and_intervals(browser, site: Built, mode: tuple[int, str]) -> None:
    with reading(browser, site, *mode) as seen:
        page = open_moving(seen, site)
        assert points(page, 0).count() == points(page, 1).count() == SETTINGS
        points(page, 1).nth(20).hover(force=True)
        page.wait_for_selector("#vg-tooltip-element.visible")
        words = page.locator("#vg-tooltip-element").inner_text()
        assert any(setting in words for setting in POINTS["setting"]) and re.search(
            r"\d\.\d\d \[0\.\d\d, \d\.\d\d\]", words
        )
        rules = page.locator("#trade_off g.mark-rule path, #trade_off g.mark-rule line")
        assert rules.count() > 3  # chance twice and 0.99, and then intervals in both panels
        assert seen.faults == []


def test_a_region_on_the_left_keeps_its_settings_on_the_right(browser, site: Built) -> None:
    with reading(browser, site) as seen:
        page = open_moving(seen, site)
        read = page.locator("#trade_off .reading")
        assert read.inner_text() == "No region is drawn." and set(opacities(page, 1)) == {"0.85"}
        drag(page, (0.05, 0.5), (0.75, 0.97))
        page.wait_for_function("document.querySelector('#trade_off .reading').textContent.includes('in the region')")
        inside = int(re.match(rf"(\d+) of {SETTINGS} settings", read.inner_text())[1])
        assert 0 < inside < SETTINGS
        assert opacities(page, 1).count("0.85") == inside and opacities(page, 0).count("0.85") == SETTINGS
        page.locator("#trade_off button[name=clear]").click()
        page.wait_for_function("document.querySelector('#trade_off .reading').textContent === 'No region is drawn.'")
        assert set(opacities(page, 1)) == {"0.85"} and seen.faults == []


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Over the left panel, in shares of its width and height."""
    box = page.locator("#trade_off g.mark-group.role-scope path.background").first.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=5)
    page.mouse.up()


def test_methods_are_picked_in_the_legend_and_the_corner_is_shown_alone(browser, site: Built) -> None:
    with reading(browser, site) as seen:
        page = open_moving(seen, site)
        page.locator("#trade_off .role-legend-symbol path").first.click(force=True)
        assert opacities(page, 0).count("0.85") == 20  # DSG's settings
        places = "marks => marks.map((mark) => mark.getAttribute('transform'))"
        before = points(page, 0).evaluate_all(places)
        page.locator("#trade_off input[name=zoom]").check()
        page.wait_for_timeout(100)
        assert points(page, 0).evaluate_all(places) != before and seen.faults == []


def test_black_marks_are_not_lost_in_the_dark_and_a_change_of_theme_is_followed(browser, site: Built) -> None:
    with reading(browser, site, *DARK) as seen:
        page = open_moving(seen, site)
        fills = points(page, 0).evaluate_all("marks => [...new Set(marks.map((mark) => mark.getAttribute('fill')))]")
        assert "#DDDDDD" in fills and "#000000" not in fills
        page.evaluate("document.documentElement.dataset.theme = 'light'")
        page.wait_for_function("document.querySelectorAll('#trade_off path[fill=\"#000000\"]').length > 0")
        assert seen.faults == []


def test_without_scripts_there_is_a_still_picture(browser, site: Built) -> None:
    address = (site.folder / "move-it.html").as_uri()
    with reading(browser, site, java_script_enabled=False) as seen:
        seen.page.goto(address)
        assert seen.page.locator(".moving noscript img").count() == 2
        assert all(picture.is_visible() for picture in seen.page.locator(".moving noscript img").all())
    for lost in ("vega", "moving"):
        with reading(browser, site) as seen:
            seen.page.route(f"**/{lost}.js", lambda route: route.abort())
            seen.page.goto(address)
            seen.page.wait_for_selector("#trade_off img.still")
            seen.page.wait_for_selector("#clamp_curve img.still")
            assert seen.page.locator("img.still").count() == 2


def test_the_gallery_is_filtered_by_paper_and_by_method(browser, site: Built) -> None:
    with reading(browser, site) as seen:
        seen.page.goto((site.folder / "gallery.html").as_uri())
        total = len(list((ROOT / "figures" / "tiny").glob("*.csv")))
        shown = seen.page.locator(".figure-card:visible")
        assert shown.count() == total
        seen.page.get_by_text("Khoriaty et al. 2025", exact=True).click()
        assert 0 < shown.count() < total
        seen.page.get_by_text("Refusal Clamp", exact=True).click()
        names = shown.locator(".sd-card-title").all_inner_texts()
        assert "04_alignment" in names and all(name.startswith(("01", "04")) for name in names)
        assert f"{len(names)} of {total} figures" in seen.page.locator(".count").inner_text()


def test_the_code_of_a_notebook_folds(browser, site: Built) -> None:
    with reading(browser, site) as seen:
        seen.page.goto((site.folder / "notebooks" / f"{EXECUTED}.html").as_uri())
        code = seen.page.locator("details.hide div.highlight").first
        assert not code.is_visible()
        seen.page.get_by_role("button", name="Show all code").click()
        assert code.is_visible() and seen.page.locator("details.hide:not([open])").count() == 0
