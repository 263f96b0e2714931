"""Notebook 02: one feature, many clamp values, and the controls (Farrell et al., Fig. 4 and appendix)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.features import token_activations
from helpers.engine.interventions import Clamp, Scale
from helpers.engine.scoring import Sweep, is_right, question_batches, read_letters
from helpers.lab.lab import Lab
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy, wilson_interval
from helpers.methods.static_clamp import NextDecoder, StaticClamp
from helpers.profiles import ClampCurveSettings
from helpers.published import load_published
from helpers.text.questions import LETTERS, ORIGINAL_ORDER, Question, prompt_tokens, right_letters

PAPER_QUESTIONS = 522  # of WMDP-bio, known to gemma-2-2b-it
TOGETHER = 2  # sets of features are clamped in one piece of work
CARRIED = 0.9  # of the effect of all features, so much counts as theirs


def right_probabilities(probabilities: Tensor, questions: Sequence[Question]) -> np.ndarray:
    """Probability of the right letter of each question in its original order, from [questions, 4]."""
    right = [letters[0] for letters in right_letters(questions, ORIGINAL_ORDER)]
    return probabilities.numpy()[np.arange(len(questions)), right]


def effects_of(knowledge: Knowledge, sae, sets: Sequence[Sequence[int]], value: float) -> pd.DataFrame:
    """What is left of every known question when the features of one set after another are clamped.

    Returns:
        n_features, feature (of the set the last), subject, role, question (its id), p_right, right (whether the right
        letter is the likeliest).
    """
    edited = knowledge.answers.edited_by_each([Clamp(sae, list(features), value) for features in sets])
    asked = pd.DataFrame({
        "subject": [q.subject for q in knowledge.asked],
        "role": [knowledge.roles[q.subject] for q in knowledge.asked],
        "question": [str(q.id) for q in knowledge.asked],
    })  # fmt: skip
    tables = []
    for features, probabilities in zip(sets, edited, strict=True):
        right = is_right(probabilities[:, None], knowledge.asked, ORIGINAL_ORDER)[:, 0].numpy()
        table = asked.assign(p_right=right_probabilities(probabilities, knowledge.asked), right=right)
        table.insert(0, "feature", features[-1])
        table.insert(0, "n_features", len(features))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def effects(lab: Lab, name: str, half: int, sets: Sequence[Sequence[int]]) -> pd.DataFrame:
    """`effects_of` the strongest clamp of the profile on one half of the questions, a few sets after the other.

    Args:
        name: of the stage.
    """
    value = -max(lab.profile.clamp_curve.strengths) * lab.clamp_unit
    groups = [sets[start : start + TOGETHER] for start in range(0, len(sets), TOGETHER)]
    calls = [(lab.knowledge_on(half), lab.sae, group, value) for group in groups]
    return pd.concat(lab.stages(name, effects_of, calls), ignore_index=True)


def by_effect(effects: pd.DataFrame) -> list[int]:
    """Features by the forget questions that each loses alone, most first; of equals the one that loses fewer others.

    Args:
        effects: `effects_of` sets of one feature, on the half that is chosen on.
    """
    lost = effects.assign(forget=~effects["right"] & (effects["role"] == "forget"))
    lost["others"] = ~lost["right"] & ~lost["forget"]
    counts = lost.groupby("feature", sort=False)[["forget", "others"]].sum().reset_index()
    ranked = counts.sort_values(["forget", "others"], ascending=[False, True], kind="stable")
    return [int(i) for i in ranked["feature"]]


def alone_and_together(alone: pd.DataFrame, together: pd.DataFrame) -> pd.DataFrame:
    """Accuracies under each feature alone and under the first k together, in the order of the latter.

    Args:
        alone, together: `effects_of` sets of one feature, and sets that grow by one, on the half that is reported.

    Returns:
        clamped ('alone' or 'together'), place (from 1), feature (together: the last that joined), role, n, right,
        accuracy with its interval low, high.
    """
    places = {feature: i for i, feature in enumerate(together["feature"].unique(), start=1)}
    tables = []
    for name, table in (("alone", alone), ("together", together)):
        placed = table.assign(clamped=name, n=1, place=table["feature"].map(places))
        tables.append(placed.sort_values("place", kind="stable"))
    return accuracy(pd.concat(tables), ["clamped", "place", "feature", "role"])


def carriers(table: pd.DataFrame, share: float = CARRIED) -> dict[str, float]:
    """How many features it takes for most of what all of them do to the forget questions, of `alone_and_together`.

    Returns:
        n (of all), all (the share of forget questions that all lose), needed (the smallest number, in their order, that
        loses `share` of that; missing where all lose nothing), three (the share of it that the first three lose).
    """
    lost = 1 - table.query("clamped == 'together' and role == 'forget'").set_index("place")["accuracy"]
    full = float(lost.iloc[-1])
    if full <= 0:
        return {"n": len(lost), "all": full, "needed": np.nan, "three": np.nan}
    # a hair less than the share, for sums of counts are not exact
    needed = int(lost.index[lost >= share * full - 1e-9][0])
    return {"n": len(lost), "all": full, "needed": needed, "three": float(lost.iloc[:3].iloc[-1]) / full}


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
    of_forget = effects[effects["subject"] == forget].reset_index(drop=True)
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


def controls(lab: Lab, feature: int, others: Sequence[int], question: Question) -> pd.DataFrame:
    """`control_curves` at the strengths of the profile, one after the other."""
    strengths, same = lab.profile.clamp_curve.strengths, (lab.knowledge, lab.sae, feature, others, question)
    calls = [(*same, [strength], lab.clamp_unit) for strength in strengths]
    return pd.concat(lab.stages("controls", control_curves, calls), ignore_index=True)


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


def features_beside_the_paper(ours: pd.DataFrame, world: str) -> pd.DataFrame:
    """`alone_and_together` and the paper's single features at their strongest clamp (ten of its twenty), one table."""
    paper = load_published("farrell2024_single_features").query("decoder == 'own'")
    paper = paper[paper["strength"] == paper["strength"].max()].sort_values("lost", ascending=False, kind="stable")
    paper = paper.assign(
        place=range(1, len(paper) + 1), clamped="alone", role="forget", right=paper["n"] - paper["lost"]
    )
    theirs = accuracy(paper, ["clamped", "place", "feature", "role"])
    worlds = [ours.assign(world=f"ours, {world}"), theirs.assign(world="Farrell et al., gemma-2-2b-it")]
    return pd.concat(worlds, ignore_index=True)[["world", *ours.columns]]


