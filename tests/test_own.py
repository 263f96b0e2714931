"""The guide's method of one's own: exactly its lines, in a file of a user's, in a sweep, a table and a figure."""

import re
import sys
from pathlib import Path

import pytest

from helpers.engine.interventions import Scale
from helpers.lab.choosing import held_out, points
from helpers.lab.lab import Lab
from helpers.lab.pieces import Piece
from helpers.methods import Method, looks
from helpers.methods.dsg import DSG
from helpers.methods.own import load_own
from helpers.profiles import load_profile
from helpers.records.provenance import ROOT
from helpers.records.store import fingerprint
from helpers.report import plots
from tests.test_pieces import SMALL

GUIDE = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
LINES = re.search(r"<!-- own method: begin -->\n```python\n(.*?)```\n<!-- own method: end -->", GUIDE, re.DOTALL)[1]

pytestmark = pytest.mark.xdist_group("pieces")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("a folder of mine") / "my_method.py"
    path.write_text(LINES)
    return path


@pytest.fixture(scope="module")
def lab(file: Path, tmp_path_factory) -> Lab:
    folder = tmp_path_factory.mktemp("own")
    how = {"own_methods": [str(file)], "compute.jobs": 2, "method.static_clamp.n_features": [2, 4],
           "selection.sparsity_retain_threshold": 0.05}  # fmt: skip
    return Lab("tiny", "03_own", str(folder / "runs"), str(folder / "figures"), SMALL | how)


def test_the_guide_needs_twenty_lines() -> None:
    assert len([line for line in LINES.splitlines() if line.strip()]) <= 20


def test_it_has_a_row_in_the_tables_and_a_point_in_the_figure(lab: Lab) -> None:
    assert lab.own_methods == ("my_method",)
    scores = lab.sweep("static_clamp", *lab.own_methods)
    table = points(scores)
    assert (table["method"] == "inverted").sum() == 4
    assert set(held_out(scores)["method"]) == {"static clamp", "inverted"}
    setting = scores.of(lab.method("my_method"))[0].setting
    clamp = lab.edited(setting).intervention
    assert clamp.value == Scale(-1.0) and clamp.features == lab.ranked("sparsity", 10)
    figure = lab.save_figure("03_pareto", table, plots.pareto)
    assert "inverted" in {text.get_text() for legend in figure.legends for text in legend.get_texts()} | {
        text.get_text() for ax in figure.axes if ax.get_legend() for text in ax.get_legend().get_texts()
    }
    assert looks()["inverted"].colour == "#882255"


def test_a_figures_record_names_the_file_and_not_its_folder(lab: Lab, file: Path) -> None:
    lab.save_figure("03_pareto", points(lab.sweep("static_clamp")), plots.pareto)
    text = (lab.figures / "03_pareto.json").read_text()
    assert "my_method.py" in text and file.parent.name not in text
    assert lab.figures.name == "tiny+changed"


def test_what_the_file_says_counts_in_keys(tmp_path: Path) -> None:
    """Of a setting, which stands for all that it does, and of a function that trains."""
    path, before = tmp_path / "my_changing_method.py", []
    for factor in (-1.0, -2.0):
        path.write_text(LINES.replace("Scale(-self.factor)", f"Scale({factor})") + "\n\ndef train(): ...\n")
        (method,) = load_own([str(path)]).values()
        setting, module = method.grid(load_profile("tiny"))[0], sys.modules["my_changing_method"]
        before.append((fingerprint(setting), fingerprint([module.train])))
        del sys.modules["my_changing_method"]
    assert before[0][0] != before[1][0] and before[0][1] != before[1][1]


def test_workers_load_the_file_too(lab: Lab) -> None:
    setting = lab.settings("my_method")[0]
    pieces = [Piece(str(n), "own", ({"n": str(n)},), _label, (n, setting)) for n in range(2)]
    assert lab.computed(pieces, dear=True) == [["inverted 0"], ["inverted 1"]]


def _label(lab: Lab, n: int, setting) -> list[str]:
    assert type(setting) is lab.methods["my_method"]
    return [f"{setting.label} {n}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("json.py", LINES, "json.py: its name must be a module's that is not taken"),
        ("my-method.py", LINES, "its name must be a module's"),
        ("no_method.py", "x = 1", "no_method.py defines no method"),
        (
            "namesake.py",
            LINES.replace('"inverted"', '"DSG"'),
            "method namesake: the name 'DSG' is taken, and figures would",
        ),
        (
            "plain_method.py",
            LINES.replace("@dataclass(frozen=True)\n", ""),
            "plain_method: Inverted is no dataclass; write @",
        ),
        ("bad_method.py", "class X(:\n", "bad_method.py, line 1: invalid syntax"),
        ("half_method.py", LINES[: LINES.index("    def apply")], "half_method.py defines no method"),
    ],
)
def test_a_file_that_is_no_method_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_own([str(tmp_path / name)])


def test_a_namesake_that_was_refused_does_not_take_the_look(tmp_path: Path) -> None:
    (tmp_path / "refused_method.py").write_text(LINES.replace('"inverted"', '"DSG"'))
    with pytest.raises(ValueError, match="the name 'DSG' is taken") as kept:
        load_own([str(tmp_path / "refused_method.py")])
    assert kept.value.__traceback__  # which holds the class, so that it is among the methods that Python knows of
    assert any(heir.__module__ == "refused_method" for heir in Method.__subclasses__())
    assert looks()["DSG"] == DSG.look


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file nowhere.py"):
        load_own([str(tmp_path / "nowhere.py")])


def test_a_file_that_breaks_leaves_no_module_behind(tmp_path: Path) -> None:
    (tmp_path / "broken_method.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_own([str(tmp_path / "broken_method.py")])
    assert "broken_method" not in sys.modules


def test_two_methods_of_a_file_go_by_its_name_and_theirs(tmp_path: Path) -> None:
    second = LINES.replace("class Inverted", "class Second").replace('"inverted"', '"second"')
    (tmp_path / "two_methods.py").write_text(LINES + "\n\n" + second[second.index("@dataclass") :])
    assert list(load_own([str(tmp_path / "two_methods.py")])) == ["two_methods.Inverted", "two_methods.Second"]
