"""Knowledge under an edit is what the plain scorer says, whatever the edit is; known questions are asked in order."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.edited import Edited, Trained
from helpers.engine.forward import huggingface, with_weights
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import answer_probabilities, known_questions, loss_added, read_letters, row_batches
from helpers.loading.data import WORLD_SEED
from helpers.measures.knowledge import CHUNK, knowledge_under, known_ids, read_under
from helpers.measures.metrics import halves
from helpers.organism.world import build_world
from helpers.profiles import CacheSettings
from helpers.text.questions import ORIGINAL_ORDER, Question
from tests.toy import NEUTRAL, toy_knowledge, toy_sae

FEATURES = (3, 5, 8, 13)
OWN, GATED = Clamp(toy_sae(), FEATURES, -20.0), Clamp(toy_sae(), FEATURES, -20.0, "any", Gate(0.2))
NAME = "model.layers.2.mlp.down_proj.weight"
# The layers of the toy differ, so that one in place of another is noticed.
WEIGHTS = {NAME: torch.randn(16, 32, generator=torch.Generator().manual_seed(7))}


@pytest.fixture(scope="module")
def knowledge():
    return toy_knowledge()


def trained(weights, made=None):
    """Weights of a key; `made` notes when they are made."""
    return Trained("key", lambda: weights if made is None else made.append(1) or weights)


def plainly(knowledge, model, clamp):
    """The same table by the plain scorer: p(A..D) question by question, Hugging Face's own loss row by row."""
    probabilities = answer_probabilities(model, knowledge.asked, clamp, ORIGINAL_ORDER)[:, 0]
    with torch.no_grad():
        before, after = (
            np.mean(
                [huggingface(m)(input_ids=row[None], labels=row[None], use_cache=False).loss.item() for row in NEUTRAL]
            )
            for m in (knowledge.model, model)
        )
    added = 0.0 if clamp is None else loss_added(model, NEUTRAL, clamp)
    return knowledge.tabulate(probabilities, after - before + added)


# --- counting ---------------------------------------------------------------------------------------------------------


def test_tabulate_counts_by_subject_and_half(knowledge):
    said = torch.zeros(14, 4)
    right = [q.answer for q in knowledge.asked]
    said[range(14), right] = 1.0
    said[0] = 0.5 * torch.eye(4)[(right[0] + 1) % 4]  # the first hazard question is answered wrong
    table = knowledge.tabulate(said, 0.5)
    assert table["subject"].unique().tolist() == ["toxins", "biology", "history", "aging"]
    assert table["half"].tolist() == [0, 1] * 4
    assert table.groupby("subject", sort=False)["n"].sum().tolist() == [5, 4, 3, 2]
    assert table.groupby("role", sort=False)["right"].sum().to_dict() == {"forget": 4, "near": 4, "side": 5}
    letters = said.argmax(dim=1).tolist()
    assert table[[f"said_{x}" for x in "ABCD"]].sum().tolist() == [letters.count(i) for i in range(4)]
    assert table["letter_mass"].sum() == 13.5
    assert table["loss_added"].eq(0.5).all()
    assert table[table["subject"] == "toxins"]["n"].tolist() == [3, 2]
    wrong_in = halves(5, 0)[0]
    assert (table["n"] - table["right"]).tolist() == [int(i == wrong_in) for i in range(8)]


def test_half_of_the_knowledge_has_that_half_of_the_questions(knowledge):
    both = [knowledge.only(half) for half in (0, 1)]
    assert [len(half.asked) for half in both] == [8, 6]  # 3 + 2 + 2 + 1 and 2 + 2 + 1 + 1
    assert sorted(q.id for half in both for q in half.asked) == sorted(q.id for q in knowledge.asked)
    said = answer_probabilities(knowledge.model, knowledge.asked, None, ORIGINAL_ORDER)[:, 0]
    whole = knowledge.tabulate(said, 0.0)
    for half, part in enumerate(both):
        found = knowledge_under(part, Edited(knowledge.model)).groupby("subject", sort=False)[["n", "right"]].sum()
        expected = whole[whole["half"] == half].set_index("subject")[["n", "right"]]
        pd.testing.assert_frame_equal(found, expected)


