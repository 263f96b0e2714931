"""Orders, prompts and what is refused."""

from dataclasses import replace

import pytest

from helpers.loading.data import WORLD_SEED
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.text.questions import (
    ORDERS,
    ORIGINAL_ORDER,
    Question,
    encode_texts,
    frame_text,
    header,
    prompt_tokens,
    question_text,
    right_letters,
    solved,
)

QUESTION = Question(7, "high_school_geography", "Where?", ("w", "x", "y", "z"), 2)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(build_world(WORLD_SEED))


def test_there_are_24_orders_and_the_first_is_the_original():
    assert len(set(ORDERS)) == 24
    assert ORIGINAL_ORDER == ((0, 1, 2, 3),)


def test_headers_are_the_papers():
    start = "The following are multiple choice questions (with answers) about "
    assert header("wmdp-bio") == header("toxins") == start + "biology.\n"
    assert header("high_school_geography") == start + "high school geography.\n"


def test_prompt_text_in_another_order():
    lines = question_text(QUESTION, (2, 0, 3, 1)).split("\n")
    assert lines[1:] == ["Where?", "A. y", "B. w", "C. z", "D. x"]
    assert right_letters([QUESTION], [(2, 0, 3, 1), (0, 1, 2, 3)]) == [[0, 2]]


def test_frames_are_the_papers(tokenizer):
    assert frame_text(tokenizer, "text", "plain") == "text\nAnswer:"
    chat = "<start_of_turn>user\ntext<end_of_turn>\n<start_of_turn>model\nAnswer: ("
    assert frame_text(tokenizer, "text", "chat") == chat
    with pytest.raises(ValueError, match="'poem' is unknown, allowed are plain, chat, lm-eval"):
        frame_text(tokenizer, "text", "poem")


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
def test_every_prompt_has_one_bos_and_comes_in_order(tokenizer, prompt_format):
    questions = build_world(WORLD_SEED).questions("toxins")[:2]
    rows = prompt_tokens(tokenizer, questions, ORDERS[:3], prompt_format)
    assert len(rows) == 6
    assert all(row[0] == tokenizer.bos_token_id and row.count(tokenizer.bos_token_id) == 1 for row in rows)
    text = question_text(questions[1], ORDERS[2])
    assert tokenizer.decode(rows[5][1:]) == frame_text(tokenizer, text, prompt_format)


def test_lm_eval_leaves_a_line_empty_below_the_header_and_strips_the_question(tokenizer):
    question = replace(QUESTION, question=" Where? \n")
    text = question_text(question, ORDERS[0], "lm-eval")
    assert text.startswith(header("high_school_geography") + "\nWhere?\nA. w\n")
    assert frame_text(tokenizer, text, "lm-eval").endswith("\nD. z\nAnswer:")
    assert question_text(question).startswith(header("high_school_geography") + " Where? \n\nA. w\n")
    asked = build_world(WORLD_SEED).questions("toxins")[:1]
    (row,), (plain,) = (prompt_tokens(tokenizer, asked, ORIGINAL_ORDER, f) for f in ("lm-eval", "plain"))
    (newline,) = tokenizer("\n", add_special_tokens=False).input_ids
    after = plain.index(newline)
    assert row == [*plain[:after], newline, *plain[after:]]


def test_a_second_bos_is_refused(tokenizer):
    with pytest.raises(ValueError, match="exactly one BOS, prompt 0 holds 2"):
        encode_texts(tokenizer, ["<bos>text"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(choices=("a", "b", "c")),
            "question 7 of 'high_school_geography' needs exactly four non-empty choices, got 3",
        ),
        (dict(choices=("a", "b", "c", " ")), "four non-empty"),
        (dict(question=" "), "has no text"),
        (dict(answer=4), "has answer 4, allowed are 0, 1, 2, 3"),
    ],
)
def test_a_malformed_question_is_named(change, message):
    fields = dict(id=7, subject="high_school_geography", question="Where?", choices=("w", "x", "y", "z"), answer=2)
    with pytest.raises(ValueError, match=message):
        Question(**{**fields, **change})


def test_earlier_exchanges_stand_above_or_are_turns(tokenizer):
    question = Question("1", "history", "Who?", ("a", "b", "c", "d"), 2)
    for prompt_format, letter in (("plain", "Answer: A"), ("chat", "Answer: (A)")):
        assert solved(question, (2, 0, 1, 3), prompt_format) == (question_text(question, (2, 0, 1, 3)), letter)
    earlier = [("Q1", "Answer: B"), ("Q2", "x")]
    assert frame_text(tokenizer, "Q3", "plain", earlier) == "Q1\nAnswer: B\n\nQ2\nx\n\nQ3\nAnswer:"
    turn = "<start_of_turn>{}\n{}<end_of_turn>\n"
    told = [turn.format(who, said) for who, said in zip(("user", "model") * 2, sum(earlier, ()), strict=True)]
    assert frame_text(tokenizer, "Q3", "chat", earlier) == (
        "".join(told) + turn.format("user", "Q3") + "<start_of_turn>model\nAnswer: ("
    )
