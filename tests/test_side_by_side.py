"""Chosen settings side by side: by subject, by agreement with another model, by what they add to a loss."""

import math

import pytest
import torch

from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import loss_added
from helpers.experiments.costs import method_memory, shape_of
from helpers.experiments.side_by_side import (
    beside_published,
    by_subject,
    choices,
    chosen_points,
    compared,
    distances,
    letter_kl,
    losses_on,
    mean_losses,
    spent,
    with_losses,
)
from helpers.lab.scores import Scored, Scores
from helpers.measures.metrics import wilson_interval
from helpers.methods import NPO, GradDiff, StaticClamp
from helpers.methods.training import TrainedMethod
from helpers.report import plots
from tests.toy import NEUTRAL, ToyLab, toy_knowledge, toy_model, toy_sae, toy_scores


def test_kl_is_of_the_letters_alone():
    wanted, found = torch.tensor([[0.3, 0.1, 0.0, 0.0]]), torch.tensor([[0.02, 0.02, 0.0, 0.0]])
    # of the letters (3/4, 1/4) against (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert letter_kl(wanted, found).tolist() == pytest.approx([expected])
    assert letter_kl(wanted, wanted * 0.1).tolist() == pytest.approx([0], abs=1e-12)


def test_agreement_counts_questions_answered_with_the_same_letter():
    knowledge, other = toy_knowledge(), toy_knowledge(model=toy_model(seed=1))
    edit = Edited(knowledge.model, Clamp(toy_sae(), [3, 5, 8, 13], -20.0))
    answers = knowledge.answers_under(edit), other.answers.unedited
    table = distances(knowledge, edit, {"unedited": knowledge.answers.unedited, "other": other.answers.unedited})
    roles = [knowledge.roles[q.subject] for q in knowledge.asked]
    for role in ("forget", "near", "side"):
        chosen = [i for i, r in enumerate(roles) if r == role]
        same = sum(int(knowledge.answers.unedited[i].argmax() == answers[0][i].argmax()) for i in chosen)
        row = table[(table["compared"] == "unedited") & (table["role"] == role)].iloc[0]
        assert (row["n"], row["right"], row["agreement"]) == (len(chosen), same, same / len(chosen))
        assert (row["low"], row["high"]) == wilson_interval(same, len(chosen))
        kl = letter_kl(knowledge.answers.unedited, answers[0])[chosen].mean()
        assert row["kl"] == pytest.approx(float(kl))


def test_an_edit_agrees_with_itself_wholly():
    knowledge = toy_knowledge()
    table = distances(knowledge, Edited(knowledge.model), {"itself": knowledge.answers.unedited})
    assert (table["agreement"] == 1).all() and table["kl"].tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_losses_are_taken_on_every_text_and_from_the_unedited_model():
    knowledge = toy_knowledge()
    clamp = Clamp(toy_sae(), [3, 5, 8, 13], -20.0)
    texts = {"packed": NEUTRAL, "framed": NEUTRAL[:2].tolist()}
    before = mean_losses(knowledge, Edited(knowledge.model), texts)
    table = losses_on(knowledge, Edited(knowledge.model, clamp), texts, before)
    expected = [loss_added(knowledge.model, rows, clamp) for rows in (NEUTRAL, NEUTRAL[:2])]
    assert table["text"].tolist() == ["packed", "framed"] and table["loss_added"].tolist() == pytest.approx(expected)
    assert expected[0] != 0


def test_the_chosen_setting_is_reported_on_the_other_half_subject_by_subject():
    # on half 0 the second keeps the side effects and forgets more; half 1 says otherwise
    scores = toy_scores(StaticClamp, ((90, 80), (100, 100)), ((50, 95), (100, 97)))
    chosen = choices(scores)
    assert chosen["static clamp"].setting == scores[1].setting
    table = by_subject(scores, chosen).set_index("subject")
    assert table.loc["forget", "right"] == 95 and table.loc["side", "accuracy"] == table.loc["side effects", "accuracy"]
    assert chosen_points(scores, chosen)["forget_accuracy"].tolist() == [0.95]


