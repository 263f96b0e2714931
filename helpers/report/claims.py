"""What the papers claim, what they measured, what the figures' rows say, and a verdict computed from both.

The same table stands at the end of each notebook and in the README (`python -m helpers.report.claims` writes it there).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.measures.metrics import SIDE_EFFECT_FLOOR, difference_interval
from helpers.records.provenance import ROOT
from helpers.records.store import write_atomically

README = ROOT / "README.md"
START, END = "<!-- claims: begin (python -m helpers.report.claims) -->", "<!-- claims: end -->"
AGREES, PARTLY, DISAGREES, NOT_RUN = "agrees", "partly", "disagrees", "not run"


@dataclass(frozen=True)
class Claim:
    """One claim of a paper.

    Attributes:
        statement: the claim in a sentence.
        source: where the paper makes it.
        paper: its number.
        figure: the figure of ours whose rows test it.
        test: from those rows to our number in words and the verdict.
    """

    statement: str
    source: str
    paper: str
    figure: str
    test: Callable[[pd.DataFrame], tuple[str, str]]


def verdicts(figures: Path, notebook: str = "") -> pd.DataFrame:
    """The claims of one notebook ('03'), or of all, with our numbers from the figures' rows.

    Returns:
        claim, paper (with its source), ours, verdict; 'not run' where the figure is not there.
    """
    rows = []
    for claim in CLAIMS:
        if claim.figure.startswith(notebook):
            path = figures / f"{claim.figure}.csv"
            ours, verdict = claim.test(pd.read_csv(path)) if path.is_file() else ("", NOT_RUN)
            rows.append((claim.statement, f"{claim.paper} ({claim.source})", ours, verdict))
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "verdict"])


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown, a line a claim."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)])


def with_claims(readme: str, table: pd.DataFrame) -> str:
    """The README's text with the table of claims between its two marks (see `with_table`)."""
    return with_table(readme, START, END, table)


def with_table(readme: str, begin: str, end: str, table: pd.DataFrame) -> str:
    """The README's text with a table between two marks. Raises ValueError where the marks are missing."""
    head, first, rest = readme.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the README lacks the marks {begin!r} and {end!r}")
    return f"{head}{begin}\n{markdown(table)}\n{end}{tail}"


def _verdict(*holds: bool) -> str:
    return AGREES if all(holds) else PARTLY if any(holds) else DISAGREES


def _interval(row: pd.Series, role: str) -> str:
    return f"{row[f'{role}_accuracy']:.2f} [{row[f'{role}_low']:.2f}, {row[f'{role}_high']:.2f}]"


def _specific(table: pd.DataFrame) -> tuple[str, str]:
    chosen = table[table["sparsity"]]
    best = chosen.loc[chosen["forget_rate"].idxmax()]
    ours = f"{len(chosen)} chosen; the best fires at {best['forget_rate']:.1%} and {best['retain_rate']:.2%} of tokens"
    return ours, _verdict(bool((chosen["forget_rate"] > 10 * chosen["retain_rate"]).mean() > 0.5))


def _letters(table: pd.DataFrame) -> pd.DataFrame:
    """Our clamp curve by strength: p(right), the likeliest wrong letter and its probability, loss added."""
    ours = table[table["world"].str.startswith("ours")]
    wrong = ours[~ours["right"]].sort_values("probability").groupby("strength").last()
    curve = ours[ours["right"]].set_index("strength")[["probability", "loss_added"]]
    return curve.assign(wrong=wrong["letter"], p_wrong=wrong["probability"]).sort_index()


def _ablation_of_one(table: pd.DataFrame) -> tuple[str, str]:
    p = _letters(table)["probability"]
    return f"p(right) {p[-1]:.3f} before, {p[0]:.3f} ablated", _verdict(abs(p[-1] - p[0]) < 0.05)


def _flip(table: pd.DataFrame) -> pd.Series | None:
    """The weakest clamp under which a wrong letter has more than half of the probability, None if there is none."""
    flipped = _letters(table).query("p_wrong > 0.5").reset_index()
    return None if flipped.empty else flipped.iloc[0]


