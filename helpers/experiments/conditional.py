"""Notebook 04: conditional clamping (Khoriaty et al. 2025): Clamp Prime, the refusal clamp, retention and alignment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.generation import generate
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import Sweep, is_right, question_batches, read_letters
from helpers.experiments.discovery import HIDDEN, token_activations
from helpers.experiments.exam import ClampSetting, Exam, best_features
from helpers.experiments.pareto import HELD_OUT, PAPER_PROTOCOL, labelled_points
from helpers.measures.metrics import aligned, alignment, letter_histogram, retention
from helpers.profiles import ConditionalSettings
from helpers.published import load_published
from helpers.text.questions import LETTERS, ORDERS, ORIGINAL_ORDER, Order, Question, encode_texts, prompt_tokens

PRIME, PROPORTIONAL, REFUSAL, ADD = "Clamp Prime", "Clamp Prime, proportional", "Refusal Clamp", "unconditional add"
SEED = 0  # of every bootstrap here
# The subjects that the paper pools into MMLU, and how many questions each has
MMLU = {
    "high_school_us_history": 204,
    "high_school_geography": 198,
    "human_aging": 223,
    "college_computer_science": 100,
}


# --- which features, and how strongly ---------------------------------------------------------------------------------


def rate_weights(firing_rates: np.ndarray) -> tuple[float, ...]:
    """'Proportional' weights of some features: the firing rate on forget text over its mean among them (mean 1).

    The paper's rule is not published. Its weights fall along the ranking, which is by firing rate on forget text, hence
    this guess; theirs have a mean of 1.2 to 2.2, so that their proportional clamps are also stronger ones.
    """
    rates = np.asarray(firing_rates, dtype=float)
    return tuple((rates / rates.mean()).tolist())


def prime_grid(
    ranked: np.ndarray, forget_rate: np.ndarray, settings: ConditionalSettings, unit: float
) -> list[ClampSetting]:
    """Clamp Prime: the n best features set to -c where each fires itself; the same c for all, or proportional.

    Args:
        ranked: feature ids of the rule, best first.
        forget_rate: of every feature of the SAE.

    Returns:
        a `ClampSetting` for every n, method and c; proportional ones only above 0, where the two are one.
    """
    grid = []
    for ids in (best_features(ranked, n) for n in settings.n_features):
        weights = rate_weights(forget_rate[list(ids)])
        grid += [ClampSetting(PRIME, ids, c, unit, "own", None) for c in settings.strengths]
        grid += [ClampSetting(PROPORTIONAL, ids, c, unit, "own", None, weights) for c in settings.strengths if c > 0]
    return grid


def add_grid(ranked: np.ndarray, settings: ConditionalSettings, unit: float) -> list[ClampSetting]:
    """The control without a condition: the n best features lowered by c at every token after BOS."""
    chosen = [best_features(ranked, n) for n in settings.n_features]
    return [ClampSetting(ADD, ids, c, unit, "always", None) for ids in chosen for c in settings.add_strengths]


def refusal_grid(ranked: np.ndarray, refusal: int, settings: ConditionalSettings, unit: float) -> list[ClampSetting]:
    """The refusal clamp: wherever one of the n best features fires, the refusal feature is set to -c."""
    chosen = [best_features(ranked, n) for n in settings.n_features]
    return [refusal_setting(ids, refusal, c, unit, settings) for ids in chosen for c in settings.refusal_strengths]


def refusal_setting(
    triggers: Sequence[int], refusal: int, strength: float, unit: float, settings: ConditionalSettings
) -> ClampSetting:
    """One refusal clamp; a negative strength boosts the refusal feature instead."""
    return ClampSetting(
        REFUSAL, tuple(triggers), strength, unit, "any", None, refusal=refusal, fires_above=settings.fires_above
    )


def answer_rates(exam: Exam, sae) -> np.ndarray:
    """How often every feature fires where the model is about to answer: at the last token of the questions, [d_sae]."""
    rows = prompt_tokens(exam.model.tokenizer, exam.asked, ORIGINAL_ORDER, exam.prompt_format)
    found = token_activations(exam.model, sae, range(sae.cfg.d_sae), rows, exam.batch_tokens)
    return np.mean([(row[-1] > 0).numpy() for row in found], axis=0)


def stand_in(rates: np.ndarray, retain_rate: np.ndarray, forbidden: Sequence[int]) -> int:
    """The feature that takes the refusal feature's part: fires most often where answers begin.

    Of equals it is the one that fires least on retain text, which speaks of that place and of little else.

    Args:
        rates: firing rate of every feature where answers begin.
        retain_rate: the same on retain text.
        forbidden: features that may not be chosen, the harmful ones.
    """
    allowed = np.setdiff1d(np.arange(len(rates)), forbidden)
    return int(allowed[np.lexsort((retain_rate[allowed], -rates[allowed]))[0]])


def chosen_table(ranked: np.ndarray, forget: pd.DataFrame, retain: pd.DataFrame) -> pd.DataFrame:
    """The ranked features with their firing rates, retain tokens they fire on, and proportional weight.

    Returns:
        feature, forget_rate, retain_tokens, of_tokens, mean_activation (where it fires on forget text), weight.
    """
    ours, theirs = forget.iloc[ranked], retain.iloc[ranked]
    return pd.DataFrame({
        "feature": ranked,
        "forget_rate": ours["firing_rate"].to_numpy(),
        "retain_tokens": (theirs["firing_rate"] * theirs["tokens"]).round().astype(int).to_numpy(),
        "of_tokens": theirs["tokens"].to_numpy(),
        "mean_activation": (ours["mean"] / ours["firing_rate"]).to_numpy(),
        "weight": rate_weights(ours["firing_rate"].to_numpy()),
    })  # fmt: skip


def refusal_controls(setting: ClampSetting, others: Sequence[int]) -> list[ClampSetting]:
    """One refusal clamp, the same one boosting, that without the error term, and others in the feature's place."""
    boosted = replace(setting, method=f"refusal feature {setting.refusal} boosted", strength=-setting.strength)
    return [
        replace(setting, method=f"refusal feature {setting.refusal} lowered"),
        boosted,
        replace(boosted, method=f"{boosted.method}, error term dropped", keep_error=False),
        *[replace(setting, method=f"feature {other} lowered", refusal=int(other)) for other in others],
    ]


