"""A profile opened for a notebook: what it loads and warns of, what it knows, sweeps that compute what is missing."""

import json
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.attribution import attributions
from helpers.engine.edited import Edited
from helpers.engine.features import feature_statistics
from helpers.engine.forward import huggingface, with_weights
from helpers.engine.interventions import Add, Clamp
from helpers.engine.scoring import is_right, known_questions, read_letters, read_rows
from helpers.engine.steps import Passes
from helpers.lab.choosing import aligned_points, held_out, points, score_table
from helpers.lab.lab import GROUP, OF_FORGET_TEXT, TOLERANCE, Lab, open_lab
from helpers.lab.pieces import PieceError
from helpers.lab.run import Run
from helpers.lab.scores import Scores
from helpers.loading.data import Requests
from helpers.measures.alone import lost_alone
from helpers.measures.knowledge import Knowledge, known_ids
from helpers.methods import METHODS
from helpers.methods.attribution_clamp import AttributionClamp
from helpers.methods.dsg import DSG
from helpers.methods.rmu import RMU, rmu_loss
from helpers.methods.static_clamp import StaticClamp
from helpers.methods.training import train
from helpers.methods.unconditional import Unconditional
from helpers.text.corpora import pack
from helpers.text.folds import folds_of, text_of
from helpers.text.questions import ORIGINAL_ORDER, encode_texts, prompt_tokens
from tests.small import SMALL

N = SMALL["questions.limit"]
WRONG = 26  # a question about toxins that the model answers wrong in some order
SUBJECTS = ("toxins", "biology", "geography", "history", "aging", "astronomy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lab")


def opened(folder: Path, **more: Any) -> Lab:
    """The small lab; further settings are given with __ for a dot."""
    overrides = SMALL | {key.replace("__", "."): value for key, value in more.items()}
    return open_lab("tiny", "09_lab", str(folder / "runs"), str(folder / "figures"), overrides)


@pytest.fixture(scope="module")
def lab(folder) -> Lab:
    return opened(folder)


@pytest.fixture
def fresh(folder, lab) -> Lab:
    """Another lab over the same stages, which remembers nothing but those."""
    return opened(folder)


def warnings(lab: Lab) -> list[str]:
    return lab.record()["facts"].get("warnings", [])


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_texts_are_as_many_as_the_profile_says(lab):
    shapes = [tuple(rows.shape) for rows in (lab.forget_rows, lab.retain_rows, lab.neutral_rows)]
    assert shapes == [(8, 128), (16, 128), (4, 128)]
    assert len(lab.framed_retain) == len(lab.framed_forget) == 16
    assert {d.subject for d in lab.forget_documents} == {"toxins"} and tuple(lab.all_questions) == SUBJECTS
    assert list(lab.methods) == list(METHODS) and lab.own_methods == ()
    assert torch.get_num_threads() == lab.profile.compute.threads == 1


def test_the_record_says_what_was_opened_the_same_each_time(lab, fresh):
    facts, again = lab.record()["facts"], fresh.record()["facts"]
    assert facts["overrides"] == SMALL and facts["explained_variance"] == round(lab.explained_variance, 4)
    named = ("model", "sae", "questions", "prompts", "texts", "computed_on")
    assert {key: again[key] for key in named} == {key: facts[key] for key in named}
    assert len({facts[key] for key in named}) == len(named)


def test_requests_are_loaded_once_and_only_when_asked_for_and_their_source_is_noted(tmp_path, monkeypatch):
    loaded = []

    def load(profile, hub):
        loaded.append(profile.name)
        hub.commits["a/requests"] = "1"
        hub.warnings.append("two rows, known are 100")
        return Requests(["one"], ["two"], ("No",))

    monkeypatch.setattr("helpers.lab.lab.load_requests", load)
    lab = Lab.__new__(Lab)  # a run without a world
    Run.__init__(lab, "tiny", "04_some", str(tmp_path))
    lab.note(sources={"a/model": "2"})
    assert loaded == []
    assert lab.requests is lab.requests and lab.requests.harmful == ["one"] and loaded == ["tiny"]
    facts = lab.record()["facts"]
    assert facts["sources"] == {"a/model": "2", "a/requests": "1"} and facts["warnings"] == ["two rows, known are 100"]


