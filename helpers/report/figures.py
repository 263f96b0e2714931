"""Figures on disk: a picture drawn from its CSV and nothing else, and the record of what made it."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from helpers.profiles import CHANGED
from helpers.records.store import write_atomically
from helpers.report import plots

Draw = Callable[[pd.DataFrame], Figure]


def save_figure(folder: Path, name: str, table: pd.DataFrame, draw: Draw, record: Mapping[str, Any]) -> Figure:
    """Write the table as `<name>.csv`, draw it from that file alone, and write picture and record beside it.

    Args:
        table: tidy rows of numbers, truth values and text.
        draw: a function of `helpers.report.plots`, by whose name the figure is redrawn later.
        record: what made the rows, as JSON.

    Returns:
        the figure, closed in pyplot, so that a notebook shows it once.

    Raises:
        ValueError: an empty table, a column that CSV would change, a foreign function.
    """
    if table.empty:
        raise ValueError(f"figure {name}: the table has no rows")
    if _plot(getattr(draw, "__name__", repr(draw))) is not draw:
        raise ValueError(f"figure {name}: {draw!r} is no function of helpers.report.plots, and could not be redrawn")
    kinds = {column: _kind(values) for column, values in table.items()}
    path = folder / f"{name}.csv"
    write_atomically(path, lambda file: _write_csv(table, file))
    figure = _draw(path, kinds, draw)
    about = {"drawn_by": draw.__name__, "rows": len(table), "columns": kinds}
    text = json.dumps({**about, **record}, indent=1) + "\n"
    write_atomically(path.with_suffix(".json"), lambda file: file.write_text(text, encoding="utf-8"))
    return figure


def redraw(folder: Path) -> list[Path]:
    """Draw every figure in a folder again from its CSV, by the function of `helpers.report.plots` that its JSON names.

    Returns:
        the pictures written.

    Raises:
        FileNotFoundError: no figure at all, or a CSV without its JSON or the other way round.
        ValueError: a JSON that is no figure's record, or names a function that `helpers.report.plots` has not.
    """
    written = []
    for csv, record in [(csv, _figure_record(csv)) for csv in _figures(folder)]:
        plt.close(_draw(csv, record["columns"], getattr(plots, record["drawn_by"])))
        written += [csv.with_suffix(".png"), csv.with_suffix(".pdf")]
    return written


def _figures(folder: Path) -> list[Path]:
    found = {suffix: {path.stem for path in folder.glob(f"*{suffix}")} for suffix in (".csv", ".json")}
    for stem in sorted(found[".csv"] ^ found[".json"]):
        has, lacks = (".csv", ".json") if stem in found[".csv"] else (".json", ".csv")
        raise FileNotFoundError(f"{folder}: {stem}{has} has no {stem}{lacks} beside it; make it anew or remove it")
    if not found[".csv"]:
        profile = folder.name.removesuffix(CHANGED)
        step = f"python -m helpers.reproduce --profile {profile}"
        raise FileNotFoundError(f"{folder} holds no figure to redraw; make them first: {step}")
    return [folder / f"{stem}.csv" for stem in sorted(found[".csv"])]


def _figure_record(csv: Path) -> dict[str, Any]:
    path = csv.with_suffix(".json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        name, _ = record["drawn_by"], record["columns"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a figure ({error!r}); make the figure anew") from None
    if _plot(name) is None:
        raise ValueError(f"{path}: drawn_by names {name!r}, which helpers.report.plots has not; make the figure anew")
    return record


def _plot(name: str) -> Draw | None:
    return getattr(plots, name, None)


def _draw(csv: Path, kinds: Mapping[str, str], draw: Draw) -> Figure:
    """Draw from the CSV under the house style alone, so that a notebook's settings leave no trace, and save."""
    with matplotlib.rc_context(), plt.style.context(["default", plots.SHEET]):
        figure = draw(_read_csv(csv, kinds))
        if not isinstance(figure, Figure):
            raise TypeError(
                f"helpers.report.plots.{draw.__name__} returned {type(figure).__name__}, a Figure is needed"
            )
        # no time and no version in the files: identical rows give identical bytes
        _save(figure, csv.with_suffix(".png"), dpi=150, metadata={"Software": None})
        _save(figure, csv.with_suffix(".pdf"), metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
    plt.close(figure)
    return figure


def _save(figure: Figure, path: Path, **options: Any) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], **options)
    picture = in_few_colours(buffer.getvalue()) if path.suffix == ".png" else buffer.getvalue()
    write_atomically(path, lambda file: file.write_bytes(picture))


def in_few_colours(png: bytes) -> bytes:
    """A PNG in 256 colours of its own: to the eye a chart has no more, and it takes less than half the bytes.

    One that is transparent somewhere stays as it is.
    """
    with Image.open(io.BytesIO(png)) as picture:
        if min(picture.convert("RGBA").getchannel("A").tobytes()) < 255:
            return png
        few, buffer = picture.convert("RGB").quantize(dither=Image.Dither.NONE), io.BytesIO()
        few.save(buffer, "PNG", **({"dpi": picture.info["dpi"]} if "dpi" in picture.info else {}))
    return buffer.getvalue()


def _kind(values: pd.Series) -> str:
    kinds = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}
    if pd.api.types.is_string_dtype(values.dtype) and all(isinstance(value, str) for value in values):
        return "str"
    if values.dtype.kind in kinds and not pd.api.types.is_extension_array_dtype(values.dtype):
        return kinds[values.dtype.kind]
    raise ValueError(
        f"column {values.name!r} ({values.dtype}) would come back from a CSV as something else; "
        "numbers, truth values, or text without missing values can be drawn"
    )


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def _read_csv(path: Path, kinds: Mapping[str, str]) -> pd.DataFrame:
    # only an empty number is missing: the token "nan" stays a token, and empty text stays empty text
    numbers = {column: [""] for column, kind in kinds.items() if kind != "str"}
    return pd.read_csv(path, dtype=dict(kinds), keep_default_na=False, na_values=numbers)
