"""What is memorised, what is known and what leaks (notebook 10)."""

import pandas as pd

from helpers.report.claims.judging import (
    AGREES,
    DISAGREES,
    UNDECIDED,
    Claim,
    Estimate,
    MissingRowsError,
    above,
    below,
    finding,
    together,
    weakest_of,
)
from helpers.text.muse import BAND

FLOOR = 0.9  # of the target's utility, below which the paper stops
DESTROYED = 0.5  # of the target's utility: a model below it is of no use


def _muse(table: pd.DataFrame, method: str, criterion: str, rule: str) -> Estimate:
    """A criterion of ours times 100; the target stands there by its only setting."""
    found = table[(table["world"] == "ours") & (table["method"] == method) & (table["rule"] == rule)]
    found = found[found["criterion"] == criterion]
    if found.empty:
        raise MissingRowsError(f"no {criterion} of {method}, {rule}, in the rows")
    return Estimate(*found.iloc[0][["value", "low", "high"]])


def _share_of_target(table: pd.DataFrame, criterion: str, share: float) -> Estimate:
    target = _muse(table, "target", criterion, "its only setting")
    return Estimate(share * target.value, share * target.low, share * target.high)


def _lowers_memories(table: pd.DataFrame) -> tuple[str, str]:
    """Each memory below the target's, which counts only where utility stays above 0.9 of it, the paper's floor."""
    words, parts = [], {}
    utility = _muse(table, "DSG", "KnowMem retain", "chosen on half 0")
    kept = above(utility - _share_of_target(table, "KnowMem retain", FLOOR), 0)
    for criterion in ("VerbMem", "KnowMem forget"):
        before, after = _share_of_target(table, criterion, 1), _muse(table, "DSG", criterion, "chosen on half 0")
        words.append(f"{criterion} {after:.0f} from {before:.0f}")
        parts[f"{criterion} falls"] = below(after - before, 0)
    before = _share_of_target(table, "KnowMem retain", 1)
    parts[f"utility above {FLOOR} of the target's"] = kept

    def with_utility(*found: str) -> str:
        return together(*(weakest_of(fall, kept) for fall in found[:-1]))

    return finding(f"{'; '.join(words)}; utility {utility:.0f} from {before:.0f}", parts, with_utility)


def _misses_band(table: pd.DataFrame) -> tuple[str, str]:
    leak = _muse(table, "DSG", "PrivLeak", "chosen on half 0")
    outside = AGREES if leak.high < -BAND or leak.low > BAND else DISAGREES
    within = leak.low > -BAND and leak.high < BAND
    judged = outside if outside == AGREES or within else UNDECIDED
    return finding(f"PrivLeak {leak:.0f}", {f"outside of {-BAND:g} to {BAND:g}": judged})


def _destroys_utility(table: pd.DataFrame) -> tuple[str, str]:
    """KnowMem of the retain set below half of the target's, where the paper's rule would have stopped each training."""
    words, parts = [], {}
    stopped = table[(table["method"] == "GA") & (table["rule"] == "stopped as in the paper")]
    _muse(stopped, "GA", "KnowMem retain", "stopped as in the paper")  # or it says that there is none
    for setting in stopped["setting"].unique():
        after = _muse(stopped[stopped["setting"] == setting], "GA", "KnowMem retain", "stopped as in the paper")
        gap = after - _share_of_target(table, "KnowMem retain", DESTROYED)
        words.append(f"{setting}: {after:.0f}")
        parts[f"below {DESTROYED:g} of it at {setting}"] = below(gap, 0)
    before = _share_of_target(table, "KnowMem retain", 1)
    return finding(f"utility from {before:.0f}, {', '.join(words)}", parts)


CLAIMS = (
    Claim("DSG lowers both memories of a text and keeps utility", "DSG, Table 2, MUSE-News",
          "VerbMem 11.8 from 21.2, KnowMem 0.4 from 29.5; utility 25.7 from 26.8", "10_criteria", _lowers_memories),
    Claim("DSG misses the band of PrivLeak", "DSG, Table 2", "News 12.1, Books -23.2; wanted -5 to 5",
          "10_criteria", _misses_band),
    Claim("GA destroys utility", "DSG, Table 2", "News 0.1 from 26.8, Books 0.6 from 35.3", "10_criteria",
          _destroys_utility),
)  # fmt: skip
