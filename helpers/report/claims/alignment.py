"""Retention and alignment of conditional clamps (notebook 04)."""

import pandas as pd

from helpers.report.claims.judging import (
    AGREES,
    FEW,
    MARGIN,
    UNDECIDED,
    Claim,
    Estimate,
    above,
    below,
    finding,
    held_out,
    n_known,
    row_of,
    weakest_of,
)


def _aligned(row: pd.Series, name: str = "alignment") -> Estimate:
    """Alignment or a retention with its bootstrap interval; of few questions it may be anything."""
    few = min(n_known(row, role) for role in ("forget", "side")) < FEW
    return Estimate(row[name], *((0.0, 1.0) if few else (row[f"{name}_low"], row[f"{name}_high"])))


def _clamp_prime_forgets(table: pd.DataFrame) -> tuple[str, str]:
    row = row_of(held_out(table), "Clamp Prime")
    bad, good = _aligned(row, "bad_retention"), _aligned(row, "good_retention")
    parts = {"R_bad below 0.5": below(bad, 0.5), "R_good above 0.8": above(good, 0.8)}
    return finding(f"R_bad {bad}, R_good {good}, held out", parts, weakest_of)


def _refusal_is_best(table: pd.DataFrame) -> tuple[str, str]:
    rows = held_out(table)
    found = {method: _aligned(row_of(rows, method)) for method in ("Refusal Clamp", "Clamp Prime", "RMU")}
    words = "; ".join(f"{method} {alignment}" for method, alignment in found.items())
    refusal = found.pop("Refusal Clamp")
    return finding(f"held out: {words}", {f"above {m}": above(refusal - other, 0) for m, other in found.items()})


def _clamps_near_rmu(table: pd.DataFrame) -> tuple[str, str]:
    rows = held_out(table)
    clamp, rmu = _aligned(row_of(rows, "Clamp Prime")), _aligned(row_of(rows, "RMU"))
    words = f"held out: Clamp Prime {clamp}, RMU {rmu}"
    if above(rmu, MARGIN) != AGREES:
        return f"{words}, which is not clearly above {MARGIN} either", UNDECIDED
    # near: not below RMU by more than the margin; above it is welcome
    return finding(words, {f"less than {MARGIN} below RMU": above(clamp - rmu, -MARGIN)})


def _condition_is_needed(table: pd.DataFrame) -> tuple[str, str]:
    rows = held_out(table)
    add, clamp = row_of(rows, "unconditional add"), row_of(rows, "Clamp Prime")
    kept = " and ".join(f"{row['good_retention']:.2f}" for row in (add, clamp))
    words = f"best alignment {_aligned(add)} without, {_aligned(clamp)} with the condition, held out; R_good {kept}"
    # an addition that does nothing has no alignment either, but ruins nothing
    lower = {
        f"{label} lower without": below(_aligned(add, name) - _aligned(clamp, name), 0)
        for label, name in (("alignment", "alignment"), ("R_good", "good_retention"))
    }
    return finding(words, lower, weakest_of)


CLAIMS = (
    Claim("Clamp Prime forgets and keeps most of the rest", "Khoriaty, released runs, top 10, c = 100, proportional",
          "R_bad 0.13, R_good 0.91", "04_alignment", _clamp_prime_forgets),
    Claim("The refusal clamp has the highest alignment", "Khoriaty, second hand, and released runs",
          "refusal clamp 0.82; best of the others: RMU 0.81, Clamp Prime 0.79", "04_alignment", _refusal_is_best),
    Claim("Conditional clamps come near RMU in alignment", "Khoriaty, released runs",
          "best of 48 Clamp Prime 0.79, best of 15 RMU 0.81", "04_alignment", _clamps_near_rmu),
    Claim("Without the condition the same features ruin the rest as well", "Khoriaty, released runs, layer 20",
          "best alignment 0.18", "04_alignment", _condition_is_needed),
)  # fmt: skip
