"""Notebook 05: Dynamic SAE Guardrails (Muhamed et al. 2025): rho on texts and questions, and what the gate costs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.features import hot_fractions
from helpers.engine.scoring import gate_scores, is_right
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens


def rho_table(knowledge: Knowledge, sae, features: Sequence[int], texts: dict[str, Rows]) -> pd.DataFrame:
    """Hot fraction rho of framed texts, such as those on which tau is taken, and of known questions (DSG, Fig. 2).

    Returns:
        kind ('text' or 'questions'), source (the text's name or the question's subject), role (the text's name, or
        forget, near, side), tokens (after BOS), rho (the share of them that is hot).
    """
    labelled = [({"kind": "text", "source": name, "role": name}, rows) for name, rows in texts.items()]
    for subject, questions in knowledge.questions.items():
        rows = prompt_tokens(knowledge.model.tokenizer, questions, ORIGINAL_ORDER, knowledge.prompt_format)
        labelled.append(({"kind": "questions", "source": subject, "role": knowledge.roles[subject]}, rows))
    tables = [
        pd.DataFrame(labels | {"tokens": [len(row) - 1 for row in rows], "rho": _rho(knowledge, sae, features, rows)})
        for labels, rows in labelled
    ]
    return pd.concat(tables, ignore_index=True)


def _rho(knowledge: Knowledge, sae, features: Sequence[int] | Tensor, rows: Rows) -> np.ndarray:
    return hot_fractions(knowledge.model, sae, features, rows, knowledge.batch_tokens)


def opened(rho: pd.DataFrame) -> pd.DataFrame:
    """On what share of the questions of each role the gate opens, from `rho_table` with a column tau.

    Returns:
        role, n, right (questions on which it opens), accuracy (their share) with its interval low, high.
    """
    asked = rho[rho["kind"] == "questions"]
    return accuracy(asked.assign(n=1, right=asked["rho"] > asked["tau"]), ["role"])


def gate_cost(knowledge: Knowledge, edited: Edited) -> pd.DataFrame:
    """Where the gate of an intervention opens among known questions, and what the answers cost there.

    Returns:
        subject, gate ('open' or 'shut'), n (questions, all right before), right (still right).

    Raises:
        ValueError: the edit has no gate.
    """
    clamp = edited.intervention
    if clamp is None or clamp.gate is None:
        raise ValueError("this edit has no gate whose cost could be counted")
    right = is_right(knowledge.answers_under(edited)[:, None], knowledge.asked, ORIGINAL_ORDER)[:, 0].numpy()
    rows = prompt_tokens(knowledge.model.tokenizer, knowledge.asked, ORIGINAL_ORDER, knowledge.prompt_format)
    opened = gate_scores(knowledge.model, clamp, rows, knowledge.batch_tokens) > clamp.gate.threshold
    table = pd.DataFrame({
        "subject": [q.subject for q in knowledge.asked], "gate": np.where(opened, "open", "shut"),
        "n": 1, "right": right,
    })  # fmt: skip
    return table.groupby(["subject", "gate"], sort=False)[["n", "right"]].sum().reset_index()
