"""The claims: verdicts as badges, on their page with all numbers and on the home page in short."""

import re

from generate.place import Place
from helpers.report.claims import AGREES, DISAGREES, NOT_RUN, PARTLY, UNDECIDED, counted, markdown, verdicts

BADGES = {AGREES: "success", PARTLY: "warning", UNDECIDED: "muted", DISAGREES: "danger", NOT_RUN: "light"}


def badge(verdict: str) -> str:
    """A verdict with its colour."""
    return f"{{bdg-{BADGES[verdict]}}}`{verdict}`"


def with_badges(page: str) -> str:
    """The page of claims with badges for verdicts."""
    return re.sub(rf"\| ({'|'.join(BADGES)}) \|$", lambda found: f"| {badge(found[1])} |", page, flags=re.MULTILINE)


def in_short(place: Place) -> str:
    """Every claim with its verdict, and the verdicts counted, for the home page."""
    table = verdicts(place.pictures)
    counts = counted(table).set_index("paper").loc["all claims"]
    said = ", ".join(f"{badge(verdict)} {count}" for verdict, count in counts.items() if count)
    short = table.assign(
        paper=table["paper"].str.extract(r"\(([^()]+)\)$")[0], verdict=table["verdict"].map(badge)
    )[["claim", "paper", "verdict"]]  # fmt: skip
    return (
        f"{len(table)} claims of the papers, judged by rules from the rows of the figures: {said}. "
        f"[With the papers' numbers and ours](claims.md).\n\n{markdown(short)}\n"
    )
