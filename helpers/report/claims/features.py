"""What features fire on, and what each does alone (notebook 01)."""

import pandas as pd

from helpers.report.claims.judging import (
    AGREES,
    DISAGREES,
    FEW,
    UNDECIDED,
    USEFUL,
    Claim,
    Estimate,
    MissingRowsError,
    above,
    accuracy_of,
    finding,
    n_known,
    weakest_of,
)


def _specific(table: pd.DataFrame) -> tuple[str, str]:
    chosen = table[table["sparsity"].astype(bool) & (table["forget_tokens"] > 0) & (table["retain_tokens"] > 0)]
    if chosen.empty:
        raise MissingRowsError("no feature chosen on forget text")
    n, best = len(chosen), chosen.loc[chosen["forget_rate"].idxmax()]
    judged = [_fires_tenfold(row) for _, row in chosen.iterrows()]
    specific, others = judged.count(AGREES) / n, judged.count(DISAGREES) / n
    words = (
        f"{judged.count(AGREES)} of {n} chosen fire ten times as often on forget as on retain tokens; "
        f"the busiest at {best['forget_rate']:.1%} and {best['retain_rate']:.2%}"
    )
    # features whose own counts leave it open may fall to either side
    return finding(words, {"most of them": above(Estimate(specific, specific, 1 - others), 0.5)})


def _fires_tenfold(row: pd.Series) -> str:
    """Whether a feature fires on at least 1 % of forget tokens, and there ten times as often as on retain tokens."""
    forget, retain = (Estimate.of(row[f"{x}_rate"], int(row[f"{x}_tokens"])) for x in ("forget", "retain"))
    # tokens of one document are not independent, so these intervals are narrow; tenfold leaves room
    ratio = Estimate(forget.value / retain.high, forget.low / retain.high, forget.high / max(retain.low, 1e-12))
    return weakest_of(above(forget, 0.01), above(ratio, 10))


def _one_forgets(table: pd.DataFrame) -> tuple[str, str]:
    """The kept feature that loses most on half 0, by what it does to half 1."""
    if table.empty:
        raise MissingRowsError("no feature has an attribution")
    kept = table[table["forget_n"].notna()]
    if kept.empty:
        words = f"of {len(table)} candidates none loses a forget question and spares the side effects"
        return words, DISAGREES if table["asked"].max() >= FEW else UNDECIDED
    row = kept.loc[kept["forget_lost"].idxmax()]
    forget, side, n = accuracy_of(row, "forget"), accuracy_of(row, "side"), n_known(row, "forget")
    words = (
        f"{len(kept)} of {len(table)} candidates are kept; the strongest leaves forget {forget} at side {side}, half 1"
    )
    lost = Estimate.of(1.0, n) - forget
    return finding(words, {"forgets": above(lost, 0), "spares the rest": above(side, USEFUL)}, weakest_of)


CLAIMS = (
    Claim("Some features fire on the hazard and hardly ever on retain text", "Farrell, layer 3",
          "20 chosen at retain rate < 1 %; forget rates 27 % to 6 %", "01_firing_rates", _specific),
    Claim("A single feature unlearns some questions with hardly any side effect", "Farrell, abstract; gemma-2b-it data",
          "best of 26 features, c = 20: forget 0.87; alone none costs a side-effect question (c = 30)",
          "01_attribution", _one_forgets),
)  # fmt: skip