def test_ours_stand_beside_the_papers_and_a_reproductions_points():
    scores = toy_scores(StaticClamp, ((90, 80), (100, 100)), ((50, 95), (100, 97)))
    table = beside_published(chosen_points(scores, choices(scores)), "toxins")
    (ours,) = table[table["by"] == "ours"].itertuples()
    assert (ours.world, ours.method, ours.forget_accuracy) == ("ours: toxins", "static clamp", 0.95)
    paper = table[table["by"] == "paper"].set_index(["world", "method"])["forget_accuracy"]
    assert paper["Muhamed et al.: wmdp-bio", "RMU"] == 0.5 and paper["Muhamed et al.: wmdp-cyber", "RMU"] == 0.88
    assert len(paper) == 14 and "target" not in set(table["method"]), "an unedited model is no method"
    again = table[table["by"] == "reproduction"]
    assert again["side_accuracy"].tolist() == [0.9941, 0.4467, 0.9944] and set(again["method"]) == {"DSG"}
    assert table[["forget_low", "side_high"]].notna().all(axis=1).tolist() == (table["by"] == "ours").tolist()
    assert len(plots.beside_published(table).axes) == 2


def test_what_was_spent_is_the_sweeps_seconds_and_the_dearest_training():
    lab = ToyLab()
    lab.seconds = {"knowledge-npo": 7.5, "knowledge-static-clamp": 0.5}
    npo = [NPO(0.1, 1.0, steps=1, batch_rows=n, learning_rate=1e-3) for n in (1, 2, 1)]
    scores = toy_scores(StaticClamp, ((90, 80), (100, 100))) + Scores(Scored(s, "NPO", {}, None) for s in npo)
    table = spent(lab, scores).set_index("method")
    shape = shape_of(huggingface(lab.model).config)
    assert table.loc["NPO"].tolist() == [3, 7.5, method_memory(lab.profile, shape, npo[1]) / 1e6]
    assert table.loc["static clamp"].tolist() == [1, 0.5, 0.0]


def test_what_a_training_of_ones_own_holds_is_counted_as_of_what_it_derives_from():
    class Mine(NPO):
        """With a loss of its own."""

    class Other(TrainedMethod):
        """One that derives from none of ours keeps a pass of each text, as GradDiff."""

        @classmethod
        def grid(cls, profile):
            return []

    lab = ToyLab()
    shape, fields = shape_of(huggingface(lab.model).config), {"steps": 1, "batch_rows": 2, "learning_rate": 1e-3}
    held = [method_memory(lab.profile, shape, kind(0.1, 1.0, **fields)) for kind in (Mine, NPO)]
    assert held[0] == held[1] > 0
    assert method_memory(lab.profile, shape, Other(**fields)) == method_memory(
        lab.profile, shape, GradDiff(1.0, **fields)
    )


def test_the_table_of_the_figure_has_what_the_picture_needs_and_says_where_nobody_is_the_reference():
    lab = ToyLab({"method.retrained.source": ""})
    lab.neutral_documents = lab.forget_documents
    chosen = choices(toy_scores(StaticClamp, ((90, 80), (100, 100))))
    answers, losses = compared(lab, {"static clamp": chosen["static clamp"]._replace(setting=StaticClamp(2, 5.0))})
    assert set(answers["compared"]) == {"unedited"} and losses["text"].tolist() == ["packed", "framed"]
    points = chosen_points(toy_scores(StaticClamp, ((90, 80), (100, 100))), chosen)
    table = with_losses(points, answers, losses)
    assert table["agreement"].isna().all() and table["loss_framed"].tolist() == losses["loss_added"].tolist()[1:]
    figure = plots.side_by_side(table)
    assert any("no reference" in text.get_text() for ax in figure.axes for text in ax.texts)
    own = answers.assign(compared="retrained")
    assert with_losses(points, own, losses)["agreement"].notna().all()