def test_a_device_that_is_not_there_is_said_before_anything_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("helpers.lab.lab.load_texts", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="device 'cuda:63' cannot be used"):
        opened(folder, model__device="cuda:63")


@pytest.mark.parametrize(("short", "warned"), [(TOLERANCE - 1e-6, False), (TOLERANCE + 1e-6, True)])
def test_an_sae_that_explains_less_than_the_profile_says_is_a_warning(folder, monkeypatch, capsys, short, warned):
    monkeypatch.setattr("helpers.lab.lab.check_pair", lambda *_: 0.999 - short)
    lab = opened(folder, sae__explained_variance=0.999)
    words = (
        "the SAE explains 0.949 of the variance on retain text, the profile's sae.explained_variance says 0.999: check"
    )
    assert [text.startswith(words) for text in warnings(lab)] == [True] * warned
    assert (f"warning: {words}" in capsys.readouterr().out) == warned
    assert lab.record()["facts"]["explained_variance"] == round(0.999 - short, 4)


@pytest.mark.parametrize(("measured", "stops"), [(0.0, True), (-0.5, True), (0.001, False)])
def test_only_an_sae_that_explains_nothing_stops(folder, monkeypatch, measured, stops):
    monkeypatch.setattr("helpers.engine.forward.explained_variance", lambda *_: measured)
    if stops:
        with pytest.raises(RuntimeError, match=f"the SAE explains {measured:.3f} of the residual's variance"):
            opened(folder)
    else:
        assert opened(folder).explained_variance == measured


# --- what it knows ----------------------------------------------------------------------------------------------------


def test_a_limit_counts_known_questions_and_asks_no_further_than_the_last(lab):
    """Against all questions asked one by one, which the limit spares."""
    for subject in ("toxins", "geography"):
        first = lab.all_questions[subject][:12]
        right = [bool(known_questions(lab.model, [question], "chat", 2048)) for question in first]
        last = [i for i, known in enumerate(right) if known][N - 1]
        assert lab.questions[subject] == first[: last + 1]
        assert lab.known[subject] == [q for q, known in zip(first[: last + 1], right, strict=False) if known]
    # where one among the first is not known, one more is asked
    around = lab.all_questions["toxins"][WRONG - 1 : WRONG + N + 3]
    assert not known_questions(lab.model, [around[1]], "chat", 2048), "or this test says little"
    assert len(known_ids(lab.model, around, "chat", 2048, N)["asked"]) == N + 1
    assert {len(known) for known in lab.known.values()} == {N} and tuple(lab.known) == SUBJECTS


def test_where_fewer_are_known_than_the_limit_all_are_asked(lab):
    asked = lab.all_questions["toxins"][WRONG - 2 : WRONG + 3]
    known = known_questions(lab.model, asked, "chat", 2048)
    assert 2 <= len(known) < len(asked)
    ids, right = [q.id for q in asked], [q.id for q in known]
    last = ids.index(right[-1])
    for limit, end in ((0, 5), (len(right) - 1, None), (len(right), last + 1), (len(right) + 1, 5), (99, 5)):
        found = known_ids(lab.model, asked, "chat", 2048, limit)
        end = ids.index(right[limit - 1]) + 1 if end is None else end
        assert found == {"asked": ids[:end], "known": right[: limit or None]}


def known_but(lab: Lab, **ids: list[str]) -> dict:
    return lab._known | {subject: lab._known[subject] | {"known": known} for subject, known in ids.items()}


def test_a_subject_of_which_fewer_than_two_are_known_is_left_out_with_a_warning(lab, fresh, monkeypatch, capsys):
    first = lab.known["aging"][0].id
    monkeypatch.setattr(Lab, "_known", known_but(lab, aging=[first], history=[]))
    assert list(fresh.known) == ["toxins", "biology", "geography", "astronomy"]
    asked = {subject: len(lab.questions[subject]) for subject in ("history", "aging")}
    expected = [
        f"of {asked[s]} questions of {s} the model knows {n} (right under all 24 orders of the choices): "
        "the subject is left out"
        for s, n in (("history", 0), ("aging", 1))
    ]
    assert warnings(fresh) == expected
    assert [line for line in capsys.readouterr().out.splitlines() if "left out" in line] == [
        f"warning: {words}" for words in expected
    ]
    assert set(fresh.sweep("static_clamp")[0].table["subject"]) == set(fresh.known)


