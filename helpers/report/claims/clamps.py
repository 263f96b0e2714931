"""What one clamp and another direction do to one question and to all (notebook 02)."""

import pandas as pd

from helpers.measures.metrics import CHANCE, wilson_interval
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
    weakest_of,
)

CARRIED, FEW_OF = 0.9, 4  # of a set's effect, so much; by at most one in so many of its features


def _curve(table: pd.DataFrame) -> pd.DataFrame:
    """Our clamp curve by strength: p of every letter, of the right one and of the likeliest wrong one, loss added.

    One picked question has no interval; where p lies between clear and not at all, a rule calls it open.
    """
    ours = table[table["world"].str.startswith("ours")]
    if not {-1, 0} <= set(ours["strength"]):
        raise MissingRowsError("no curve of ours from before the edit over ablation")
    p = ours.pivot(index="strength", columns="letter", values="probability").sort_index()
    right = ours.loc[ours["right"], "letter"].iloc[0]
    others = p.drop(columns=right)
    loss = ours.groupby("strength")["loss_added"].first()
    curve = p.assign(right=p[right], wrong=others.max(axis=1), said=others.idxmax(axis=1), loss_added=loss)
    if curve.loc[-1, "right"] <= curve.loc[-1, "wrong"]:
        raise MissingRowsError("the unedited model does not know the question")
    return curve


def _flip(curve: pd.DataFrame) -> pd.Series | None:
    """The weakest clamp that clearly flips: a wrong letter above one half, the right one below chance; or None."""
    flipped = curve[(curve.index > 0) & (curve["wrong"] > 0.5) & (curve["right"] < CHANCE)]
    return None if flipped.empty else flipped.iloc[0]


def _ablation_of_one(table: pd.DataFrame) -> tuple[str, str]:
    curve = _curve(table)
    before, ablated = curve.loc[-1], curve.loc[0]
    words = f"one picked question: p(right) {before['right']:.3f} before, {ablated['right']:.3f} ablated"
    if not (curve["wrong"] > curve["right"]).any():
        return f"{words}; no clamp of the feature changes the answer either", UNDECIDED
    if ablated["wrong"] > ablated["right"]:
        return words, DISAGREES
    return finding(words, {"within 0.05": AGREES if abs(ablated["right"] - before["right"]) < 0.05 else UNDECIDED})


def _clamp_of_one(table: pd.DataFrame) -> tuple[str, str]:
    curve = _curve(table)
    clamped, flip = curve[curve.index > 0], _flip(curve)
    overtaken = clamped[(clamped["wrong"] > clamped["right"]) & (clamped["wrong"] > CHANCE)]
    if flip is None and overtaken.empty:
        return "one picked question: no clamp gives a wrong letter the answer", DISAGREES
    row = overtaken.loc[overtaken["wrong"].idxmax()] if flip is None else flip
    words = f"p(right) {row['right']:.2g}, p({row['said']}) {row['wrong']:.2f} at c = {row.name:g}"
    return finding(f"one picked question: {words}", {"a clear flip": UNDECIDED if flip is None else AGREES})


def _saturation(table: pd.DataFrame) -> tuple[str, str]:
    curve = _curve(table)
    flip = _flip(curve)
    if flip is None:
        return "one picked question: no clamp clearly flips it", UNDECIDED
    letter, beyond = flip["said"], curve[curve.index > flip.name]
    words = f"one picked question: p({letter}) {flip['wrong']:.2f} at c = {flip.name:g}"
    if beyond.empty:
        return f"{words}, the strongest clamp tried", UNDECIDED
    kept = {f"c = {strength:g}": _keeps_saying(row, letter) for strength, row in beyond.iterrows()}
    return finding(f"{words}, {beyond[letter].iloc[-1]:.2g} at c = {beyond.index[-1]:g}", kept)


def _keeps_saying(row: pd.Series, letter: str) -> str:
    if row[letter] > 0.5:
        return AGREES
    return UNDECIDED if row["said"] == letter and row[letter] > max(CHANCE, row["right"]) else DISAGREES


def _loss_of_one(table: pd.DataFrame) -> tuple[str, str]:
    flip = _flip(_curve(table))
    if flip is None:
        return "one picked question: no clamp clearly flips it", UNDECIDED
    words = f"{flip['loss_added']:+.2g} nats at c = {flip.name:g}, which flips one picked question"
    return words, AGREES if abs(flip["loss_added"]) < 0.01 else DISAGREES


def _controls(table: pd.DataFrame) -> tuple[str, str]:
    lowest = table.groupby(["control", "feature"])["p_right"].min()
    if not {"clamp", "random feature"} <= set(table["control"]):
        raise MissingRowsError("the clamp or its controls are not in the rows")
    others, clamp = lowest["random feature"], lowest["clamp"].iloc[0]
    harmless, n = int((others > 0.5).sum()), len(others)
    words = f"one picked question: {harmless} of {n} leave p(right) above 0.5 at every c"
    if clamp > 0.5:
        return f"{words}; so does the clamp itself", UNDECIDED
    most = above(Estimate.of(harmless / n, n), 0.5)
    return finding(words, {"most other features": PARTLY if most == AGREES and harmless < n else most})


