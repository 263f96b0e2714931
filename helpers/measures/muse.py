"""MUSE's criteria (Shi et al. 2024) of what an edit has left of texts: memorised, known, and told from unseen ones.

Everything is kept text by text and question by question, so that halves, folds and intervals are made from one table.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sklearn.metrics import roc_auc_score

from helpers.engine.edited import Edited
from helpers.engine.generation import answers
from helpers.engine.interventions import New
from helpers.engine.scoring import read_min_k, read_rows
from helpers.measures.knowledge import HALF_SEED
from helpers.measures.metrics import halves
from helpers.profiles import MuseSettings
from helpers.text.muse import (
    CRITERIA,
    KNOWMEM_FORGET,
    KNOWMEM_RETAIN,
    PRIVLEAK,
    VERBMEM,
    Asked,
    Exam,
    Muse,
    Passage,
    answer_of,
)
from helpers.text.questions import encode_texts

MIN_K_FORGET, MIN_K_HOLDOUT = "Min-K% forget", "Min-K% holdout"  # of which PrivLeak is made
# How far texts to forget stand out, in nats: PrivLeak sees only their order, so it is -100 for all that remember well.
MIN_K_GAP = "Min-K% gap"
SEED = 0


# --- under an edit ----------------------------------------------------------------------------------------------------


def muse_under(
    muse: Muse,
    edited: Edited,
    settings: MuseSettings,
    batch_tokens: int,
    new: New = "held",
    measured: Sequence[str] = CRITERIA,
    half: int | None = None,
) -> pd.DataFrame:
    """Every passage, question and text of a benchmark under an edit.

    Args:
        batch_tokens: tokens in one batch.
        new: how a gate decides at tokens that the model says (`DuringGeneration`).
        measured: criteria, for where some are not needed.
        half: the half that is asked, 0 or 1; None asks both.

    Returns:
        criterion, item (number in the benchmark), half, value: ROUGE-L F1 from 0 to 1 of `VERBMEM`, `KNOWMEM_FORGET`
        and `KNOWMEM_RETAIN`, nats of `MIN_K_FORGET` and `MIN_K_HOLDOUT`.
    """

    def answered(exam: Exam, asked: Sequence[Asked]) -> list[float]:
        return known(edited, Exam(exam.head, tuple(asked)), settings, batch_tokens, new)

    recited = partial(verbatim, edited, settings=settings, batch_tokens=batch_tokens, new=new)
    likely = partial(min_k, edited, percent=settings.min_k, batch_tokens=batch_tokens)
    about = {KNOWMEM_FORGET: muse.known_forget, KNOWMEM_RETAIN: muse.known_retain}
    measures: dict[str, dict[str, tuple[Sequence[Any], Callable[[Any], list[float]]]]] = {
        VERBMEM: {VERBMEM: (muse.passages, recited)},
        **{name: {name: (exam.asked, partial(answered, exam))} for name, exam in about.items()},
        PRIVLEAK: {MIN_K_FORGET: (muse.private_forget, likely), MIN_K_HOLDOUT: (muse.private_holdout, likely)},
    }
    tables = []
    for name, (items, values) in (pair for criterion in measured for pair in measures[criterion].items()):
        of = pd.DataFrame({"criterion": name, "item": range(len(items)), "half": halves(len(items), HALF_SEED)})
        of = of if half is None else of[of["half"] == half]
        tables.append(of.assign(value=values([items[i] for i in of["item"]]) if len(of) else 0.0))
    return pd.concat(tables, ignore_index=True)


def verbatim(
    edited: Edited, passages: Sequence[Passage], settings: MuseSettings, batch_tokens: int, new: New = "held"
) -> list[float]:
    """ROUGE-L F1 of the greedy continuation of each passage against as many tokens of its own."""
    tokenizer = edited.model.tokenizer
    prompts = encode_texts(tokenizer, [passage.prompt for passage in passages])
    own = tokenizer([passage.continuation for passage in passages], add_special_tokens=False).input_ids
    true = [tokenizer.decode(ids[: settings.new_tokens]) for ids in own]
    said = answers(edited.model, prompts, settings.new_tokens, batch_tokens, edited.intervention, new)
    return rouge_l(true, [tokenizer.decode(ids) for ids in said], settings.stemming)


def known(edited: Edited, exam: Exam, settings: MuseSettings, batch_tokens: int, new: New = "held") -> list[float]:
    """ROUGE-L F1 of the answer to each question, up to where the model would ask another, against the right one."""
    tokenizer = edited.model.tokenizer
    prompts = encode_texts(tokenizer, exam.prompts)
    said = answers(edited.model, prompts, settings.answer_tokens, batch_tokens, edited.intervention, new)
    found = [answer_of(tokenizer.decode(ids)) for ids in said]
    return rouge_l([one.answer for one in exam.asked], found, settings.stemming)


def min_k(edited: Edited, texts: Sequence[str], percent: float, batch_tokens: int) -> list[float]:
    """Min-K% of each text in nats: the mean log-probability of its least likely tokens, higher where it was seen."""
    rows = encode_texts(edited.model.tokenizer, texts)
    found = read_rows(edited.model, rows, read_min_k(percent / 100), edited.intervention, batch_tokens)
    return found.tolist()


# --- numbers ----------------------------------------------------------------------------------------------------------


def rouge_l(true: Sequence[str], said: Sequence[str], stemming: bool) -> list[float]:
    """ROUGE-L F1 from 0 to 1 of each text against the true one; a model that says nothing has 0.

    Args:
        stemming: whether words of one stem are the same (MUSE: no; open-unlearning: yes).

    Raises:
        ValueError: a true text has no word to be found.
    """
    # given its own default tokenizer, or it would set up logging for the whole process
    scorer = RougeScorer(["rougeL"], tokenizer=DefaultTokenizer(use_stemmer=stemming))
    for number, text in enumerate(true):
        if not any(character.isalnum() for character in text):
            raise ValueError(f"text {number} to compare with has no word: {text!r}; leave it out of the benchmark")
    return [scorer.score(a, b)["rougeL"].fmeasure for a, b in zip(true, said, strict=True)]


def auc(forget: Sequence[float] | np.ndarray, holdout: Sequence[float] | np.ndarray) -> float:
    """ROC-AUC with the holdout as the positive class, of Min-K%: 0 where every text to forget looks better known.

    Raises:
        ValueError: one of the classes is empty.
    """
    if not len(forget) or not len(holdout):
        raise ValueError(
            f"an AUC needs texts of both kinds, got {len(forget)} to forget and {len(holdout)} holdout: ask more"
        )
    return float(roc_auc_score([0] * len(forget) + [1] * len(holdout), [*forget, *holdout]))


def priv_leak(auc: float, reference: float, positive: Literal["holdout", "forget"] = "holdout") -> float:
    """How far an AUC is from the retrained model's, in percent of it; MUSE wants -5 to 5.

    Args:
        auc, reference: of the two models, with the holdout as the positive class, as `auc` gives them.
        positive: 'holdout' is the convention of MUSE's released code and of the published tables: -100 where all is
            remembered, above 0 where texts to forget look less known than ones that were never seen. 'forget' is that
            of MUSE's formula: the sign is the other one, and the percentages are of 1 - AUC.

    Raises:
        ValueError: the reference is 0, so that nothing can be relative to it.
    """
    if positive == "forget":
        auc, reference = 1 - auc, 1 - reference
    if reference == 0:
        raise ValueError(
            f"the reference's AUC with {positive} as the positive class is 0, and PrivLeak is relative to it: "
            "it has seen the texts to forget, or they are too few"
        )
    return 100 * (auc - reference) / reference


def criteria(table: pd.DataFrame, resamples: int, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """The four criteria of `muse_under`, times 100 as in the papers, with 95 % bootstrap intervals over its items.

    Where PrivLeak is, its texts also have `MIN_K_GAP`: the mean Min-K% of those to forget above that of the holdout, in
    nats (ours; MUSE has none).

    Args:
        table: of one edit, all items of which are taken.
        reference: of the retrained model, on the same items; PrivLeak is drawn with the same texts for both, and draws
            in which the reference's AUC is 0 are left out of its interval. None where it is not asked for.

    Returns:
        criterion, value, low, high, n (items; of PrivLeak texts of both kinds); no row of what was not measured.
    """
    rows = []
    for criterion in CRITERIA:
        if criterion != PRIVLEAK:
            values = values_of(table, criterion)
            if len(values):
                drawn = _draws(len(values), resamples) @ values / len(values)
                rows.append((criterion, *_with_interval(values.mean(), drawn), len(values)))
        elif reference is not None:
            pairs = [(values_of(of, MIN_K_FORGET), values_of(of, MIN_K_HOLDOUT)) for of in (table, reference)]
            found, theirs = (auc(*pair) for pair in pairs)
            drawn, references = _drawn_aucs(pairs, resamples)
            some = references > 0  # in a draw of few texts it may be 0, to which nothing is relative
            leaks = 100 * (drawn - references)[some] / references[some]
            n = sum(map(len, pairs[0]))
            rows.append((criterion, priv_leak(found, theirs), *np.percentile(leaks, [2.5, 97.5]), n))
            rows.append((MIN_K_GAP, *_gap(*pairs[0], resamples), n))
    return pd.DataFrame(rows, columns=["criterion", "value", "low", "high", "n"])


def values_of(table: pd.DataFrame, criterion: str) -> np.ndarray:
    """The values of a criterion in the order of its items."""
    return table.loc[table["criterion"] == criterion].sort_values("item")["value"].to_numpy(dtype=float)


def _with_interval(value: float, drawn: np.ndarray) -> tuple[float, float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return 100 * value, 100 * low, 100 * high


def _gap(forget: np.ndarray, holdout: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """The difference of two means with its interval; texts are drawn as for the AUCs."""
    means = [_draws(len(of), resamples, SEED + i) @ of / len(of) for i, of in enumerate((forget, holdout))]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return forget.mean() - holdout.mean(), low, high


def _draws(n: int, resamples: int, seed: int = SEED) -> np.ndarray:
    """How often each of n items is drawn, [resamples, n]; the same for every edit, so that edits stay paired."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def _drawn_aucs(pairs: Sequence[tuple[np.ndarray, np.ndarray]], resamples: int) -> list[np.ndarray]:
    """AUCs of each pair (forget, holdout) in bootstrap samples of the texts, the same samples for all pairs."""
    (forget, holdout), *_ = pairs
    # texts of the two kinds are drawn apart, so from another seed
    left, right = _draws(len(forget), resamples), _draws(len(holdout), resamples, SEED + 1)
    found = []
    for forget, holdout in pairs:
        above = (holdout > forget[:, None]) + 0.5 * (holdout == forget[:, None])
        found.append(((left @ above) * right).sum(axis=1) / (len(forget) * len(holdout)))
    return found
