"""What the papers claim, what they measured, what the figures' rows say, and a verdict computed from both.

One file a kind of claim, with its rules and the papers' numbers; what rules share is in `judging`. The same table
stands at the end of each notebook and in docs/claims.md, and the verdicts by paper in the README
(`python -m helpers.report.claims` writes both).
"""

from pathlib import Path

import pandas as pd

from helpers.records.provenance import ROOT
from helpers.report.claims import (
    ablations,
    alignment,
    clamps,
    features,
    forget_sets,
    mended_gates,
    muse,
    prompt_attacks,
    recovery,
    relearning,
    theorems,
    tradeoffs,
)
from helpers.report.claims.judging import AGREES, DISAGREES, NOT_RUN, PARTLY, UNDECIDED, Claim, MissingRowsError

README, PAGE = ROOT / "README.md", ROOT / "docs" / "claims.md"
START, END = "<!-- claims: begin (python -m helpers.report.claims) -->", "<!-- claims: end -->"
SUMMARY = "<!-- summary: begin (python -m helpers.report.claims) -->", "<!-- summary: end -->"
PAPERS = {  # by the word with which a claim's source begins
    "Farrell": "Farrell, Lau, Conmy 2024",
    "Khoriaty": "Khoriaty et al. 2025",
    "DSG": "Muhamed et al. 2025 (DSG)",
    "Reproduction": "independent reproduction of DSG (unreviewed)",
    "Attacks": "attacks, by others",
}

KINDS = (
    features, clamps, tradeoffs, alignment, relearning, forget_sets,
    muse, prompt_attacks, recovery, mended_gates, theorems, ablations,
)  # fmt: skip
CLAIMS = tuple(sorted((claim for kind in KINDS for claim in kind.CLAIMS), key=lambda claim: claim.figure[:2]))


def verdicts(figures: Path, notebook: str = "") -> pd.DataFrame:
    """The claims of one notebook ('03'), or of all, with our numbers from the figures' rows.

    Returns:
        claim, paper (with its source), ours, verdict: agrees, disagrees, partly (some of it agrees and some
        disagrees), undecided (the rows leave it open) or not run (the figure, or what the rule needs, is not there).
    """
    rows = [
        (claim.statement, f"{claim.paper} ({claim.source})", *_tested(claim, claim.rows(figures)))
        for claim in CLAIMS
        if claim.figure.startswith(notebook)
    ]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "verdict"])


def _tested(claim: Claim, path: Path) -> tuple[str, str]:
    if not path.is_file():
        return "", NOT_RUN
    try:
        return claim.test(pd.read_csv(path))
    except MissingRowsError as missing:
        return str(missing), NOT_RUN


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown, a line a claim."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)])


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given, a row a paper, of a table of claims (`verdicts`)."""
    papers = table["paper"].str.extract(r"\((\w+)[^()]*\)$")[0].map(PAPERS)
    names = [AGREES, PARTLY, UNDECIDED, DISAGREES, *([NOT_RUN] if NOT_RUN in set(table["verdict"]) else [])]
    counts = pd.crosstab(papers, table["verdict"]).reindex(index=[*PAPERS.values()], columns=names, fill_value=0)
    counts.loc["all claims"] = counts.sum()
    return counts.rename_axis(index="paper", columns=None).reset_index()


def with_claims(page: str, table: pd.DataFrame) -> str:
    """A page's text with the table of claims between its two marks (see `with_table`)."""
    return with_table(page, START, END, table)


def with_summary(readme: str, table: pd.DataFrame) -> str:
    """The README's text with the verdicts on a table of claims, counted, between its two marks."""
    return with_table(readme, *SUMMARY, counted(table))


def with_table(page: str, begin: str, end: str, table: pd.DataFrame) -> str:
    """A page's text with a table between two marks. Raises ValueError where the marks are missing."""
    head, first, rest = page.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the page lacks the marks {begin!r} and {end!r}")
    return f"{head}{begin}\n{markdown(table)}\n{end}{tail}"