def test_a_subject_to_forget_of_which_fewer_than_two_are_known_is_one_clear_error(lab, fresh, monkeypatch):
    monkeypatch.setattr(Lab, "_known", known_but(lab, toxins=[lab.known["toxins"][0].id]))
    asked = len(lab.questions["toxins"])
    with pytest.raises(
        ValueError, match=rf"of {asked} questions of toxins the model knows 1 .*nothing to forget: ask more"
    ):
        fresh.sweep("static_clamp")


def test_the_two_halves_are_all_that_is_known(lab):
    halves = [lab.knowledge_on(half).questions for half in (0, 1)]
    for subject, known in lab.known.items():
        ids = [q.id for half in halves for q in half[subject]]
        assert sorted(ids) == sorted(q.id for q in known) and all(half[subject] for half in halves)
    assert lab.judged is lab.knowledge_on(1) and lab.knowledge_on(None) is lab.knowledge
    assert lab.knowledge.roles == {"toxins": "forget", "biology": "near"} | dict.fromkeys(SUBJECTS[2:], "side")


# --- features ---------------------------------------------------------------------------------------------------------


def test_retain_text_is_seen_packed_and_framed(lab):
    forget, retain = lab.firing_rates()
    both = [*lab.retain_rows.tolist(), *lab.framed_retain]
    pd.testing.assert_frame_equal(retain, feature_statistics(lab.model, lab.sae, both, 999), rtol=1e-5)
    pd.testing.assert_frame_equal(forget, feature_statistics(lab.model, lab.sae, lab.forget_rows, 999), rtol=1e-5)


def test_features_are_the_best_by_each_rule_and_no_more_than_the_rule_finds(lab):
    assert {len(ids) for ids in lab.selections().values()} == {4} == {lab.profile.selection.n_features}
    assert lab.ranked("importance", 3) == tuple(lab.selections(3)["importance"].tolist())
    with pytest.raises(ValueError, match="2048 features are asked for, the selection rule found"):
        lab.ranked("sparsity", 2048)


def test_features_by_attribution_are_found_on_half_0_alone(lab):
    questions, form = lab.knowledge_on(0).questions, lab.profile.model.prompt_format
    found = attributions(lab.model, lab.sae, questions["toxins"], form, 999)["attribution"].nlargest(12)
    assert sorted(lab.alone["feature"]) == sorted(found.index) and (found > 0).all()
    np.testing.assert_allclose(lab.alone["attribution"], found, rtol=1e-4)
    value = -lab.profile.selection.attribution_strength * lab.clamp_unit
    by_hand = lost_alone(lab.knowledge_on(0), lab.sae, lab.alone["feature"].tolist(), value, 9)
    pd.testing.assert_frame_equal(lab.alone.drop(columns="attribution"), by_hand)
    kept = by_hand[by_hand["forget_lost"] > 0].sort_values("loss_added")["feature"].tolist()
    assert lab.attributed.tolist() == kept and lab.ranked("attribution", 1) == (kept[0],)
    with pytest.raises(ValueError, match=f"13 features are asked for, the selection rule found {len(kept)}; ask"):
        lab.ranked("attribution", 13)


def test_features_of_questions_are_never_called_published(lab):
    view = copy(lab)
    view.forget_rows = lab.forget_rows[:0]
    found = [view.labelled(kind(1, 1.0)) for kind in (StaticClamp, AttributionClamp)]
    assert found == ["static clamp, published features", "attribution clamp"]
    assert lab.labelled(StaticClamp(1, 1.0)) == "static clamp"


def test_a_clamp_unit_is_what_the_profile_says(lab):
    forget = lab.firing_rates()[0].loc[lab.selections()["sparsity"]]
    assert lab.clamp_unit == pytest.approx((forget["mean"] / forget["firing_rate"]).mean())
    absolute = Lab.__new__(Lab)
    absolute.profile = replace(lab.profile, clamp_unit="absolute")
    assert absolute.clamp_unit == 1.0


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_come_by_name_class_instance_and_list(lab):
    grid, one = StaticClamp.grid(lab.profile), StaticClamp(1, 3.0)
    assert len(grid) == 4 and lab.settings("static_clamp") == lab.settings(StaticClamp) == lab.settings(grid) == grid
    assert lab.settings(one) == lab.settings([one]) == [one]
    assert lab.settings("dsg", one, grid[:2], RMU) == [*DSG.grid(lab.profile), one, *grid[:2], *RMU.grid(lab.profile)]
    assert lab.settings() == []


