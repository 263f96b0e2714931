"""What the papers claim, what they measured, what the figures' rows say, and a verdict computed from both.

The same table stands at the end of each notebook and in the README (`python -m helpers.claims` writes it there).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.metrics import SIDE_EFFECT_FLOOR, best_setting, unlearning_score
from helpers.provenance import ROOT
from helpers.store import write_atomically

README = ROOT / "README.md"
START, END = "<!-- claims: begin (python -m helpers.claims) -->", "<!-- claims: end -->"
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
    """The README's text with the table between its two marks. Raises ValueError where the marks are missing."""
    head, begin, rest = readme.partition(START)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the marks {START!r} and {END!r}")
    return f"{head}{START}\n{markdown(table)}\n{END}{tail}"


def _verdict(*holds: bool) -> str:
    return AGREES if all(holds) else PARTLY if any(holds) else DISAGREES


def _interval(row: pd.Series, role: str) -> str:
    return f"{row[f'{role}_accuracy']:.2f} [{row[f'{role}_low']:.2f}, {row[f'{role}_high']:.2f}]"


def _specific(table: pd.DataFrame) -> tuple[str, str]:
    chosen = table[table["sparsity"]]
    best = chosen.loc[chosen["forget_rate"].idxmax()]
    ours = f"{len(chosen)} chosen; the best fires at {best['forget_rate']:.1%} and {best['retain_rate']:.2%} of tokens"
    return ours, _verdict(len(chosen) >= 20, bool((chosen["forget_rate"] > 10 * chosen["retain_rate"]).mean() > 0.5))


def _ours(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["world"].str.startswith("ours") & table["right"]].sort_values("strength")


def _ablation_of_one(table: pd.DataFrame) -> tuple[str, str]:
    p = _ours(table).set_index("strength")["probability"]
    return f"p(right) {p[-1]:.3f} before, {p[0]:.3f} ablated", _verdict(abs(p[-1] - p[0]) < 0.05)


def _clamp_of_one(table: pd.DataFrame) -> tuple[str, str]:
    rows = _ours(table)
    lowest = rows.loc[rows["probability"].idxmin()]
    ours = f"p(right) {lowest['probability']:.2g} at c = {lowest['strength']:g}"
    return ours, _verdict(lowest["probability"] < 0.1)


def _saturation(table: pd.DataFrame) -> tuple[str, str]:
    rows = _ours(table)
    last = rows.iloc[-1]
    return f"p(right) {last['probability']:.2g} at c = {last['strength']:g}", _verdict(last["probability"] < 0.1)


def _loss_of_one(table: pd.DataFrame) -> tuple[str, str]:
    rows = _ours(table)
    flipped = rows[rows["probability"] < 0.1]
    if flipped.empty:
        return "no clamp flips the answer", DISAGREES
    first = flipped.iloc[0]
    return f"{first['loss_added']:+.2g} nats at c = {first['strength']:g}", _verdict(abs(first["loss_added"]) < 0.01)


def _controls(table: pd.DataFrame) -> tuple[str, str]:
    lowest = table[table["control"] == "random feature"].groupby("feature")["p_right"].min()
    harmless = int((lowest > 0.5).sum())
    return f"{harmless} of {len(lowest)} leave p(right) above 0.5 at every c", _verdict(
        harmless == len(lowest), harmless > 0
    )


def _ablation_of_many(table: pd.DataFrame) -> tuple[str, str]:
    ablated = table[table["strength"] == 0]
    row = ablated.loc[ablated["n_features"].idxmax()]
    return f"{_interval(row, 'forget')} with {row['n_features']} features", _verdict(row["forget_accuracy"] > 0.95)


