"""The statements DSG rests its rule on (notebook 14)."""

import pandas as pd

from helpers.report.claims.judging import (
    AGREES,
    DISAGREES,
    FEW,
    UNDECIDED,
    Claim,
    MissingRowsError,
    above,
    below,
    column_of,
    finding,
    weakest_of,
)

SLOPES, STRAIGHT = (0.9, 1.1), 0.95  # of proportional logarithms: where the slope lies, and above what r does
NO_BETTER = 0.02  # of AUC: a test that cannot be this much above another is no better


def _proportional(table: pd.DataFrame) -> tuple[str, str]:
    """Slope within 0.9 and 1.1 and r above 0.95, of the SAE as it is, on both texts.

    Over the orders of magnitude that moments span, a slope off by a tenth or an r of less than 0.95 (a tenth of the
    spread) is seen in who stands above whom.
    """
    own = table[(table["layer"] == table["layer"].iloc[0]) & (table["scale"] == 1)]
    parts: dict[str, str] = {}
    words = []
    for _, row in own.iterrows():
        slope, r = column_of(row, "slope"), column_of(row, "r")
        text, (least, most) = row["text"], SLOPES
        parts[f"slope within {least} and {most} on {text}"] = weakest_of(above(slope, least), below(slope, most))
        parts[f"r above {STRAIGHT} on {text}"] = above(r, STRAIGHT)
        words.append(f"{row['text']}: slope {slope}, r {r:.3f}")
    if not parts:
        raise MissingRowsError("no rows of the SAE as it is")
    return finding("; ".join(words), parts, weakest_of)


def _causal(table: pd.DataFrame) -> tuple[str, str]:
    """Spearman of E[f^2] with the drop on forget questions above 0.5.

    Below it a rank explains less than a quarter of the ranks, and of two features the higher one matters more in less
    than about two of three pairs: no ground to choose twenty of thousands by.
    """
    found = table.set_index(["score", "role"])["spearman_low"]
    if ("E[f^2] on forget text", "forget") not in found.index or found.isna().all():
        raise MissingRowsError("no rank correlation on forget questions")
    rows = {row["score"]: column_of(row, "spearman") for _, row in table[table["role"] == "forget"].iterrows()}
    words = ", ".join(f"{score} {spearman}" for score, spearman in rows.items())
    return finding(f"Spearman: {words}", {"E[f^2] above 0.5": above(rows["E[f^2] on forget text"], 0.5)})


def _most_powerful(table: pd.DataFrame) -> tuple[str, str]:
    """No other test's AUC above rho's by the interval of paired differences; agrees where none can be 0.02 above it.

    The logistic probe counts too: the lemma's most powerful test is above all tests, fitted ones among them.
    """
    others = table[(table["test"] != "rho") & (table[["positives", "negatives"]].min(axis=1) >= FEW)]
    if others.empty:
        raise MissingRowsError("too few questions to compare tests")
    parts: dict[str, str] = {}
    words = []
    for against, of in others.groupby("against", sort=False):
        rho = table[(table["test"] == "rho") & (table["against"] == against)].iloc[0]
        best = of.loc[of["difference"].idxmax()]
        words.append(f"{against}: rho {column_of(rho, 'auc')}, best other {best['test']} {column_of(best, 'auc')}")
        # of tests that tell nothing none is better than another
        parts[f"rho above chance ({against})"] = above(column_of(rho, "auc"), 0.5)
        for _, row in of.iterrows():
            apart = column_of(row, "difference")
            judged = DISAGREES if apart.low > 0 else AGREES if apart.high < NO_BETTER else UNDECIDED
            parts[f"{row['test']} no better ({against})"] = judged
    return finding(f"AUC, {'; '.join(words)}", parts, weakest_of)


CLAIMS = (
    Claim("A feature's squared gradient is proportional to its second moment", "DSG, Fisher statement",
          "no number given", "14_fisher", _proportional),
    Claim("Importance stands for causal importance", "DSG, causal statement", "no number given", "14_causal", _causal),
    Claim("The threshold on rho is the most powerful of the tests", "DSG, Neyman-Pearson statement",
          "no number given", "14_roc", _most_powerful),
)  # fmt: skip
