"""What the profile names is what is loaded."""

import pytest

from helpers.data import load_questions, load_texts
from helpers.profiles import FOLDER, parse_profile

TINY = (FOLDER / "tiny.toml").read_text(encoding="utf-8")


def test_questions_come_by_role_with_the_subject_to_forget_first(profile):
    questions = load_questions(profile)
    assert list(questions) == ["hazard", "biology", "geography", "history", "computing", "aging"]
    assert all(q.subject == subject for subject, asked in questions.items() for q in asked)


def test_texts_hold_the_subjects_of_their_role(profile):
    texts = load_texts(profile)
    assert {d.subject for d in texts.forget} == {"hazard"}
    assert {d.subject for d in texts.retain} == {d.subject for d in texts.neutral} == {
        "geography", "history", "computing", "aging", "everyday_life",
    }  # fmt: skip


def test_no_text_is_in_two_corpora_and_none_holds_a_question(profile):
    texts = load_texts(profile)
    kinds = [{d.text for d in documents} for documents in (texts.forget, texts.retain, texts.neutral)]
    assert not kinds[0] & (kinds[1] | kinds[2])
    facts = {d.text for d in texts.retain if d.subject != "everyday_life"}
    assert len(facts & kinds[2]) < 0.05 * len(kinds[2])  # five short sentences may come out alike
    asked = [q.question for questions in load_questions(profile).values() for q in questions]
    assert not any(question in text for kind in kinds for text in kind for question in asked)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('side_effect = ["geography"', 'side_effect = ["astrology"', r"subjects \['astrology'\] are unknown"),
        (
            '[questions]\nsource = "organism"',
            '[questions]\nsource = "cais/wmdp"',
            "questions.source = 'cais/wmdp': input should be 'organism' or 'hub'",
        ),
    ],
)
def test_what_is_not_there_is_named(old, new, message):
    assert old in TINY
    with pytest.raises(ValueError, match=message):
        load_questions(parse_profile(TINY.replace(old, new, 1), "tiny"))
