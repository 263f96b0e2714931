"""Verdicts follow from rows, an open question is called open, and the tables of README and docs are not stale.

Every rule is tried on rows that agree, that disagree, that leave it open and that lack what it needs, and on rows of a
null result: nothing happened, or there are too few questions to tell. Intervals that the comments quote are Wilson's.
"""

import pandas as pd
import pytest

from helpers.measures.metrics import difference_interval, wilson_interval
from helpers.records.provenance import ROOT
from helpers.report import claims
from helpers.report.claims import (
    CLAIMS,
    NOT_RUN,
    PAGE,
    README,
    counted,
    judging,
    markdown,
    verdicts,
    with_claims,
    with_summary,
)

AGREES, PARTLY, UNDECIDED, DISAGREES = "agrees", "partly", "undecided", "disagrees"


# --- rows -------------------------------------------------------------------------------------------------------------


def rates(*pairs, tokens=10_000):
    """01_firing_rates: chosen features by (forget rate, retain rate), and one that was not chosen."""
    rows = [(f, r, tokens, tokens, True) for f, r in pairs] + [(0.9, 0.0, tokens, tokens, False)]
    return pd.DataFrame(rows, columns=["forget_rate", "retain_rate", "forget_tokens", "retain_tokens", "sparsity"])


def curve(*points, loss=0.0):
    """02_clamp_curve: p(A), the right letter, p(B) and p(C) before the edit, at 0 and at c = 1, 2, ..."""
    rows = [
        ("ours, tiny", strength, letter, letter == "A", p, loss)
        for strength, ps in enumerate(points, start=-1)
        for letter, p in zip("ABC", ps, strict=True)
    ]
    paper = [("the paper", 16, "C", False, 1.0, 0.0)]
    return pd.DataFrame(rows + paper, columns=["world", "strength", "letter", "right", "probability", "loss_added"])


KNOWN, FLIPPED, BARELY, SILENT = (0.98, 0.01, 0.0), (0.02, 0.9, 0.0), (0.4, 0.55, 0.0), (1e-6, 1e-5, 0.0)


def candidates(*kept, asked=80, fallen=3):
    """01_attribution: of each kept feature, questions lost on half 0 and counts by role of half 1; others have none."""
    rows = [answered({"forget_lost": lost}, **by) for lost, by in kept]
    rows += [answered({"forget_lost": 70})] * fallen
    return pd.DataFrame(rows, columns=list(answered({"forget_lost": 0}))).assign(asked=asked)


def controls(clamp, *others):
    """02_controls: p(right) at two strengths, the second given."""
    named = [("clamp", 7, clamp)] + [("random feature", i, p) for i, p in enumerate(others)]
    rows = [(control, feature, c, p) for control, feature, last in named for c, p in ((0, 0.99), (9, last))]
    return pd.DataFrame(rows, columns=["control", "feature", "strength", "p_right"])


def carried(*right, n=1000):
    """02_carriers: forget questions right under the first k features, k from 1; other rows must not be read."""
    rows = [("ours, tiny", "together", k, "forget", n, x / n, *wilson_interval(x, n)) for k, x in enumerate(right, 1)]
    rows += [("ours, tiny", "together", k, "side", n, 1.0, 1.0, 1.0) for k, _ in enumerate(right, 1)]
    rows += [
        ("ours, tiny", "alone", 1, "forget", n, 0.0, 0.0, 0.0),
        ("the paper", "alone", 1, "forget", 9, 0.0, 0.0, 0.0),
    ]
    return pd.DataFrame(rows, columns=["world", "clamped", "place", "role", "n", "accuracy", "low", "high"])


def along(own, other, loss=(0.0, 0.1), n=1000):
    """02_decoders: forget questions right at c = 1, 2, ... along both decoders; loss of each, the same at every c."""
    rows = []
    for method, right, added in (("static clamp", own, loss[0]), ("the next feature's decoder", other, loss[1])):
        for c, x in enumerate(right, 1):
            row = answered({"world": "ours, tiny", "method": method, "strength": c}, forget=(x, n))
            rows.append(row | {"loss_added": added})
    paper = {"world": "the paper", "method": "static clamp", "strength": 1, "forget_accuracy": 0.1, "loss_added": 0.0}
    return pd.DataFrame([*rows, paper])


def answered(labels, **counts):
    """A row with accuracies: role -> (right, n); a role without questions has empty columns."""
    row = dict(labels)
    for role in ("forget", "near", "side"):
        right, n = counts.get(role, (None, None))
        found = (right / n, *wilson_interval(right, n), n) if n else (None,) * 4
        row |= {f"{role}_{name}": x for name, x in zip(("accuracy", "low", "high", "n"), found, strict=True)}
    return row


def clamps(*settings, method="static clamp"):
    """02_all_questions and 03_pareto: (number of features, strength, counts by role)."""
    return pd.DataFrame([answered({"method": method, "n_features": n, "strength": c}, **by) for n, c, by in settings])