# --- under an edit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clamp", [None, OWN, GATED], ids=["no intervention", "own", "gated"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["same weights", "other weights"])
def test_what_is_left_is_what_the_plain_scorer_says(knowledge, clamp, weights):
    edit = Edited(knowledge.model, clamp, None if weights is None else trained(weights))
    model = knowledge.model if weights is None else with_weights(knowledge.model, weights)
    expected = plainly(knowledge, model, clamp)
    pd.testing.assert_frame_equal(knowledge_under(knowledge, edit), expected, atol=1e-5)
    if clamp is None and weights is None:
        assert knowledge_under(knowledge, edit)["loss_added"].eq(0.0).all()
    else:
        assert abs(expected["loss_added"][0]) > 0.01  # the edit does something here


def test_edits_of_all_kinds_come_back_in_their_order(knowledge):
    model = knowledge.model
    edits = [Edited(model, OWN), Edited(model, weights=trained(WEIGHTS)), Edited(model), Edited(model, GATED)]
    edits.append(Edited(model, OWN, trained(WEIGHTS)))
    together = knowledge.under(edits)
    for edit, found in zip(edits, together, strict=True):
        pd.testing.assert_frame_equal(found, knowledge_under(toy_knowledge(), edit), atol=1e-6)
    assert len({table["loss_added"][0] for table in together}) == 5
    assert knowledge.under([]) == []


