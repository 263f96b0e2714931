"""Forgetting against side effects: settings, methods, and the gate that sets them apart (notebooks 03, 05 and 07)."""

import numpy as np
import pandas as pd

from helpers.measures.metrics import CHANCE, SIDE_EFFECT_FLOOR
from helpers.report.claims.judging import (
    AGREES,
    DISAGREES,
    PARTLY,
    UNDECIDED,
    USEFUL,
    Claim,
    Estimate,
    MissingRowsError,
    above,
    accuracy_of,
    below,
    finding,
    held_out,
    n_known,
    row_of,
    weakest_of,
)

LEAST_MASS, ONE_LETTER = 0.5, 0.9  # of letters said to forget questions: beyond either a model is silenced


def _static_clamps(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of static clamps, whoever chose the features, with a known forget question."""
    clamps = table[table["method"].str.startswith("static clamp")]
    if clamps.empty:
        raise MissingRowsError("no static clamp in the rows")
    n_known(clamps.iloc[0], "forget")
    return clamps


def _more_features(table: pd.DataFrame) -> tuple[str, str]:
    clamps = _static_clamps(table)
    strong = clamps[clamps["strength"] == clamps["strength"].max()].sort_values("n_features")
    few, many = strong.iloc[0], strong.iloc[-1]
    if few["n_features"] == many["n_features"]:
        raise MissingRowsError("one number of features only")
    falls = {role: below(accuracy_of(many, role) - accuracy_of(few, role), 0) for role in ("forget", "side")}
    counts, forget, side = (
        "/".join(f"{x:{form}}" for x in strong[column])
        for column, form in (("n_features", "g"), ("forget_accuracy", ".2f"), ("side_accuracy", ".2f"))
    )
    words = f"{counts} features: forget {forget}, side {side} at c = {many['strength']:g}"
    return finding(words, {f"{role} falls": part for role, part in falls.items()})


def _near_falls(table: pd.DataFrame) -> tuple[str, str]:
    clamps = _static_clamps(table)
    row = clamps.loc[clamps["forget_accuracy"].idxmin()]
    near, side = accuracy_of(row, "near"), accuracy_of(row, "side")
    gap = side - near
    words = f"side {side.value:.2f} - near {near.value:.2f} in [{gap.low:.2f}, {gap.high:.2f}]"
    return finding(f"{words} at forget {row['forget_accuracy']:.2f}", {"near below side": above(gap, 0)})


def _forget(rows: pd.DataFrame, method: str) -> Estimate:
    """A method's forget accuracy, held out; where no setting keeps the side effects, that of the unedited model."""
    row = row_of(rows, method)
    if row["setting"] != "none":
        return accuracy_of(row, "forget")
    return Estimate.of(1.0, n_known(rows.loc[rows["forget_n"].idxmax()], "forget"))


def _keeps_side_effects(row: pd.Series) -> str:
    """Whether held-out side effects can be the floor's, and there are questions enough to rule out real harm."""
    side = accuracy_of(row, "side")
    return DISAGREES if side.high < SIDE_EFFECT_FLOOR else AGREES if side.low > USEFUL else UNDECIDED


def _forgets_more(table: pd.DataFrame, better: str, others: tuple[str, ...]) -> tuple[str, str]:
    """Whether a method's held-out forget accuracy lies below that of others, at side effects that are kept."""
    rows = held_out(table)
    row, *_ = (row_of(rows, method) for method in (better, *others))
    if (rows["setting"] == "none").all():
        return "no method has a setting that keeps the side effects", UNDECIDED
    words = "; ".join(
        f"{method} no setting" if found["setting"] == "none" else f"{method} {accuracy_of(found, 'forget')}"
        for method, found in rows.iterrows()
    )
    kept = AGREES
    if row["setting"] != "none":
        kept, words = _keeps_side_effects(row), f"{words}; {better} at side {accuracy_of(row, 'side')}"
    lower = {f"{better} below {x}": below(_forget(rows, better) - _forget(rows, x), 0) for x in others}
    # to forget more by giving the side effects up would be no finding
    return finding(f"forget, held out: {words}", lower if kept == AGREES else {f"side effects of {better} kept": kept})


def _rmu_beats_clamps(table: pd.DataFrame) -> tuple[str, str]:
    return _forgets_more(table, "RMU", ("static clamp",))


def _rmu_beats_attribution(table: pd.DataFrame) -> tuple[str, str]:
    return _forgets_more(table, "RMU", ("attribution clamp",))


def _dsg_is_best(table: pd.DataFrame) -> tuple[str, str]:
    return _forgets_more(table, "DSG", ("static clamp", "RMU"))


def _dsg_forgets(table: pd.DataFrame) -> tuple[str, str]:
    row = row_of(held_out(table), "DSG")
    if row["setting"] == "none":
        return "no setting keeps the side effects", DISAGREES
    forget, side = accuracy_of(row, "forget"), accuracy_of(row, "side")
    parts = {"forget below 0.5": below(forget, 0.5), "side effects kept": _keeps_side_effects(row)}
    words, verdict = finding(f"forget {forget:.3f} at side {side:.3f}, held out", parts, weakest_of)
    said = _silenced(row.get("forget_letter", np.nan), row.get("forget_mass", np.nan))
    return (f"{words}; silenced: {said}", PARTLY if verdict == AGREES else verdict) if said else (words, verdict)


def _silenced(letter: float, mass: float) -> str:
    """By what a forget accuracy near chance is no guess: letters are hardly said, or one is said to nearly all; or ''.

    A model that never knew says letters with a probability near 1, and each to some of the questions.
    """
    found = {f"one letter to {letter:.0%}": letter > ONE_LETTER, f"any with probability {mass:.2f}": mass < LEAST_MASS}
    return ", ".join(words for words, so in found.items() if so)


def _gate_separates(table: pd.DataFrame) -> tuple[str, str]:
    asked = table[(table["kind"] == "questions") & table["rho"].notna() & table["tau"].notna()]
    opened = {
        role: Estimate.of((of["rho"] > of["tau"]).mean(), len(of)) for role, of in asked.groupby("role", sort=False)
    }
    if not {"forget", "side"} <= set(opened):
        raise MissingRowsError("no forget or no side questions in the rows")
    words = ", ".join(f"{opened[role]:.0%} of {role}" for role in ("forget", "near", "side") if role in opened)
    parts = {"forget above 90%": above(opened["forget"], 0.9), "side below 5%": below(opened["side"], 0.05)}
    # a gate that is always open, or always shut, meets one of the two and tells nothing
    apart = above(opened["forget"] - opened["side"], 0.5)
    return finding(f"opens on {words} questions", parts if apart == AGREES else {"forget far above side": apart})


BASELINES = ("GA", "NPO", "SSD", "SCRUB", "static clamp", "RMU")
HARDLY = 0.9  # a forget accuracy above it is hardly any forgetting
FAILS = 1 - 0.25 * (1 - CHANCE)  # above it not even a quarter of what can be (the paper's RMU: 0.88 on cyber, 0.50)


def _dsg_ahead_of_all(table: pd.DataFrame) -> tuple[str, str]:
    return _forgets_more(table, "DSG", BASELINES)


def _hardly_forget(table: pd.DataFrame) -> tuple[str, str]:
    return _stay_above(table, ("GA", "NPO", "SSD", "SCRUB"), HARDLY)


def _rmu_fails(table: pd.DataFrame) -> tuple[str, str]:
    return _stay_above(table, ("RMU",), FAILS)


def _stay_above(table: pd.DataFrame, methods: tuple[str, ...], bound: float) -> tuple[str, str]:
    """Whether methods stay above a forget accuracy at side effects of 0.99, by the paper's own protocol.

    Open for a method of which no setting forgets at any price: it was not tried hard enough to say so.
    """
    words, parts = [], {}
    for method in methods:
        rows = table[table["method"] == method]
        if rows.empty:
            raise MissingRowsError(f"no {method} in the rows")
        kept, anyhow = rows[rows["side_accuracy"] >= SIDE_EFFECT_FLOOR], _lowest(rows)
        # where no setting keeps the side effects, there is nothing but the unedited model
        best = _lowest(kept) if len(kept) else Estimate.of(1.0, n_known(rows.iloc[0], "forget"))
        words.append(f"{method} {best}, at any price {anyhow.value:.2f}")
        forgets = below(anyhow, bound) == AGREES
        parts[f"{method} above {bound:.2f}"] = above(best, bound) if forgets else UNDECIDED
    return finding(f"chosen and reported on the same questions: {'; '.join(words)}", parts)


def _lowest(rows: pd.DataFrame) -> Estimate:
    return accuracy_of(rows.loc[rows["forget_accuracy"].idxmin()], "forget")


CLAIMS = (
    Claim("More features forget more and cost more", "Farrell, Fig. 5, layer 3, c = 50",
          "10/20/50 features: forget 0.58/0.48/0.42, side 0.96/0.92/0.86", "03_pareto", _more_features),
    Claim("The near domain falls further than the side effects", "Farrell, Fig. 5 data, 50 features, c = 100",
          "near 0.30, side 0.65 at forget 0.32", "03_pareto", _near_falls),
    Claim("At side effects of 0.99 RMU forgets more than static clamps", "Farrell, Fig. 5 data, layer 3",
          "forget: clamps 0.82, RMU 0.44 (layer 7 the other way round: 0.79, 0.86)", "03_held_out", _rmu_beats_clamps),
    Claim("At side effects of 0.99 RMU forgets more than features by attribution", "Farrell, gemma-2b-it data",
          "forget: 26 features 0.62 (test half), RMU 0.38 (all questions)", "03_held_out", _rmu_beats_attribution),
    Claim("rho tells forget questions from benign ones", "DSG, Fig. 2", "no number given", "05_rho", _gate_separates),
    Claim("DSG forgets while side effects stay at 0.99", "DSG, Table 1",
          "forget 0.296 at side 0.993", "05_held_out", _dsg_forgets),
    Claim("At side effects of 0.99 DSG forgets more than static clamps and RMU", "DSG, Table 1",
          "forget: DSG 0.30, RMU 0.50, static clamp 0.59", "05_held_out", _dsg_is_best),
    Claim("At side effects of 0.99 DSG forgets more than every baseline", "DSG, Table 1",
          "forget: DSG 0.30, RMU 0.50, static clamp 0.59, SCRUB 0.95, NPO 0.98, GA and SSD 0.99", "07_held_out",
          _dsg_ahead_of_all),
    Claim("At side effects of 0.99 GA, NPO, SSD and SCRUB hardly forget", "DSG, Table 1",
          "forget: GA 0.99, NPO 0.98, SSD 0.99, SCRUB 0.95", "07_pareto", _hardly_forget),
    Claim("At side effects of 0.99 RMU fails on the second hazard, cyber", "DSG, Table 10",
          "forget: RMU 0.88 on cyber, 0.50 on bio", "07_pareto", _rmu_fails, hazard="cyber"),
)  # fmt: skip