def _clamp_of_one(table: pd.DataFrame) -> tuple[str, str]:
    flip = _flip(table)
    if flip is None:
        return "no clamp gives a wrong letter more than 0.5", DISAGREES
    ours = f"p(right) {flip['probability']:.2g}, p({flip['wrong']}) {flip['p_wrong']:.2f} at c = {flip['strength']:g}"
    return ours, _verdict(flip["probability"] < 0.1)


def _saturation(table: pd.DataFrame) -> tuple[str, str]:
    flip, curve = _flip(table), _letters(table)
    last = curve.iloc[-1]
    ours = f"p(right) {last['probability']:.2g}, p({last['wrong']}) {last['p_wrong']:.2g} at c = {last.name:g}"
    if flip is None:
        return ours, DISAGREES
    beyond = curve[curve.index >= flip["strength"]]
    return ours, _verdict((beyond["probability"] < 0.1).all(), (beyond["p_wrong"] > 0.5).all())


def _loss_of_one(table: pd.DataFrame) -> tuple[str, str]:
    flip = _flip(table)
    if flip is None:
        return "no clamp flips the answer", DISAGREES
    return f"{flip['loss_added']:+.2g} nats at c = {flip['strength']:g}", _verdict(abs(flip["loss_added"]) < 0.01)


def _controls(table: pd.DataFrame) -> tuple[str, str]:
    lowest = table[table["control"] == "random feature"].groupby("feature")["p_right"].min()
    harmless = int((lowest > 0.5).sum())
    ours = f"{harmless} of {len(lowest)} leave p(right) above 0.5 at every c"
    return ours, _verdict(harmless == len(lowest), harmless > 0)


def _ablation_of_many(table: pd.DataFrame) -> tuple[str, str]:
    ablated = table[table["strength"] == 0]
    row = ablated.loc[ablated["n_features"].idxmax()]
    return f"{_interval(row, 'forget')} with {row['n_features']} features", _verdict(row["forget_accuracy"] > 0.95)


def _more_features(table: pd.DataFrame) -> tuple[str, str]:
    clamps = table[table["method"].str.startswith("static clamp")]
    strong = clamps[clamps["strength"] == clamps["strength"].max()].sort_values("n_features")
    counts, forget, side = (
        "/".join(f"{x:{form}}" for x in strong[column])
        for column, form in (("n_features", "g"), ("forget_accuracy", ".2f"), ("side_accuracy", ".2f"))
    )
    few, many = strong.iloc[0], strong.iloc[-1]
    falls = many["forget_high"] < few["forget_low"], many["side_high"] < few["side_low"]
    return f"{counts} features: forget {forget}, side {side} at c = {many['strength']:g}", _verdict(*falls)


def _near_falls(table: pd.DataFrame) -> tuple[str, str]:
    clamps = table[table["method"].str.startswith("static clamp")]
    row = clamps.loc[clamps["forget_accuracy"].idxmin()]
    low, high = difference_interval(row["side_accuracy"], row["side_n"], row["near_accuracy"], row["near_n"])
    words = f"side {row['side_accuracy']:.2f} - near {row['near_accuracy']:.2f} in [{low:.2f}, {high:.2f}]"
    return f"{words} at forget {row['forget_accuracy']:.2f}", _verdict(low > 0)


def _reported(table: pd.DataFrame) -> pd.DataFrame:
    """Each method's setting chosen on one half, measured on the other; methods without a setting are left out."""
    held_out = table[(table["protocol"].str.startswith("chosen on one half")) & (table["setting"] != "none")]
    return held_out.set_index("method")


def _lower_forget(rows: pd.DataFrame, better: str, worse: str) -> bool:
    """Whether one method's forget accuracy lies below another's by more than chance; no setting means no forgetting."""
    if better not in rows.index:
        return False
    if worse not in rows.index:
        return bool(rows.loc[better, "forget_high"] < 1)
    pair = [rows.loc[m, [f"forget_{x}" for x in ("accuracy", "n")]].tolist() for m in (worse, better)]
    return difference_interval(*pair[0], *pair[1])[0] > 0


