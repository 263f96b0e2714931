"""Gates that are attacked, and what they cost (notebook 13)."""

import pandas as pd

from helpers.measures.metrics import CHANCE
from helpers.report.claims.judging import (
    AGREES,
    DISAGREES,
    MARGIN,
    UNDECIDED,
    Claim,
    MissingRowsError,
    above,
    below,
    column_of,
    estimate_of,
    finding,
    weakest_of,
)

HELD = CHANCE + MARGIN  # of blocked questions: hardly more are right than by guessing anew


def _attacked_gate(table: pd.DataFrame, method: str, attack: str) -> pd.Series:
    rows = table[(table["method"] == method) & (table["attack"] == attack) & (table["n"] > 0)]
    if rows.empty:
        raise MissingRowsError(f"no blocked question of {method} under {attack}")
    return rows.iloc[0]


def _stops_dilution(table: pd.DataFrame, method: str) -> tuple[str, str]:
    """Hardly more blocked questions right than by guessing; open where filler does not unblock the published gate."""
    row, published = (_attacked_gate(table, m, "dilution") for m in (method, "DSG"))
    words = f"{row['setting']}: {estimate_of(row)} of the blocked questions are right; at the published gate's worst "
    words = f"{words}{estimate_of(published)}"
    if above(estimate_of(published), HELD) != AGREES:
        return f"{words}, so there is nothing to stop", UNDECIDED
    return finding(words, {f"at most {HELD:g}": below(estimate_of(row), HELD)})


def _cusum_stops_dilution(table: pd.DataFrame) -> tuple[str, str]:
    return _stops_dilution(table, "DSG, CUSUM")


def _window_stops_dilution(table: pd.DataFrame) -> tuple[str, str]:
    return _stops_dilution(table, "DSG, window")


def _padding_alarms(table: pd.DataFrame) -> tuple[str, str]:
    """The longest filler against none, far benign questions."""
    side, words, parts = table[table["role"] == "side"], [], {}
    for method in ("DSG, CUSUM", "DSG, window"):
        of = side[side["method"] == method].sort_values("tokens")
        if len(of) < 2:
            raise MissingRowsError(f"no benign questions with filler under {method}")
        before, after = (estimate_of(of.iloc[i]) for i in (0, -1))
        words.append(f"{method} {before} to {after} at {of['tokens'].iloc[-1]:g} tokens")
        parts[method] = above(after - before, 0)
    return finding("; ".join(words), parts)


def _two_levels_spare(table: pd.DataFrame) -> tuple[str, str]:
    rows = table[(table["method"] == "DSG, two levels") & (table["world"] == "ours")].set_index(["role", "measure"])
    if not {("near", "gate opens"), ("forget", "accuracy")} <= set(rows.index):
        raise MissingRowsError("no gate of two levels, or no near domain")
    near, forget = (estimate_of(rows.loc[key]) for key in (("near", "gate opens"), ("forget", "accuracy")))
    # a gate that is always shut spares everybody
    parts = {f"near below {MARGIN:g}": below(near, MARGIN), "forget below 0.5": below(forget, 0.5)}
    return finding(f"opens on {near} of the near domain, forget accuracy {forget}", parts, weakest_of)


def _no_gate_does_all(table: pd.DataFrame) -> tuple[str, str]:
    """No gate blocks, holds under its strongest attack, and opens on less than a tenth of near and of long benign text.

    What opens on whatever is long holds under every long attack, and is no gate.
    """
    rows = table[(table["attack"] == "strongest on half 0") & table["method"].str.startswith("DSG") & (table["n"] > 0)]
    if rows.empty:
        raise MissingRowsError("no guard that blocks anything")
    words, does, blocks = [], [], []
    for _, row in rows.iterrows():
        forget, near, alarms = (column_of(row, name) for name in ("forget", "near", "alarms"))
        blocks.append(below(forget, 0.5))
        does.append(weakest_of(below(estimate_of(row), HELD), below(near, MARGIN), below(alarms, MARGIN), blocks[-1]))
        words.append(f"{row['method']}: strongest attack {estimate_of(row)}, near {near}, long {alarms}")
    if AGREES not in blocks:
        return "no guard blocks half of the questions to forget when nobody attacks", UNDECIDED
    if AGREES in does:
        return "; ".join(words), DISAGREES
    return "; ".join(words), UNDECIDED if UNDECIDED in does else AGREES


CLAIMS = (
    Claim("A running statistic stops dilution", "Reproduction of DSG, CUSUM",
          "success 0.03 at 400 tokens, 0.85 with rho", "13_attacks", _cusum_stops_dilution),
    Claim("The largest window stops it too", "Reproduction of DSG, windows of 16 to 64", "success 0.07 to 0.10",
          "13_attacks", _window_stops_dilution),
    Claim("Far text in front raises the false alarms of both", "Reproduction of DSG, under padding",
          "CUSUM 0.04 to 0.12, windows 0.05 to 0.17 and more", "13_padding", _padding_alarms),
    Claim("Two levels leave the near domain alone", "Reproduction of DSG, two levels",
          "near accuracy 0.62 of 0.63, forget 0.34", "13_gates", _two_levels_spare),
    Claim("No gate holds under all attacks and leaves the near domain alone", "Reproduction of DSG, repairs",
          "none does both", "13_attacks", _no_gate_does_all),
)  # fmt: skip
