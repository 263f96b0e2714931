"""Notebook 09: little forget text, or none (Muhamed et al. 2025, Fig. 6): a share of it, features by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.engine.features import strongest_places
from helpers.experiments.forget_requests import fixed_by, text_in_use
from helpers.lab.choosing import choose, points
from helpers.lab.pieces import Piece
from helpers.lab.scores import Scored, Scores
from helpers.loading.data import unlabelled_texts
from helpers.methods.dsg import DSG
from helpers.methods.method import Method
from helpers.profiles import LittleTextSettings
from helpers.published import load_published
from helpers.text.corpora import Document, pack
from helpers.text.folds import share_of
from helpers.text.tokens import special_ids

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

OURS, REPRODUCTION = "ours", "gemma-2-2b-it, independent reproduction (unreviewed)"
BY_NAME, BY_TEXT, AS_CHOSEN = "by their names", "by forget text", "by forget text, as chosen"


# --- a share of the text ----------------------------------------------------------------------------------------------


def little_text(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """What is left on the judged half when methods are given a share of the forget text only.

    Args:
        settings: one a method, as chosen on all of the text.

    Returns:
        world (`OURS`), method, share, seed (which text), rows (packed, of forget text), and the columns of
        `lab.choosing.points`.
    """
    sizes = lab.profile.little_text
    asked = [(setting, share, seed) for setting in settings for share, seed in parts(sizes, setting)]
    texts = [share_of(text_in_use(lab), share, seed) for _, share, seed in asked]
    rows = [rows_of(lab, text, share) for text, (_, share, _) in zip(texts, asked, strict=True)]
    pieces = [
        Piece(
            f"{setting.label}, {share:.0%} of the text, seed {seed}", "little-text",
            (lab.key(_given_share, [*fixed_by(lab), text], setting, share, seed),), _given_share,
            (setting, share, seed),
        )
        for (setting, share, seed), text in zip(asked, texts, strict=True)
    ]  # fmt: skip
    tables = [table for (table,) in lab.computed(pieces, dear=any(s.trains for s in settings))]
    scores = Scores(Scored(s, s.label, {}, table) for (s, *_), table in zip(asked, tables, strict=True))
    _, shares, seeds = zip(*asked, strict=True)
    labels = pd.DataFrame({"world": OURS, "share": shares, "seed": seeds, "rows": rows})
    return pd.concat([labels, points(scores)], axis=1)  # the judged half is all that was asked


def parts(sizes: LittleTextSettings, setting: Method) -> list[tuple[float, int]]:
    """The shares and seeds of a method; all of the text is one text, whatever the seed."""
    trained = sizes.trained_shares, sizes.trained_seeds
    shares, seeds = trained if setting.trains else (sizes.shares, sizes.seeds)
    return [(share, seed) for share in shares for seed in (seeds if share < 1 else seeds[:1])]


def rows_of(lab: Lab, text: Sequence[Document], share: float) -> int:
    """How many packed rows of a share of the text a method sees. Raises ValueError where it fills none."""
    try:
        rows = pack(lab.model.tokenizer, [d.text for d in text], lab.forget_rows.shape[1])
        return len(rows[: lab.profile.texts.forget_rows])
    except ValueError as error:
        raise ValueError(f"{share:.2%} of the forget text leaves no row: {error}") from None


def _given_share(lab: Lab, setting: Method, share: float, seed: int) -> list[pd.DataFrame]:
    view = lab.given(share_of(text_in_use(lab), share, seed))
    return lab.judged.under([setting.apply(view)])


def with_reproduction(table: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Our rows and below them what others found on Gemma, whose papers plot it only: `world` tells them apart."""
    found = load_published("dsg2025_reproduction").query("experiment == @experiment")
    theirs = found.drop(columns=["experiment", "source"]).dropna(axis=1, how="all")
    both = pd.concat([table, theirs.assign(world=REPRODUCTION, method=DSG.name)], ignore_index=True)
    both = both.assign(**{name: both[name].eq(True) for name in table.select_dtypes("bool")})
    return both.fillna(dict.fromkeys(both.columns.difference(both.select_dtypes(["number", "bool"]).columns), ""))