def _rmu_beats_clamps(table: pd.DataFrame) -> tuple[str, str]:
    rows = _reported(table)
    ours = "; ".join(f"{method} {_interval(row, 'forget')}" for method, row in rows.iterrows())
    if "RMU" not in set(table["method"]):
        return f"forget, held out: {ours}; RMU not trained without forget text", NOT_RUN
    return f"forget, held out: {ours}", _verdict(_lower_forget(rows, "RMU", "static clamp"))


def _dsg_forgets(table: pd.DataFrame) -> tuple[str, str]:
    rows = _reported(table)
    if "DSG" not in rows.index:
        return "no setting keeps the side effects", DISAGREES
    row = rows.loc["DSG"]
    ours = f"forget {_interval(row, 'forget')} at side {row['side_accuracy']:.3f}, held out"
    return ours, _verdict(row["forget_high"] < 0.5, row["side_accuracy"] >= SIDE_EFFECT_FLOOR)


def _dsg_is_best(table: pd.DataFrame) -> tuple[str, str]:
    rows = _reported(table)
    ours = "; ".join(f"{method} {_interval(row, 'forget')}" for method, row in rows.iterrows())
    beaten = [_lower_forget(rows, "DSG", other) for other in ("static clamp", "RMU")]
    return f"forget, held out: {ours}", _verdict(*beaten)


def _retentions(row: pd.Series) -> str:
    return f"R_bad {row['bad_retention']:.2f}, R_good {row['good_retention']:.2f}"


def _alignment(row: pd.Series) -> str:
    return f"{row['alignment']:.2f} [{row['alignment_low']:.2f}, {row['alignment_high']:.2f}]"


def _clamp_prime_forgets(table: pd.DataFrame) -> tuple[str, str]:
    row = _reported(table).loc["Clamp Prime"]
    ours = f"{_retentions(row)}, held out"
    return ours, _verdict(row["bad_retention_high"] < 0.5, row["good_retention_low"] > 0.8)


def _refusal_is_best(table: pd.DataFrame) -> tuple[str, str]:
    rows = _reported(table)
    ours = "; ".join(f"{method} {_alignment(rows.loc[method])}" for method in ("Refusal Clamp", "Clamp Prime", "RMU"))
    # a ranking, as in the paper, whose differences lie within their intervals too
    best = rows.loc["Refusal Clamp", "alignment"]
    return f"held out: {ours}", _verdict(*(best > rows.loc[other, "alignment"] for other in ("Clamp Prime", "RMU")))


def _clamps_near_rmu(table: pd.DataFrame) -> tuple[str, str]:
    rows = _reported(table)
    clamp, rmu = rows.loc["Clamp Prime"], rows.loc["RMU"]
    # near: not below RMU by more than the two intervals allow
    ours = f"held out: Clamp Prime {_alignment(clamp)}, RMU {_alignment(rmu)}"
    return ours, _verdict(clamp["alignment_high"] >= rmu["alignment_low"])


def _condition_is_needed(table: pd.DataFrame) -> tuple[str, str]:
    rows = _reported(table)
    add, clamp = rows.loc["unconditional add"], rows.loc["Clamp Prime"]
    ours = f"best alignment {_alignment(add)} without, {_alignment(clamp)} with the condition, held out"
    return ours, _verdict(add["alignment_high"] < clamp["alignment_low"])


def _gate_separates(table: pd.DataFrame) -> tuple[str, str]:
    asked = table[table["kind"] == "questions"]
    opened = (asked["rho"] > asked["tau"]).groupby(asked["role"]).mean()
    shares = ", ".join(f"{opened[role]:.0%} of {role}" for role in ("forget", "near", "side"))
    return f"opens on {shares} questions", _verdict(opened["forget"] > 0.9, opened["side"] < 0.05)


def _recovered(table: pd.DataFrame, arm: str, role: str = "forget") -> tuple[float, float, float]:
    """Mean accuracy over seeds before and after the attack, and the share of what was lost that came back."""
    rows = table[(table["arm"] == arm) & (table["role"] == role)].groupby("epoch")["accuracy"].mean()
    before, after = float(rows.iloc[0]), float(rows.iloc[-1])
    return before, after, (after - before) / max(1 - before, 1e-9)


