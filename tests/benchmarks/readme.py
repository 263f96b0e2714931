"""The docs' tables of the benchmarks, from their results: `python -m tests.benchmarks.readme` writes them there."""

import pandas as pd

from helpers.experiments.costs import measured_shares, projections
from helpers.records.provenance import ROOT
from helpers.records.store import write_atomically
from helpers.report.claims import with_table
from tests.benchmarks.common import RESULTS

SPEED_PAGE, COSTS_PAGE = ROOT / "docs" / "sweeps.md", ROOT / "docs" / "costs.md"
MARKS = "<!-- benchmarks: begin (python -m tests.benchmarks.readme) -->", "<!-- benchmarks: end -->"

COSTS = "<!-- costs: begin (python -m tests.benchmarks.readme) -->", "<!-- costs: end -->"
# A GPU's large matrix products, in 10^12 operations a second: of the order of large ones, and not measured here
ASSUMED = {"float32": 50, "bfloat16": 400}


def speed_table() -> pd.DataFrame:
    """Sweeps the usual way and ours, and what a guardrail costs in use, in words."""
    sweep, guard, gates = (pd.read_csv(RESULTS / f"{name}.csv") for name in ("sweep", "guard", "gates"))
    rows = [
        (row.case, f"{row.usual_s:.3g} s", f"{row.ours_s:.3g} s", f"{row.ratio:.1f}x", f"{row.target:g}x",
         f"{row.usual_mb:,.0f} MB, {row.ours_mb:,.0f} MB") for row in sweep.itertuples()
    ]  # fmt: skip
    rows += [
        (f"DSG in place: {row.work}, prompt of {row.prompt_tokens:,} tokens", f"{row.without_s:.3g} s without",
         f"{row.with_s:.3g} s with", f"{row.overhead:+.1%}", f"at most {row.target:+.0%}", "")
        for row in guard.itertuples()
    ]  # fmt: skip
    rows += [
        (f"gate asked at every new token: {row.gate}", f"{row.without_s:.3g} s without", "", f"{row.overhead:+.1%}",
         f"at most {row.target:+.0%}", "") for row in gates.itertuples()
    ]  # fmt: skip
    columns = ["work", "the usual way", "ours", "ratio or overhead", "aim", "peak extra memory (usual, ours)"]
    return pd.DataFrame(rows, columns=columns)


def with_benchmarks(text: str) -> str:
    """A page's text with the table between its marks."""
    return with_table(text, *MARKS, speed_table())


def cost_table() -> pd.DataFrame:
    """What gemma-2-2b-it's notebooks would cost on a GPU of an assumed speed, in words: projections."""
    shares, columns = measured_shares(pd.read_csv(RESULTS / "full_width.csv")), {}
    for dtype, rate in ASSUMED.items():
        found = projections("gemma-2-2b-it", "cuda", shares, rate * 1e12, {"model.dtype": dtype})
        found = {notebook: cost for notebook, cost in found.items() if cost is not None}
        columns["notebook"] = list(found)
        columns[f"{dtype}, {rate}e12 operations/s"] = [_cost(*cost) for cost in found.values()]
    return pd.DataFrame(columns)


def _cost(seconds: float, memory: float) -> str:
    time = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"
    return f"{time}, {memory / 1e9:.0f} GB"


def with_costs(text: str) -> str:
    """A page's text with the table of costs between its marks."""
    return with_table(text, *COSTS, cost_table())


def main() -> None:
    """Write the tables into their pages."""
    for path, filled in ((SPEED_PAGE, with_benchmarks), (COSTS_PAGE, with_costs)):
        text = filled(path.read_text(encoding="utf-8"))
        write_atomically(path, lambda file, text=text: file.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