def _more_features(table: pd.DataFrame) -> tuple[str, str]:
    clamps = table[table["method"] == "static clamp"].copy()
    clamps["n"] = clamps["setting"].str.extract(r"^(\d+)").astype(int)
    clamps["c"] = clamps["setting"].str.extract(r"x([\d.]+)$").astype(float)
    strong = clamps[clamps["c"] == clamps["c"].max()].sort_values("n")
    forget, side = strong["forget_accuracy"].tolist(), strong["side_accuracy"].tolist()
    words = "/".join(f"{x:.2f}" for x in forget), "/".join(f"{x:.2f}" for x in side)
    counts = "/".join(map(str, strong["n"]))
    falls = forget[-1] < forget[0] - 0.05, side[-1] < side[0] - 0.01
    return f"{counts} features: forget {words[0]}, side {words[1]}", _verdict(*falls)


def _near_falls(table: pd.DataFrame) -> tuple[str, str]:
    clamps = table[table["method"] == "static clamp"]
    row = clamps.loc[clamps["forget_accuracy"].idxmin()]
    ours = f"near {_interval(row, 'near')}, side {_interval(row, 'side')} at forget {row['forget_accuracy']:.2f}"
    return ours, _verdict(row["near_high"] < row["side_low"])


def _scores(table: pd.DataFrame) -> dict[str, float]:
    return {
        method: unlearning_score(rows["forget_accuracy"].tolist(), rows["side_accuracy"].tolist(), SIDE_EFFECT_FLOOR)
        for method, rows in table.groupby("method", sort=False)
    }


def _rmu_beats_clamps(table: pd.DataFrame) -> tuple[str, str]:
    scores = _scores(table)
    ours = f"clamps {scores['static clamp']:.2f}, RMU {scores['RMU']:.2f}"
    return ours, _verdict(scores["RMU"] > scores["static clamp"])


def _dsg_forgets(table: pd.DataFrame) -> tuple[str, str]:
    rows = table[table["method"] == "DSG"].reset_index(drop=True)
    best = best_setting(rows["forget_accuracy"].tolist(), rows["side_accuracy"].tolist())
    if best is None:
        return f"no setting keeps side effects at {SIDE_EFFECT_FLOOR}", DISAGREES
    row = rows.iloc[best]
    return f"forget {_interval(row, 'forget')} at side {row['side_accuracy']:.3f}", _verdict(
        row["forget_accuracy"] < 0.5
    )


def _dsg_is_best(table: pd.DataFrame) -> tuple[str, str]:
    scores = _scores(table)
    ours = ", ".join(f"{method} {score:.2f}" for method, score in scores.items())
    others = [scores[m] for m in ("static clamp", "RMU")]
    return ours, _verdict(*[scores["DSG"] > other for other in others])


def _gate_separates(table: pd.DataFrame) -> tuple[str, str]:
    asked = table[table["kind"] == "questions"]
    opened = (asked["rho"] > asked["tau"]).groupby(asked["role"]).mean()
    shares = ", ".join(f"{opened[role]:.0%} of {role}" for role in ("forget", "near", "side"))
    return f"opens on {shares} questions", _verdict(opened["forget"] > 0.9, opened["side"] < 0.05)


def _hold_out_agrees(table: pd.DataFrame) -> tuple[str, str]:
    rows = table[(table["method"] == "DSG") & (table["setting"] != "none")].set_index("protocol")
    if len(rows) < 2:
        return "no setting qualifies on one of the halves", DISAGREES
    same, other = rows.iloc[0], rows.iloc[1]
    ours = f"forget {same['forget_accuracy']:.2f} on the same questions, {_interval(other, 'forget')} held out"
    return ours, _verdict(other["forget_low"] <= same["forget_accuracy"] <= other["forget_high"])


def _final(table: pd.DataFrame, arm: str) -> tuple[float, float]:
    rows = table[(table["arm"] == arm) & (table["role"] == "forget")].groupby("epoch")["accuracy"].mean()
    return float(rows.iloc[0]), float(rows.iloc[-1])


def _rmu_relearns(table: pd.DataFrame) -> tuple[str, str]:
    before, after = _final(table, "RMU")
    return f"forget {before:.2f} before, {after:.2f} after", _verdict(after > before + 0.1)


