"""DSG one setting at a time (notebook 15)."""

import pandas as pd

from helpers.report.claims.judging import (
    FEW,
    MARGIN,
    Claim,
    MissingRowsError,
    above,
    accuracy_of,
    below,
    column_of,
    finding,
    weakest_of,
)


def _ours(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Our own rows along a setting, of which there are two at least."""
    rows = table[table["world"] == "ours"].sort_values(column)
    if rows[column].nunique() < 2:
        raise MissingRowsError(f"fewer than two values of {column} to compare")
    return rows


def _ratio_matters(table: pd.DataFrame) -> tuple[str, str]:
    """Less is left at the highest p_ratio than at the lowest, and no step up adds as much as `MARGIN`."""
    rows = _ours(table, "ratio_percentile")
    left = [accuracy_of(row, "forget") for _, row in rows.iterrows()]
    parts = {"falls beyond chance": below(left[-1] - left[0], 0)}
    for at, before, after in zip(rows["ratio_percentile"].iloc[1:], left, left[1:], strict=False):
        parts[f"no rise at {at:g}"] = below(after - before, MARGIN)
    words = ", ".join(f"{e.value:.2f} at {at:g}" for at, e in zip(rows["ratio_percentile"], left, strict=True))
    return finding(f"forget {words}", parts, weakest_of)


def _gate_is_u_shaped(table: pd.DataFrame) -> tuple[str, str]:
    """What a threshold leaves to be desired is more at both ends of p_dyn than somewhere between them.

    That is forget accuracy and lost side-effect accuracy added: a low threshold costs the latter, a high one the
    former. Of a setting that does nothing it is 1, as of one that ruins everything.
    """
    rows = _ours(table, "gate_percentile")
    if len(rows) < 3:
        raise MissingRowsError("no percentile between two others")
    # how far forget accuracy lies above the side effects is the same but for a constant
    costs = [accuracy_of(row, "forget") - accuracy_of(row, "side") for _, row in rows.iterrows()]
    at = rows["gate_percentile"].tolist()
    best = min(range(1, len(costs) - 1), key=lambda i: costs[i].value)
    shown = ", ".join(f"{1 + costs[i].value:.2f} at {at[i]:g}" for i in (0, best, -1))
    parts = {f"more at {at[i]:g}": above(costs[i] - costs[best], 0) for i in (0, -1)}
    return finding(f"forget accuracy and side effects lost: {shown}", parts, weakest_of)


def _strength_saturates(table: pd.DataFrame) -> tuple[str, str]:
    """From the second of the strengths on, 25 in the paper's grid, less than `MARGIN` is to be gained by a larger one.

    And the step to it must be one: a clamp that does nothing at any strength is not saturated. Strengths are in clamp
    units, so that it is the place in the grid that is compared, not the number.
    """
    words, parts = [], {}
    for n, rows in _ours(table, "strength").groupby("n_features"):
        if len(rows) < 3:
            raise MissingRowsError("fewer than three strengths")
        weakest, second, *_, strongest = (accuracy_of(row, "forget") for _, row in rows.iterrows())
        steep, flat = above(weakest - second, 0), below(second - strongest, MARGIN)
        parts[f"{n:g} features"] = weakest_of(steep, flat)
        words.append(f"{n:g} features {weakest.value:.2f}/{second.value:.2f}/{strongest.value:.2f}")
    ends = "/".join(f"{c:g}" for c in sorted(table.loc[table["world"] == "ours", "strength"].unique())[:2])
    return finding(f"forget at c = {ends} and the largest: {', '.join(words)}", parts)


def _rho_beats_counts(table: pd.DataFrame) -> tuple[str, str]:
    """Of the distances from retain text, packed as in the paper, and framed as where tau is taken here.

    Questions, all about as long as each other, are no part of the claim: there is no length that a share could undo.
    """
    ours = table[(table["world"] == "ours") & table["against"].str.endswith("retain text")]
    rows = ours[ours[["positives", "negatives"]].min(axis=1) >= FEW]
    words, parts = [], {}
    for against, of in rows.groupby("against", sort=False):
        rho, counts = (of[of["statistic"] == name].iloc[0] for name in ("rho", "raw counts"))
        words.append(f"from {against}: rho {column_of(rho, 'tvd')}, raw counts {column_of(counts, 'tvd')}")
        parts[f"rho's is larger from {against}"] = above(column_of(counts, "difference"), 0)
    if not parts:
        raise MissingRowsError("too few questions or retain texts to compare")
    return finding(f"distance {'; '.join(words)}", parts)


CLAIMS = (
    Claim("The higher p_ratio, the more is forgotten", "DSG, Fig. 7, plotted only",
          "no number given; a reproduction on Gemma: forget 0.59 at 75, 0.29 at 95", "15_p_ratio", _ratio_matters),
    Claim("p_dyn is U-shaped: too low costs side effects, too high lets the hazard pass", "DSG, Fig. 7, plotted only",
          "no number given; a reproduction on Gemma: 0.62 at 60, 0.30 at 95, 0.83 at 97", "15_p_dyn",
          _gate_is_u_shaped),
    Claim("The clamp's strength saturates from the second of the grid on", "DSG, Fig. 11, plotted only",
          "forget drops sharply at c = 25; a reproduction on Gemma: 0.64 at 10, 0.31 at 25, 0.29 at 500", "15_grid",
          _strength_saturates),
    Claim("rho sets the hazard apart from retain text better than raw counts of hot tokens", "DSG, Fig. 12",
          "distance: rho 0.90, raw counts 0.41 (second hand)", "15_rho", _rho_beats_counts),
)  # fmt: skip