def test_an_unknown_method_lists_the_known(lab):
    with pytest.raises(ValueError, match=f"^method 'dgs' is unknown, the known ones are: {', '.join(METHODS)}$"):
        lab.sweep("static_clamp", "dgs")


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch) -> list[list[Edited]]:
    """The edits under which knowledge was really asked for, call by call."""
    calls, under = [], Knowledge.under
    monkeypatch.setattr(
        Knowledge, "under", lambda knowledge, edits: calls.append(list(edits)) or under(knowledge, edits)
    )
    return calls


def test_a_sweep_says_of_every_setting_what_is_left_under_it(lab):
    trained, strong = RMU.grid(lab.profile)[0], Unconditional(4, 4.0)
    scores = lab.sweep("static_clamp", strong, trained)
    assert [one.setting for one in scores] == [*StaticClamp.grid(lab.profile), strong, trained]
    assert scores.labels == ("static clamp", "unconditional add", "RMU")
    assert [len(of) for of in scores.by_method().values()] == [4, 1, 1] and len(scores.of(StaticClamp, RMU)) == 5
    ids = lab.selections(4)["clamp_prime"].tolist()
    clamp = Clamp(lab.sae, ids, Add(-4.0 * lab.clamp_unit), "always")
    assert scores[4].facts["features"] == ids and scores[5].facts == {}
    weights = with_weights(
        lab.model, train(lab.model, lab.forget_rows, lab.retain_rows, trained, Passes.of(lab.profile.model))
    )
    rows = prompt_tokens(lab.model.tokenizer, lab.knowledge.asked, ORIGINAL_ORDER, "chat")
    for one, model, intervention in ((scores[4], lab.model, clamp), (scores[5], weights, None)):
        found = read_rows(model, rows, read_letters, intervention, 2048)
        right = is_right(found[:, None], lab.knowledge.asked, ORIGINAL_ORDER)
        assert one.table["right"].sum() == int(right.sum()) and one.table["n"].sum() == len(SUBJECTS) * N
        assert one.table["letter_mass"].sum() == pytest.approx(float(found.double().sum()), rel=1e-4)
    assert scores[4].table["right"].sum() < scores[4].table["n"].sum()


def test_one_half_may_be_asked_alone(lab):
    whole, half = (lab.sweep(StaticClamp(4, 8.0), half=which)[0].table for which in (None, 1))
    assert half["n"].sum() == sum(len(questions) for questions in lab.judged.questions.values()) < whole["n"].sum()


def test_a_sweep_is_cached_setting_by_setting(folder, computed):
    first = opened(folder, texts__neutral_rows=3)
    scores = first.sweep("static_clamp")
    assert [len(call) for call in computed] == [4], "clamps share a pass"
    again = opened(folder, texts__neutral_rows=3, method__static_clamp__strengths=[2.0, 5.0, 8.0])
    more = again.sweep("static_clamp")
    assert [len(call) for call in computed] == [4, 2]
    assert [edit.intervention.value for edit in computed[1]] == [pytest.approx(-5.0 * first.clamp_unit)] * 2
    kept = [one for one in more if one.setting.strength != 5.0]
    for one, before in zip(kept, scores, strict=True):
        assert one.setting == before.setting
        pd.testing.assert_frame_equal(one.table, before.table)
    opened(folder, texts__neutral_rows=3).sweep("static_clamp", "static_clamp")
    assert len(computed) == 2


def test_settings_are_computed_together_a_method_and_at_most_a_group_at_a_time(folder, computed):
    lab = opened(folder, texts__neutral_rows=2)
    many = [StaticClamp(1, float(strength)) for strength in range(GROUP + 1)]
    lab.sweep(many, "unconditional", "rmu")
    assert sorted(len(call) for call in computed) == sorted([GROUP, 1, 2, 1, 1])
    assert [call[0].weights is not None for call in computed][:2] == [True, True], "what takes long comes first"