def _few_carry(table: pd.DataFrame) -> tuple[str, str]:
    """Whether a quarter of the features, in the order of their single effects, does nearly all that the set does."""
    ours = table[table["world"].str.startswith("ours") & (table["clamped"] == "together") & (table["role"] == "forget")]
    curve = ours.set_index("place").sort_index()
    if len(curve) < 4:
        raise MissingRowsError("no growing set of features of ours")
    one = Estimate(1.0, *wilson_interval(int(curve["n"].iloc[0]), int(curve["n"].iloc[0])))
    # of counts, for rows keep six digits of a share, and a question more or less is a feature more or less
    shares = curve.assign(accuracy=(curve["accuracy"] * curve["n"]).round() / curve["n"])
    left = {place: Estimate(*row) for place, row in shares[["accuracy", "low", "high"]].iterrows()}
    n, quarter = max(left), max(left) // FEW_OF
    full = one - left[n]
    if above(full, 0) != AGREES:
        return f"all {n} features together leave {left[n]} of the forget questions: no effect to be shared", UNDECIDED
    needed = min(k for k, x in left.items() if 1 - x.value >= CARRIED * full.value - 1e-9)
    lost = one - left[quarter]
    share = Estimate(*(x / full.value for x in (lost.value, lost.low, lost.high)))
    words = f"{needed} of {n} do {CARRIED:.0%} of what all do (forget {left[n]}); the first {quarter} do {share}"
    # how much they do is judged by the share itself, that it is more than half beyond chance
    size = AGREES if share.value >= CARRIED else DISAGREES if share.high < CARRIED else UNDECIDED
    return finding(words, {f"{CARRIED:.0%} by a quarter": size, "more than half": above(share, 0.5)}, weakest_of)


def _decoders_matter(table: pd.DataFrame) -> tuple[str, str]:
    """Own decoders against the next features', at the strength where the former have half of their effect."""
    ours = table[table["world"].str.startswith("ours")]
    own, other = (
        ours[ours["method"] == m].set_index("strength") for m in ("static clamp", "the next feature's decoder")
    )
    if own.empty or other.empty:
        raise MissingRowsError("no clamp of ours along both decoders")
    middle = (1 + own["forget_accuracy"].min()) / 2
    strength = (own["forget_accuracy"] - middle).abs().idxmin()
    mine, theirs = own.loc[strength], other.loc[strength]
    a, b = accuracy_of(mine, "forget"), accuracy_of(theirs, "forget")
    loss = f"loss {mine['loss_added']:+.2g}, {theirs['loss_added']:+.2g}"
    words = f"at c = {strength:g} forget {a} along their own, {b} along the next; {loss}"
    if below(accuracy_of(own.loc[own["forget_accuracy"].idxmin()], "forget"), USEFUL) != AGREES:
        return f"{words}; the clamp itself hardly does anything", UNDECIDED
    costs = AGREES if theirs["loss_added"] > mine["loss_added"] else DISAGREES
    return finding(words, {"forgets less": above(b - a, 0), "adds more loss": costs})


def _ablation_of_many(table: pd.DataFrame) -> tuple[str, str]:
    many = table[table["n_features"] == table["n_features"].max()].sort_values("strength")
    n, ablated = many["n_features"].iloc[0], many[many["strength"] == 0]
    if n < 2 or ablated.empty:
        raise MissingRowsError("no ablation of many features")
    after, clamped = accuracy_of(ablated.iloc[0], "forget"), accuracy_of(many.iloc[-1], "forget")
    words = f"{after} with {n:g} features"
    if above(after, USEFUL) == AGREES and below(clamped - after, 0) != AGREES:
        return f"{words}; nor does their strongest clamp do anything", UNDECIDED
    return finding(words, {f"above {USEFUL}": above(after, USEFUL)})


CLAIMS = (
    Claim("Zero ablation of one feature leaves the answer", "Farrell, Fig. 4",
          "p(right) 0.995 ablated; before it the question was known", "02_clamp_curve", _ablation_of_one),
    Claim("A negative clamp of one feature flips the answer to another letter", "Farrell, Fig. 4",
          "p(right) 0.21, p(C) 0.78 at c = 15; 0.027, 0.97 at c = 16", "02_clamp_curve", _clamp_of_one),
    Claim("The effect saturates: stronger clamps keep that wrong answer", "Farrell, Fig. 4",
          "p(right) 0.0012, p(C) 0.997 at c = 200", "02_clamp_curve", _saturation),
    Claim("The clamp that flips the answer adds next to no loss (below 0.01 nats)", "Farrell, Fig. 4",
          "+5.3e-06 nats at c = 15", "02_clamp_curve", _loss_of_one),
    Claim("Clamping other features that fire on the question does not flip it", "Farrell, p. 5, control",
          "no number given", "02_controls", _controls),
    Claim("Few of the chosen features carry the effect", "Farrell, layer 3, single features",
          "3 of 20 do most of it (3 of the first 10 lose 79 % of what all 10 lose, counted alone)", "02_carriers",
          _few_carry),
    Claim("Along another feature's decoder the same clamp forgets less and costs more", "Farrell, appendix, c = 50",
          "10 features: forget 0.58 along their own, 0.87 along the next; loss -0.004, +0.020", "02_decoders",
          _decoders_matter),
    Claim("Zero ablation of many features does next to nothing", "Khoriaty, released runs, top 20",
          "WMDP-bio 0.573 from 0.586", "02_all_questions", _ablation_of_many),
)  # fmt: skip