def fronts(n=1000, **forget):
    """07_pareto: method -> right answers of n at side effects of 1 (None for no such setting), and of 0.5."""
    forget = dict.fromkeys(("GA", "NPO", "SSD", "SCRUB"), (990, 300)) | forget
    rows = [
        answered({"method": method, "setting": "s"}, forget=(right, n), side=side)
        for method, both in forget.items()
        for right, side in zip(both, ((n, n), (n // 2, n)), strict=True)
        if right is not None
    ]
    return pd.DataFrame(rows)


BASELINES = dict.fromkeys(("GA", "NPO", "SSD", "SCRUB", "static_clamp", "RMU"), (90, 100))


def held_out(side=(295, 295), **forget):
    """03_held_out and 05_held_out: method -> (right, n) of the forget questions, or None for no setting.

    The rows of the papers' protocol say that everything is forgotten, and must not be read.
    """
    rows = []
    for method, counts in forget.items():
        labels = {"method": method.replace("_", " ")}
        found = {} if counts is None else {"forget": counts, "side": side}
        setting = "none" if counts is None else "s"
        rows += [
            answered(
                labels | {"protocol": "chosen and reported on the same questions", "setting": "s"}, forget=(0, 99)
            ),
            answered(labels | {"protocol": "chosen on one half, reported on the other", "setting": setting}, **found),
        ]
    return pd.DataFrame(rows)


def aligned(n=100, width=0.1, **found):
    """04_alignment: method -> (alignment, R_good, R_bad), each with an interval of +-width."""
    rows = []
    for method, values in found.items():
        row = {
            "protocol": "chosen on one half, reported on the other",
            "method": method.replace("_", " "),
            "setting": "s",
        }
        for name, x in zip(("alignment", "good_retention", "bad_retention"), values, strict=True):
            row |= {name: x, f"{name}_low": x - width, f"{name}_high": x + width}
        rows.append(row | {"forget_n": n, "side_n": n})
    return pd.DataFrame(rows)


def questions(near=None, tau=0.2, **opened):
    """05_rho: role -> (questions at which the gate opens, questions)."""
    opened |= {"near": near} if near else {}
    rows = [("questions", role, 0.3 if i < k else 0.1, tau) for role, (k, n) in opened.items() for i in range(n)]
    return pd.DataFrame([*rows, ("text", "retain text", 0.9, tau)], columns=["kind", "role", "rho", "tau"])


def attack(arm, forget, side=(1.0, 1.0), n=100):
    """06_relearning: accuracies before and after; two seeds, which differ by 0.1 after the attack."""
    rows = [
        (arm, seed, epoch, role, n, accuracy[epoch > 0] + (shift if role == "forget" and epoch else 0))
        for seed, shift in ((0, -0.05), (1, 0.05))
        for epoch in (0, 5)
        for role, accuracy in (("forget", forget), ("side", side))
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "epoch", "role", "n", "accuracy"])


def guarded(at_test, in_training, n=100):
    """06_relearning: both arms of DSG, each (before, after) or (before, after, side after)."""
    arms = (("DSG at test time", at_test), ("DSG also in training", in_training))
    return pd.concat([attack(arm, x[:2], (1.0, x[2] if len(x) > 2 else 1.0), n) for arm, x in arms])


def growing(*accuracies, side=(1000, 1000), n=1000, method="DSG"):
    """08_at_once: right answers of n with 1, 2, ... folds, and the side effects each time."""
    rows = [
        (method, number, measure, asked, *counts)
        for number, right in enumerate(accuracies, start=1)
        for asked, measure, counts in (
            ("to be forgotten", "accuracy", (right, n)), ("to be forgotten", "gate opens", (n, n)),
            ("side", "accuracy", side),
        )
    ]  # fmt: skip
    return _counted(rows, ["method", "requests", "measure", "asked", "right", "n"])


def in_turn(then, now, n=1000, method="DSG", how="refitted"):
    """08_requests: fold 1 right after its request and after the second; fold 2, the last, which must not be read."""
    rows = [
        (method, how, number, "accuracy", asked, right, n)
        for number, asked, right in ((1, "fold 1", then), (1, "fold 2", n), (2, "fold 1", now), (2, "fold 2", n))
    ]
    return _counted(rows, ["method", "how", "requests", "measure", "asked", "right", "n"])


def _counted(rows, columns):
    table = pd.DataFrame(rows, columns=columns)
    ends = [wilson_interval(right, n) for right, n in zip(table["right"], table["n"], strict=True)]
    low, high = zip(*ends, strict=True)
    return table.assign(accuracy=table["right"] / table["n"], low=low, high=high)


def shares(fifth, full, side=(1000, 1000), n=1000):
    """09_little_text: right answers of n with a fifth and with all of the text."""
    ours = [
        answered({"world": "ours", "method": "DSG", "share": share}, forget=(right, n), side=side)
        for share, right in ((0.2, fifth), (1.0, full))
    ]
    return pd.DataFrame([*ours, answered({"world": "others", "method": "DSG", "share": 0.2}, forget=(9, 9))])


def named(by_name, by_text, side=(1000, 1000), n=1000):
    """09_no_text: the chosen tau of features by name, another that must not be read, and features by forget text."""
    of = (("by their names", 0.3, True, by_name), ("by their names", 0.1, False, 0),
          ("by forget text", 0.36, True, by_text))  # fmt: skip
    return pd.DataFrame(
        [
            answered(
                {"world": "ours", "features": features, "threshold": tau, "chosen": chosen}, forget=(k, n), side=side
            )
            for features, tau, chosen, k in of
        ]
    )


def slowly(rmu, dsg, fast=None):
    """06_rates: RMU and both arms of DSG, each (before, after): RMU relearns all at a rate, or `fast`, and slower."""
    fast, slow = (pd.concat([attack("RMU", r), guarded(d, d)]) for r, d in ((fast or (rmu[0], 1.0), dsg), (rmu, dsg)))
    return pd.concat([fast.assign(learning_rate=1e-5), slow.assign(learning_rate=1e-6)])


def drift(cosine, ratio, half=0.001, loss=1.0):
    """06_residual: after the SAE's layer 1, and after layer 2, where everything has moved; the loss goes from 2."""
    rows = [("DSG at test time", text, measure, x, 16, value, value - half, value + half, 1)
            for text in ("forget text", "retain text")
            for x, values in ((1, (cosine, ratio)), (2, (0.1, 3.0)))
            for measure, value in zip(("cosine", "norm ratio"), values, strict=True)]  # fmt: skip
    rows += [("DSG at test time", "training", "loss", x, 0, y, None, None, 1) for x, y in ((1, 2.0), (2, loss))]
    columns = ["arm", "text", "measure", "x", "n", "value", "low", "high", "sae_layer"]
    return pd.DataFrame(rows, columns=columns)


# --- every rule -------------------------------------------------------------------------------------------------------

# of 1000 questions 300 are [0.27, 0.33], 500 [0.47, 0.53], 700 [0.67, 0.73]; of 10 they are too wide to tell
MANY, HALF, FEW = {"forget": (300, 1000), "side": (300, 1000)}, (500, 1000), {"forget": (9, 10), "side": (9, 10)}
ALL = {"forget": (1000, 1000), "near": (1000, 1000), "side": (1000, 1000)}

CASES = {
    claims.features._specific: {
        "two of three fire a hundred times as often": (rates((0.1, 0.001), (0.2, 0.002), (0.1, 0.05)), AGREES),
        "one of three": (rates((0.1, 0.001), (0.1, 0.05), (0.2, 0.1)), DISAGREES),
        "one of two": (rates((0.1, 0.001), (0.1, 0.05)), UNDECIDED),
        "null: as often on both": (rates((0.05, 0.05)), DISAGREES),
        "null: 20 tokens": (rates((0.1, 0.0), tokens=20), UNDECIDED),  # 2 of 20 against 0 of 20
        "null: hardly ever anywhere": (rates((0.002, 0.0)), DISAGREES),  # 20 of 10,000 tokens, maybe of one document
        "no features": (rates(), NOT_RUN),
        "no forget text": (rates((0.0, 0.0), tokens=0), NOT_RUN),
    },
    claims.features._one_forgets: {
        "the strongest on half 0 forgets, spares the rest": (
            candidates((9, {"forget": (850, 1000), "side": (990, 1000)}), (2, ALL)),
            AGREES,
        ),
        "only one that was weaker on half 0 forgets": (
            candidates((9, ALL), (2, {"forget": (850, 1000), "side": (990, 1000)})),
            UNDECIDED,
        ),
        "the rest falls too": (candidates((9, {"forget": (850, 1000), "side": (900, 1000)})), DISAGREES),
        "97 of 100": (candidates((9, {"forget": (97, 100), "side": (300, 300)})), UNDECIDED),  # 0.03 [-0.03, 0.09]
        "null: none is kept": (candidates(), DISAGREES),
        "null: none is kept, 2 questions": (candidates(asked=2), UNDECIDED),
        "null: nothing lost on the other half": (candidates((9, ALL)), UNDECIDED),
        "null: 5 questions": (candidates((1, {"forget": (3, 5), "side": (9, 10)})), UNDECIDED),
        "no candidate": (candidates(fallen=0), NOT_RUN),
        "no side question": (candidates((9, {"forget": (850, 1000)})), NOT_RUN),
    },
    claims.clamps._ablation_of_one: {
        "as before, though a clamp flips it": (curve(KNOWN, KNOWN, FLIPPED), AGREES),
        "ablation flips it": (curve(KNOWN, FLIPPED, FLIPPED), DISAGREES),
        "right, but less so": (curve(KNOWN, (0.8, 0.1, 0.1), FLIPPED), UNDECIDED),
        "null: no clamp of the feature does anything": (curve(KNOWN, KNOWN, KNOWN), UNDECIDED),
        "null: not known before": (curve(FLIPPED, FLIPPED, FLIPPED), NOT_RUN),
        "no ablation": (curve(KNOWN), NOT_RUN),
    },
    claims.clamps._clamp_of_one: {
        "another letter is said": (curve(KNOWN, KNOWN, FLIPPED), AGREES),
        "the right one stays likelier": (curve(KNOWN, KNOWN, (0.6, 0.4, 0.0)), DISAGREES),
        "another is just likelier": (curve(KNOWN, KNOWN, BARELY), UNDECIDED),
        "null: nothing moves": (curve(KNOWN, KNOWN, KNOWN), DISAGREES),
        "null: the model says no letter any more": (curve(KNOWN, KNOWN, SILENT), DISAGREES),
        "null: wrong before the edit": (curve(FLIPPED, FLIPPED, FLIPPED), NOT_RUN),
        "ablation is no negative clamp": (curve(KNOWN, FLIPPED, KNOWN), DISAGREES),
    },
    claims.clamps._saturation: {
        "stronger clamps keep B": (curve(KNOWN, KNOWN, FLIPPED, FLIPPED, (0.0, 0.6, 0.4)), AGREES),
        "C takes over from B": (curve(KNOWN, KNOWN, FLIPPED, (0.02, 0.0, 0.9)), DISAGREES),
        "B stays likeliest, below one half": (curve(KNOWN, KNOWN, FLIPPED, (0.1, 0.4, 0.2)), UNDECIDED),
        "one keeps it, the next does not": (curve(KNOWN, KNOWN, FLIPPED, FLIPPED, SILENT), PARTLY),
        "null: no letter is said any more": (curve(KNOWN, KNOWN, FLIPPED, SILENT), DISAGREES),
        "null: nothing flips": (curve(KNOWN, KNOWN, KNOWN, KNOWN), UNDECIDED),
        "null: no stronger clamp was tried": (curve(KNOWN, KNOWN, KNOWN, FLIPPED), UNDECIDED),
        "not known before": (curve(FLIPPED, FLIPPED, FLIPPED), NOT_RUN),
    },
    claims.clamps._loss_of_one: {
        "free": (curve(KNOWN, KNOWN, FLIPPED, loss=0.002), AGREES),
        "dear": (curve(KNOWN, KNOWN, FLIPPED, loss=0.02), DISAGREES),
        "barely a flip": (curve(KNOWN, KNOWN, BARELY, loss=0.002), UNDECIDED),
        "null: nothing flips, at no cost": (curve(KNOWN, KNOWN, KNOWN), UNDECIDED),
        "not known before": (curve(FLIPPED, FLIPPED, FLIPPED), NOT_RUN),
    },
    claims.clamps._controls: {
        "5 of 5 harmless": (controls(0.01, *[0.9] * 5), AGREES),  # [0.57, 1]
        "5 of 5 flip it": (controls(0.01, *[0.1] * 5), DISAGREES),
        "4 of 5 harmless": (controls(0.01, *[0.9] * 4, 0.1), UNDECIDED),  # [0.38, 0.96]
        "most, not all": (controls(0.01, *[0.9] * 19, 0.1), PARTLY),
        "null: nor does the clamp itself": (controls(0.9, *[0.9] * 5), UNDECIDED),
        "null: 2 of 2": (controls(0.01, 0.9, 0.9), UNDECIDED),  # [0.34, 1]
        "no other feature": (controls(0.01), NOT_RUN),
    },
    claims.clamps._few_carry: {
        "the first two of eight do 95 %": (carried(700, 525, *[520] * 5, 500), AGREES),
        "all do alike": (carried(*range(950, 550, -50)), DISAGREES),  # the first two do 100 of 400
        "two do 80 %, of 100 questions": (carried(80, 60, *[55] * 5, 50, n=100), UNDECIDED),
        "two do 90 %, of 20 questions": (carried(15, 11, *[11] * 5, 10, n=20), UNDECIDED),  # may be less than half
        "null: nothing is lost": (carried(*[1000] * 8), UNDECIDED),
        "null: 4 questions": (carried(*[2] * 8, n=4), UNDECIDED),
        "three features": (carried(900, 800, 700), NOT_RUN),
    },
    # own decoders have half of their effect at c = 2
    claims.clamps._decoders_matter: {
        "0.6 and 0.9, at a higher loss": (along((900, 600, 200), (1000, 900, 300)), AGREES),
        "0.9 and 0.6, at a lower loss": (along((1000, 600, 200), (900, 300, 100), loss=(0.1, 0.0)), DISAGREES),
        "forgets less, costs less": (along((900, 600, 200), (1000, 900, 300), loss=(0.1, 0.0)), PARTLY),
        "6 and 7 of 10": (along((9, 6, 2), (10, 7, 3), n=10), UNDECIDED),
        "null: both do nothing": (along((1000, 1000, 1000), (1000, 1000, 1000)), UNDECIDED),
        "null: 3 questions": (along((3, 2, 1), (3, 3, 3), n=3), UNDECIDED),
        "no control": (along((900, 600, 200), ()), NOT_RUN),
    },
    claims.clamps._ablation_of_many: {
        "all right when ablated": (clamps((20, 0, ALL), (20, 9, MANY)), AGREES),
        "half right": (clamps((20, 0, MANY | {"forget": HALF}), (20, 9, MANY)), DISAGREES),
        "95 of 100": (clamps((20, 0, {"forget": (95, 100)}), (20, 9, MANY)), UNDECIDED),
        "null: nor does the strongest clamp": (clamps((20, 0, ALL), (20, 9, ALL)), UNDECIDED),
        "null: 5 questions": (clamps((20, 0, {"forget": (5, 5)}), (20, 9, {"forget": (0, 5)})), UNDECIDED),
        "one feature": (clamps((1, 0, ALL), (1, 9, MANY)), NOT_RUN),
        "no ablation": (clamps((20, 9, MANY)), NOT_RUN),
        "no known question": (clamps((20, 0, {}), (20, 9, {})), NOT_RUN),
    },
    claims.tradeoffs._more_features: {
        "fall both": (clamps((10, 9, ALL), (50, 9, MANY), (50, 0, ALL)), AGREES),
        "rise both": (clamps((10, 9, MANY), (50, 9, ALL)), DISAGREES),
        "only forget falls for sure": (clamps((10, 9, ALL), (50, 9, ALL | {"forget": HALF})), UNDECIDED),
        "forget falls, side rises": (
            clamps((10, 9, {"forget": HALF, "side": HALF}), (50, 9, {"forget": (300, 1000), "side": (700, 1000)})),
            PARTLY,
        ),
        "published features count too": (
            clamps((10, 9, ALL), (50, 9, MANY), method="static clamp, published features"),
            AGREES,
        ),
        "null: nothing falls": (clamps((10, 9, ALL), (50, 9, ALL)), UNDECIDED),
        "null: 10 questions": (clamps((10, 9, {"forget": (10, 10), "side": (10, 10)}), (50, 9, FEW)), UNDECIDED),
        "one number of features": (clamps((10, 9, ALL), (10, 5, MANY)), NOT_RUN),
        "no clamp": (clamps((10, 9, ALL), (50, 9, MANY), method="RMU"), NOT_RUN),
        "no side question": (clamps((10, 9, {"forget": HALF}), (50, 9, {"forget": HALF})), NOT_RUN),
    },
    claims.tradeoffs._near_falls: {
        "near 0.5, side 0.8": (clamps((50, 9, {"forget": (3, 10), "near": (50, 100), "side": (400, 500)})), AGREES),
        "near 0.8, side 0.5": (clamps((50, 9, {"forget": (3, 10), "near": (400, 500), "side": (50, 100)})), DISAGREES),
        "of 4 questions": (clamps((50, 9, {"forget": (3, 10), "near": (2, 4), "side": (400, 500)})), UNDECIDED),
        "null: nothing falls": (clamps((50, 9, ALL)), UNDECIDED),
        "no near question": (clamps((50, 9, MANY)), NOT_RUN),
        "no known question": (clamps((50, 9, {})), NOT_RUN),
        "no clamp": (clamps((50, 9, ALL), method="RMU"), NOT_RUN),
    },
    claims.tradeoffs._rmu_beats_clamps: {
        "0.5 below 0.9": (held_out(RMU=(50, 100), static_clamp=(90, 100)), AGREES),
        "0.9 above 0.5": (held_out(RMU=(90, 100), static_clamp=(50, 100)), DISAGREES),
        "0.45 and 0.5 of 100": (held_out(RMU=(45, 100), static_clamp=(50, 100)), UNDECIDED),
        "the clamps have no setting": (held_out(RMU=(50, 100), static_clamp=None), AGREES),
        "RMU has no setting": (held_out(RMU=None, static_clamp=(50, 100)), DISAGREES),
        "neither has": (held_out(RMU=None, static_clamp=None), UNDECIDED),
        "neither has, a reference has": (held_out(RMU=None, static_clamp=None, retrained=(25, 100)), UNDECIDED),
        "a reference is below both": (held_out(RMU=(90, 100), static_clamp=(50, 100), retrained=(25, 100)), DISAGREES),
        "side effects lost on the other half": (
            held_out(side=(240, 295), RMU=(50, 100), static_clamp=(90, 100)),
            DISAGREES,
        ),
        "null: one question fewer than unedited": (held_out(RMU=(99, 100), static_clamp=None), UNDECIDED),
        "null: all right in both": (held_out(RMU=(100, 100), static_clamp=(100, 100)), UNDECIDED),
        "null: 4 questions": (held_out(RMU=(2, 4), static_clamp=(4, 4)), UNDECIDED),
        "RMU not trained": (held_out(**{"static clamp, published features": (50, 100)}), NOT_RUN),
        "no clamp": (held_out(RMU=(50, 100)), NOT_RUN),
    },
    claims.tradeoffs._rmu_beats_attribution: {
        "0.5 below 0.9": (held_out(RMU=(50, 100), static_clamp=(10, 100), attribution_clamp=(90, 100)), AGREES),
        "0.9 above 0.5": (held_out(RMU=(90, 100), attribution_clamp=(50, 100)), DISAGREES),
        "0.45 and 0.5 of 100": (held_out(RMU=(45, 100), attribution_clamp=(50, 100)), UNDECIDED),
        "null: all right in both": (held_out(RMU=(100, 100), attribution_clamp=(100, 100)), UNDECIDED),
        "no feature by attribution": (held_out(RMU=(50, 100), static_clamp=(90, 100)), NOT_RUN),
    },
    claims.alignment._clamp_prime_forgets: {
        "R_bad to 0.47, R_good from 0.85": (aligned(Clamp_Prime=(0.6, 0.95, 0.37)), AGREES),
        "neither": (aligned(Clamp_Prime=(0.2, 0.6, 0.7)), DISAGREES),
        "R_bad to 0.55": (aligned(Clamp_Prime=(0.5, 0.95, 0.45)), UNDECIDED),
        "null: does nothing": (aligned(width=0, Clamp_Prime=(0.0, 1.0, 1.0)), DISAGREES),
        "null: ruins everything": (aligned(width=0, Clamp_Prime=(0.0, 0.0, 0.0)), DISAGREES),
        "null: 4 questions": (aligned(n=4, width=0, Clamp_Prime=(1.0, 1.0, 0.0)), UNDECIDED),
        "no Clamp Prime": (aligned(RMU=(0.6, 0.95, 0.37)), NOT_RUN),
        "no known question": (aligned(n=None, Clamp_Prime=(0.6, 0.95, 0.37)), NOT_RUN),
    },
    # two intervals of +-0.1 make one of +-0.14 for a difference
    claims.alignment._refusal_is_best: {
        "0.15 above both": (
            aligned(Refusal_Clamp=(0.75, 1, 0.2), Clamp_Prime=(0.6, 1, 0.4), RMU=(0.5, 1, 0.5)),
            AGREES,
        ),
        "below both": (aligned(Refusal_Clamp=(0.3, 1, 0.7), Clamp_Prime=(0.6, 1, 0.4), RMU=(0.5, 1, 0.5)), DISAGREES),
        "0.13 above one": (
            aligned(Refusal_Clamp=(0.73, 1, 0.2), Clamp_Prime=(0.6, 1, 0.4), RMU=(0.5, 1, 0.5)),
            UNDECIDED,
        ),
        "between them": (aligned(Refusal_Clamp=(0.6, 1, 0.4), Clamp_Prime=(0.4, 1, 0.6), RMU=(0.8, 1, 0.2)), PARTLY),
        "null: all do nothing": (
            aligned(width=0.01, Refusal_Clamp=(0, 1, 1), Clamp_Prime=(0, 1, 1), RMU=(0, 1, 1)),
            UNDECIDED,
        ),
        "null: 4 questions": (
            aligned(n=4, width=0, Refusal_Clamp=(1, 1, 0), Clamp_Prime=(0.6, 1, 0.4), RMU=(0.5, 1, 0.5)),
            UNDECIDED,
        ),
        "no RMU": (aligned(Refusal_Clamp=(0.75, 1, 0.2), Clamp_Prime=(0.6, 1, 0.4)), NOT_RUN),
    },
    claims.alignment._clamps_near_rmu: {
        "above by 0.1": (aligned(Clamp_Prime=(0.7, 1, 0.3), RMU=(0.6, 1, 0.4)), AGREES),
        "below by 0.3": (aligned(Clamp_Prime=(0.4, 1, 0.6), RMU=(0.7, 1, 0.3)), DISAGREES),
        "below by 0.1": (aligned(Clamp_Prime=(0.6, 1, 0.4), RMU=(0.7, 1, 0.3)), UNDECIDED),
        "null: both do nothing": (aligned(width=0.02, Clamp_Prime=(0, 1, 1), RMU=(0, 1, 1)), UNDECIDED),
        "null: intervals too wide": (aligned(width=0.3, Clamp_Prime=(0.6, 1, 0.4), RMU=(0.6, 1, 0.4)), UNDECIDED),
        "no RMU": (aligned(Clamp_Prime=(0.6, 1, 0.4)), NOT_RUN),
    },
    claims.alignment._condition_is_needed: {
        "ruins the rest": (aligned(unconditional_add=(0.2, 0.3, 0.3), Clamp_Prime=(0.6, 0.9, 0.3)), AGREES),
        "does better": (aligned(unconditional_add=(0.8, 0.9, 0.1), Clamp_Prime=(0.3, 0.5, 0.4)), DISAGREES),
        "0.1 lower": (aligned(unconditional_add=(0.5, 0.8, 0.4), Clamp_Prime=(0.6, 0.9, 0.3)), UNDECIDED),
        "null: both do nothing": (aligned(unconditional_add=(0, 1, 1), Clamp_Prime=(0, 1, 1)), UNDECIDED),
        "null: addition does nothing": (aligned(unconditional_add=(0, 1, 1), Clamp_Prime=(0.6, 0.7, 0.1)), DISAGREES),
        "no addition": (aligned(Clamp_Prime=(0.6, 0.9, 0.3)), NOT_RUN),
    },
    claims.tradeoffs._gate_separates: {
        "99 % and 0 %": (questions(forget=(99, 100), near=(9, 50), side=(0, 300)), AGREES),  # from 0.95; to 0.01
        "open on both halves": (questions(forget=(50, 100), side=(50, 100)), DISAGREES),
        "90 of 100": (questions(forget=(90, 100), side=(0, 300)), UNDECIDED),
        "80 of 100": (questions(forget=(80, 100), side=(0, 300)), PARTLY),  # to 0.87
        "null: always open": (questions(forget=(100, 100), side=(300, 300)), DISAGREES),
        "null: always shut": (questions(forget=(0, 100), side=(0, 300)), DISAGREES),
        "null: 2 questions": (questions(forget=(2, 2), side=(0, 2)), UNDECIDED),
        "no side question": (questions(forget=(99, 100)), NOT_RUN),
        "no threshold": (questions(tau=None, forget=(99, 100), side=(0, 300)), NOT_RUN),
    },
    claims.tradeoffs._dsg_forgets: {
        "0.3 of 100": (held_out(DSG=(30, 100)), AGREES),  # to 0.40
        "0.7 of 100": (held_out(DSG=(70, 100)), DISAGREES),
        "0.45 of 100": (held_out(DSG=(45, 100)), UNDECIDED),  # to 0.55
        "side effects lost": (held_out(side=(240, 295), DSG=(30, 100)), DISAGREES),
        "no setting": (held_out(DSG=None), DISAGREES),
        "silenced: letters are hardly said": (held_out(DSG=(30, 100)).assign(forget_mass=0.3), PARTLY),
        "silenced: one letter to nearly all": (held_out(DSG=(30, 100)).assign(forget_letter=0.95), PARTLY),
        "says every letter": (held_out(DSG=(30, 100)).assign(forget_mass=0.98, forget_letter=0.4), AGREES),
        "null: silenced, and nothing forgotten": (held_out(DSG=(99, 100)).assign(forget_mass=0.3), DISAGREES),
        "null: nothing forgotten, all kept": (held_out(DSG=(100, 100)), DISAGREES),
        "null: 2 questions": (held_out(DSG=(0, 2)), UNDECIDED),
        "null: 10 side questions": (held_out(side=(10, 10), DSG=(30, 100)), UNDECIDED),
        "no DSG": (held_out(RMU=(30, 100)), NOT_RUN),
    },
    claims.tradeoffs._dsg_ahead_of_all: {
        "below all": (held_out(DSG=(30, 100), **BASELINES), AGREES),
        "above RMU": (held_out(DSG=(80, 100), **BASELINES | {"RMU": (40, 100)}), PARTLY),
        "above all": (held_out(DSG=(99, 100), **dict.fromkeys(BASELINES, (50, 100))), DISAGREES),
        "as one of them": (held_out(DSG=(48, 100), **BASELINES | {"RMU": (50, 100)}), UNDECIDED),
        "null: nothing forgotten": (held_out(DSG=(99, 100), **dict.fromkeys(BASELINES, (99, 100))), UNDECIDED),
        "no SCRUB": (held_out(DSG=(30, 100), RMU=(70, 100)), NOT_RUN),
    },
    claims.tradeoffs._rmu_fails: {
        "only at a price": (fronts(RMU=(990, 300)), AGREES),
        "none keeps the side effects": (fronts(RMU=(None, 300)), AGREES),
        "half of it": (fronts(RMU=(500, 300)), DISAGREES),
        "at the bound": (fronts(RMU=(810, 300)), UNDECIDED),  # 0.8125 is a quarter of the way from 1 to chance
        "null: never tried hard enough": (fronts(RMU=(1000, 990)), UNDECIDED),
        "no RMU": (fronts(), NOT_RUN),
    },
    claims.tradeoffs._hardly_forget: {
        "only at a price": (fronts(SCRUB=(990, 300)), AGREES),
        "none keeps the side effects": (fronts(SCRUB=(None, 300)), AGREES),
        "SCRUB forgets": (fronts(SCRUB=(400, 300)), PARTLY),
        "all forget": (fronts(**dict.fromkeys(("GA", "NPO", "SSD", "SCRUB"), (400, 300))), DISAGREES),
        "one at the bound": (fronts(SCRUB=(900, 300)), UNDECIDED),
        "null: one was never tried hard enough": (fronts(NPO=(1000, 990)), UNDECIDED),
        "null: nothing was done": (fronts(**dict.fromkeys(("GA", "NPO", "SSD", "SCRUB"), (1000, 1000))), UNDECIDED),
        "no SSD": (fronts()[lambda t: t["method"] != "SSD"], NOT_RUN),
    },
    claims.tradeoffs._dsg_is_best: {
        "below both": (held_out(DSG=(30, 100), RMU=(70, 100), static_clamp=(90, 100)), AGREES),
        "above both": (held_out(DSG=(90, 100), RMU=(70, 100), static_clamp=(50, 100)), DISAGREES),
        "40 and 45 of 100": (held_out(DSG=(40, 100), RMU=(70, 100), static_clamp=(45, 100)), UNDECIDED),
        "between them": (held_out(DSG=(60, 100), RMU=(90, 100), static_clamp=(30, 100)), PARTLY),
        "static clamps have no setting": (held_out(DSG=(40, 100), RMU=(70, 100), static_clamp=None), AGREES),
        "DSG has no setting": (held_out(DSG=None, RMU=(70, 100), static_clamp=(99, 100)), DISAGREES),
        "null: nothing forgotten": (held_out(DSG=(99, 100), RMU=(100, 100), static_clamp=None), UNDECIDED),
        "null: 3 questions": (held_out(DSG=(1, 3), RMU=(3, 3), static_clamp=(3, 3)), UNDECIDED),
        "null: 10 side questions": (
            held_out(side=(10, 10), DSG=(30, 100), RMU=(70, 100), static_clamp=(90, 100)),
            UNDECIDED,
        ),
        "no RMU": (held_out(DSG=(30, 100), static_clamp=(90, 100)), NOT_RUN),
    },
    claims.relearning._rmu_relearns: {
        "0.5 to 0.8": (attack("RMU", (0.5, 0.8)), AGREES),
        "0.5 to 0.4": (attack("RMU", (0.5, 0.4)), DISAGREES),
        "beyond chance, but a sixth": (attack("RMU", (0.4, 0.5), n=1000), DISAGREES),  # 0.1 [0.06, 0.14] of 0.6
        "0.5 to 0.6": (attack("RMU", (0.5, 0.6)), UNDECIDED),
        "null: nothing had been forgotten": (attack("RMU", (1.0, 1.0)), UNDECIDED),
        "null: one question forgotten and relearned": (attack("RMU", (0.99, 1.0)), UNDECIDED),
        "null: 4 questions": (attack("RMU", (0.25, 0.75), n=4), UNDECIDED),
        "no RMU": (attack("DSG at test time", (0.5, 0.8)), NOT_RUN),
        "no attack": (attack("RMU", (0.5, 0.8)).query("epoch == 0"), NOT_RUN),
    },
    claims.relearning._dsg_holds: {
        "both stay": (guarded((0.3, 0.3), (0.3, 0.2)), AGREES),  # 0 [-0.13, 0.13] of a loss of 0.7
        "both relearn": (guarded((0.3, 0.8), (0.3, 0.7)), DISAGREES),
        "0.3 to 0.4": (guarded((0.3, 0.4), (0.3, 0.3)), UNDECIDED),  # 0.1 [-0.03, 0.23] of a loss of 0.7
        "one relearns": (guarded((0.3, 0.8), (0.3, 0.3)), PARTLY),
        "one is ruined": (guarded((0.3, 0.3), (0.3, 0.2, 0.7)), PARTLY),
        "null: nothing had been forgotten": (guarded((1.0, 1.0), (1.0, 1.0)), UNDECIDED),
        "null: both are ruined": (guarded((0.3, 0.2, 0.5), (0.3, 0.2, 0.5)), DISAGREES),
        "null: 4 questions": (guarded((0.25, 0.25), (0.25, 0.25), n=4), UNDECIDED),
        "one arm is missing": (attack("DSG at test time", (0.3, 0.3)), NOT_RUN),
    },
    claims.forget_sets._scales: {
        "all sizes": (growing(300, 300, 300), AGREES),
        "the largest is not forgotten": (growing(300, 300, 900), DISAGREES),
        "side effects lost": (growing(300, 300, side=(900, 1000)), DISAGREES),
        "half": (growing(300, 500), UNDECIDED),
        "null: nothing forgotten": (growing(1000, 1000), DISAGREES),
        "null: 3 questions": (growing(0, 0, n=3), UNDECIDED),
        "one size": (growing(300), NOT_RUN),
        "no DSG": (growing(300, 300, method="RMU"), NOT_RUN),
    },
    claims.forget_sets._stays_forgotten: {
        "it stays": (in_turn(300, 300), AGREES),
        "it comes back": (in_turn(300, 900), DISAGREES),
        "one way keeps it, the other does not": (
            pd.concat([in_turn(300, 300), in_turn(300, 900, how="joined")]), PARTLY,
        ),
        "a tenth comes back": (in_turn(300, 400), UNDECIDED),
        "null: never forgotten": (in_turn(1000, 1000), DISAGREES),
        "null: 5 questions": (in_turn(1, 1, n=5), UNDECIDED),
        "no DSG": (in_turn(300, 300, method="RMU"), NOT_RUN),
    },
    claims.forget_sets._fifth_is_enough: {
        "as much": (shares(300, 300), AGREES),
        "far less": (shares(700, 300), DISAGREES),
        "side effects lost": (shares(300, 300, side=(900, 1000)), DISAGREES),
        "a tenth less": (shares(400, 300), UNDECIDED),
        "null: nothing forgotten by either": (shares(1000, 1000), DISAGREES),
        "null: 4 questions": (shares(1, 1, n=4), UNDECIDED),
        "no fifth": (shares(300, 300).query("share == 1"), NOT_RUN),
    },
    claims.forget_sets._names_are_enough: {
        "as much": (named(300, 300), AGREES),
        "far less": (named(860, 260), DISAGREES),
        "side effects lost": (named(300, 300, side=(900, 1000)), DISAGREES),
        "a tenth less": (named(400, 300), UNDECIDED),
        "null: nothing forgotten by either": (named(1000, 1000), DISAGREES),
        "null: 4 questions": (named(1, 1, n=4), UNDECIDED),
        "nothing by forget text": (named(300, 300).query("features != 'by forget text'"), NOT_RUN),
    },
    claims.relearning._slow_rate_is_flat: {
        "all stay": (slowly((0.3, 0.3), (0.3, 0.3)), AGREES),
        "all relearn": (slowly((0.3, 0.8), (0.3, 0.8)), DISAGREES),
        "RMU relearns": (slowly((0.3, 0.8), (0.3, 0.3)), PARTLY),
        "null: nothing had been forgotten": (slowly((1.0, 1.0), (1.0, 1.0)), UNDECIDED),
        "null: the faster attack does nothing either": (slowly((0.3, 0.3), (0.3, 0.3), fast=(0.3, 0.3)), UNDECIDED),
        "one rate": (slowly((0.3, 0.3), (0.3, 0.3)).query("learning_rate < 1e-5"), NOT_RUN),
    },
    claims.relearning._residual_hardly_moves: {
        "0.99 and 1.02": (drift(0.99, 1.02), AGREES),
        "turned": (drift(0.8, 1.02), PARTLY),
        "turned and longer": (drift(0.8, 1.3), DISAGREES),
        "null: the training taught nothing": (drift(1.0, 1.0, loss=1.95), UNDECIDED),
        "null: too few rows to tell": (drift(0.94, 1.02, half=0.05), UNDECIDED),
        "no residual": (drift(0.99, 1.02).assign(n=0), NOT_RUN),
    },
}  # fmt: skip


def fits(slope, r):
    """14_fisher: (value, low, high) of slope and r on forget text."""
    row = {"layer": 1, "text": "forget text", "scale": 1.0}
    for name, values in (("slope", slope), ("r", r)):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return pd.DataFrame([row])


def ranks(low, high, score="E[f^2] on forget text"):
    """14_causal: the interval of one score's rank correlation."""
    row = (score, "forget", (low + high) / 2, low, high)
    return pd.DataFrame([row], columns=["score", "role", "spearman", "spearman_low", "spearman_high"])


def powers(low, high, n=50, auc=(0.9, 0.85, 0.95)):
    """14_roc: the interval of one test's AUC above rho's, of so many questions on either side."""
    columns = ["test", "against", "auc", "auc_low", "auc_high", "difference", "difference_low", "difference_high"]
    rows = [("rho", "side", *auc, 0, 0, 0), ("other", "side", *auc, 0.0, low, high)]
    return pd.DataFrame(rows, columns=columns).assign(positives=n, negatives=n)


CASES |= {
    claims.theorems._proportional: {
        "slope and r": (fits((1, 0.95, 1.05), (0.99, 0.98, 0.995)), AGREES),
        "slope open": (fits((1, 0.85, 1.05), (0.99, 0.98, 0.995)), UNDECIDED),
        "too steep": (fits((1.3, 1.2, 1.4), (0.99, 0.98, 0.995)), DISAGREES),
        "scattered": (fits((1, 0.95, 1.05), (0.8, 0.7, 0.9)), DISAGREES),
        "null: flat": (fits((0, -0.1, 0.1), (0, -0.1, 0.1)), DISAGREES),
        "another scale only": (fits((1, 0.95, 1.05), (0.99, 0.98, 0.995)).assign(scale=2.0), NOT_RUN),
    },
    claims.theorems._causal: {
        "high": (ranks(0.6, 0.9), AGREES),
        "open": (ranks(0.3, 0.7), UNDECIDED),
        "null: no relation": (ranks(-0.2, 0.2), DISAGREES),
        "another score": (ranks(0.6, 0.9, "attribution"), NOT_RUN),
    },
    claims.theorems._most_powerful: {
        "none can be above": (powers(-0.05, 0.01), AGREES),
        "open": (powers(-0.05, 0.05), UNDECIDED),
        "null: one is above": (powers(0.01, 0.05), DISAGREES),
        "null: none tells anything": (powers(-0.05, 0.01, auc=(0.5, 0.4, 0.6)), UNDECIDED),
        "few questions": (powers(-0.05, 0.01, n=5), NOT_RUN),
    },
}


def along(column, *settings, n=1000, n_features=10):
    """15_p_ratio, 15_p_dyn and 15_grid: (value, right forget answers of n[, right side effects]); one row of theirs."""
    rows = [
        answered(
            {"world": "ours", column: value, "n_features": n_features}, forget=(right, n), side=(*(side or (n,)), n)
        )
        for value, right, *side in settings
    ]
    theirs = {"world": "a reproduction", column: 1, "n_features": n_features}
    return pd.DataFrame([*rows, answered(theirs, forget=(0, n))])


def separated(n=100, **against):
    """15_rho: interval by which rho's distance is above that of raw counts, against each text or role."""
    rows = []
    for name, (low, high) in against.items():
        for statistic, apart in (("rho", (0, 0)), ("raw counts", (low, high))):
            values = (sum(apart) / 2, *apart, 0.8, 0.7, 0.9)
            rows.append(("ours", name.replace("_", " "), statistic, *values, n, n))
    columns = ["difference", "difference_low", "difference_high", "tvd", "tvd_low", "tvd_high"]
    return pd.DataFrame(rows, columns=["world", "against", "statistic", *columns, "positives", "negatives"])


CASES |= {
    claims.ablations._ratio_matters: {
        "step by step": (along("ratio_percentile", (75, 600), (90, 400), (95, 300)), AGREES),
        "a step up within the margin": (along("ratio_percentile", (75, 600), (80, 620), (95, 300)), AGREES),
        "a step up that may be one": (along("ratio_percentile", (75, 60), (80, 65), (95, 10), n=100), UNDECIDED),
        "null: the same everywhere": (along("ratio_percentile", (75, 1000), (95, 1000)), UNDECIDED),
        "a large step up": (along("ratio_percentile", (75, 600), (80, 900), (95, 300)), DISAGREES),
        "it rises": (along("ratio_percentile", (75, 300), (95, 600)), DISAGREES),
        "one percentile": (along("ratio_percentile", (95, 300)), NOT_RUN),
    },
    claims.ablations._gate_is_u_shaped: {
        "both ends cost more": (along("gate_percentile", (60, 240, 620), (95, 290, 990), (99, 900)), AGREES),
        "null: nothing moves": (along("gate_percentile", (60, 300), (95, 300), (99, 300)), UNDECIDED),
        "an arm may be missing": (along("gate_percentile", (60, 24, 95), (95, 29), (99, 90), n=100), UNDECIDED),
        "the low end is the best": (along("gate_percentile", (60, 240), (95, 400), (99, 900)), DISAGREES),
        "nothing between the ends": (along("gate_percentile", (60, 240), (99, 900)), NOT_RUN),
    },
    claims.ablations._strength_saturates: {
        "one step": (along("strength", (10, 640), (25, 310), (500, 290)), AGREES),
        "null: no step at all": (along("strength", (10, 1000), (25, 1000), (500, 1000)), UNDECIDED),
        "a step that may be none": (along("strength", (10, 50), (25, 40), (500, 38), n=100), UNDECIDED),
        "it goes on": (along("strength", (10, 900), (25, 700), (500, 290)), DISAGREES),
        "more and fewer features differ": (
            pd.concat([along("strength", (10, 640), (25, 310), (500, 290)),
                       along("strength", (10, 900), (25, 700), (500, 290), n_features=20)]), PARTLY,
        ),
        "two strengths": (along("strength", (10, 640), (25, 310)), NOT_RUN),
    },
    claims.ablations._rho_beats_counts: {
        "from both texts": (separated(retain_text=(0.1, 0.3), packed_retain_text=(0.1, 0.3)), AGREES),
        "questions do not count": (separated(retain_text=(0.1, 0.3), side=(-0.3, -0.1)), AGREES),
        "one is open": (separated(retain_text=(0.1, 0.3), packed_retain_text=(-0.1, 0.1)), UNDECIDED),
        "null: the same": (separated(packed_retain_text=(0.0, 0.0)), UNDECIDED),
        "counts are better": (separated(packed_retain_text=(-0.3, -0.1)), DISAGREES),
        "one of each": (separated(retain_text=(0.1, 0.3), packed_retain_text=(-0.3, -0.1)), PARTLY),
        "few questions": (separated(n=5, retain_text=(0.1, 0.3)), NOT_RUN),
    },
}  # fmt: skip


def unblocked(n=100, bare=1.0, **right):
    """11_attacks: of n blocked questions so many right at 400 tokens of far or near text, or over 3 turns."""
    words = {"turns": "3 turns, options last"}
    rows = [("ours", words.get(k, "400 tokens of {} text {}".format(*f"{k}_".split("_"))), "DSG", n, bare,
             *share(r, n)) for k, r in right.items()]  # fmt: skip
    return pd.DataFrame(rows, columns=["world", "setting", "method", "n", "unguarded", "accuracy", "low", "high"])


def share(right, n):
    return (right / n, *wilson_interval(right, n)) if n else (float("nan"),) * 3


def opened(near, side, n=100):
    """11_benign: on so many of n questions of the near domain and of far subjects the gate opens without attack."""
    rows = [("no attack", "gate opens", role, right, n) for role, right in (("near", near), ("side", side))]
    return pd.DataFrame(rows, columns=["attack", "measure", "role", "right", "n"])


def spoken(matches=0, gibberish=60, bare=80, bare_gibberish=0, n=100):
    """11_generation: of n free answers to hazard questions so many, under a gate that is held and unguarded."""
    counts = {("DSG", "held", "matches"): matches, ("DSG", "held", "gibberish"): gibberish,
              ("unguarded", "", "matches"): bare, ("unguarded", "", "gibberish"): bare_gibberish}  # fmt: skip
    rows = [("ours", *key, "forget", *share(right, n)) for key, right in counts.items()]
    return pd.DataFrame(rows, columns=["world", "method", "gate", "measure", "role", "accuracy", "low", "high"])


CASES |= {
    claims.prompt_attacks._held_gate_silences: {
        "none": (spoken(matches=2), AGREES),
        "as many as unguarded": (spoken(matches=80), DISAGREES),
        "half": (spoken(matches=40), UNDECIDED),
        "null: nobody answers": (spoken(matches=0, bare=5), UNDECIDED),
        "no free answers": (spoken().query("role == 'side'"), NOT_RUN),
    },
    claims.prompt_attacks._guard_says_gibberish: {
        "most": (spoken(gibberish=90), AGREES),
        "hardly any": (spoken(gibberish=5), DISAGREES),
        "half": (spoken(gibberish=50), UNDECIDED),
        "null: so does the unguarded": (spoken(gibberish=90, bare_gibberish=90), UNDECIDED),
        "without the guard only": (spoken().query("method == 'unguarded'"), NOT_RUN),
    },
    claims.prompt_attacks._filler_unblocks: {
        "nearly all": (unblocked(far_before=90), AGREES),
        "half": (unblocked(far_before=50), UNDECIDED),
        "null: hardly any": (unblocked(far_before=10), DISAGREES),
        "null: the attack breaks the questions": (unblocked(far_before=10, bare=0.3), UNDECIDED),
        "null: nothing is blocked": (unblocked(far_before=0, n=0), NOT_RUN),
    },
    claims.prompt_attacks._near_text_does_not: {
        "hardly any": (unblocked(far_before=90, near_before=10), AGREES),
        "as many as far text": (unblocked(far_before=90, near_before=90), DISAGREES),
        "half": (unblocked(far_before=90, near_before=50), UNDECIDED),
        "null: far text does not either": (unblocked(far_before=5, near_before=5), UNDECIDED),
        "no near text": (unblocked(far_before=90), NOT_RUN),
    },
    claims.prompt_attacks._around_is_harmless: {
        "hardly any": (unblocked(far_around=10), AGREES),
        "half": (unblocked(far_around=50), UNDECIDED),
        "most": (unblocked(far_around=90), DISAGREES),
        "null: it breaks the questions": (unblocked(far_around=10, bare=0.3), UNDECIDED),
        "none around": (unblocked(far_before=90), NOT_RUN),
    },
    claims.prompt_attacks._turns_unblock: {
        "most": (unblocked(turns=69), AGREES),
        "half": (unblocked(turns=50), UNDECIDED),
        "null: none": (unblocked(turns=0), DISAGREES),
        "no turns": (unblocked(far_before=90), NOT_RUN),
    },
    claims.prompt_attacks._near_domain_pays: {
        "much more often": (opened(60, 1), AGREES),
        "a little": (opened(15, 3), UNDECIDED),
        "null: alike": (opened(3, 3), DISAGREES),
        "no near domain": (opened(60, 1).query("role == 'side'"), NOT_RUN),
    },
}


def muse(verbmem=(40, 35, 45), known=(20, 15, 25), utility=(85, 82, 90), leak=(12, 8, 16), ga=((2, 1, 4),)):
    """10_criteria: (value, low, high) of DSG, and of GA's utility where trainings stopped, beside one target."""
    target = {"VerbMem": (98, 96, 99), "KnowMem forget": (82, 77, 87), "KnowMem retain": (80, 74, 86)}
    dsg = {"VerbMem": verbmem, "KnowMem forget": known, "KnowMem retain": utility, "PrivLeak": leak}
    rows = [("target", "its only setting", name, *ends) for name, ends in target.items()]
    rows += [("DSG", "chosen on half 0", name, *ends) for name, ends in dsg.items()]
    rows = [("", *row) for row in rows]
    rows += [(f"rate {i}", "GA", "stopped as in the paper", "KnowMem retain", *ends) for i, ends in enumerate(ga)]
    columns = ["setting", "method", "rule", "criterion", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(world="ours")


PAPER_ONLY = muse().assign(world="MUSE-News")
CASES |= {
    claims.muse._lowers_memories: {
        "both, and utility stays": (muse(), AGREES),
        "one is open": (muse(known=(82, 77, 87)), UNDECIDED),
        "one rises": (muse(known=(95, 92, 98)), PARTLY),
        "utility goes with them": (muse(utility=(40, 35, 45)), DISAGREES),
        "null: nothing happens": (muse((98, 96, 99), (82, 77, 87), (80, 74, 86)), UNDECIDED),
        "the paper's rows only": (PAPER_ONLY, NOT_RUN),
    },
    claims.muse._misses_band: {
        "above": (muse(), AGREES),
        "below": (muse(leak=(-80, -90, -70)), AGREES),
        "within": (muse(leak=(0, -3, 3)), DISAGREES),
        "over an edge": (muse(leak=(4, -1, 9)), UNDECIDED),
        "null: as wide as all of it": (muse(leak=(0, -50, 50)), UNDECIDED),
        "the paper's rows only": (PAPER_ONLY, NOT_RUN),
    },
    claims.muse._destroys_utility: {
        "hardly any": (muse(), AGREES),
        "some": (muse(ga=((70, 65, 75),)), DISAGREES),
        "at one rate of two": (muse(ga=((70, 65, 75), (2, 1, 4))), PARTLY),
        "about half": (muse(ga=((38, 33, 43),)), UNDECIDED),
        "null: nothing happens": (muse(ga=((80, 74, 86),)), DISAGREES),
        "the paper's rows only": (PAPER_ONLY, NOT_RUN),
    },
}


def within(right, n):
    """An accuracy with Wilson's interval, as (accuracy, low, high)."""
    return (right / n, *wilson_interval(right, n))


def apart(one, other):
    """The difference of two of them."""
    return (one[0] - other[0], *difference_interval(one[0], one[1:], other[0], other[1:]))


def pushed(right, wrong, reference, each, n=80):
    """12_residual_vector: questions of n that say the target under DSG, and under the reference, with a vector."""
    said, base = within(right, n), None if reference is None else within(reference, n)
    above = (None,) * 3 if base is None else apart(said, base)
    rows = [("DSG", "residual", each, bound, "right letter", asked, *said, *apart(said, within(wrong, n)), *above)
            for bound in (0.0, 0.5) for asked in ("fitted", "judged")]  # fmt: skip
    columns = ["method", "place", "each", "bound", "target", "asked", "accuracy", "low", "high"]
    return pd.DataFrame(
        rows, columns=[*columns, *(f"{x}{e}" for x in ("beyond", "above") for e in ("", "_low", "_high"))]
    )


def vector_cases(each):
    """Cases of both rules on vectors."""
    return {
        "what nothing explains": (pushed(70, 20, 20, each), AGREES),
        "without a reference": (pushed(70, 20, None, each), AGREES),
        "null: wrong letters as easily": (pushed(80, 80, 60, each), DISAGREES),
        "null: the model that never knew says it too": (pushed(78, 20, 78, each), DISAGREES),
        "open": (pushed(30, 22, 20, each), UNDECIDED),
        "the other kind of vector": (pushed(70, 20, 20, not each), NOT_RUN),
    }


def probed(n=80, **right):
    """12_by_layer: of n letters so many are read at layers 1 and 2; at layer 0, below the guard, all are."""
    rows = [(method, "probe", layer, half, 1, *within(n if layer == 0 else r, n))
            for method, r in right.items() for layer in range(3) for half in (0, 1)]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "measure", "layer", "half", "sae_layer", "accuracy", "low", "high"])


def rounded(n=80, **moved):
    """12_weights: of n forget questions (plain, at 4 bits), by method; the retrained model must not be read."""
    rows = [(method, attack, setting, bits, buckets, "forget", half, n, *within(right, n))
            for method, (plain, after) in (moved | {"retrained": (20, 80)}).items() for half in (0, 1)
            for attack, setting, bits, buckets, right in (("asked plainly", "", None, None, plain),
                                                          ("quantisation", "4 bits", 4, 0.2, after))]  # fmt: skip
    columns = ["method", "attack", "setting", "bits", "buckets", "role", "half", "n", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def directed(plain, after, n=80):
    """12_worst_case: RMU's forget questions of n, before and without one direction."""
    rows = [("RMU", attack, "after layer 2", n, *within(right, n))
            for attack, right in (("asked plainly", plain), ("orthogonalisation", after))]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "attack", "setting", "n", "accuracy", "low", "high"])


