"""Notebook 04: conditional clamping (Khoriaty et al. 2025): Clamp Prime, the refusal clamp, retention and alignment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.generation import generate
from helpers.engine.scoring import Sweep, is_right, question_batches, read_letters
from helpers.lab.choosing import aligned_points
from helpers.lab.scores import Scores
from helpers.measures.knowledge import Knowledge, read_under
from helpers.measures.metrics import aligned, letter_histogram, retention
from helpers.methods.clamp_prime import ClampPrime, rate_weights
from helpers.profiles import ConditionalSettings
from helpers.published import load_published
from helpers.text.questions import (
    HIDDEN,
    LETTERS,
    ORDERS,
    ORIGINAL_ORDER,
    Order,
    Question,
    encode_texts,
)

SEED = 0  # of every bootstrap here
# The subjects that the paper pools into MMLU, and how many questions each has
MMLU = {
    "high_school_us_history": 204,
    "high_school_geography": 198,
    "human_aging": 223,
    "college_computer_science": 100,
}
# A setting by its method's label and its own words, in place.
Edits = Mapping[tuple[str, str], Edited]


# --- which features, and how strongly ---------------------------------------------------------------------------------


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


def random_features(d_sae: int, forbidden: Sequence[int], n: int, seed: int) -> np.ndarray:
    """`n` feature ids drawn from a seed, none of them among `forbidden`."""
    allowed = np.setdiff1d(np.arange(d_sae), forbidden)
    return np.sort(np.random.default_rng(seed).choice(allowed, n, replace=False))


def refused_table(answers: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """How many requests the model refuses: requests ('harmful', 'benign'), n, refused, share, and mean tokens said.

    Args:
        answers: `methods.refusal_clamp.answer_statistics` by kind of request.
    """
    columns = ["requests", "n", "refused", "share", "tokens"]
    rows = [(kind, len(a["refused"]), int(a["refused"].sum()), a["refused"].mean(), a["tokens"].mean())
            for kind, a in answers.items()]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def candidates_table(
    candidates: Mapping[str, np.ndarray], answers: Mapping[str, Mapping[str, np.ndarray]], retain: pd.DataFrame
) -> pd.DataFrame:
    """Candidates for the refusal feature, and how often they fire where the model does not refuse.

    Args:
        candidates: feature ids by the rule that chose them, best first.
        answers: as for `refused_table`.
        retain: feature statistics on retain text.

    Returns:
        rule, feature, harmful_rate and benign_rate (share of the tokens of answers to such requests), retain_rate.
    """
    found = pd.DataFrame([(rule, i) for rule, ids in candidates.items() for i in ids], columns=["rule", "feature"])
    rates = {f"{kind}_rate": a["rates"][found["feature"]] for kind, a in answers.items()}
    return found.assign(**rates, retain_rate=retain["firing_rate"].to_numpy()[found["feature"]])


# --- beside the paper -------------------------------------------------------------------------------------------------


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
    proportional = table["coefficients"].eq("proportional") & table["method"].eq(ClampPrime.name)
    points = pd.DataFrame({
        "method": table["method"].where(~proportional, ClampPrime.proportional_name),
        "setting": table.apply(_published_setting, axis=1),
        "good_retention": good, "bad_retention": bad, "alignment": good * (1 - bad), "source": table["source"],
    })  # fmt: skip
    return points[points["good_retention"].notna() & points["method"].ne("base")].reset_index(drop=True)


def _published_setting(row: pd.Series) -> str:
    if row["method"] == "RMU":
        return f"layer {row['layer']}, steering {row['steering']}, alpha {row['retain_weight']}"
    return f"{row['n_features']} features x{row['strength']:g}"


def tradeoff_table(scores: Scores, world: str) -> pd.DataFrame:
    """Our settings, method by method, and the paper's: world, method, setting, both retentions, alignment."""
    columns = ["world", "method", "setting", "good_retention", "bad_retention", "alignment"]
    ours = pd.concat([aligned_points(of) for of in scores.by_method().values()], ignore_index=True)
    worlds = [ours.assign(world=f"ours, {world}"), published_points().assign(world="Khoriaty et al., gemma-2-2b")]
    return pd.concat([table[columns] for table in worlds], ignore_index=True)


# --- what is said -----------------------------------------------------------------------------------------------------


def letters_table(knowledge: Knowledge, edits: Edits) -> pd.DataFrame:
    """How often each letter is said under each edit, to forget and to side-effect questions.

    Returns:
        name, role, letter, share, accuracy, mass (mean probability that any letter is said), n; the letters that are
        right stand first, under 'right answers', which is what the unedited model says to the questions it knows.
    """
    right = np.array([q.answer for q in knowledge.asked])
    roles = np.array([knowledge.roles[q.subject] for q in knowledge.asked])
    said = [("right answers", right, knowledge.answers.unedited.sum(dim=-1).numpy())]
    for words, edit in edits.items():
        answers = knowledge.answers_under(edit)
        said.append((", ".join(words), answers.argmax(dim=-1).numpy(), answers.sum(dim=-1).numpy()))
    rows = []
    for role in ("forget", "side"):
        of = roles == role
        for name, letters, masses in said:
            measured = float((letters == right)[of].mean()), float(masses[of].mean()), int(of.sum())
            shares = letter_histogram(letters[of]) / of.sum()
            rows += [(name, role, letter, share, *measured) for letter, share in zip(LETTERS, shares, strict=True)]
    return pd.DataFrame(rows, columns=["name", "role", "letter", "share", "accuracy", "mass", "n"])