def by_share(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of our rows: method, share, forget_accuracy, side_accuracy."""
    ours = table[table["world"] == OURS]
    return ours.groupby(["method", "share"], sort=False)[["forget_accuracy", "side_accuracy"]].mean().reset_index()


# --- no text: features by their names ---------------------------------------------------------------------------------


def named_features(lab: Lab) -> tuple[int, ...]:
    """Ids of the features that go by the subject's name and common words, best first, as the profile finds them.

    The rule knows the words and unlabelled text (or ids that others found so); no forget text, no document's subject,
    and no fact.

    Raises:
        ValueError: no feature goes by such a name.
    """
    settings, asked = lab.profile.named_features, lab.profile
    if settings.source == "labels":
        return found_by(feature_labels(lab), settings.words, settings.n_features)
    table = load_published("dsg2025_features").query(
        "benchmark == @asked.questions.forget and model == @asked.model.source and sae == @asked.sae.id"
    )
    if table.empty:
        raise ValueError(
            f"no features were published by their names for {asked.questions.forget!r} on SAE {asked.sae.id!r}: set "
            "named_features.source to 'labels', or sae.id to the published one"
        )
    return tuple(table.sort_values("rank")["feature"].tolist()[: settings.n_features])


def feature_labels(lab: Lab) -> pd.DataFrame:
    """What each feature of the lab's SAE is called, from unlabelled text (`labels_of`)."""
    sizes, tokenizer = lab.profile.named_features, lab.model.tokenizer
    rows = pack(tokenizer, unlabelled_texts(lab.profile, sizes.rows), lab.profile.texts.row_length)[: sizes.rows]
    how = (sizes.places, sizes.width, sizes.label_words, lab.profile.model.batch_tokens)
    return lab.stage("feature-labels", labels_of, lab.model, lab.sae, rows, *how)


def labels_of(model, sae, rows: Tensor, places: int, width: int, n_words: int, batch_tokens: int) -> pd.DataFrame:
    """Labels from where features fire: the words most over-represented around their strongest activations.

    A word w is scored p(w) log(p(w) / q(w)), its part of the divergence of the words around those places (shares p)
    from those of the whole text (shares q).

    Args:
        rows: packed token ids [rows, row_length].
        places: how many of the strongest, at most.
        width: tokens on either side of a place.
        n_words: of a label, best first.

    Returns:
        feature, word, score; no rows of a feature that never fires.
    """
    words, of_token = _words(model.tokenizer, rows)
    everywhere = np.bincount(of_token.ravel(), minlength=len(words))
    everywhere[0] = 0  # what is no word
    found = []
    for feature, at in enumerate(strongest_places(model, sae, rows, places, batch_tokens)):
        around = [of_token[row, max(0, place - width) : place + width + 1] for row, place in at]
        counts = np.bincount(np.concatenate([*around, np.zeros(0, dtype=int)]), minlength=len(words))
        found += [(feature, words[i], score) for i, score in most_over_represented(counts, everywhere, n_words)]
    return pd.DataFrame(found, columns=["feature", "word", "score"])


def most_over_represented(counts: np.ndarray, everywhere: np.ndarray, n: int) -> list[tuple[int, float]]:
    """The n words that most set some places apart, with their scores (`labels_of`), best first.

    Args:
        counts: of each word at those places, [words]; word 0 counts for nothing.
        everywhere: the same in the whole text, at least as often.
    """
    counts = np.where(everywhere > 0, counts, 0)
    if not counts.sum():
        return []
    p, q = counts / counts.sum(), everywhere / everywhere.sum()
    score = np.zeros(len(p))
    score[counts > 0] = p[counts > 0] * np.log(p[counts > 0] / q[counts > 0])
    best = np.argsort(-score, kind="stable")[:n]
    return [(int(i), float(score[i])) for i in best if score[i] > 0]


def _words(tokenizer, rows: Tensor) -> tuple[list[str], np.ndarray]:
    """Words without case and spaces, '' first for what is no word, and which one each token of the rows is."""
    used, inverse = np.unique(rows.numpy(), return_inverse=True)
    texts = [tokenizer.decode([int(i)]).strip().lower() for i in used]
    special = set(special_ids(tokenizer))
    texts = [text if text.isalpha() and int(i) not in special else "" for i, text in zip(used, texts, strict=True)]
    words = ["", *sorted(set(texts) - {""})]
    number = {word: i for i, word in enumerate(words)}
    return words, np.array([number[text] for text in texts])[inverse.reshape(rows.shape)]


def found_by(labels: pd.DataFrame, words: Sequence[str], n: int) -> tuple[int, ...]:
    """The n features whose labels hold most of some words by score; of equals the lower id first.

    Args:
        labels: of `labels_of`.
        words: what is typed.

    Raises:
        ValueError: no label holds any of them.
    """
    matching = labels[labels["word"].isin([word.lower() for word in words])]
    if matching.empty:
        raise ValueError(
            f"no feature goes by any of the words {', '.join(words)}; labels hold words such as "
            f"{', '.join(labels['word'].value_counts().index[:5])}"
        )
    scores = matching.groupby("feature")["score"].sum().reset_index()
    return tuple(scores.sort_values(["score", "feature"], ascending=[False, True])["feature"].tolist()[:n])


def without_text(lab: Lab, setting: DSG, features: tuple[int, ...]) -> pd.DataFrame:
    """A guard with features by their names at every tau of the profile, beside those that have seen forget text.

    Of these one has as many features as go by their names, at the same strength, so that only where they come from
    differs; where the chosen setting has another number of them, it stands there as well. Their tau is the profile's
    percentile of rho on framed retain text.

    Args:
        setting: the chosen one on forget text, whose strength is taken over.
        features: of `named_features`.

    Returns:
        world (`OURS`), features (`BY_NAME`, `BY_TEXT`, `AS_CHOSEN`), threshold (tau), chosen (whether the tau is best
        on half 0, which decides nothing else), and the columns of `lab.choosing.points` on the judged half.
    """
    thresholds = lab.profile.named_features.thresholds
    as_many = replace(setting, n_features=len(features))
    by_text = {BY_TEXT: as_many} if as_many == setting else {BY_TEXT: as_many, AS_CHOSEN: setting}
    scores = lab.sweep([replace(as_many, features=features, threshold=tau) for tau in thresholds], [*by_text.values()])
    best = choose(Scores(scores[: len(thresholds)])).setting
    labels = pd.DataFrame({
        "world": OURS, "features": [BY_NAME] * len(thresholds) + [*by_text],
        "threshold": [*thresholds, *(one.gate(lab, one.chosen(lab)).threshold for one in by_text.values())],
        "chosen": [one.setting == best for one in scores[: len(thresholds)]] + [True] * len(by_text),
    })  # fmt: skip
    return pd.concat([labels, points(scores, half=1)], axis=1)