CASES |= {
    claims.recovery._each_vector_recovers: vector_cases(True),
    claims.recovery._one_vector_recovers: vector_cases(False),
    claims.recovery._not_readable: {
        "nothing is read": (probed(800, unedited=750, DSG=200, retrained=220), AGREES),
        "as much as without": (probed(unedited=75, DSG=70, retrained=22), DISAGREES),
        "against chance where there is no reference": (probed(unedited=75, DSG=70), DISAGREES),
        "open": (probed(unedited=75, DSG=26, retrained=22), UNDECIDED),
        "null: nothing to read without the guard": (probed(unedited=20, DSG=20, retrained=20), UNDECIDED),
        "no guard": (probed(unedited=75, retrained=20), NOT_RUN),
    },
    claims.recovery._rounding_recovers: {
        "both come back": (rounded(RMU=(20, 70), CRISP=(30, 75)), AGREES),
        "one does": (rounded(RMU=(20, 70), CRISP=(30, 25)), PARTLY),
        "none does": (rounded(RMU=(30, 20), CRISP=(40, 30)), DISAGREES),
        "null: nothing moves": (rounded(RMU=(30, 30)), DISAGREES),
        "open": (rounded(RMU=(30, 38)), UNDECIDED),
        "nothing had been forgotten": (rounded(RMU=(80, 80)), NOT_RUN),
    },
    claims.recovery._one_direction: {
        "it comes back": (directed(20, 70), AGREES),
        "it falls further": (directed(40, 15), DISAGREES),
        "null: nothing moves": (directed(30, 30), DISAGREES),
        "open": (directed(30, 38), UNDECIDED),
        "null: nothing had been forgotten": (directed(80, 80), UNDECIDED),
        "no direction": (directed(20, 70)[:1], NOT_RUN),
    },
}