def random_features(d_sae: int, forbidden: Sequence[int], n: int, seed: int) -> np.ndarray:
    """`n` feature ids drawn from a seed, none of them among `forbidden`."""
    allowed = np.setdiff1d(np.arange(d_sae), forbidden)
    return np.sort(np.random.default_rng(seed).choice(allowed, n, replace=False))


# --- retention and alignment ------------------------------------------------------------------------------------------


def aligned_points(scores: pd.DataFrame, half: int | None = None) -> pd.DataFrame:
    """`labelled_points` of a sweep over known questions, with retention of both sides and alignment.

    Known questions are all right before an edit, so every retention is measured from an accuracy of 1. The good are the
    side-effect questions, pooled by questions.
    """
    table = labelled_points(scores, half)
    good, bad = table["side_accuracy"], table["forget_accuracy"]
    return table.assign(
        good_retention=retention(good, 1.0), bad_retention=retention(bad, 1.0), alignment=alignment(good, 1.0, bad, 1.0)
    )


def alignment_table(scores_by_method: Mapping[str, pd.DataFrame], resamples: int) -> pd.DataFrame:
    """Each method's setting of highest alignment, by the paper's protocol and by an honest one (as `held_out`).

    Returns:
        method, protocol, setting, retentions and alignment with bootstrap intervals, accuracies with Wilson intervals,
        forget_letter, forget_mass, loss_added. Methods are those of the mapping; a sweep may hold several.
    """
    rows = []
    for method, scores in scores_by_method.items():
        for protocol, choose, report in ((PAPER_PROTOCOL, None, None), (HELD_OUT, 0, 1)):
            best = int(aligned_points(scores, choose)["alignment"].idxmax())
            point = labelled_points(scores, report).iloc[best].to_dict()
            pairs = (_before_and_after(point, role) for role in ("side", "forget"))
            rows.append({**point, "method": method, "protocol": protocol, **aligned(*pairs, resamples, SEED)})
    table = pd.DataFrame(rows)
    first = ["method", "protocol", "setting", "n_features", "strength", "alignment", "alignment_low", "alignment_high"]
    return table[[*first, *(column for column in table if column not in first)]]


def _before_and_after(point: Mapping[str, float], role: str) -> np.ndarray:
    """[questions, 2] bool: known questions, all right before; which of them are right after does not matter."""
    n = int(point[f"{role}_n"])
    after = np.arange(n) < round(point[f"{role}_accuracy"] * n)
    return np.stack([np.ones(n, dtype=bool), after], axis=1)


def best_edits(grid: Sequence[ClampSetting], scores: pd.DataFrame) -> dict[str, ClampSetting]:
    """Of each method of a sweep the setting with the highest alignment on half 0 of the questions.

    Args:
        grid: the settings, as they were given to `score_settings`.
        scores: what it returned for them.
    """
    edits = {}
    for method, rows in by_method(scores).items():
        best = int(aligned_points(rows, half=0)["alignment"].idxmax())
        edits[method] = [setting for setting in grid if setting.method == method][best]
    return edits