def decoders_beside_the_paper(ours: pd.DataFrame, world: str) -> pd.DataFrame:
    """The clamp along its own and along the next feature's decoder, ours and the paper's (ten features, appendix).

    Args:
        ours: `points` of both.

    Returns:
        world, method, n_features, strength, forget_accuracy, forget_low, forget_high, forget_n, loss_added; the paper
        gives no intervals, but asked 522 questions.
    """
    paper = load_published("farrell2024_random_decoder")
    labels = dict(zip(("own", "next"), (StaticClamp.name, NextDecoder.name), strict=True))
    right = (paper["forget_accuracy"] * PAPER_QUESTIONS).round().astype(int)
    ends = np.array([wilson_interval(k, PAPER_QUESTIONS) for k in right])
    paper = paper.assign(method=paper["decoder"].map(labels), forget_low=ends[:, 0], forget_high=ends[:, 1],
                         forget_n=PAPER_QUESTIONS)  # fmt: skip
    worlds = [ours.assign(world=f"ours, {world}"), paper.assign(world="Farrell et al., gemma-2-2b-it")]
    columns = ["world", "method", "n_features", "strength", "forget_accuracy", "forget_low", "forget_high", "forget_n",
               "loss_added"]  # fmt: skip
    return pd.concat([table[columns] for table in worlds], ignore_index=True)