def gated(n=100, near=50, forget=10, alarms=0, attack="dilution", **right):
    """13_attacks: of n blocked questions so many right with each gate; it opens on so many of 100 near questions."""
    words = {"rho": "DSG", "cusum": "DSG, CUSUM", "window": "DSG, window", "none": "no gate"}
    itself = [end for count in (forget, near, alarms) for end in share(count, 100)]
    rows = [(words[gate], attack, "9 tokens", n, *share(r, n), *itself)
            for gate, r in right.items()]  # fmt: skip
    ends = [f"{name}{end}" for name in ("forget", "near", "alarms") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["method", "attack", "setting", "n", "accuracy", "low", "high", *ends])


def worst(*, near=50, forget=10, alarms=0, **right):
    return gated(near=near, forget=forget, alarms=alarms, attack="strongest on half 0", **right)


def padded(after, before=5, n=100):
    """13_padding: on so many of n benign questions each of two gates opens at 0 and at 400 tokens."""
    rows = [(method, "side", tokens, *share(right, n)) for method in ("DSG, CUSUM", "DSG, window")
            for tokens, right in ((400, after), (0, before))]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "role", "tokens", "accuracy", "low", "high"])


def two_levels(near, forget, n=100):
    rows = [("ours", "DSG, two levels", role, measure, n, *share(right, n))
            for role, measure, right in (("near", "gate opens", near), ("forget", "accuracy", forget))]  # fmt: skip
    return pd.DataFrame(rows, columns=["world", "method", "role", "measure", "n", "accuracy", "low", "high"])


