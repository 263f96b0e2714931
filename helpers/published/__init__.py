"""The papers' own numbers, as short tables of facts; each row names the table, figure or file it comes from."""

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent
# numbers that a table may leave empty; anywhere else an empty cell is empty text
OPTIONAL = (
    "loss_added",
    "strength",
    "high_school_us_history",
    "high_school_geography",
    "human_aging",
    "college_computer_science",
    "college_biology",
    "alignment",
    "share",
    "threshold",
    "ratio_percentile",
    "gate_percentile",
    "side_accuracy",
)


def available_tables() -> tuple[str, ...]:
    """Names of the tables, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))


def load_published(name: str) -> pd.DataFrame:
    """A table of published numbers; every row has a `source`.

    Raises:
        ValueError: no such table (the known ones are listed).
    """
    if name not in available_tables():
        raise ValueError(f"published table {name!r} is unknown, the known ones are: {', '.join(available_tables())}")
    return pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False, na_values={column: [""] for column in OPTIONAL})


def of_layer(table: pd.DataFrame, layer: int) -> pd.DataFrame:
    """The rows of that layer; where nothing was published of it, those of the first layer in the table."""
    layers = table["layer"].unique()
    return table[table["layer"] == (layer if layer in layers else layers[0])]
