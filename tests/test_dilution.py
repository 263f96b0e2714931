"""Filler has as many tokens as asked for, and stands where it should."""

import pytest

from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.text.dilution import diluted, filler

WORLD = build_world(0)
TOKENIZER = build_tokenizer(WORLD)


@pytest.mark.parametrize("tokens", [0, 1, 17, 200])
def test_filler_is_the_first_tokens_of_the_texts(tokens):
    texts = WORLD.documents("history", 0, 1)[:8]
    found = filler(TOKENIZER, texts, tokens)
    assert " ".join(texts).startswith(found)
    assert len(TOKENIZER(found, add_special_tokens=False).input_ids) == tokens


def test_too_little_text_is_said():
    with pytest.raises(ValueError, match="the filler holds 4 tokens, 9 are wanted"):
        filler(TOKENIZER, ["The rat the rat"], 9)


def test_filler_stands_before_after_or_around():
    assert diluted("Q?", "a b c d", "before") == "a b c d\n\nQ?"
    assert diluted("Q?", "a b c d", "after") == "Q?\n\na b c d"
    assert diluted("Q?", "a b c d", "around") == "a b\n\nQ?\n\nc d"
    assert {diluted("Q?", "", place) for place in ("before", "after", "around")} == {"Q?"}
    with pytest.raises(ValueError, match="filler 'above' the question: allowed are before, after, around"):
        diluted("Q?", "a", "above")