for rule, gate in (
    (claims.mended_gates._cusum_stops_dilution, "cusum"),
    (claims.mended_gates._window_stops_dilution, "window"),
):
    CASES[rule] = {
        "hardly any": (gated(rho=90, **{gate: 3}), AGREES),
        "about as many as by guessing": (gated(rho=90, **{gate: 33}), UNDECIDED),
        "as many": (gated(rho=90, **{gate: 90}), DISAGREES),
        "null: filler unblocks nothing": (gated(rho=10, **{gate: 3}), UNDECIDED),
        "null: nothing is blocked": (gated(rho=0, n=0, **{gate: 0}), NOT_RUN),
    }
CASES |= {
    claims.mended_gates._padding_alarms: {
        "many more": (padded(30), AGREES),
        "a few more": (padded(8), UNDECIDED),
        "fewer": (padded(5, before=30), DISAGREES),
        "null: none at all": (padded(0, before=0), UNDECIDED),
        "no filler": (padded(30).query("tokens == 0"), NOT_RUN),
    },
    claims.mended_gates._two_levels_spare: {
        "spares and blocks": (two_levels(2, 30), AGREES),
        "opens there": (two_levels(60, 30), DISAGREES),
        "a tenth": (two_levels(10, 30), UNDECIDED),
        "null: always shut": (two_levels(0, 100), DISAGREES),
        "no near domain": (two_levels(2, 30).query("role == 'forget'"), NOT_RUN),
    },
    claims.mended_gates._no_gate_does_all: {
        "each fails at something": (worst(rho=90, cusum=60, none=0), AGREES),
        "one does both": (worst(cusum=3, near=2), DISAGREES),
        "one may": (worst(cusum=33, near=2), UNDECIDED),
        "open on whatever is long": (worst(cusum=3, near=2, alarms=98), AGREES),
        "null: always shut": (worst(cusum=3, near=0, forget=100), UNDECIDED),
        "nothing is blocked": (worst(cusum=3).assign(n=0), NOT_RUN),
    },
}