def test_processes_that_share_a_sweep_get_four_groups_each(folder, monkeypatch):
    sizes, computed = [], Lab.computed

    def noted(self, pieces, dear):
        if not pieces or pieces[0].stage != "knowledge-static-clamp":
            return computed(self, pieces, dear)
        sizes.append([len(piece.keys) for piece in pieces])
        return [[pd.DataFrame()] * len(piece.keys) for piece in pieces]

    monkeypatch.setattr(Lab, "computed", noted)
    many = [StaticClamp(3, float(strength)) for strength in range(13)]
    for jobs in (1, 2, 32):
        opened(folder, texts__neutral_rows=2, compute__jobs=jobs).sweep(many)
    assert sizes == [[GROUP, 1], [2, 2, 2, 2, 2, 2, 1], [1] * 13]


def test_settings_of_more_features_than_attribution_leaves_are_left_out_with_a_warning(lab, fresh, monkeypatch, capsys):
    monkeypatch.setattr(Lab, "attributed", np.array([3, 5]))
    asked = [AttributionClamp(n, 2.0) for n in (1, 2, 3)]
    monkeypatch.setattr(fresh, "_measured", lambda settings, edits, half: [pd.DataFrame()] * len(settings))
    assert [one.setting for one in fresh.sweep(asked)] == asked[:2]
    found = "attribution clamp with 3 features is left out: of those that attribution names 2 pass its filters here"
    assert found in capsys.readouterr().out
    assert fresh.sweep(asked[2:]) == Scores()


def test_methods_trained_on_forget_text_are_left_out_with_a_warning_where_there_is_none(
    lab, fresh, monkeypatch, capsys
):
    monkeypatch.setattr(fresh, "forget_rows", torch.empty(0, 128, dtype=torch.long))
    monkeypatch.setattr(fresh, "firing_rates", lab.firing_rates)
    scores = fresh.sweep("rmu", "static_clamp")
    assert [one.setting for one in scores] == StaticClamp.grid(lab.profile)
    assert scores.labels == ("static clamp, published features",)
    (said,) = warnings(fresh)
    assert said == "RMU is left out: it is trained on forget text, and there is none"
    assert f"warning: {said}\n" in capsys.readouterr().out
    nothing = fresh.sweep("rmu")
    assert nothing == Scores() and warnings(fresh) == [said]
    assert points(nothing).empty and points(nothing).columns.equals(points(scores).columns)
    assert aligned_points(nothing).empty and held_out(nothing).empty and score_table(nothing).empty


def test_a_setting_that_fails_is_named_and_all_others_are_computed_and_kept(folder, monkeypatch, computed):
    lab = opened(folder, texts__neutral_rows=1, method__rmu__steps=[4])  # of which no weights are kept yet
    first, second = RMU.grid(lab.profile)

    def loss(forget, retain, frozen, target, alpha):
        return 1 / 0 if alpha == first.alpha else rmu_loss(forget, retain, frozen, target, alpha)

    monkeypatch.setattr("helpers.methods.rmu.rmu_loss", loss)
    with pytest.raises(PieceError) as caught:
        lab.sweep("rmu", "static_clamp")
    assert str(caught.value) == (
        "1 of 3 pieces failed:\n"
        "knowledge-rmu: RMU, layer 2, steering 10, alpha 3, 4 steps: ZeroDivisionError: division by zero"
    )
    n = len(computed)
    assert n == 3 and len(lab.sweep(second, "static_clamp")) == 5 and len(computed) == n


# --- a setting to be measured further ---------------------------------------------------------------------------------


def weights_kept(lab: Lab) -> list[Path]:
    return sorted(lab.store.folder.glob("weights-*"))


def test_a_sweep_keeps_no_large_weights_and_a_setting_to_be_measured_further_does(folder, monkeypatch):
    lab = opened(folder, method__rmu__steps=[1], compute__weights_mb=0)
    trained = []
    monkeypatch.setattr("helpers.engine.steps.clone", counted(trained, "helpers.engine.steps.clone"))
    before, setting = weights_kept(lab), lab.settings("rmu")[0]
    lab.sweep(setting)
    assert weights_kept(lab) == before and len(trained) == 1
    first = lab.edited(setting)
    assert weights_kept(lab) == before and len(trained) == 1, "put off until the model is asked for"
    name = "model.layers.2.mlp.down_proj.weight"
    weight = huggingface(first.model).get_parameter(name)
    assert len(weights_kept(lab)) == len(before) + 1 and len(trained) == 1, "the training was still at hand"
    second = opened(folder, method__rmu__steps=[1]).edited(setting)
    assert torch.equal(huggingface(second.model).get_parameter(name), weight) and len(trained) == 1
    assert not torch.equal(huggingface(lab.model).get_parameter(name), weight)
    lab.sweep(setting)
    assert len(trained) == 1