@pytest.mark.parametrize("kept", [CacheSettings(0, 0), CacheSettings(0, 1)])
def test_where_residuals_are_kept_does_not_matter(knowledge, kept):
    edits = [Edited(knowledge.model, clamp) for clamp in (OWN, GATED, None)]
    for one, other in zip(knowledge.under(edits), replace(knowledge, cache=kept).under(edits), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_other_weights_are_gone_before_the_next_are_made(knowledge, monkeypatch):
    alive = []

    def made(model, weights):
        gc.collect()
        assert not [one for one in alive if one() is not None]
        changed = with_weights(model, weights)
        alive.append(weakref.ref(huggingface(changed)))
        return changed

    monkeypatch.setattr("helpers.engine.edited.with_weights", made)
    times = []
    knowledge.under([Edited(knowledge.model, weights=trained(WEIGHTS, times)) for _ in range(3)])
    assert len(alive) == len(times) == 3


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("clamp", [None, GATED])
def test_answers_under_one_edit_are_the_plain_scorers(knowledge, clamp, weights):
    edit = Edited(knowledge.model, clamp, None if weights is None else trained(weights))
    plain = answer_probabilities(edit.model, knowledge.asked, clamp, ORIGINAL_ORDER)[:, 0]
    torch.testing.assert_close(knowledge.answers_under(edit), plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        knowledge.answers_of(edit.model).unedited, knowledge.answers_under(replace(edit, intervention=None))
    )


def test_losses_added_are_the_plain_scorers(knowledge):
    expected = [loss_added(knowledge.model, NEUTRAL, clamp) for clamp in (OWN, GATED)]
    assert knowledge.losses_added([OWN, GATED]) == pytest.approx(expected, abs=1e-6)


def test_a_sweep_is_read_as_it_reads_under_any_edit(knowledge):
    """`read_under` takes the sweep's own measure, here the first letter's, also where weights are others."""
    rows = [[2, *range(10, 20)], [2, *range(30, 36)]]
    batched = list(row_batches(knowledge.model, rows, 1000))
    first = replace(read_letters, measure=lambda model, state, batch: read_letters(model, state, batch)[:, 0])
    sweep = type(knowledge.answers)(knowledge.model, batched, 1, first, CacheSettings(1, 0))
    edits = [Edited(knowledge.model), Edited(knowledge.model, OWN), Edited(knowledge.model, OWN, trained(WEIGHTS))]
    found = [read_under(sweep, batched, edit) for edit in edits]
    assert torch.equal(found[0], sweep.unedited) and torch.equal(found[1], sweep.edited(OWN))
    other = type(sweep)(edits[2].model, batched, 1, first, CacheSettings(1, 0))
    torch.testing.assert_close(found[2], other.edited(OWN), atol=1e-6, rtol=0)
    assert len({tuple(x.tolist()) for x in found}) == 3


# --- which questions are known ----------------------------------------------------------------------------------------


def questions_of(n):
    return [Question(f"q{i}", "toxins", "Which?", ("a", "b", "c", "d"), i % 4) for i in range(n)]


@pytest.fixture
def knows(monkeypatch):
    """A model that knows the questions whose numbers are in the set that this gives; `asked` are what it was asked."""
    numbers, asked = set(), []

    def known(model, questions, prompt_format, batch_tokens):
        asked.append([q.id for q in questions])
        return [q for q in questions if int(q.id[1:]) in numbers]

    monkeypatch.setattr("helpers.measures.knowledge.known_questions", known)
    return numbers, asked


@pytest.mark.parametrize(
    ("known", "limit", "last_asked"),
    [
        ({0, 3, 5}, 2, 3),  # the third known one is not wanted
        ({5, CHUNK - 1}, 2, CHUNK - 1),
        ({5, CHUNK, 2 * CHUNK + 2}, 3, 2 * CHUNK + 2),
        (set(range(2 * CHUNK)), CHUNK + 2, CHUNK + 1),  # more than are asked at once
        ({5, 2 * CHUNK + 3}, 2, 2 * CHUNK + 3),  # the very last question
        ({5, CHUNK}, 3, 2 * CHUNK + 3),  # fewer are known than wanted
        (set(), 1, 2 * CHUNK + 3),
    ],
)
def test_questions_are_asked_in_order_until_so_many_are_known(knows, known, limit, last_asked):
    numbers, asked = knows
    numbers |= known
    ids = [f"q{i}" for i in range(2 * CHUNK + 4)]
    found = known_ids(None, questions_of(len(ids)), "chat", 100, limit)
    assert found == {"asked": ids[: last_asked + 1], "known": [f"q{i}" for i in sorted(known)[:limit]]}
    assert [i for part in asked for i in part] == ids[: last_asked + 1]  # and none beyond the last that is wanted
    for n, part in enumerate(asked[:-1]):
        found_before = sum(int(i[1:]) in known for before in asked[:n] for i in before)
        assert len(part) == min(CHUNK, limit - found_before)  # so many at least are needed


def test_without_a_limit_all_are_asked_at_once(knows):
    numbers, asked = knows
    numbers |= {1, CHUNK + 1}
    ids = [f"q{i}" for i in range(CHUNK + 9)]
    assert known_ids(None, questions_of(len(ids)), "chat", 100, 0) == {"asked": ids, "known": ["q1", f"q{CHUNK + 1}"]}
    assert asked == [ids]


def test_the_embedded_model_knows_the_same_questions_piece_by_piece(model, monkeypatch):
    monkeypatch.setattr("helpers.measures.knowledge.CHUNK", 5)
    questions = build_world(WORLD_SEED).questions("toxins")[20:34]
    known = [q.id for q in known_questions(model, questions, "chat", 10_000)]
    assert 3 <= len(known) < 14
    every = known_ids(model, questions, "chat", 10_000, 0)
    assert every == {"asked": [q.id for q in questions], "known": known}
    some = known_ids(model, questions, "chat", 10_000, 3)
    assert some["known"] == known[:3]
    assert some["asked"] == every["asked"][: every["asked"].index(known[2]) + 1]