@pytest.fixture
def judged(tmp_path):
    """From a rule and rows to our number in words and the verdict, by way of the figure's file."""

    def judge(rule, table):
        (claim,) = [claim for claim in CLAIMS if claim.test is rule]
        rows = claim.rows(tmp_path / "tiny")
        rows.parent.mkdir(exist_ok=True)
        table.to_csv(rows, index=False)
        found = verdicts(tmp_path / "tiny").set_index("claim").loc[claim.statement]
        return found["ours"], found["verdict"]

    return judge


@pytest.mark.parametrize(
    ("rule", "case"), [pytest.param(r, c, id=f"{r.__name__[1:]}: {c}") for r, cases in CASES.items() for c in cases]
)
def test_a_verdict_follows_from_the_rows(judged, rule, case):
    table, verdict = CASES[rule][case]
    ours, found = judged(rule, table)
    assert found == verdict, ours
    assert isinstance(ours, str) and ours and "nan" not in ours
    assert not case.startswith("null") or found != AGREES
    if verdict == UNDECIDED:
        assert len(ours.split()) > 5  # the numbers, or why there are none


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.test.__name__[1:])
def test_every_rule_can_say_every_word(claim):
    assert {AGREES, UNDECIDED, DISAGREES, NOT_RUN} <= {verdict for _, verdict in CASES[claim.test].values()}
    assert any(name.startswith("null") for name in CASES[claim.test])