def test_small_weights_of_a_sweep_are_kept_so_that_a_chosen_setting_is_not_trained_again(folder, monkeypatch):
    lab = opened(folder, method__rmu__steps=[3])
    trained: list = []
    monkeypatch.setattr("helpers.engine.steps.clone", counted(trained, "helpers.engine.steps.clone"))
    before, setting = weights_kept(lab), lab.settings("rmu")[0]
    lab.sweep(setting)
    assert len(weights_kept(lab)) == len(before) + 1 and len(trained) == 1
    found = dict(huggingface(lab.edited(setting).model).named_parameters())
    assert len(weights_kept(lab)) == len(before) + 1 and len(trained) == 1
    fresh = train(lab.model, lab.forget_rows, lab.retain_rows, setting, Passes.of(lab.profile.model))
    assert all(torch.equal(found[name], weight) for name, weight in fresh.items())


def counted(calls: list, name: str) -> Any:
    from importlib import import_module

    module, _, attribute = name.rpartition(".")
    original = getattr(import_module(module), attribute)
    return lambda *arguments: calls.append(attribute) or original(*arguments)


def test_an_intervention_to_be_measured_further_is_the_setting_in_place(lab):
    edit = lab.edited(StaticClamp(2, 8.0))
    assert edit.weights is None and edit.model is lab.model
    assert edit.intervention.features == lab.ranked("sparsity", 2)
    assert edit.intervention.value == pytest.approx(-8.0 * lab.clamp_unit)
    found = lab.edits(StaticClamp(2, 8.0), DSG(3, 2.0), StaticClamp(2, 8.0))
    assert list(found) == [("static clamp", "2 features x8"), ("DSG", "3 features x2")]
    assert lab.unedited.model is lab.model and lab.unedited.facts() == {}


def test_once_computes_once_for_the_same_arguments(lab):
    calls = []

    def count(lab: Lab, *ids: int) -> int:
        calls.append(ids)
        return len(calls)

    assert [lab.once(count, 1), lab.once(count, 2), lab.once(count, 1), lab.once(count)] == [1, 2, 1, 3]
    assert calls == [(1,), (2,), ()]


@dataclass(frozen=True)
class Mine(StaticClamp):
    """A method of one's own, typed into a test: half of a clamp."""

    name = "mine"

    @classmethod
    def grid(cls, profile):
        return [cls(2, 4.0)]

    def set_to(self, lab, ids):
        return super().set_to(lab, ids) / 2


def test_a_class_that_is_in_no_list_can_be_swept_and_its_record_is_json(lab):
    (one,) = lab.sweep(Mine)
    assert (one.label, one.facts["value"]) == ("mine", pytest.approx(-2.0 * lab.clamp_unit))
    same = lab.sweep(StaticClamp(2, 2.0))[0]
    pd.testing.assert_frame_equal(one.table, same.table)
    json.dumps(lab.record(), allow_nan=False)


# --- views ------------------------------------------------------------------------------------------------------------


def test_a_view_computes_from_its_own_text_and_leaves_the_lab_as_it_was(lab):
    before = lab.firing_rates(), lab.clamp_unit, lab.ranked("importance", 3), lab.forget_rows
    text = text_of(lab.forget_documents, folds_of(lab.forget_documents, 4, 0)[:1])
    view = lab.given(text)
    assert view.forget_documents == text and not torch.equal(view.forget_rows, lab.forget_rows)
    expected = feature_statistics(lab.model, lab.sae, view.forget_rows, lab.profile.model.batch_tokens)
    pd.testing.assert_frame_equal(view.firing_rates()[0], expected)
    pd.testing.assert_frame_equal(view.firing_rates()[1], before[0][1])
    assert view.clamp_unit != before[1]
    assert lab.firing_rates() is before[0] and lab.clamp_unit == before[1] and lab.forget_rows is before[3]
    assert lab.ranked("importance", 3) == before[2] and view.knowledge is lab.knowledge
    whole = lab.given(lab.forget_documents)
    setting, tokens = lab.settings("rmu")[0], lab.profile.model.batch_tokens
    keys = [one.key(train, one.model, one.forget_rows, one.retain_rows, setting, tokens) for one in (whole, lab)]
    assert keys[0] == keys[1], "the same text is stored under the same key"


