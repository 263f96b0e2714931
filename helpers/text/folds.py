"""Forget text in parts: disjoint folds by what it is about, and a share of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from helpers.text.corpora import Document

ALL_QUESTIONS = "all questions"  # where nobody says what a text is about, so no question belongs to a fold


@dataclass(frozen=True)
class Fold:
    """A part of a forget text.

    Attributes:
        name: as in 'fold 1'.
        documents: the positions of its documents in the whole text, in order.
        about: what they are about; nothing where nobody says.
    """

    name: str
    documents: tuple[int, ...]
    about: frozenset[str]


def split(names: Sequence, n: int, seed: int) -> list[list]:
    """Different names in n disjoint parts, drawn from a seed, whose sizes differ by one at most.

    Raises:
        ValueError: a part would be empty, or a name comes twice and would be in two.
    """
    if n < 1 or len(names) < n:
        raise ValueError(f"{n} folds of {len(names)} would leave one empty: 1 to {len(names)} are possible")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"folds overlap: {twice[0]!r} would be in two of them, and each may be in one only")
    drawn = Random(f"folds/{seed}").sample(list(names), len(names))
    return [drawn[i::n] for i in range(n)]


def folds_of(documents: Sequence[Document], n: int, seed: int) -> list[Fold]:
    """A forget text in n disjoint folds of equal size (give or take one) by what its documents are about.

    Where any document does not say what it is about the documents themselves are drawn, and no question belongs to a
    fold.

    Raises:
        ValueError: a fold would be empty.
    """
    about = sorted({document.about for document in documents})
    if about and "" not in about:
        parts = [frozenset(part) for part in split(about, n, seed)]
        places = [tuple(i for i, document in enumerate(documents) if document.about in part) for part in parts]
        found = zip(places, parts, strict=True)
    else:
        parts = [frozenset()] * n
        found = zip((tuple(sorted(part)) for part in split(range(len(documents)), n, seed)), parts, strict=True)
    return [Fold(f"fold {number}", places, part) for number, (places, part) in enumerate(found, start=1)]


def text_of(documents: Sequence[Document], folds: Sequence[Fold]) -> list[Document]:
    """The documents of some folds, in the order of the whole text.

    Raises:
        ValueError: there are no folds, two have a document in common, or one has none.
    """
    places = [place for fold in folds for place in fold.documents]
    empty = [fold.name for fold in folds if not fold.documents]
    if not folds or empty:
        raise ValueError(f"{empty[0]} is empty: it has no document" if empty else "no fold is named: at least one is")
    if len(set(places)) < len(places):
        names = ", ".join(fold.name for fold in folds)
        raise ValueError(f"the folds {names} overlap: each document may be in one of them only")
    return [documents[place] for place in sorted(places)]


def fold_named(about: str, folds: Sequence[Fold]) -> str:
    """The name of the fold that something belongs to, and `ALL_QUESTIONS` where folds are not by what text is about.

    Raises:
        ValueError: no fold is about it.
    """
    if not any(fold.about for fold in folds):
        return ALL_QUESTIONS
    for fold in folds:
        if about in fold.about:
            return fold.name
    raise ValueError(f"no fold is about {about!r}: every question needs text to forget")


def share_of(documents: Sequence[Document], share: float, seed: int) -> list[Document]:
    """A share of a text, in its order: that many of its documents, drawn from a seed.

    Raises:
        ValueError: the share is not above 0 and at most 1, or leaves no document.
    """
    n = round(share * len(documents))
    if not 0 < share <= 1 or n < 1:
        raise ValueError(
            f"{share:.3%} of {len(documents)} documents leaves {max(n, 0)}: a share above 0 and at most 100% that "
            "leaves one is needed"
        )
    return [documents[i] for i in sorted(Random(f"share/{seed}").sample(range(len(documents)), n))]


def that_fill(tokenizer, documents: Sequence[Document], rows: int, row_length: int) -> list[Document]:
    """The first documents of a text, as many as fill so many packed rows (`corpora.pack`), or all."""
    counts = [len(ids) + 1 for ids in tokenizer([d.text for d in documents], add_special_tokens=False).input_ids]
    left, kept = rows * (row_length - 1), 0
    while kept < len(counts) and left > 0:
        left, kept = left - counts[kept], kept + 1
    return list(documents[:kept])
