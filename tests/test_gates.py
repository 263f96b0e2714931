"""Gates: scores by hand and by brute force, thresholds by counting, trees as their prompts, text without a cache."""

from dataclasses import replace
from math import log, sqrt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.attacks.dilution import Dilution
from helpers.attacks.interleaving import Interleaving
from helpers.attacks.near_interleaving import NearInterleaving
from helpers.attacks.prompts import Means, prompts
from helpers.engine.edited import Edited, clamp_facts
from helpers.engine.features import mean_activations
from helpers.engine.forward import huggingface, residual_after
from helpers.engine.generation import generate
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import Sweep, gate_scores, question_batches, read_letters, read_rows, touched_prompts
from helpers.experiments import gate_facts
from helpers.experiments import gates as experiment
from helpers.measures.metrics import wilson_interval
from helpers.methods.dsg import DSG
from helpers.methods.gates import GATES, gate_of
from helpers.methods.gates.cusum import Cusum, CusumGate
from helpers.methods.gates.detector import Detector, DetectorGate
from helpers.methods.gates.excess import Excess, ExcessGate
from helpers.methods.gates.rho import Rho, RhoNear
from helpers.methods.gates.rule import BENIGN, HAZARD, NEAR, TEXT, Examples, calibrated, examples_of, threshold_of
from helpers.methods.gates.segments import SegmentGate, Segments, hot_counts
from helpers.methods.gates.two_level import RunningTwoLevel, TwoLevel, TwoLevelGate, telling_features
from helpers.methods.gates.window import Window, WindowGate, largest_mean
from helpers.profiles import CacheSettings, load_profile
from helpers.published import load_published
from helpers.text.questions import ORDERS, prompt_tokens, right_letters
from tests.test_features import one
from tests.toy import LAYER, toy_knowledge, toy_model, toy_sae

FEATURES = (3, 5, 8, 13, 21)
SAE, MODEL = toy_sae(), toy_model()
# Prompts are merged into trees where no sliding window is shorter than they are.
WIDE = toy_model(sliding_window=512)
# BOS is hot and does not count; of the six tokens after it, three are hot, two of them side by side.
HOT = torch.tensor([[1, 0, 1, 1, 0, 0, 1]]).bool()


def gates() -> dict[str, Gate]:
    """One gate of every kind, by its name in the registry."""
    weights = (1.0, -0.5, 2.0)
    return {
        "rho": Gate(0.0), "rho_near": Gate(0.0), "window": WindowGate(0.0, 5),
        "segments": SegmentGate(0.0, 5, (1.0, 0.8, 0.5, 0.2, 0.1, 0.05)),
        "cusum": CusumGate(0.0, 1.0, -0.4), "excess": ExcessGate(0.0, 0.3),
        "two_level": TwoLevelGate(0.0, SAE, (1, 2, 4), WindowGate(0.25, 5), WindowGate(0.0, 5)),
        "running_two_level": TwoLevelGate(0.0, SAE, (1, 2, 4), CusumGate(0.5, 1, -0.4), CusumGate(0.0, 1, -0.4)),
        "detector": DetectorGate(0.0, SAE, (1, 2, 4), weights, 5),
    }  # fmt: skip


def cut(name: str, threshold: float, tokens: int = 5) -> Gate:
    """A gate of a kind at a threshold, with a window of so many tokens where it has one."""
    gate, changed = gates()[name], {"threshold": threshold}
    if name == "two_level":
        changed |= {level: replace(getattr(gate, level), tokens=tokens) for level in ("domain", "hazard")}
    elif name == "segments":
        changed |= {"tokens": tokens, "shares": falling(tokens)}
    elif hasattr(gate, "tokens"):
        changed |= {"tokens": tokens}
    return replace(gate, **changed)


def falling(tokens: int) -> tuple[float, ...]:
    """Shares of segments that would have at least so many hot tokens."""
    return tuple(1 - i / (tokens + 1) for i in range(tokens + 1))