def _dsg_holds(table: pd.DataFrame) -> tuple[str, str]:
    arms = [_final(table, arm) for arm in ("DSG at test time", "DSG also in training")]
    ours = "; ".join(f"{before:.2f} to {after:.2f}" for before, after in arms)
    return f"test time, also in training: {ours}", _verdict(*[after < before + 0.1 for before, after in arms])


def _hook_removed(table: pd.DataFrame) -> tuple[str, str]:
    before, _ = _final(table, "DSG, hook removed")
    return f"forget {before:.2f} without the hook", _verdict(before > 0.95)


CLAIMS = (
    Claim("Some features fire on the hazard and hardly ever on retain text", "Farrell, layer 3",
          "20 chosen at retain rate < 1 %; forget rates 27 % to 6 %", "01_firing_rates", _specific),
    Claim("Zero ablation of one feature leaves the answer", "Farrell, Fig. 4",
          "p(right) 0.995 before, 0.995 ablated", "02_clamp_curve", _ablation_of_one),
    Claim("A negative clamp of one feature flips the answer", "Farrell, Fig. 4",
          "p(right) 0.0009 at c = 20", "02_clamp_curve", _clamp_of_one),
    Claim("The effect saturates: stronger clamps keep the answer wrong", "Farrell, Fig. 4",
          "p(right) 0.0012 at c = 200", "02_clamp_curve", _saturation),
    Claim("The clamp that flips the answer adds next to no loss", "Farrell, Fig. 4",
          "+5.3e-06 nats at c = 16", "02_clamp_curve", _loss_of_one),
    Claim("Clamping other features that fire on the question does not flip it", "Farrell, p. 5, control",
          "no number given", "02_controls", _controls),
    Claim("Zero ablation of many features does next to nothing", "Khoriaty, released runs, top 20",
          "WMDP-bio 0.573 from 0.586", "02_all_questions", _ablation_of_many),
    Claim("More features forget more and cost more", "Farrell, Fig. 5, layer 3, c = 50",
          "10/20/50 features: forget 0.58/0.48/0.42, side 0.96/0.92/0.86", "03_pareto", _more_features),
    Claim("The near domain falls further than the side effects", "Farrell, Fig. 5 data, 50 features, c = 100",
          "near 0.30, side 0.65 at forget 0.32", "03_pareto", _near_falls),
    Claim("RMU has a better unlearning score than static clamps", "Farrell, Fig. 5 data, layer 3",
          "clamps 0.18, RMU 0.56", "03_pareto", _rmu_beats_clamps),
    Claim("rho tells forget questions from benign ones", "DSG, Fig. 2", "no number given", "05_rho", _gate_separates),
    Claim("DSG forgets while side effects stay at 0.99", "DSG, Table 1",
          "forget 0.296 at side 0.993", "05_pareto", _dsg_forgets),
    Claim("DSG has a better unlearning score than static clamps and RMU", "DSG, Table 1",
          "DSG 0.70, static clamp 0.41, RMU 0.50", "05_pareto", _dsg_is_best),
    Claim("DSG's number holds on questions that it was not chosen on", "not in the paper",
          "no number given", "05_held_out", _hold_out_agrees),
    Claim("RMU is relearned by fine-tuning on forget text", "DSG, Fig. 5",
          "no number given", "06_relearning", _rmu_relearns),
    Claim("DSG holds against the same fine-tuning", "DSG, Fig. 5", "no number given", "06_relearning", _dsg_holds),
    Claim("Without its hook DSG has erased nothing", "not in the paper; follows from the method",
          "no number given", "06_relearning", _hook_removed),
)  # fmt: skip


def main() -> None:
    """Write the table of the tiny profile's figures into the README."""
    parser = argparse.ArgumentParser(prog="python -m helpers.claims", description=main.__doc__)
    parser.parse_args()
    text = with_claims(README.read_text(encoding="utf-8"), verdicts(ROOT / "figures" / "tiny"))
    write_atomically(README, lambda file: file.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