def by_method(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A sweep over several methods as one table a method, in their order."""
    return {method: rows.reset_index(drop=True) for method, rows in scores.groupby("method", sort=False)}


def published_points() -> pd.DataFrame:
    """The authors' runs on gemma-2-2b: method, setting, good_retention, bad_retention, alignment, source.

    MMLU is pooled by questions over the subjects that a run has, and its base over the same ones. Of the refusal clamp
    only forget accuracy and alignment are known, at second hand; R_good is what the two imply. Runs without MMLU are
    left out.
    """
    table = load_published("khoriaty2025_lm_eval")
    (base,) = table[table["method"] == "base"].to_dict("records")
    bad = retention(table["wmdp_bio"], base["wmdp_bio"])
    subjects, before = table[list(MMLU)], np.array([base[subject] for subject in MMLU])
    asked = subjects.notna() * np.array(list(MMLU.values()))
    kept = retention(*((of * asked).sum(axis=1) / asked.sum(axis=1).clip(lower=1) for of in (subjects, before)))
    good = np.where(asked.any(axis=1), kept, table["alignment"] / (1 - bad))
    points = pd.DataFrame({
        "method": np.where(table["coefficients"].eq("proportional") & table["method"].eq(PRIME), PROPORTIONAL,
                           table["method"]),
        "setting": table.apply(_published_setting, axis=1),
        "good_retention": good, "bad_retention": bad, "alignment": good * (1 - bad), "source": table["source"],
    })  # fmt: skip
    return points[points["good_retention"].notna() & points["method"].ne("base")].reset_index(drop=True)


def _published_setting(row: pd.Series) -> str:
    if row["method"] == "RMU":
        return f"layer {row['layer']}, steering {row['steering']}, alpha {row['retain_weight']}"
    return f"{row['n_features']} features x{row['strength']:g}"


def tradeoff_table(points: pd.DataFrame, world: str) -> pd.DataFrame:
    """Our points and the paper's in one table: world, method, setting, good_retention, bad_retention, alignment."""
    columns = ["world", "method", "setting", "good_retention", "bad_retention", "alignment"]
    worlds = [points.assign(world=f"ours, {world}"), published_points().assign(world="Khoriaty et al., gemma-2-2b")]
    return pd.concat([table[columns] for table in worlds], ignore_index=True)


# --- what is said -----------------------------------------------------------------------------------------------------


def letters_table(exam: Exam, sae, edits: Sequence[ClampSetting]) -> pd.DataFrame:
    """How often each letter is said under each edit, to forget and to side-effect questions; an edit named twice once.

    Returns:
        name, role, letter, share, accuracy, mass (mean probability that any letter is said), n; the letters that are
        right stand first, under 'right answers', which is what the unedited model says to the questions it knows.
    """
    right = np.array([q.answer for q in exam.asked])
    roles = np.array([exam.roles[q.subject] for q in exam.asked])
    said = [("right answers", right, exam.answers.unedited.sum(dim=-1).numpy())]
    for edit in dict.fromkeys(edits):
        answers = exam.answers.edited(edit.clamp(sae))
        name = f"{edit.method}, {_size(edit)}"
        said.append((name, answers.argmax(dim=-1).numpy(), answers.sum(dim=-1).numpy()))
    rows = []
    for role in ("forget", "side"):
        of = roles == role
        for name, letters, masses in said:
            measured = float((letters == right)[of].mean()), float(masses[of].mean()), int(of.sum())
            shares = letter_histogram(letters[of]) / of.sum()
            rows += [(name, role, letter, share, *measured) for letter, share in zip(LETTERS, shares, strict=True)]
    return pd.DataFrame(rows, columns=["name", "role", "letter", "share", "accuracy", "mass", "n"])


def _size(edit: ClampSetting) -> str:
    return f"{len(edit.features)} features x{edit.strength:g}"


def told(
    model, questions: Sequence[Question], interventions: Mapping[str, Clamp | None], new_tokens: int, show_text: bool
) -> pd.DataFrame:
    """What the model says, with and without an edit, when a question is asked without choices.

    Returns:
        question (its id), wanted (the right choice), a row an intervention: name, says, and kept (how many of its
        tokens are the unedited model's, counted from the first); texts are '#' where the profile hides them.
    """
    prompts = encode_texts(model.tokenizer, [f"{q.question}\nAnswer:" for q in questions])
    plain = generate(model, prompts, new_tokens)
    rows = []
    for name, clamp in interventions.items():
        said = plain if clamp is None else generate(model, prompts, new_tokens, clamp)
        for question, tokens, unedited in zip(questions, said, plain, strict=True):
            texts = (question.choices[question.answer], model.tokenizer.decode(tokens).strip())
            wanted, says = texts if show_text else (HIDDEN, HIDDEN)
            rows.append((str(question.id), wanted, name, says, _common_start(tokens, unedited)))
    table = pd.DataFrame(rows, columns=["question", "wanted", "name", "says", "kept"])
    return table.sort_values("question", kind="stable").reset_index(drop=True)


def _common_start(tokens: Sequence[int], others: Sequence[int]) -> int:
    same = [a == b for a, b in zip(tokens, others, strict=False)]
    return same.index(False) if False in same else len(same)


# --- one edit, several protocols --------------------------------------------------------------------------------------


def protocols(
    exam: Exam,
    sae,
    questions: dict[str, list[Question]],
    edits: Sequence[ClampSetting],
    prompt_formats: Sequence[str],
    settings: ConditionalSettings,
) -> pd.DataFrame:
    """How the same edits read under several protocols: which questions are asked, in which frame, in how many orders.

    Args:
        exam: over the known questions.
        questions: all questions by subject, known or not.
        edits: the settings to compare.
        prompt_formats: frames in which all questions are asked once, in their original order.
        settings: sizes; of the known questions `ordered_questions` a subject are asked in all 24 orders, and the same
            ones in one, so that orders and questions are not taken for one another.

    Returns:
        method, setting, protocol, n and accuracy before and after of both roles (`forget_n`, `forget_before`,
        `forget_after`, `side_...`), forget_letter (share of the letter said most to forget questions), and what
        `aligned` gives.
    """
    few = replace(exam, questions={s: qs[: settings.ordered_questions] for s, qs in exam.questions.items()})
    exam, few, everyone = (_judged(of) for of in (exam, few, replace(exam, questions=questions)))
    asked = {
        "some known questions, 24 orders": (few, ORDERS),
        "the same known questions, one order": (few, ORIGINAL_ORDER),
        "all known questions, one order": (exam, ORIGINAL_ORDER),
    }
    for frame in prompt_formats:
        asked[f"all questions, one order, {frame} frame"] = (replace(everyone, prompt_format=frame), ORIGINAL_ORDER)
    rows, clamps = [], [edit.clamp(sae) for edit in edits]
    for protocol, (of, orders) in asked.items():
        sweep = _sweep(of, orders)
        before = np.ones(len(of.asked)) if "known" in protocol else _shares_right(of, sweep.unedited, orders)
        for edit, found in zip(edits, sweep.edited_by_each(clamps), strict=True):
            labels = {"method": edit.method, "setting": _size(edit), "protocol": protocol}
            rows.append(labels | _reading(of, before, found, orders, settings.resamples))
    # edit by edit, so that the protocols of one stand together
    return pd.DataFrame([row for i in range(len(edits)) for row in rows[i :: len(edits)]])


def _judged(exam: Exam) -> Exam:
    """The same exam without the near domain, which neither retention counts."""
    return replace(exam, questions={s: qs for s, qs in exam.questions.items() if exam.roles[s] != "near"})


def _sweep(exam: Exam, orders: Sequence[Order]) -> Sweep:
    batched = question_batches(exam.model, exam.asked, orders, exam.prompt_format, exam.batch_tokens)
    return Sweep(exam.model, batched, exam.layer, read_letters, exam.cache)


def _shares_right(exam: Exam, found: Tensor, orders: Sequence[Order]) -> np.ndarray:
    """Share of orders in which each question is answered right, [questions], from p(A..D) of every prompt."""
    answers = found.view(len(exam.asked), len(orders), len(LETTERS))
    return is_right(answers, exam.asked, orders).double().mean(dim=1).numpy()


def _reading(
    exam: Exam, before: np.ndarray, found: Tensor, orders: Sequence[Order], resamples: int
) -> dict[str, float]:
    """One row of `protocols`: counts, accuracies before and after, the letter said most, retentions, alignment."""
    after = _shares_right(exam, found, orders)
    roles = np.array([exam.roles[q.subject] for q in exam.asked])
    reading, pairs = {}, {role: np.stack([before, after], axis=1)[roles == role] for role in ("forget", "side")}
    for role, pair in pairs.items():
        reading[f"{role}_n"] = len(pair)
        reading[f"{role}_before"], reading[f"{role}_after"] = pair.mean(axis=0).tolist()
    said = letter_histogram(found.argmax(dim=-1).view(len(roles), -1)[roles == "forget"].numpy())
    reading["forget_letter"] = said.max() / said.sum()
    return reading | aligned(pairs["side"], pairs["forget"], resamples, SEED)
