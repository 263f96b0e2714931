"""Rows, batches and frames."""

import pytest
import torch

from helpers.loading.data import WORLD_SEED
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.text.batches import batches
from helpers.text.corpora import Document, framed, pack


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(build_world(WORLD_SEED))


def test_packed_rows_hold_bos_the_texts_and_eos_between_them(tokenizer):
    one, two = (tokenizer(t, add_special_tokens=False).input_ids for t in ("A B C", "C D"))
    stream = [*one, tokenizer.eos_token_id, *two, tokenizer.eos_token_id]
    rows = pack(tokenizer, ["A B C", "C D"], 4)
    assert (rows[:, 0] == tokenizer.bos_token_id).all()
    assert rows[:, 1:].flatten().tolist() == stream[: len(stream) // 3 * 3]


def test_an_empty_corpus_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the corpus is empty"):
        pack(tokenizer, [], 8)
    with pytest.raises(ValueError, match="holds 2 tokens, too few for one row of 8"):
        pack(tokenizer, ["A"], 8)


def test_batches_hold_every_row_once_within_the_budget():
    rows = [[1] * n for n in (3, 9, 1, 5, 4, 9)]
    found = list(batches(rows, 12, pad_id=0))
    assert [b.ids.shape[1] for b in found] == [9, 9, 5, 3]  # 5 + 4 padded to 5 share one
    assert all(b.ids.numel() <= 12 for b in found)
    assert torch.cat([b.rows for b in found]).sort().values.tolist() == list(range(6))
    for batch in found:
        for row, ids, mask in zip(batch.rows, batch.ids, batch.mask, strict=True):
            assert mask.sum() == len(rows[row])
            assert ids[mask].tolist() == rows[row]
        assert batch.last().tolist() == [len(rows[i]) - 1 for i in batch.rows]


def test_a_row_larger_than_the_budget_stands_alone():
    assert [b.ids.shape for b in batches([[1] * 5, [1] * 7], 2, pad_id=0)] == [(1, 7), (1, 5)]


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_empty_rows_are_refused(rows):
    with pytest.raises(ValueError, match="at least one token"):
        list(batches(rows, 10, pad_id=0))


def test_framed_documents_stand_under_their_subjects_header(tokenizer):
    (row,) = framed(tokenizer, [Document("history", "A B")], "chat", max_tokens=8)
    text = tokenizer.decode(row)
    assert text.startswith("<bos><start_of_turn>user\nThe following are multiple choice questions")
    assert text.endswith("about history.\nA B<end_of_turn>\n<start_of_turn>model\nAnswer: (")


def test_a_long_document_is_cut_before_it_is_framed(tokenizer):
    short, long = (
        framed(tokenizer, [Document("history", text)], "plain", max_tokens=3) for text in ("A B C", "A B C D")
    )
    assert short == long