def test_what_is_remembered_does_not_leak_between_views(lab):
    calls = []

    def counted(of: Lab) -> int:
        calls.append(of)
        return len(of.forget_documents)

    one, other = lab.given(lab.forget_documents[:60]), lab.given(lab.forget_documents[:50])
    assert [of.once(counted) for of in (lab, one, other, one)] == [len(lab.forget_documents), 60, 50, 60]
    assert calls == [lab, one, other]
    # what a lab keeps depends on the forget text or is named here
    kept = {"requests", "fillers", "muse", "_known", "questions", "known", "knowledge", "_packages"}
    cached = {name for cls in (Lab, Run) for name, x in vars(cls).items() if isinstance(x, cached_property)}
    assert cached == kept | set(OF_FORGET_TEXT)


def test_a_view_sweeps_over_its_own_text_in_this_process(folder, monkeypatch):
    lab = opened(folder, compute__jobs=2)
    view = lab.given(lab.forget_documents[40:100])
    setting = DSG(3, 8.0)
    expected = lab.knowledge.under([setting.apply(view)])[0]
    monkeypatch.setattr("helpers.lab.pieces._elsewhere", lambda *_: pytest.fail("another process knows no view"))
    pd.testing.assert_frame_equal(view.sweep([setting, DSG(5, 8.0)])[0].table, expected)


def test_methods_go_on_from_the_model_of_a_view(lab):
    setting = lab.settings("rmu")[0]
    first = lab.given(lab.forget_documents[:60]).edited(setting)
    view = lab.given(lab.forget_documents[60:], first.model)
    second, alone = view.edited(setting), lab.given(lab.forget_documents[60:]).edited(setting)
    assert second.original is first.model and second.weights.key != alone.weights.key
    name = next(iter(second.weights.make()))
    both, one = (huggingface(edit.model).get_parameter(name) for edit in (second, alone))
    assert not torch.equal(both, one)
    # and a clamp of another model is measured on that model, not on what is kept of the unedited one
    clamp = StaticClamp(2, 8.0).apply(view)
    asked = lab.knowledge.asked
    rows = prompt_tokens(lab.model.tokenizer, asked, ORIGINAL_ORDER, "chat")
    found = read_rows(first.model, rows, read_letters, clamp.intervention, 2048)
    assert torch.allclose(lab.knowledge.answers_under(clamp), found, atol=1e-5)


def test_the_lab_and_its_views_keep_one_training_in_all(lab):
    view, made = lab.given(lab.forget_documents[:60]), []
    for of, key in ((lab, "a"), (view, "a"), (view, "b"), (view.given(lab.forget_documents[:50]), "b"), (lab, "a")):
        assert of.latest(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b", "a"] and view._latest is None


def test_a_view_with_other_retain_text_takes_it_packed_and_each_by_itself(lab):
    texts = [document.text for document in lab.forget_documents[:40]]
    view, tokenizer, sizes = lab.given(retain=texts), lab.model.tokenizer, lab.profile.texts
    assert torch.equal(view.retain_rows, pack(tokenizer, texts, sizes.row_length)[: sizes.retain_rows])
    rows = [row[: lab.profile.texts.row_length] for row in encode_texts(tokenizer, texts)]
    assert view.framed_retain == rows and view.forget_rows is lab.forget_rows
    tokens = lab.profile.model.batch_tokens
    expected = feature_statistics(lab.model, lab.sae, [*view.retain_rows.tolist(), *rows], tokens)
    pd.testing.assert_frame_equal(view.firing_rates()[1], expected)
    assert not expected.equals(lab.firing_rates()[1])


def test_a_view_needs_text(lab):
    with pytest.raises(ValueError, match="there is no forget text: at least one document"):
        lab.given([])
