"""Folds are disjoint and equal, shares are drawn, and what cannot be cut is refused in one line."""

import pytest

from helpers.text.corpora import Document, pack
from helpers.text.folds import ALL_QUESTIONS, Fold, fold_named, folds_of, share_of, split, text_of, that_fill
from tests.toy import toy_model

TEXT = [Document("toxins", f"text {i}", about) for i, about in enumerate("abcdefgh" * 3)]
UNSAID = [Document("wmdp-bio", f"text {i}") for i in range(10)]


def test_folds_are_disjoint_equal_and_complete():
    folds = folds_of(TEXT, 4, 0)
    assert [fold.name for fold in folds] == ["fold 1", "fold 2", "fold 3", "fold 4"]
    assert sorted(name for fold in folds for name in fold.about) == list("abcdefgh")
    assert all(len(fold.about) == 2 and len(fold.documents) == 6 for fold in folds)
    for fold in folds:
        assert [i for i, document in enumerate(TEXT) if document.about in fold.about] == list(fold.documents)
    assert text_of(TEXT, folds) == TEXT
    assert folds_of(TEXT, 4, 0) == folds != folds_of(TEXT, 4, 1)
    assert sorted(map(len, split(range(10), 4, 0))) == [2, 2, 3, 3]


def test_text_that_does_not_say_what_it_is_about_is_cut_at_random_and_no_question_is_of_a_fold():
    folds = folds_of(UNSAID, 4, 0)
    assert sorted(i for fold in folds for i in fold.documents) == list(range(10))
    assert not any(fold.about for fold in folds)
    assert fold_named("", folds) == ALL_QUESTIONS
    assert not any(fold.about for fold in folds_of([*TEXT, UNSAID[0]], 4, 0))


def test_a_question_is_of_the_fold_about_the_same_thing():
    folds = folds_of(TEXT, 4, 0)
    for name in "abcdefgh":
        (fold,) = [fold for fold in folds if name in fold.about]
        assert fold_named(name, folds) == fold.name
    with pytest.raises(ValueError, match="no fold is about 'z'"):
        fold_named("z", folds)


def test_folds_that_cannot_be_are_refused():
    one, other, none = (
        Fold("fold 1", (0, 1), frozenset()),
        Fold("fold 2", (1,), frozenset()),
        Fold("x", (), frozenset()),
    )
    with pytest.raises(ValueError, match="the folds fold 1, fold 2 overlap"):
        text_of(TEXT, [one, other])
    with pytest.raises(ValueError, match="x is empty"):
        text_of(TEXT, [one, none])
    with pytest.raises(ValueError, match="no fold is named"):
        text_of(TEXT, [])
    with pytest.raises(ValueError, match="9 folds of 8 would leave one empty: 1 to 8 are possible"):
        folds_of(TEXT, 9, 0)
    with pytest.raises(ValueError, match="folds overlap: 'a' would be in two"):
        split(["a", "b", "a"], 2, 0)


def test_a_share_is_so_many_documents_in_their_order():
    some = share_of(TEXT, 0.25, 3)
    assert len(some) == 6 and some == [document for document in TEXT if document in some]
    assert share_of(TEXT, 1.0, 5) == TEXT and share_of(TEXT, 0.25, 4) != some
    for share in (0.0, 0.01, -1.0, 1.5):
        with pytest.raises(ValueError, match="a share above 0 and at most 100% that leaves one is needed"):
            share_of(TEXT, share, 0)


def test_the_documents_that_fill_some_rows_give_those_rows():
    tokenizer = toy_model().tokenizer
    text = [Document("toxins", "the of a and in to is it on that " * (1 + i % 3)) for i in range(20)]
    rows = pack(tokenizer, [d.text for d in text], 12)[:5]
    some = that_fill(tokenizer, text, 5, 12)
    assert len(some) < 20 and pack(tokenizer, [d.text for d in some], 12)[:5].equal(rows)
    assert len(pack(tokenizer, [d.text for d in some[:-1]], 12)) < 5
    assert that_fill(tokenizer, text, 10_000, 12) == text