def told(
    model, questions: Sequence[Question], edits: Mapping[str, Edited], new_tokens: int, show_text: bool
) -> pd.DataFrame:
    """What the model says, under each edit, when a question is asked without choices.

    Args:
        model: the unedited one.

    Returns:
        question (its id), wanted (the right choice), a row an edit: name, says, and kept (how many of its tokens are
        the unedited model's, counted from the first); texts are '#' where the profile hides them.
    """
    prompts = encode_texts(model.tokenizer, [f"{q.question}\nAnswer:" for q in questions])
    plain = generate(model, prompts, new_tokens)
    rows = []
    for name, edit in edits.items():
        said = generate(edit.model, prompts, new_tokens, edit.intervention)
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
    knowledge: Knowledge,
    questions: dict[str, list[Question]],
    edits: Edits,
    prompt_formats: Sequence[str],
    settings: ConditionalSettings,
) -> pd.DataFrame:
    """How the same edits read under several protocols: which questions are asked, in which frame, in how many orders.

    Args:
        knowledge: of the known questions.
        questions: all questions by subject, known or not.
        prompt_formats: frames in which all questions are asked once, in their original order.
        settings: sizes; of the known questions `ordered_questions` a subject are asked in all 24 orders, and the same
            ones in one, so that orders and questions are not taken for one another.

    Returns:
        method, setting, protocol, n and accuracy before and after of both roles (`forget_n`, `forget_before`,
        `forget_after`, `side_...`), forget_letter (share of the letter said most to forget questions), and what
        `aligned` gives.
    """
    known = {s: qs for s, qs in knowledge.questions.items() if knowledge.roles[s] != "near"}
    few = replace(knowledge, questions={s: qs[: settings.ordered_questions] for s, qs in known.items()})
    every, all_known = (
        replace(knowledge, questions={s: of[s] for s in known}) for of in (questions, knowledge.questions)
    )
    asked = {
        "some known questions, 24 orders": (few, ORDERS),
        "the same known questions, one order": (few, ORIGINAL_ORDER),
        "all known questions, one order": (all_known, ORIGINAL_ORDER),
    }
    for frame in prompt_formats:
        asked[f"all questions, one order, {frame} frame"] = (replace(every, prompt_format=frame), ORIGINAL_ORDER)
    rows = []
    for protocol, (of, orders) in asked.items():
        how = (of.prompt_format, of.batch_tokens)
        batched = list(question_batches(of.model, of.asked, orders, *how))
        sweep = Sweep(of.model, batched, of.layer, read_letters, of.cache)
        before = np.ones(len(of.asked)) if "known" in protocol else _shares_right(of, sweep.unedited, orders)
        for (label, words), edit in edits.items():
            reading = _reading(of, before, read_under(sweep, batched, edit), orders, settings.resamples)
            rows.append({"method": label, "setting": words, "protocol": protocol, **reading})
    # edit by edit, so that the protocols of one stand together
    return pd.DataFrame([row for i in range(len(edits)) for row in rows[i :: len(edits)]])


def _shares_right(knowledge: Knowledge, found: Tensor, orders: Sequence[Order]) -> np.ndarray:
    """Share of orders in which each question is answered right, [questions], from p(A..D) of every prompt."""
    answers = found.view(len(knowledge.asked), len(orders), len(LETTERS))
    return is_right(answers, knowledge.asked, orders).double().mean(dim=1).numpy()


def _reading(
    knowledge: Knowledge, before: np.ndarray, found: Tensor, orders: Sequence[Order], resamples: int
) -> dict[str, float]:
    """One row of `protocols`: counts, accuracies before and after, the letter said most, retentions, alignment."""
    after = _shares_right(knowledge, found, orders)
    roles = np.array([knowledge.roles[q.subject] for q in knowledge.asked])
    reading, pairs = {}, {role: np.stack([before, after], axis=1)[roles == role] for role in ("forget", "side")}
    for role, pair in pairs.items():
        reading[f"{role}_n"] = len(pair)
        reading[f"{role}_before"], reading[f"{role}_after"] = pair.mean(axis=0).tolist()
    said = letter_histogram(found.argmax(dim=-1).view(len(roles), -1)[roles == "forget"].numpy())
    reading["forget_letter"] = said.max() / said.sum()
    return reading | aligned(pairs["side"], pairs["forget"], resamples, SEED)
