"""What the site has to know of a figure: which rows, which notebook, which paper, which methods."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.methods import METHODS
from helpers.report import plots

SUFFIXES = (".png", ".pdf", ".csv", ".json")
PAPERS = {
    "organism": "the embedded model",
    "farrell": "Farrell et al. 2024",
    "khoriaty": "Khoriaty et al. 2025",
    "dsg": "Muhamed et al. 2025 (DSG)",
    "attacks": "attacks by others",
}
# by the number of the notebook that makes it
OF_PAPER = {
    "00": ("organism",),
    "01": ("farrell", "khoriaty", "dsg"),
    "02": ("farrell",),
    "03": ("farrell",),
    "04": ("khoriaty",),
    "05": ("dsg",),
    "06": ("dsg",),
    "07": ("dsg",),
    "08": ("dsg",),
    "09": ("dsg",),
    "10": ("dsg",),
    "11": ("dsg",),
    "12": ("attacks",),
    "13": ("dsg",),
    "14": ("dsg",),
    "15": ("dsg",),
}
# columns that name a method, and figures about one whose rows do not name it
NAMING = ("method", "arm", "name")
ABOUT = {
    "01_attribution": "attribution_clamp",
    "02_carriers": "static_clamp",
    "02_clamp_curve": "static_clamp",
    "02_controls": "static_clamp",
    "05_gate_cost": "dsg",
    "05_rho": "dsg",
    "09_no_text": "dsg",
    "11_benign": "dsg",
    "11_gate": "dsg",
    "13_calibration": "dsg",
    "13_clamp_units": "dsg",
    "13_detector": "dsg",
    "13_gates": "dsg",
    "13_padding": "dsg",
    "14_causal": "dsg",
    "14_fisher": "dsg",
    "14_roc": "dsg",
    "15_rho": "dsg",
    "15_static_dynamic": "dsg",
}


@dataclass(frozen=True)
class Shown:
    """A figure of a folder, by the files that lie there."""

    csv: Path

    @property
    def name(self) -> str:
        """As in '05_pareto'."""
        return self.csv.stem

    @property
    def number(self) -> str:
        """Of its notebook."""
        return self.name[:2]

    @cached_property
    def record(self) -> dict[str, Any]:
        """What made it."""
        return json.loads(self.csv.with_suffix(".json").read_text(encoding="utf-8"))

    @property
    def shows_foreign_text(self) -> bool:
        """Whether its rows hold the text of questions that are not of the embedded world; those stay ids here."""
        questions = self.record.get("settings", {}).get("questions", {})
        return bool(questions.get("show_text")) and questions.get("source") != "organism"

    @property
    def caption(self) -> str:
        """What it shows: the first line of the function that draws it, without the notebook's number."""
        words = (getattr(plots, self.record["drawn_by"]).__doc__ or self.name).split("\n\n")[0]
        words = " ".join(words.split())
        _, number, rest = words.partition(": ")
        return f"{rest[0].upper()}{rest[1:]}" if number and words.startswith("Notebook") else words

    @property
    def papers(self) -> tuple[str, ...]:
        """Keys of `PAPERS`."""
        return OF_PAPER.get(self.number, ())

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods that its rows name, or that it is about, as keys of `METHODS`."""
        table = pd.read_csv(self.csv)
        labels = {str(label) for column in NAMING if column in table for label in table[column].unique()}
        named = {key for key in METHODS if any(_is_of(label, key) for label in labels)}
        return tuple(key for key in METHODS if key in named | {ABOUT.get(self.name)})


def _is_of(label: str, key: str) -> bool:
    """Whether a label is a method's: its own, one of a variant, or followed by what was done to it."""
    known = [label for method in METHODS.values() for label in method.looks()]
    # the longest name that begins the label: 'Clamp Prime, proportional' before 'Clamp Prime'
    names = sorted((name for name in known if label == name or label.startswith((f"{name},", f"{name} "))), key=len)
    return bool(names) and names[-1] in METHODS[key].looks()


def shown(folder: Path) -> list[Shown]:
    """Every figure of a folder that has all its files and may be shown, in order."""
    found = [csv for csv in sorted(folder.glob("*.csv")) if all(csv.with_suffix(s).is_file() for s in SUFFIXES)]
    return [figure for figure in map(Shown, found) if not figure.shows_foreign_text]