def test_the_words_hold_the_numbers_and_say_what_is_open(judged):
    assert judged(claims.clamps._clamp_of_one, curve(KNOWN, KNOWN, FLIPPED)) == (
        "one picked question: p(right) 0.02, p(B) 0.90 at c = 1",
        AGREES,
    )
    table = aligned(Refusal_Clamp=(0.65, 1, 0.2), Clamp_Prime=(0.6, 1, 0.4), RMU=(0.9, 1, 0.1))
    assert judged(claims.alignment._refusal_is_best, table) == (
        "held out: Refusal Clamp 0.65 [0.55, 0.75]; Clamp Prime 0.60 [0.50, 0.70]; RMU 0.90 [0.80, 1.00]; "
        "open: above Clamp Prime; not so: above RMU",
        DISAGREES,
    )
    assert judged(claims.tradeoffs._near_falls, clamps((50, 9, MANY)))[0] == "no known near question"
    table = held_out(**{"static clamp, published features": (50, 100)})
    assert judged(claims.tradeoffs._rmu_beats_clamps, table)[0] == "no RMU in the rows"


def test_seeds_of_an_attack_are_not_more_questions(judged):
    """Of 100 questions 50 and 80: 0.3 [0.17, 0.42], over a loss of 0.5; two seeds ask the same 100."""
    ours, _ = judged(claims.relearning._rmu_relearns, attack("RMU", (0.5, 0.8)))
    assert ours == "forget 0.50 to 0.80: 60% [34%, 83%] of the loss is back"