def _rmu_relearns(table: pd.DataFrame) -> tuple[str, str]:
    before, after, share = _recovered(table, "RMU")
    return f"forget {before:.2f} to {after:.2f}: {share:.0%} of the loss is back", _verdict(share > 0.25)


def _dsg_holds(table: pd.DataFrame) -> tuple[str, str]:
    words, holds = [], []
    for arm in ("DSG at test time", "DSG also in training"):
        before, after, share = _recovered(table, arm)
        side = _recovered(table, arm, "side")[1]
        words.append(f"{arm}: forget {before:.2f} to {after:.2f}, side then {side:.2f}")
        holds += [share < 0.1, side > 0.95]
    return "; ".join(words), _verdict(*holds)


CLAIMS = (
    Claim("Some features fire on the hazard and hardly ever on retain text", "Farrell, layer 3",
          "20 chosen at retain rate < 1 %; forget rates 27 % to 6 %", "01_firing_rates", _specific),
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
    Claim("Zero ablation of many features does next to nothing", "Khoriaty, released runs, top 20",
          "WMDP-bio 0.573 from 0.586", "02_all_questions", _ablation_of_many),
    Claim("More features forget more and cost more", "Farrell, Fig. 5, layer 3, c = 50",
          "10/20/50 features: forget 0.58/0.48/0.42, side 0.96/0.92/0.86", "03_pareto", _more_features),
    Claim("The near domain falls further than the side effects", "Farrell, Fig. 5 data, 50 features, c = 100",
          "near 0.30, side 0.65 at forget 0.32", "03_pareto", _near_falls),
    Claim("At side effects of 0.99 RMU forgets more than static clamps", "Farrell, Fig. 5 data, layer 3",
          "forget: clamps 0.82, RMU 0.44", "03_held_out", _rmu_beats_clamps),
    Claim("Clamp Prime forgets and keeps most of the rest", "Khoriaty, released runs, top 10, c = 100, proportional",
          "R_bad 0.13, R_good 0.91", "04_alignment", _clamp_prime_forgets),
    Claim("The refusal clamp has the highest alignment", "Khoriaty, second hand, and released runs",
          "refusal clamp 0.82; best of the others: RMU 0.81, Clamp Prime 0.79", "04_alignment", _refusal_is_best),
    Claim("Conditional clamps come near RMU in alignment", "Khoriaty, released runs",
          "best of 48 Clamp Prime 0.79, best of 15 RMU 0.81", "04_alignment", _clamps_near_rmu),
    Claim("Without the condition the same features ruin the rest as well", "Khoriaty, released runs, layer 20",
          "best alignment 0.18", "04_alignment", _condition_is_needed),
    Claim("rho tells forget questions from benign ones", "DSG, Fig. 2", "no number given", "05_rho", _gate_separates),
    Claim("DSG forgets while side effects stay at 0.99", "DSG, Table 1",
          "forget 0.296 at side 0.993", "05_held_out", _dsg_forgets),
    Claim("At side effects of 0.99 DSG forgets more than static clamps and RMU", "DSG, Table 1",
          "forget: DSG 0.30, RMU 0.50, static clamp 0.59", "05_held_out", _dsg_is_best),
    Claim("RMU is relearned by fine-tuning on forget text", "DSG, Fig. 5", "no number given",
          "06_relearning", _rmu_relearns),
    Claim("DSG holds against the same fine-tuning, and stays useful", "DSG, Fig. 5", "no number given",
          "06_relearning", _dsg_holds),
)  # fmt: skip


def main() -> None:
    """Write the table of the tiny profile's figures into the README."""
    parser = argparse.ArgumentParser(prog="python -m helpers.report.claims", description=main.__doc__)
    parser.parse_args()
    text = with_claims(README.read_text(encoding="utf-8"), verdicts(ROOT / "figures" / "tiny"))
    write_atomically(README, lambda file: file.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
