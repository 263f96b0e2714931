"""Notebook 05: Dynamic SAE Guardrails (Muhamed et al. 2025): rho, its threshold, and the gate against static clamps."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from helpers.engine.features import hot_fractions
from helpers.engine.scoring import is_right
from helpers.experiments.exam import ClampSetting, Exam, best_features
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens

METHOD = "DSG"


def gate_threshold(model, sae, features: Sequence[int], rows: Rows, percentile: float, batch_tokens: int) -> float:
    """DSG's tau: a percentile (95) of rho over retain rows."""
    return float(np.percentile(hot_fractions(model, sae, features, rows, batch_tokens), percentile))


def gate_thresholds(
    model, sae, ranked: np.ndarray, numbers: Sequence[int], rows: Rows, percentile: float, batch_tokens: int
) -> dict[str, float]:
    """Tau for the n best features, for every n (as text, for it goes through JSON)."""
    found = [gate_threshold(model, sae, ranked[:n], rows, percentile, batch_tokens) for n in numbers]
    return dict(zip(map(str, numbers), found, strict=True))


def dsg_grid(
    features: np.ndarray, thresholds: dict[str, float], strengths: Sequence[float], unit: float
) -> list[ClampSetting]:
    """DSG's settings: all chosen features set at every hot token of a sequence whose rho exceeds tau."""
    chosen = [(best_features(features, int(n)), tau) for n, tau in thresholds.items()]
    return [ClampSetting(METHOD, ids, s, unit, "any", tau) for ids, tau in chosen for s in strengths]


def ablation_grid(features: Sequence[int], tau: float, strengths: Sequence[float], unit: float) -> list[ClampSetting]:
    """DSG's two ideas switched on and off: the gate, and clamping all features at hot tokens."""
    grid = product((tau, None), ("any", "own"), strengths)
    return [ClampSetting(_idea(where, gate), tuple(features), s, unit, where, gate) for gate, where, s in grid]


def _idea(where: str, gate: float | None) -> str:
    clamped = "all features at hot tokens" if where == "any" else "each feature where it fires"
    return f"{'gate' if gate is not None else 'no gate'}, {clamped}"


def rho_table(exam: Exam, sae, features: Sequence[int], texts: dict[str, Rows]) -> pd.DataFrame:
    """Hot fraction rho of framed texts, such as those on which tau is taken, and of known questions (DSG, Fig. 2).

    Returns:
        kind ('text' or 'questions'), source (the text's name or the question's subject), role (the text's name, or
        forget, near, side), rho.
    """
    tables = [
        pd.DataFrame({"kind": "text", "source": name, "role": name, "rho": _rho(exam, sae, features, rows)})
        for name, rows in texts.items()
    ]
    for subject, questions in exam.questions.items():
        rows = prompt_tokens(exam.model.tokenizer, questions, ORIGINAL_ORDER, exam.prompt_format)
        labels = {"kind": "questions", "source": subject, "role": exam.roles[subject]}
        tables.append(pd.DataFrame({**labels, "rho": _rho(exam, sae, features, rows)}))
    return pd.concat(tables, ignore_index=True)


def _rho(exam: Exam, sae, features: Sequence[int], rows: Rows) -> np.ndarray:
    return hot_fractions(exam.model, sae, features, rows, exam.batch_tokens)


def gate_cost(exam: Exam, sae, setting: ClampSetting) -> pd.DataFrame:
    """Where the gate opens among known questions, and what the answers cost there.

    Returns:
        subject, gate ('open' or 'shut'), n (questions, all right before), right (still right).
    """
    right = is_right(exam.answers.edited(setting.clamp(sae))[:, None], exam.asked, ORIGINAL_ORDER)[:, 0].numpy()
    rows = prompt_tokens(exam.model.tokenizer, exam.asked, ORIGINAL_ORDER, exam.prompt_format)
    opened = _rho(exam, sae, setting.features, rows) > setting.threshold
    table = pd.DataFrame({
        "subject": [q.subject for q in exam.asked], "gate": np.where(opened, "open", "shut"), "n": 1, "right": right,
    })  # fmt: skip
    return table.groupby(["subject", "gate"], sort=False)[["n", "right"]].sum().reset_index()
