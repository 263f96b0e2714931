"""The README's table of the benchmarks, from their results: `python -m tests.benchmarks.readme` writes it there."""

import pandas as pd

from helpers.claims import README, with_table
from helpers.store import write_atomically
from tests.benchmarks.common import RESULTS

MARKS = "<!-- benchmarks: begin (python -m tests.benchmarks.readme) -->", "<!-- benchmarks: end -->"


def speed_table() -> pd.DataFrame:
    """Sweeps the usual way and ours, and what a guardrail costs in use, in words."""
    sweep, guard = (pd.read_csv(RESULTS / f"{name}.csv") for name in ("sweep", "guard"))
    rows = [
        (row.case, f"{row.usual_s:.3g} s", f"{row.ours_s:.3g} s", f"{row.ratio:.1f}x", f"{row.target:g}x",
         f"{row.usual_mb:,.0f} MB, {row.ours_mb:,.0f} MB") for row in sweep.itertuples()
    ]  # fmt: skip
    rows += [
        (f"DSG in place: {row.work}, prompt of {row.prompt_tokens:,} tokens", f"{row.without_s:.3g} s without",
         f"{row.with_s:.3g} s with", f"{row.overhead:+.1%}", f"at most {row.target:+.0%}", "")
        for row in guard.itertuples()
    ]  # fmt: skip
    columns = ["work", "the usual way", "ours", "ratio or overhead", "aim", "peak extra memory (usual, ours)"]
    return pd.DataFrame(rows, columns=columns)


def with_benchmarks(text: str) -> str:
    """The README's text with the table between its marks."""
    return with_table(text, *MARKS, speed_table())


def main() -> None:
    """Write the table into the README."""
    text = with_benchmarks(README.read_text(encoding="utf-8"))
    write_atomically(README, lambda file: file.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
