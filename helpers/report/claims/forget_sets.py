"""More to forget, and less to learn it from (notebooks 08 and 09)."""

import pandas as pd

from helpers.report.claims.judging import (
    MARGIN,
    USEFUL,
    Claim,
    Estimate,
    MissingRowsError,
    above,
    accuracy_of,
    below,
    estimate_of,
    finding,
    n_known,
    weakest_of,
)


def _requested(table: pd.DataFrame, **of: object) -> pd.DataFrame:
    """DSG's rows of one kind in an order of requests."""
    for column, value in ({"method": "DSG"} | of).items():
        table = table[table[column] == value]
    return table.sort_values("requests")


def _scales(table: pd.DataFrame) -> tuple[str, str]:
    accuracies = table[table["measure"] == "accuracy"]
    forget, side = (_requested(accuracies, asked=asked) for asked in ("to be forgotten", "side"))
    if len(forget) < 2 or len(side) < 2:
        raise MissingRowsError("no DSG with two sizes of the forget set, and side effects")
    parts, after = {}, []
    for (_, row), (_, kept) in zip(forget.iterrows(), side.iterrows(), strict=True):
        n = f"{row['requests']:g} folds"
        parts[f"{n}: forget below 0.5"] = below(estimate_of(row), 0.5)
        parts[f"{n}: side effects above {USEFUL}"] = above(estimate_of(kept), USEFUL)
        after.append(f"{row['accuracy']:.2f}")
    words = f"forget {'/'.join(after)} with {'/'.join(f'{n:g}' for n in forget['requests'])} folds at once"
    return finding(f"{words}, side then {estimate_of(side.iloc[-1])}", parts, weakest_of)


def _stays_forgotten(table: pd.DataFrame) -> tuple[str, str]:
    words, parts = [], {}
    mine = table[(table["method"] == "DSG") & (table["measure"] == "accuracy")]
    mine = mine[mine["asked"].str.startswith("fold")]
    for how, rows in mine.groupby("how", sort=False):
        last, number = rows["requests"].max(), rows["asked"].str.removeprefix("fold ").astype(int)
        then, now = (rows[(number < last) & (rows["requests"] == at)] for at in (number, last))
        if then.empty or now.empty:
            continue
        before, after = (Estimate.of(of["right"].sum() / of["n"].sum(), int(of["n"].sum())) for of in (then, now))
        words.append(f"{how}: {before.value:.2f} after each one's own request, {after.value:.2f} after the last")
        # what was never forgotten cannot come back
        parts[str(how)] = weakest_of(below(before, 0.5), below(after - before, MARGIN), below(after, 0.5))
    if not parts:
        raise MissingRowsError("no DSG after two requests, with questions of each")
    return finding(f"earlier folds, {'; '.join(words)}", parts)


def _near_enough(less: Estimate, full: Estimate, side: Estimate) -> dict[str, str]:
    """What must hold together: something was forgotten with all of it, hardly less with less, and nothing is harmed."""
    return {
        "forget below 0.5 with all of it": below(full, 0.5),
        f"at most {MARGIN} above it": below(less - full, MARGIN),
        f"side effects above {USEFUL}": above(side, USEFUL),
    }


def _fifth_is_enough(table: pd.DataFrame) -> tuple[str, str]:
    mine = table[(table["world"] == "ours") & (table["method"] == "DSG")]
    fifth, full = (mine[mine["share"] == share] for share in (0.2, 1.0))
    if fifth.empty or full.empty:
        raise MissingRowsError("no DSG with a fifth of the text, and with all of it")
    # seeds ask the same questions, so they are not more questions
    less, all_of_it, side = (
        Estimate.of(of[f"{role}_accuracy"].mean(), n_known(of.iloc[0], role))
        for of, role in ((fifth, "forget"), (full, "forget"), (fifth, "side"))
    )
    words = f"forget {less} with 20 %, {all_of_it} with all; side {side} with 20 %"
    return finding(words, _near_enough(less, all_of_it, side), weakest_of)


def _names_are_enough(table: pd.DataFrame) -> tuple[str, str]:
    best = table[(table["world"] == "ours") & table["chosen"].astype(bool)].set_index("features")
    if not {"by their names", "by forget text"} <= set(best.index):
        raise MissingRowsError("no features by their names beside those by forget text")
    named, known = best.loc["by their names"], best.loc["by forget text"]
    less, full, side = accuracy_of(named, "forget"), accuracy_of(known, "forget"), accuracy_of(named, "side")
    words = f"forget {less} by names at tau {named['threshold']:g}, {full} by forget text; side {side} by names"
    return finding(words, _near_enough(less, full, side), weakest_of)


CLAIMS = (
    Claim("DSG serves a growing forget set", "DSG, Fig. 4a", "no number given", "08_at_once", _scales),
    Claim("Request after request, DSG keeps the earlier ones forgotten", "DSG, Fig. 4b", "no number given",
          "08_requests", _stays_forgotten),
    Claim("A fifth of the forget text is enough for DSG", "DSG, Fig. 6A", "no number given",
          "09_little_text", _fifth_is_enough),
    Claim("Features found by their names, without forget text, come close", "DSG, Fig. 6B", "no number given",
          "09_no_text", _names_are_enough),
)  # fmt: skip