def between(scores: np.ndarray) -> float:
    """A threshold in the middle of the scores and at none of them, so that no rounding decides."""
    values = np.unique(scores.round(4))
    assert len(values) > 1, "one score for all would tell nothing"
    return float(values[len(values) // 2 - 1 : len(values) // 2 + 1].mean())


each_gate = pytest.mark.parametrize("name", GATES)


def test_there_is_a_case_for_every_gate() -> None:
    assert list(gates()) == list(GATES)


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_by_hand_with_padding_on_either_side(side: str) -> None:
    pad = (3, 0) if side == "left" else (0, 3)
    # what fires at padding counts no more than what fires at BOS
    hot = torch.nn.functional.pad(HOT, pad, value=True)
    mask = torch.nn.functional.pad(torch.ones_like(HOT), pad, value=False)
    expected = {
        "rho": 3 / 6, "window": 3 / 5,
        "segments": (1 - 0.5) ** 2,  # two segments, of two hot tokens and of one
        "cusum": 2.2,  # 0, 1, 2, 1.6, 1.2, 2.2
        "excess": (3 - 0.3 * 6) / sqrt(0.3 * 0.7 * 6),
    }  # fmt: skip
    for name, score in expected.items():
        assert gates()[name].score(hot, mask).tolist() == pytest.approx([score]), name


def test_a_gap_in_a_path_is_no_token() -> None:
    """Tokens of other prompts stand between those of one, as in a tree; they must not part what touches."""
    hot = torch.tensor([[0, 1, 0, 0, 1, 0]]).bool()
    mask = torch.tensor([[1, 1, 0, 0, 1, 1]]).bool()
    assert WindowGate(0.0, 2).score(hot, mask).tolist() == [1.0]
    assert CusumGate(0.0, 1.0, -0.4).score(hot, mask).tolist() == [2.0]


def test_a_row_shorter_than_the_window_takes_its_mean_and_an_empty_one_nothing() -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    assert WindowGate(0.0, 4).score(HOT[:, :5].expand(2, 5), mask).tolist() == [0.5, 0.0]
    assert ExcessGate(0.0, 0.3).score(HOT[:, :5].expand(2, 5), mask)[1] == 0


@pytest.mark.parametrize("tokens", [1, 3, 7, 12, 20])
def test_windows_by_brute_force(tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    values, mask = torch.randn(8, 14, generator=draw), torch.rand(8, 14, generator=draw) > 0.3
    expected = []
    for row, real in zip(values, mask, strict=True):
        kept = row[real][1:].tolist()
        means = [np.mean(kept[i : i + tokens]) for i in range(len(kept) - tokens + 1)] or [np.mean(kept)]
        expected.append(max(means))
    assert largest_mean(values, mask, tokens).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("tokens", [1, 3, 7, 20])
def test_segments_by_brute_force(tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    hot, mask = torch.rand(8, 14, generator=draw) > 0.5, torch.rand(8, 14, generator=draw) > 0.3
    shares = falling(tokens)
    gate, expected = SegmentGate(0.0, tokens, shares), []
    for row, real in zip(hot, mask, strict=True):
        kept = row[real][1:].tolist()
        counts = [sum(kept[i : i + tokens]) for i in range(0, len(kept), tokens)]
        expected.append((1 - shares[max(counts)]) ** len(counts))
        assert [n for n in hot_counts(row[None], real[None], tokens)[0].tolist() if n] == [n for n in counts if n]
    assert gate.score(hot, mask).tolist() == pytest.approx(expected)


def test_shares_of_benign_segments_by_counting() -> None:
    known = examples()
    counts = [int(row[i : i + 5].sum()) for row in known.hot(TEXT) for i in (0, 5)]  # 12 tokens: two whole segments
    found = Segments(5).fitted(known)["shares"]
    assert found == pytest.approx([(1 + sum(n >= k for n in counts)) / (1 + len(counts)) for k in range(6)])
    with pytest.raises(ValueError, match="no benign text has a segment of 5 tokens"):
        Segments(5).fitted(examples(**{TEXT: [[2, 9, 9, 9]]}))


def test_more_benign_segments_open_no_more_gates() -> None:
    """The hottest of so many segments like the retain text's lies above the threshold no oftener than one alone."""
    draw, tokens, rate = torch.Generator().manual_seed(3), 8, 0.3
    counts = (torch.rand(4000, tokens, generator=draw) < rate).sum(dim=1)
    shares = tuple((counts[:, None] >= torch.arange(tokens + 1)).double().mean(dim=0).tolist())
    gate = SegmentGate(0.95, tokens, shares)
    for segments in (1, 5, 50):
        hot = torch.rand(2000, 1 + segments * tokens, generator=draw) < rate
        assert gate.opens(hot, torch.ones_like(hot)).double().mean() < 0.07


def test_segments_stay_shut_where_nothing_stands_behind_bos() -> None:
    gate, hot = SegmentGate(0.95, 4, (1.0, 0.5, 0.2, 0.1, 0.05)), torch.tensor([[True]])
    assert gate.score(hot, torch.ones_like(hot)).tolist() == [0.0] and not gate.opens(hot, torch.ones_like(hot)).any()


def test_cusum_by_the_recursion() -> None:
    draw = torch.Generator().manual_seed(0)
    hot, mask = torch.rand(20, 30, generator=draw) > 0.6, torch.rand(20, 30, generator=draw) > 0.2
    expected = []
    for row, real in zip(hot, mask, strict=True):
        s, best = 0.0, 0.0
        for fires in row[real][1:].tolist():
            s = max(0.0, s + (0.9 if fires else -0.7))
            best = max(best, s)
        expected.append(best)
    assert CusumGate(0.0, 0.9, -0.7).score(hot, mask).tolist() == pytest.approx(expected)


def test_harmless_text_in_front_dilutes_rho_and_neither_window_nor_cusum() -> None:
    long = torch.cat([HOT[:, :1], torch.zeros(1, 60).bool(), HOT[:, 1:]], dim=1)
    plain, padded = (
        {name: gates()[name].score(hot, torch.ones_like(hot)).item() for name in ("rho", "window", "cusum", "excess")}
        for hot in (HOT, long)
    )
    assert padded["rho"] < plain["rho"] / 10 and padded["excess"] < plain["excess"]
    assert (padded["window"], padded["cusum"]) == (plain["window"], plain["cusum"])


def test_gates_that_look_at_other_features_see_them_at_each_token() -> None:
    draw = torch.Generator().manual_seed(1)
    residual = 2 * torch.randn(2, 9, SAE.cfg.d_in, generator=draw)
    hot, f = Clamp(SAE, FEATURES, 0.0).hot(residual), SAE.encode(residual)[..., [1, 2, 4]]
    two, detector = gates()["two_level"], gates()["detector"]
    torch.testing.assert_close(detector.evidence(residual, hot), f @ torch.tensor([1.0, -0.5, 2.0]))
    levels = two.evidence(residual, hot)
    assert torch.equal(levels[..., 0], hot) and torch.equal(levels[..., 1], (f > 0).any(dim=-1))
    mask, hazard = torch.ones(2, 9), torch.ones_like(hot)
    shut = torch.stack([torch.zeros_like(hot), hazard], dim=-1)
    assert two.score(shut, mask).tolist() == [0.0, 0.0], "the hazard's features alone must not open it"
    assert two.score(torch.stack([hazard, hazard], dim=-1), mask).tolist() == [1.0, 1.0]


# --- in place ---------------------------------------------------------------------------------------------------------


@each_gate
def test_in_a_tree_every_prompt_is_gated_as_if_alone(name: str) -> None:
    questions = toy_knowledge(model=WIDE).asked[:3]
    rows = prompt_tokens(WIDE.tokenizer, questions, ORDERS[:6], "chat")
    clamp = Clamp(SAE, FEATURES, -9.0, "any", cut(name, 0.0, 40))
    scores = gate_scores(WIDE, clamp, rows, 1)
    clamp = Clamp(SAE, FEATURES, -9.0, "any", cut(name, between(scores), 40))
    batched = list(question_batches(WIDE, questions, ORDERS[:6], "chat", 4000))
    assert any(len(batch.owner()) > len(batch.ids) for batch in batched), "no prompts were merged"
    opened = torch.zeros(len(rows), dtype=torch.bool)
    with torch.no_grad():
        for batch in batched:
            opened[batch.rows] = touched_prompts(clamp, residual_after(WIDE, batch, LAYER), batch)
    assert opened.tolist() == (scores > between(scores)).tolist() and 0 < opened.sum() < len(rows)
    plain = read_rows(WIDE, rows, read_letters, clamp, 1)
    swept = Sweep(WIDE, batched, LAYER, read_letters, CacheSettings(1, 0)).edited(clamp)
    torch.testing.assert_close(swept, plain, atol=1e-5, rtol=1e-4)


@each_gate
def test_scores_are_in_the_callers_order_whatever_the_batches(name: str) -> None:
    rows = [list(range(2, 2 + n)) for n in (5, 19, 3, 11)]
    clamp = Clamp(SAE, FEATURES, 0.0, "any", gates()[name])
    alone = [gate_scores(MODEL, clamp, [row], 100)[0] for row in rows]
    assert gate_scores(MODEL, clamp, rows, 40).tolist() == pytest.approx(alone, abs=1e-5)


@each_gate
@pytest.mark.parametrize("new", ["running", "each", "held"])
def test_while_text_is_generated_a_cache_changes_nothing(name: str, new: str) -> None:
    """Token by token: the residual of all tokens so far, edited by the gates' verdicts up to each of them."""
    prompts = [[2, *range(start, start + n)] for start, n in ((30, 6), (60, 14), (90, 20))]
    scores = gate_scores(MODEL, Clamp(SAE, FEATURES, 0.0, "any", cut(name, 0.0, 12)), prompts, 100)
    clamp = Clamp(SAE, FEATURES, -9.0, "any", cut(name, between(scores), 12))
    assert generate(MODEL, prompts, 5, clamp, new) == [without_cache(prompt, 5, clamp, new) for prompt in prompts]


def without_cache(prompt: list[int], n: int, clamp: Clamp, new: str) -> list[int]:
    hf, ids, eos = huggingface(MODEL), list(prompt), MODEL.tokenizer.eos_token_id

    def edit(module, args, out):
        evidence, seen = clamp.evidence(out, clamp.hot(out)), len(prompt)
        parts = [clamp(out[:, :seen], torch.ones(1, seen))]
        for t in range(seen, out.shape[1]):
            judged = {"held": evidence[:, :seen], "running": evidence[:, : t + 1], "each": evidence[:, [0, t]]}[new]
            opens = clamp.gate.opens(judged, torch.ones(1, judged.shape[1]))
            parts.append(clamp.edit(out[:, [t]], opens[:, None]))
        return torch.cat(parts, dim=1)

    hook = hf.model.layers[LAYER].register_forward_hook(edit)
    for _ in range(n):
        with torch.no_grad():
            ids.append(int(hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    hook.remove()
    said = ids[len(prompt) :]
    return said[: said.index(eos)] if eos in said else said


def test_a_running_gate_opens_on_what_is_said_after_a_harmless_prompt() -> None:
    """CUSUM over prompt and new tokens; a gate that saw new tokens alone would need to start anew at each."""
    hot, gate = torch.tensor([[0, 0, 0, 1, 1, 1]]).bool(), CusumGate(1.5, 1.0, -0.4)
    assert [bool(gate.opens(hot[:, :t], torch.ones(1, t))) for t in (3, 4, 5, 6)] == [False, False, True, True]


# --- how they are set -------------------------------------------------------------------------------------------------


def test_thresholds_by_counting() -> None:
    scores = np.array([0.7, 0.1, 0.4, 0.2, 0.9, 0.3, 0.6, 0.5, 0.8])
    assert threshold_of(scores, 0.25, "quantile") == pytest.approx(0.7)
    # the ceil(10 x 0.75) = 8th smallest of 9
    assert threshold_of(scores, 0.25, "conformal") == 0.8
    # ten prompts of one kind: each is equally likely to be the largest, so one in ten lies above the largest other nine
    assert threshold_of(scores, 0.1, "conformal") == 0.9


def test_too_few_prompts_for_a_conformal_level_are_an_error_that_names_both() -> None:
    with pytest.raises(
        ValueError, match=r"18 prompts of role 'near' are too few .* at 0.05 false alarms, which needs 19"
    ):
        threshold_of(np.arange(18.0), 0.05, "conformal", "near")
    assert threshold_of(np.arange(19.0), 0.05, "conformal") == 18


def examples(**rows) -> Examples:
    """Prompts of the toy world, by role."""
    knowledge = toy_knowledge(model=MODEL, toxins=6, biology=5, history=6, aging=4)
    found: dict[str, list] = {HAZARD: [], NEAR: [], BENIGN: []}
    for subject, questions in knowledge.questions.items():
        found[knowledge.roles[subject]] += prompt_tokens(MODEL.tokenizer, questions, ORDERS[:1], "chat")
    texts = [[2, *range(start, start + 12)] for start in range(20, 80, 4)]
    return Examples(MODEL, SAE, FEATURES, found | {TEXT: texts} | rows, 4000)


def rule_of(name: str):
    kinds = {
        "window": Window(5), "segments": Segments(5), "two_level": TwoLevel(4, Window(5), 0.2),
        "running_two_level": RunningTwoLevel(4, Cusum(), 0.2), "detector": Detector(6, 5),
    }  # fmt: skip
    return kinds.get(name) or GATES[name]()


@each_gate
def test_a_calibrated_gate_opens_on_no_more_of_what_it_spares(name: str) -> None:
    known, rule = examples(), rule_of(name)
    if name in ("cusum", "running_two_level") and known.hot_share(HAZARD) <= known.hot_share(BENIGN):
        known = examples(**{HAZARD: known.rows[BENIGN], BENIGN: known.rows[HAZARD]})
    gate = rule.gate(SAE, **calibrated(rule, known, 0.2, "conformal"))
    for role in rule.spares:
        rows = known.rows[role]
        scores = gate_scores(MODEL, Clamp(SAE, FEATURES, 0.0, "any", gate), rows, 100)
        assert (scores > gate.threshold).mean() <= 0.2, role
    if rule.spares == (BENIGN,):
        assert gate.threshold == threshold_of(scores, 0.2, "conformal")


def test_rates_are_those_of_the_prompts() -> None:
    known = examples()
    hot = {
        role: torch.cat([Clamp(SAE, FEATURES, 0.0).hot(residual_after(MODEL, one(row), LAYER))[0, 1:] for row in rows])
        for role, rows in known.rows.items()
    }
    p, q = (hot[role].double().mean().item() for role in (HAZARD, BENIGN))
    assert known.hot_share(HAZARD) == pytest.approx(p) and 0 < q < 1
    assert Excess().fitted(known)["rate"] == pytest.approx(q)
    if p > q:
        found = Cusum().fitted(known)
        assert found == pytest.approx({"gain": log(p / q), "loss": log((1 - p) / (1 - q))})
    same = examples(**{HAZARD: known.rows[BENIGN]})
    with pytest.raises(ValueError, match="no CUSUM"):
        Cusum().fitted(same)


def test_a_window_longer_than_every_prompt_is_refused() -> None:
    known = examples()
    longest = max(len(row) - 1 for role in (HAZARD, NEAR, BENIGN) for row in known.rows[role])
    assert Window(longest).fitted(known) == {"tokens": longest}
    for rule in (
        Window(longest + 1),
        Segments(longest + 1),
        TwoLevel(4, Window(longest + 1), 0.2),
        Detector(4, longest + 1),
    ):
        with pytest.raises(ValueError, match=f"window of {longest + 1} tokens is longer than every prompt.*{longest}"):
            rule.fitted(known)


def test_features_that_tell_the_hazard_by_brute_force() -> None:
    known = examples()
    hazard = mean_activations(MODEL, SAE, known.rows[HAZARD], 100)
    with torch.no_grad():
        row = SAE.encode(residual_after(MODEL, one(known.rows[HAZARD][2]), LAYER)[0, 1:]).mean(dim=0)
    np.testing.assert_allclose(hazard[2], row, atol=1e-5)
    others = mean_activations(MODEL, SAE, [*known.rows[NEAR], *known.rows[BENIGN]], 100)
    above = {
        i: (hazard[:, i].mean() - others[:, i].mean()) / sqrt((hazard[:, i].var() + others[:, i].var()) / 2)
        for i in range(SAE.cfg.d_sae)
        if hazard[:, i].var() + others[:, i].var() > 0
    }
    assert telling_features(known, 4).tolist() == sorted(above, key=lambda i: -above[i])[:4]
    n = sum(value > 0 for value in above.values())
    with pytest.raises(ValueError, match=f"{n + 1} features that tell the hazard are asked for, {n} do"):
        telling_features(known, n + 1)


def test_the_domains_threshold_is_the_window_gates() -> None:
    known = examples()
    fitted = TwoLevel(4, Window(5), 0.2).fitted(known)
    assert fitted["domain"] == calibrated(Window(5), known, 0.2, "quantile")
    assert fitted["hazard"] == {"tokens": 5} and fitted["features"] == telling_features(known, 4).tolist()


def test_the_hazards_level_is_set_by_features_that_tell_it_and_on_all_that_it_spares() -> None:
    known = examples()
    features = telling_features(known, 4).tolist()
    p, q = (
        torch.cat([Clamp(SAE, features, 0.0).hot(residual_after(MODEL, one(row), LAYER))[0, 1:] for row in rows])
        for rows in (known.rows[HAZARD], [*known.rows[NEAR], *known.rows[BENIGN]])
    )
    p, q = p.double().mean().item(), q.double().mean().item()
    fitted = RunningTwoLevel(4, Cusum(), 0.2).fitted(known)
    assert fitted["hazard"] == pytest.approx({"gain": log(p / q), "loss": log((1 - p) / (1 - q))})
    assert fitted["domain"] == calibrated(Cusum(), known, 0.2, "quantile")


def test_to_spare_the_near_domain_takes_the_higher_threshold() -> None:
    known = examples()
    near = threshold_of(
        gate_scores(MODEL, Clamp(SAE, FEATURES, 0.0, "any", Gate(0.0)), known.rows[NEAR], 100), 0.2, "quantile"
    )
    plain = calibrated(Rho(), known, 0.2, "quantile")["threshold"]
    assert calibrated(RhoNear(), known, 0.2, "quantile")["threshold"] == max(near, plain)


# --- as a choice of the guard -----------------------------------------------------------------------------------------


def test_a_guard_with_another_gate_is_told_apart_and_an_unknown_one_refused() -> None:
    assert (DSG(3, 5.0).label, DSG(3, 5.0, gated_by="cusum").label) == ("DSG", "DSG, CUSUM")
    assert set(DSG.looks()) == {"DSG", *(f"DSG, {gate.name}" for gate in GATES.values())}
    for refused in (lambda: gate_of("moat"), lambda: DSG(3, 5.0, gated_by="moat")):
        with pytest.raises(
            ValueError, match="gate 'moat' is unknown, the known ones are: rho, rho_near, window, segments, cusum"
        ):
            refused()
    with pytest.raises(ValueError, match="gated_by 'rho' sets its own threshold"):
        DSG(3, 5.0, gated_by="rho", threshold=0.5)


@pytest.mark.parametrize(("key", "value"), [("window", 0), ("false_alarms", 1.0), ("calibration", "'by eye'")])
def test_a_profile_that_cannot_set_a_gate_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"gates.{key} = "):
        load_profile("tiny", {f"gates.{key}": value})


@pytest.mark.parametrize(
    ("changed", "message"), [({"threshold": 1.5}, "from 0 to 1"), ({"loss": 0.1}, "a loss below 0")]
)
def test_a_gate_that_makes_no_sense_is_refused(changed: dict, message: str) -> None:
    kind = CusumGate if "loss" in changed else Gate
    with pytest.raises(ValueError, match=message):
        kind(**({"threshold": 0.5} | ({"gain": 1.0} if kind is CusumGate else {}) | changed))
    with pytest.raises(ValueError, match="0 < rate < 1"):
        ExcessGate(1.0, 0.0)
    with pytest.raises(ValueError, match="as many finite weights"):
        DetectorGate(1.0, SAE, (1, 2), (1.0,), 3)


def test_facts_of_a_gate_are_its_kind_and_what_it_is_set_by() -> None:
    assert clamp_facts(Clamp(SAE, FEATURES, 0.0, gate=Gate(0.25)))["gate"] == 0.25
    clamp = Clamp(SAE, FEATURES, 0.0, gate=cut("two_level", 0.5))
    clamp.gate.evidence(torch.zeros(1, 2, SAE.cfg.d_in), torch.zeros(1, 2).bool())
    expected = {"kind": "TwoLevelGate", "threshold": 0.5, "features": [1, 2, 4]}
    for level, threshold in (("domain", 0.25), ("hazard", 0.0)):
        expected[level] = {"kind": "WindowGate", "threshold": threshold, "tokens": 5}
    assert clamp_facts(clamp)["gate"] == expected


def test_only_a_gate_gives_scores() -> None:
    with pytest.raises(ValueError, match="no gate that could score"):
        gate_scores(MODEL, Clamp(SAE, FEATURES, 0.0), [[2, 3]], 10)


# --- notebook 13 ------------------------------------------------------------------------------------------------------


def test_two_passes_serve_all_gates() -> None:
    """What each guard answers, against every guard put in place by itself, question by question."""
    knowledge = toy_knowledge(model=MODEL)
    means, attack = (
        Means("chat", {"far": ("The old farmer watches the quiet window again today",) * 9}, {}),
        Dilution(9, "before", "far"),
    )
    rows = prompts(attack, MODEL.tokenizer, knowledge.asked, means, 256)[1]
    right = torch.tensor(right_letters(knowledge.asked, ORDERS[:1]))[:, 0]
    guards = {}
    for name in ("rho", "cusum", "detector"):
        scores = gate_scores(MODEL, Clamp(SAE, FEATURES, 0.0, "any", gates()[name]), rows, 100)
        guards[name] = Edited(MODEL, Clamp(SAE, FEATURES, -30.0, "any", cut(name, between(scores))))
    table = experiment.answers(
        knowledge, attack, means, guards, {"other": Edited(MODEL, Clamp(SAE, [1], 40.0, "always"))}
    )
    alone = {experiment.UNGUARDED: None, "other": Clamp(SAE, [1], 40.0, "always")}
    alone |= {label: edited.intervention for label, edited in guards.items()}
    alone[experiment.UNGATED] = replace(guards["rho"].intervention, gate=None)
    for label, clamp in alone.items():
        of, expected = table[table["method"] == label], read_rows(MODEL, rows, read_letters, clamp, 1).argmax(dim=1)
        assert of["right"].tolist() == (expected == right).int().tolist(), label
        assert of["id"].tolist() == [str(q.id) for q in knowledge.asked]
        if clamp is not None and clamp.gate is not None:
            scores = gate_scores(MODEL, clamp, rows, 1)
            assert of["opens"].tolist() == (scores > clamp.gate.threshold).tolist() and 0 < of["opens"].sum() < len(of)
    assert table.groupby("method")["right"].sum().nunique() > 1, "the clamp does nothing here"


def told(attack, setting, role, method, right, opens=None, n=4) -> pd.DataFrame:
    """n questions of a role, the first `right` of them right and the first `opens` of gates open."""
    ids = [f"{role}{i}" for i in range(n)]
    opened = [np.nan] * n if opens is None else [float(i < opens) for i in range(n)]
    return pd.DataFrame({
        "attack": attack, "setting": setting, "control": False, "subject": role, "role": role, "id": ids, "n": 1,
        "method": method, "right": [int(i < right) for i in range(n)], "rho": 0.5, "opens": opened,
    })  # fmt: skip


def half(unblocked: dict[str, int]) -> pd.DataFrame:
    """A guard that blocks all of 4 questions, and how many of them it lets through in each setting of two attacks."""
    settings = {
        "as it is": "no attack",
        "5 tokens of far text before": "dilution",
        "9 tokens of far text before": "dilution",
        "2 words between words": "interleaving",
    }
    tables = [
        told(attack, setting, "forget", method, 4 if method == "unguarded" else unblocked.get(setting, 0), opens)
        for setting, attack in settings.items()
        for method, opens in (("unguarded", None), ("DSG, window", 4))
    ]
    benign = [
        told("no attack", "as it is", role, "DSG, window", 4, opens) for role, opens in (("near", 3), ("side", 1))
    ]
    padded = told("dilution", "9 tokens of far text before", "side", "DSG, window", 4, 2)
    return pd.concat([*tables, *benign, padded], ignore_index=True)


ATTACKS = [Dilution(5, "before", "far"), Dilution(9, "before", "far"), Interleaving(2, "far")]


def test_every_guard_is_attacked_as_half_0_says_and_judged_on_half_1() -> None:
    half_0 = half({"5 tokens of far text before": 2, "9 tokens of far text before": 1, "2 words between words": 1})
    half_1 = half({"5 tokens of far text before": 1, "9 tokens of far text before": 4, "2 words between words": 3})
    table = experiment.attacked(
        half_0, half_1, experiment.clean(half_1), experiment.alarms(half_1, ATTACKS, 0.05), ATTACKS
    ).set_index("attack")
    assert table["setting"].to_dict() == {
        "dilution": "5 tokens of far text before",
        "interleaving": "2 words between words",
        experiment.WORST: "5 tokens of far text before",
    }
    assert table["accuracy"].to_dict() == {"dilution": 0.25, "interleaving": 0.75, experiment.WORST: 0.25}
    assert (table["n"] == 4).all() and (table["unguarded"] == 1).all()
    assert (table["forget"] == 0).all() and (table["near"] == 0.75).all() and (table["alarms"] == 0.5).all()
    assert table["near_low"].iloc[0] == pytest.approx(wilson_interval(3, 4)[0])


def test_both_calibrations_by_counting(monkeypatch) -> None:
    """Of 25 benign scores 0 to 24 at 0.2: the quantile is 19.2, and the ceil(26 x 0.8) = 21st smallest is 20."""
    lab = SimpleNamespace(
        profile=load_profile("tiny", {"gates.false_alarms": 0.2}), ranked=lambda rule, n: FEATURES[:n]
    )
    learned = {"rho": {"side": list(range(25))}, "detector": {"side": list(range(25)), "near": [1, 2]}}
    monkeypatch.setattr(experiment, "learned_gate", lambda lab, name, features: {"scores": learned[name]})
    guards = [DSG(3, 5.0), DSG(3, 5.0, gated_by="rho"), DSG(3, 5.0, gated_by="detector")]
    scores = [5.0, 19.5, 20.0, 21.0]
    table = pd.concat([told("no attack", "as it is", role, guard.label, 4).assign(score=scores)
                       for guard in guards for role in ("forget", "near", "side")])  # fmt: skip
    found = experiment.calibrations(lab, guards, table)
    rho = found[found["method"] == "DSG, rho"].set_index("calibration")
    assert rho["threshold"].to_dict() == pytest.approx({"quantile": 19.2, "conformal": 20.0})
    assert rho["right"].to_dict() == {"quantile": 3, "conformal": 1} and (rho["n"] == 4).all()
    assert (rho["role"] == "side").all() and (rho["set_on"] == 25).all() and (rho["least"] == 4).all()
    # two prompts of the near domain are too few at 0.2, so there is no conformal threshold
    detector = found[found["method"] == "DSG, linear detector"]
    assert detector[["calibration", "role"]].values.tolist() == [["quantile", "near"], ["quantile", "side"]]


def lessons_lab(**changed) -> SimpleNamespace:
    """What the detector's lessons ask of a lab, in the toy world."""
    known = toy_knowledge(model=MODEL, toxins=6, biology=6, history=6)
    about = {s: [replace(q, about=f"{s} {i % 3}") for i, q in enumerate(of)] for s, of in known.questions.items()}
    known = replace(known, questions=about)
    texts = [[2, *range(start, start + 12)] for start in range(20, 80, 4)]
    lab = SimpleNamespace(
        model=MODEL, sae=SAE, profile=load_profile("tiny", {"gates.detector_features": 3, "gates.window": 5}),
        knowledge_on=lambda half: known, framed_forget=texts[::2], framed_retain=texts[1::2],
        ranked=lambda rule, n: FEATURES[:n], stage=lambda name, function, *args: function(*args),
    )  # fmt: skip
    lab.once = lambda function, *args: function(lab, *args)
    return SimpleNamespace(**vars(lab) | changed)


def test_a_detector_is_judged_on_other_things_than_it_was_taught_on() -> None:
    lab = lessons_lab()
    full = lab.once(examples_of, FEATURES)
    lessons, rows = list(experiment._lessons(lab, full)), {}
    for words, examples, things in lessons:
        rows.setdefault(words, []).append((examples.rows, things))
    assert list(rows) == ["half 0 as it is asked", "half 0 in plain form", "documents, none near",
                          "half of half 0, same things", "half of half 0, other things"]  # fmt: skip
    known = lab.knowledge_on(0)
    asked = dict(
        zip(map(tuple, prompt_tokens(MODEL.tokenizer, known.asked, ORDERS[:1], "chat")), known.asked, strict=True)
    )
    for words, overlap in (("half of half 0, same things", True), ("half of half 0, other things", False)):
        for taught, things in rows[words]:
            about = {asked[tuple(row)].about for of in taught.values() for row in of}
            assert about and (about == things if overlap else not about & things)
    assert rows["half of half 0, same things"][0][0] == rows["half of half 0, other things"][1][0]


def test_lessons_are_judged_by_every_gate_of_its_own() -> None:
    lab, guard = lessons_lab(), DSG(5, 3.0)
    found = experiment.taught(lab, guard).set_index(["taught", "role"])
    assert (found.xs("half of half 0, other things")["n"] == found.xs("half 0 as it is asked")["n"]).all()
    rule, full = Detector.of(lab.profile), lab.once(examples_of, FEATURES)
    gate = rule.gate(SAE, **calibrated(rule, full, 0.05, "quantile"))
    for role in (HAZARD, NEAR, BENIGN):
        scores = gate_scores(MODEL, Clamp(SAE, FEATURES, 0.0, "any", gate), full.rows[role], 100)
        assert found.loc[("half 0 as it is asked", role), "right"] == (scores > gate.threshold).sum()


def test_near_interleaving_is_interleaving_with_words_of_another_kind_and_says_so() -> None:
    means, question = Means("plain", {"near": ("cells grow in warm water all day",) * 9}, {}), toy_knowledge().asked[0]
    near, plain = (kind(2, "near") for kind in (NearInterleaving, Interleaving))
    assert near.prompt(MODEL.tokenizer, question, means) == plain.prompt(MODEL.tokenizer, question, means)
    assert (near.name, near.words) == ("near interleaving", "2 near words between words")


def test_clean_and_padded_counts() -> None:
    table = half({})
    clean = experiment.clean(table).set_index(["method", "role", "measure"])["right"]
    assert clean["DSG, window", "near", "gate opens"] == 3 and clean["DSG, window", "side", "accuracy"] == 4
    assert ("unguarded", "forget", "gate opens") not in clean.index
    alarms = experiment.alarms(table, ATTACKS, 0.05).set_index(["role", "tokens"])["right"]
    assert alarms.to_dict() == {("near", 0): 3, ("side", 0): 1, ("side", 9): 2}


def test_published_rows_are_of_gates_that_are_there_and_have_no_counts() -> None:
    both = gate_facts.with_reproduction(experiment.clean(half({})))
    theirs = both[both["world"] != "ours"]
    assert theirs[["method", "role", "measure", "accuracy"]].values.tolist() == [
        ["DSG, window", "side", "gate opens", 0.05]
    ]
    assert theirs["n"].isna().all() and both["role"].notna().all()
    names = {"DSG", *DSG.looks()}
    assert set(load_published("guard_gates")["gate"]) <= names
    assert set(gate_facts.MEASURES) <= set(load_published("guard_gates")["measure"])
