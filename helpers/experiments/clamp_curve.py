"""Notebook 02: one feature, many clamp values, and the controls (Farrell et al., Fig. 4 and appendix)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.features import token_activations
from helpers.engine.interventions import Clamp, Scale
from helpers.engine.scoring import Sweep, question_batches, read_letters
from helpers.measures.knowledge import Knowledge
from helpers.profiles import ClampCurveSettings
from helpers.published import load_published
from helpers.text.questions import LETTERS, ORIGINAL_ORDER, Question, prompt_tokens, right_letters


def right_probabilities(probabilities: Tensor, questions: Sequence[Question]) -> np.ndarray:
    """Probability of the right letter of each question in its original order, from [questions, 4]."""
    right = [letters[0] for letters in right_letters(questions, ORIGINAL_ORDER)]
    return probabilities.numpy()[np.arange(len(questions)), right]


def single_feature_effects(knowledge: Knowledge, sae, features: Sequence[int], value: float) -> pd.DataFrame:
    """p(right letter) of every known question when one feature alone is clamped.

    Returns:
        feature, subject, question (its id), p_right.
    """
    tables, features = [], np.asarray(features).tolist()
    edited = knowledge.answers.edited_by_each([Clamp(sae, [feature], value) for feature in features])
    for feature, probabilities in zip(features, edited, strict=True):
        after = right_probabilities(probabilities, knowledge.asked)
        tables.append(pd.DataFrame({
            "feature": feature, "subject": [q.subject for q in knowledge.asked],
            "question": [str(q.id) for q in knowledge.asked],
            "p_right": after,
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def broken_by_feature(effects: pd.DataFrame, forget: str) -> pd.DataFrame:
    """Questions that each feature breaks (p of the right letter below 1/2): feature, forget, others, best first."""
    broken = effects[effects["p_right"] < 0.5]
    counts = [(f, int((of["subject"] == forget).sum()), int((of["subject"] != forget).sum()))
              for f, of in ((f, broken[broken["feature"] == f]) for f in effects["feature"].unique())]  # fmt: skip
    table = pd.DataFrame(counts, columns=["feature", "forget", "others"])
    return table.sort_values(["forget", "others"], ascending=[False, True], kind="stable").reset_index(drop=True)


def chosen_pair(effects: pd.DataFrame, forget: str, settings: ClampCurveSettings) -> tuple[int, str, str]:
    """Feature and forget question of the curve, and by which rule: the profile's, where the model knows this question.

    Else the pair whose right letter loses most: an illustration picked out of many, as Farrell's was.
    """
    of_forget = effects[effects["subject"] == forget]
    if settings.question in set(of_forget["question"]):
        return settings.feature, settings.question, "the profile's"
    worst = of_forget.loc[of_forget["p_right"].idxmin()]
    rule = "the largest effect" + (f"; {settings.question} is not known to the model" if settings.question else "")
    return int(worst["feature"]), str(worst["question"]), rule


def one_question(knowledge: Knowledge, question: Question) -> Sweep:
    """A sweep over one question in its original order."""
    batched = question_batches(
        knowledge.model, [question], ORIGINAL_ORDER, knowledge.prompt_format, knowledge.batch_tokens
    )
    return Sweep(knowledge.model, batched, knowledge.layer, read_letters, knowledge.cache)


def clamp_curve(
    knowledge: Knowledge, sae, feature: int, question: Question, strengths: Sequence[float], unit: float
) -> pd.DataFrame:
    """p(A..D) of one question against the clamp value of one feature, with the loss added (Farrell et al., Fig. 4).

    Returns:
        strength (-1 is the unedited model, 0 zero ablation), value, letter, right (is it the right one), probability,
        loss_added.
    """
    sweep, right = one_question(knowledge, question), right_letters([question], ORIGINAL_ORDER)[0][0]
    rows = [(-1.0, np.nan, letter, i == right, p, 0.0)
            for i, (letter, p) in enumerate(zip(LETTERS, sweep.unedited[0].tolist(), strict=True))]  # fmt: skip
    clamps = [Clamp(sae, [feature], -strength * unit) for strength in strengths]
    found = zip(strengths, sweep.edited_by_each(clamps), knowledge.losses_added(clamps), strict=True)
    for strength, probabilities, added in found:
        for i, (letter, p) in enumerate(zip(LETTERS, probabilities[0].tolist(), strict=True)):
            rows.append((strength, -strength * unit, letter, i == right, p, added))
    return pd.DataFrame(rows, columns=["strength", "value", "letter", "right", "probability", "loss_added"])


def firing_features(knowledge: Knowledge, sae, question: Question) -> np.ndarray:
    """Ids of the features that fire anywhere in a question after BOS."""
    row = prompt_tokens(knowledge.model.tokenizer, [question], ORIGINAL_ORDER, knowledge.prompt_format)
    (activations,) = token_activations(knowledge.model, sae, range(sae.cfg.d_sae), row, knowledge.batch_tokens)
    return np.flatnonzero((activations[1:] > 0).any(dim=0).numpy())


def control_clamps(
    sae, feature: int, others: Sequence[int], strength: float, unit: float
) -> list[tuple[str, int, Clamp]]:
    """The clamp and its controls at one strength, as (name, feature, Clamp).

    Controls: the change written along the next feature's decoder (Farrell's 'random decoder'), multiplying the
    activation by -strength instead of setting it (0 ablates in both), and other features that fire on the question.
    """
    value = -strength * unit
    return [
        ("clamp", feature, Clamp(sae, [feature], value)),
        ("another decoder", feature, Clamp(sae, [feature], value, decoders=[(feature + 1) % sae.cfg.d_sae])),
        ("scale", feature, Clamp(sae, [feature], Scale(-strength))),
        *[("random feature", int(other), Clamp(sae, [int(other)], value)) for other in others],
    ]


def control_curves(
    knowledge: Knowledge,
    sae,
    feature: int,
    others: Sequence[int],
    question: Question,
    strengths: Sequence[float],
    unit: float,
) -> pd.DataFrame:
    """p(right letter) of one question and loss added, for the clamp and every control."""
    controls = [(s, *control) for s in strengths for control in control_clamps(sae, feature, others, s, unit)]
    clamps = [clamp for *_, clamp in controls]
    edited = one_question(knowledge, question).edited_by_each(clamps)
    rows = [
        (name, used, strength, float(right_probabilities(probabilities, [question])[0]), added)
        for (strength, name, used, _), probabilities, added in zip(
            controls, edited, knowledge.losses_added(clamps), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=["control", "feature", "strength", "p_right", "loss_added"])


def question_by_id(questions: Sequence[Question], wanted: str) -> Question:
    """The question of that id. Raises ValueError if there is none."""
    for question in questions:
        if str(question.id) == wanted:
            return question
    raise ValueError(f"there is no question {wanted!r} among these {len(questions)}")


def random_others(fire: np.ndarray, chosen: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` features that fire on the question and are not among the chosen, drawn from a seed.

    Raises:
        ValueError: fewer than `n` such features fire.
    """
    others = np.setdiff1d(fire, chosen)
    if len(others) < n:
        raise ValueError(f"{n} random features are asked for, only {len(others)} others fire on this question")
    return np.sort(np.random.default_rng(seed).choice(others, n, replace=False))


def beside_the_paper(curve: pd.DataFrame, world: str) -> pd.DataFrame:
    """Our curve and the paper's (feature 9163, question 841 of gemma-2b-it, whose right letter is A) in one table."""
    paper = load_published("farrell2024_fig4").melt(
        ["strength", "loss_added"], [f"p_{x}" for x in LETTERS], "letter", "probability"
    )
    paper["letter"] = paper["letter"].str.removeprefix("p_")
    paper["right"] = paper["letter"] == "A"
    columns = ["world", "strength", "letter", "right", "probability", "loss_added"]
    worlds = [curve.assign(world=f"ours, {world}"), paper.assign(world="Farrell et al., gemma-2b-it")]
    return pd.concat([table[columns] for table in worlds], ignore_index=True)