@pytest.mark.parametrize(
    ("parts", "side_by_side", "together"),
    [
        ((AGREES, AGREES), AGREES, AGREES),
        ((DISAGREES, DISAGREES), DISAGREES, DISAGREES),
        ((AGREES, DISAGREES), PARTLY, DISAGREES),
        ((AGREES, UNDECIDED), UNDECIDED, UNDECIDED),
        ((UNDECIDED, UNDECIDED), UNDECIDED, UNDECIDED),
        ((DISAGREES, UNDECIDED), DISAGREES, DISAGREES),
        ((AGREES, UNDECIDED, DISAGREES), PARTLY, DISAGREES),
    ],
)
def test_parts_make_a_verdict(parts, side_by_side, together):
    for ordered in (parts, parts[::-1]):
        assert judging.together(*ordered) == side_by_side
        assert judging.weakest_of(*ordered) == together


def test_a_figure_that_is_not_there_is_not_run(tmp_path):
    table = verdicts(tmp_path)
    assert len(table) == len(CLAIMS)
    assert set(table["verdict"]) == {NOT_RUN}
    assert len(verdicts(tmp_path, "06")) == 4


@pytest.mark.parametrize(("given", "read"), [
    ("tiny", "tiny-cyber"), ("tiny-cyber", "tiny-cyber"), ("tiny+changed", "tiny-cyber+changed"),
    ("tiny-cyber+changed", "tiny-cyber+changed"),
])  # fmt: skip
def test_of_a_trial_a_claim_on_the_second_hazard_reads_the_trial(tmp_path, given, read):
    (claim,) = [claim for claim in CLAIMS if claim.hazard]
    assert claim.rows(tmp_path / given).parent == tmp_path / read


def test_a_claim_on_the_second_hazard_reads_its_profiles_rows(tmp_path):
    (claim,) = [claim for claim in CLAIMS if claim.hazard]
    for name, right in (("tiny", 500), ("tiny-cyber", 990)):
        (tmp_path / name).mkdir()
        fronts(RMU=(right, 300)).to_csv(tmp_path / name / f"{claim.figure}.csv", index=False)
    for name in ("tiny", "tiny-cyber"):
        found = verdicts(tmp_path / name, claim.figure[:2]).set_index("claim").loc[claim.statement]
        assert found["verdict"] == AGREES and "same questions: RMU 0.99" in found["ours"]
    claim.rows(tmp_path / "tiny-cyber").unlink()
    assert verdicts(tmp_path / "tiny").set_index("claim").loc[claim.statement, "verdict"] == NOT_RUN


def test_the_table_goes_between_its_marks(tmp_path):
    table = pd.DataFrame([("c", "p", "o", "agrees")], columns=["claim", "paper", "ours", "verdict"])
    text = with_claims(PAGE.read_text(encoding="utf-8"), table)
    assert markdown(table) in text
    assert with_claims(text, table) == text
    with pytest.raises(ValueError, match="lacks the marks"):
        with_claims("no marks", table)


def test_the_tables_of_readme_and_page_are_not_stale():
    table = verdicts(ROOT / "figures" / "tiny")
    for path, filled in ((PAGE, with_claims), (README, with_summary)):
        text = path.read_text(encoding="utf-8")
        assert filled(text, table) == text, f"{path.name}: run python -m helpers.report.claims"


def test_every_claim_is_counted_once():
    counts = counted(verdicts(ROOT / "figures" / "tiny")).set_index("paper")
    assert counts.drop(index="all claims").to_numpy().sum() == counts.loc["all claims"].sum() == len(CLAIMS)
    assert (counts.drop(index="all claims").sum(axis=1) > 0).all()


def test_claims_that_were_not_run_are_counted_as_such(tmp_path):
    assert counted(verdicts(tmp_path)).set_index("paper").loc["all claims", NOT_RUN] == len(CLAIMS)


def test_every_claim_was_tested_on_tiny():
    assert NOT_RUN not in set(verdicts(ROOT / "figures" / "tiny")["verdict"])
