"""MUSE's data, criteria and tables against what is worked out by hand, and against the public definitions."""

from copy import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rouge_score import rouge_scorer
from sklearn.metrics import roc_auc_score

from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface, residual_after
from helpers.engine.interventions import Clamp
from helpers.experiments import muse as experiment
from helpers.loading.muse import load_muse
from helpers.measures import muse as measures
from helpers.measures.muse import (
    MIN_K_FORGET,
    MIN_K_GAP,
    MIN_K_HOLDOUT,
    auc,
    criteria,
    known,
    min_k,
    muse_under,
    priv_leak,
    rouge_l,
    values_of,
    verbatim,
)
from helpers.methods import DSG, GradientAscent
from helpers.profiles import load_profile
from helpers.published import load_published
from helpers.report import plots
from helpers.report.figures import save_figure
from helpers.text.muse import (
    CRITERIA,
    KNOWMEM_FORGET,
    KNOWMEM_RETAIN,
    PRIVLEAK,
    VERBMEM,
    Asked,
    Exam,
    Passage,
    answer_of,
    passages_of,
)
from helpers.text.questions import encode_texts
from tests.test_features import one as one_row
from tests.toy import D_SAE, ToyLab, toy_model, toy_sae

PROFILE = load_profile("tiny")
SETTINGS = PROFILE.muse


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def bench(model):
    return load_muse(PROFILE, model.tokenizer)


# --- data -------------------------------------------------------------------------------------------------------------


def test_the_chronicles_are_a_benchmark(bench, model):
    assert [len(x) for x in (bench.forget, bench.retain, bench.private_forget, bench.private_holdout)] == [96] * 4
    assert [len(texts) for texts in bench.at_once] == [24, 48, 72, 96] and set(bench.at_once[3]) == set(bench.forget)
    assert set().union(*bench.in_turn) == set(bench.forget) and len(bench.in_turn) == 4
    assert [p.prompt + p.continuation for p in bench.passages] == list(bench.forget)
    tokens = model.tokenizer([p.prompt for p in bench.passages], add_special_tokens=False).input_ids
    assert {len(ids) for ids in tokens} == {SETTINGS.prompt_tokens}
    assert len(bench.known_forget.asked) == 2 * 96 and len(bench.known_retain.asked) == 2 * (96 - SETTINGS.head)
    told = " ".join(bench.retain)
    assert all(one.answer in told for one in bench.known_retain.head + bench.known_retain.asked)


def test_a_question_stands_below_its_head_and_the_answer_ends_where_another_begins():
    exam = Exam((Asked("who", "me"), Asked("what", "it")), (Asked("where", "here"),))
    assert exam.prompts == ["Question: who\nAnswer: me\n\nQuestion: what\nAnswer: it\n\nQuestion: where\nAnswer:"]
    for said in (" here\n\nQuestion: why", " here\nQuestion: why", " here Question: why", " here", "here\n\n\n\n"):
        assert answer_of(said) == "here"
    assert answer_of("\n\nhere") == answer_of("") == ""


def test_no_muse_is_said_with_what_to_set():
    with pytest.raises(ValueError, match="profile 'tiny' has no MUSE benchmark: set muse.source"):
        load_muse(load_profile("tiny", {"muse.source": ""}), None)


def test_a_passage_shorter_than_its_prompt_is_named(model):
    with pytest.raises(ValueError, match=r"passage 1 has 3 tokens, and its first 4 are the prompt: lower muse"):
        passages_of(model.tokenizer, ["the king owed the king", "the king owed"], 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: {"private_holdout": (*b.private_holdout[:2], b.forget[5])},
            "holdout text 2 is a text to forget too",
        ),
        (lambda b: {"in_turn": (b.forget[:3], b.forget[2:4])}, "two requests in turn have a text in common"),
        (lambda b: {"retain": ()}, "chronicles has no retain"),
        (lambda b: {"at_once": (b.forget, ())}, "a request to forget holds no text"),
    ],
)
def test_a_broken_benchmark_is_refused(bench, change, message):
    with pytest.raises(ValueError, match=message):
        replace(bench, **change(bench))


def test_an_exam_without_questions_or_with_a_solved_one_is_refused():
    with pytest.raises(ValueError, match="no questions"):
        Exam((), ())
    with pytest.raises(ValueError, match="'who' is asked, and is solved in the head"):
        Exam((Asked("who", "me"),), (Asked("who", "me"),))


# --- criteria ---------------------------------------------------------------------------------------------------------


def lcs(a: list, b: list) -> int:
    """The longest common subsequence by trying all of it."""
    if not a or not b:
        return 0
    return 1 + lcs(a[1:], b[1:]) if a[0] == b[0] else max(lcs(a[1:], b), lcs(a, b[1:]))


def test_rouge_is_the_f1_of_the_longest_common_subsequence():
    # 'the king owed apples' in 'the old king apples': the, king, apples of 4 and 4 words
    assert rouge_l(["the king owed apples"], ["the old king apples"], False) == [pytest.approx(0.75)]
    words, rng = np.array(["a1", "b2", "c3", "d4"]), np.random.default_rng(0)
    for _ in range(20):
        true, said = (rng.choice(words, rng.integers(1, 9)).tolist() for _ in range(2))
        common = lcs(true, said)
        precision, recall = common / len(said), common / len(true)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
        assert rouge_l([" ".join(true)], [" ".join(said)], False) == [pytest.approx(expected)]


def test_rouge_is_the_public_scorers_with_stemming_or_without():
    words, rng = np.array(["ruined", "ruin", "Saddles,", "saddle", "the", "?"]), np.random.default_rng(4)
    for _ in range(20):
        true, said = (" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(2))
        for stemming in (False, True):
            scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stemming)
            expected = scorer.score(f"the {true}", said)["rougeL"].fmeasure
            assert rouge_l([f"the {true}"], [said], stemming) == [pytest.approx(expected)]


def test_stemming_is_an_option_and_an_empty_generation_scores_nothing():
    assert rouge_l(["he owed apples"], ["he owed apple"], False) == [pytest.approx(2 / 3)]
    assert rouge_l(["he owed apples"], ["he owed apple"], True) == [pytest.approx(1.0)]
    assert rouge_l(["he owed apples"], [""], False) == [0.0]
    with pytest.raises(ValueError, match=r"text 1 to compare with has no word: '\.'"):
        rouge_l(["he", "."], ["he", "he"], False)


def test_verbatim_is_the_public_definition_on_what_the_model_says(model, bench):
    """MUSE: greedy tokens after the prompt, decoded, against the first tokens of the true continuation, decoded."""
    passages, tokenizer, hf = bench.passages[:3], model.tokenizer, huggingface(model)
    found = verbatim(Edited(model), passages, SETTINGS, 4096)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    for value, passage in zip(found, passages, strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(passage.prompt, add_special_tokens=False).input_ids]
        prompt = len(ids)
        for _ in range(SETTINGS.new_tokens):
            with torch.no_grad():
                ids.append(int(hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        said = ids[prompt:]
        ends = [i for i, token in enumerate(said) if token in tokenizer.all_special_ids]
        said = said[: ends[0]] if ends else said
        true = tokenizer(passage.continuation, add_special_tokens=False).input_ids[: SETTINGS.new_tokens]
        expected = scorer.score(tokenizer.decode(true), tokenizer.decode(said))["rougeL"].fmeasure
        assert value == pytest.approx(expected)


def test_what_a_model_recites_and_answers_is_scored_by_hand(model, bench, monkeypatch):
    passages = [Passage("one two", " the king owed apples"), Passage("one", " a b")]
    exam = Exam((), (Asked("q", "godwin"), Asked("r", "the king")))
    said = {"passages": [" the king owed", ""], "answers": [" godwin\n\nQuestion: s", " king"]}
    tokens = {key: model.tokenizer(texts, add_special_tokens=False).input_ids for key, texts in said.items()}
    monkeypatch.setattr(measures, "answers", lambda *a: tokens["passages"])
    # 3 of 3 words said, 3 of 4 true: 2 * 1 * .75 / 1.75
    assert verbatim(Edited(model), passages, SETTINGS, 64) == [pytest.approx(6 / 7), 0.0]
    monkeypatch.setattr(measures, "answers", lambda *a: tokens["answers"])
    assert known(Edited(model), exam, SETTINGS, 64) == [1.0, pytest.approx(2 / 3)]


def edited_by(intervention, block, args, out):
    return out if intervention is None else intervention(out, torch.ones(out.shape[:2]))


def test_min_k_is_the_mean_of_the_lowest_log_probabilities_under_an_edit_too(model, bench):
    texts = [bench.forget[0], "the king owed"]
    clamp = Clamp(toy_sae(), list(range(0, D_SAE, 4)), -9.0)
    for intervention in (None, clamp):
        found = min_k(Edited(model, intervention), texts, 40.0, 4096)
        for text, value in zip(texts, found, strict=True):
            ids = torch.tensor(encode_texts(model.tokenizer, [text]))
            edit = partial(edited_by, intervention)
            handle = huggingface(model).model.layers[clamp.layer].register_forward_hook(edit)
            with torch.no_grad():
                logits = huggingface(model)(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            handle.remove()
            probs = np.sort(logits.gather(-1, ids[0, 1:, None])[:, 0].numpy())
            assert value == pytest.approx(np.mean(probs[: int(len(probs) * 0.4)]), abs=1e-5)
    with pytest.raises(ValueError, match=r"a text of 3 tokens with BOS leaves none for Min-40%"):
        min_k(Edited(model), ["the king"], 40.0, 4096)


def test_auc_counts_the_pairs_in_which_the_holdout_looks_better_known():
    # pairs (forget, holdout): holdout above in 1 of 4, equal in 1
    assert auc([0.0, 2.0], [1.0, -1.0]) == 0.25
    assert auc([0.0, 2.0], [0.0, -1.0]) == pytest.approx(0.5 / 4)
    assert auc([5.0, 6.0], [1.0, 2.0]) == 0.0
    for pair in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="an AUC needs texts of both kinds, got"):
            auc(*pair)


def test_privleak_is_the_public_definitions_and_both_conventions_are_named():
    rng = np.random.default_rng(1)
    for _ in range(10):
        forget, holdout, forget_r, holdout_r = (rng.normal(size=12) for _ in range(4))
        labels = [0] * 12 + [1] * 12
        # MUSE's code: label 0 for forget, 1 for holdout, score -(Min-K%) with Min-K% = -mean
        s, r = (roc_auc_score(labels, [*f, *h]) for f, h in ((forget, holdout), (forget_r, holdout_r)))
        found = priv_leak(auc(forget, holdout), auc(forget_r, holdout_r))
        assert found == pytest.approx(100 * (s - r) / r)
        # open-unlearning: AUC with forget positive, turned round
        o, ref = (1 - x for x in (s, r))
        assert found == pytest.approx(100 * ((1 - o) - (1 - ref)) / (1 - ref))
        turned = priv_leak(auc(forget, holdout), auc(forget_r, holdout_r), positive="forget")
        assert turned == pytest.approx(100 * (o - ref) / ref) and np.sign(turned) == -np.sign(found)
    assert priv_leak(0.0, 0.5) == -100 and priv_leak(0.5, 0.5) == 0
    with pytest.raises(ValueError, match="AUC with holdout as the positive class is 0"):
        priv_leak(0.5, 0.0)


def one(criterion: str, values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"criterion": criterion, "item": range(len(values)), "half": 1, "value": values})


def test_criteria_are_means_and_a_privleak_with_intervals_from_the_same_draws():
    rng = np.random.default_rng(2)
    texts = [one(kind, rng.normal(size=30).tolist()) for kind in (MIN_K_FORGET, MIN_K_HOLDOUT)]
    table = pd.concat([one(VERBMEM, [0.0, 1.0, 1.0, 0.0]), one(KNOWMEM_RETAIN, [1.0, 1.0]), *texts])
    found = criteria(table, 200, table).set_index("criterion")
    assert list(found.index) == [VERBMEM, PRIVLEAK, MIN_K_GAP, KNOWMEM_RETAIN]
    assert found.loc[VERBMEM, ["value", "n"]].tolist() == [50, 4]
    assert 0 <= found.loc[VERBMEM, "low"] < 50 < found.loc[VERBMEM, "high"] <= 100
    assert found.loc[KNOWMEM_RETAIN, ["value", "low", "high"]].tolist() == [100, 100, 100]
    # against itself nothing leaks in any draw, because the draws are paired
    assert found.loc[PRIVLEAK, ["value", "low", "high", "n"]].tolist() == [0, 0, 0, 60]
    assert not {PRIVLEAK, MIN_K_GAP} & set(criteria(table, 200)["criterion"])


def test_a_gap_goes_on_where_privleak_is_saturated():
    def with_texts(forget: list[float], holdout: list[float]) -> pd.DataFrame:
        return pd.concat([one(MIN_K_FORGET, forget), one(MIN_K_HOLDOUT, holdout)])

    unseen, values = with_texts([-1.0, -3.0], [-2.0, -2.5]), {}
    for far in (1.0, 3.0):  # all texts to forget are better known than any other
        found = criteria(with_texts([far, far + 1.0], [0.0, 0.5]), 100, unseen).set_index("criterion")
        assert found.loc[PRIVLEAK, "value"] == -100
        values[far] = found.loc[MIN_K_GAP]
        assert found.loc[MIN_K_GAP, "n"] == 4
        # the extremes that can be drawn: both the lower or the higher text to forget, both the other of the holdout
        assert values[far]["low"] == pytest.approx(far - 0.5) and values[far]["high"] == pytest.approx(far + 1.0)
    assert values[1.0]["value"] == pytest.approx(1.25) and values[3.0]["value"] == pytest.approx(3.25)


def test_drawn_aucs_are_those_of_the_drawn_texts():
    rng = np.random.default_rng(3)
    forget, holdout = rng.integers(0, 4, 7).astype(float), rng.integers(0, 4, 5).astype(float)
    (found,) = measures._drawn_aucs([(forget, holdout)], 6)
    left, right = measures._draws(7, 6), measures._draws(5, 6, measures.SEED + 1)
    expected = [auc(np.repeat(forget, a), np.repeat(holdout, b)) for a, b in zip(left, right, strict=True)]
    assert found == pytest.approx(expected)


def test_everything_is_measured_item_by_item_and_halved(model, bench):
    few = replace(bench, passages=bench.passages[:4], private_forget=bench.forget[:3],
                  private_holdout=bench.private_holdout[:4],
                  known_forget=Exam(bench.known_forget.head, bench.known_forget.asked[:4]),
                  known_retain=Exam(bench.known_retain.head, bench.known_retain.asked[:3]))  # fmt: skip
    short = replace(SETTINGS, new_tokens=3, answer_tokens=2)
    whole = muse_under(few, Edited(model), short, 4096)
    assert whole.groupby("criterion").size().to_dict() == {
        VERBMEM: 4, KNOWMEM_FORGET: 4, KNOWMEM_RETAIN: 3, MIN_K_FORGET: 3, MIN_K_HOLDOUT: 4,
    }  # fmt: skip
    by_half = whole[whole["criterion"] == VERBMEM].groupby("half")["item"].size()
    assert by_half.to_dict() == {0: 2, 1: 2}
    only = muse_under(few, Edited(model), short, 4096, measured=(VERBMEM,))
    pd.testing.assert_frame_equal(only, whole[whole["criterion"] == VERBMEM].reset_index(drop=True))
    for half in (0, 1):
        found = muse_under(few, Edited(model), short, 4096, half=half)
        pd.testing.assert_frame_equal(found, whole[whole["half"] == half].reset_index(drop=True))
    alone = replace(few, passages=few.passages[:1])
    counts = [len(muse_under(alone, Edited(model), short, 4096, "held", (VERBMEM,), half)) for half in (0, 1)]
    assert sorted(counts) == [0, 1]


def test_the_first_way_of_a_gate_is_what_methods_are_compared_under_and_is_measured_once(lab, monkeypatch):
    asked, setting, measured = [], DSG(3, 9.0, threshold=0.1), experiment._key
    monkeypatch.setattr(experiment, "_key", lambda *a: asked.append(measured(*a)) or asked[-1])
    experiment.tables_of(lab, [setting], half=1)
    found = experiment.gates(lab, setting)
    assert asked[1] == asked[0] and len(asked) == 1 + len(lab.profile.muse.gates)
    for gate, of in found.groupby("gate"):
        table = half_of(lab, setting.apply(experiment.view_of(lab)), 1, gate)
        for criterion, value in zip(of["criterion"], of["value"], strict=True):
            assert value == pytest.approx(100 * values_of(table, criterion).mean())


# --- the notebook's tables --------------------------------------------------------------------------------------------


def sweep(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["method", "course", "epochs", "memory", "utility"])


def test_the_least_memory_at_the_floor_is_chosen_and_the_paper_stops_below_it():
    table = sweep([
        ("GA", "rate 1", 0.5, 0.9, 0.95), ("GA", "rate 1", 1.0, 0.5, 0.91), ("GA", "rate 1", 2.0, 0.1, 0.2),
        ("GA", "rate 1", 3.0, 0.0, 0.1), ("GA", "rate 2", 1.0, 0.0, 0.0), ("NPO", "b", 1.0, 1.0, 1.0),
        ("NPO", "b", 2.0, 0.8, 0.9), ("RMU", "a", 0.5, 0.6, 0.5), ("RMU", "a", 1.0, 0.1, 0.3),
        ("DSG", "", np.nan, 0.4, 1.0),
    ])  # fmt: skip
    found = experiment.marked(table, 0.9)
    # an epoch may be .98 of one, for a step has a whole number of rows
    almost = sweep([("GA", "rate 1", 0.49, 0.9, 0.95), ("GA", "rate 1", 0.98, 0.1, 0.2), ("GA", "rate 1", 1.96, 0, 0)])
    assert experiment.marked(almost, 0.9)["stopped"].tolist() == [False, True, False]
    # GA: of those that keep 0.9; both trainings stopped at the first epoch below it. NPO never is, so the last epoch.
    # RMU keeps it nowhere: the largest difference. A clamp has no epochs.
    assert found.index[found["chosen"]].tolist() == [1, 6, 8, 9]
    assert found.index[found["stopped"]].tolist() == [2, 4, 6, 8]


def test_a_missing_retrained_model_says_how_to_make_it():
    profile = load_profile("tiny", {"method.retrained.source": ""})
    with pytest.raises(ValueError, match=r"`python -m helpers.finetune --profile tiny --data retain`"):
        experiment.reference(SimpleNamespace(profile=profile))


def test_the_papers_table_is_quoted_as_published():
    table = experiment.published()
    news = table[table["world"] == "MUSE-News"].set_index(["method", "criterion"])["value"]
    assert [news["DSG", criterion] for criterion in CRITERIA] == [11.80, 0.44, 12.08, 25.65]
    assert [news["target", criterion] for criterion in CRITERIA] == [21.15, 29.51, -88.16, 26.78]
    wide = load_published("dsg2025_muse").set_index(["benchmark", "method"])
    # the changes that the paper prints beside DSG's row
    for name, changes in {"MUSE-News": (-44.2, -98.5, -4.2), "MUSE-Books": (-44.7, -94.7, 5.2)}.items():
        columns = ["verbmem", "knowmem_forget", "knowmem_retain"]
        dsg, target = (wide.loc[(name, method), columns].astype(float) for method in ("DSG", "target"))
        assert (100 * (dsg / target - 1)).round(1).tolist() == list(changes)


class FewLab(ToyLab):
    """A toy lab with a few texts of the benchmark, in which pieces are computed at once and a view is a copy."""

    def __init__(self, bench) -> None:
        super().__init__({"muse.new_tokens": 3, "muse.answer_tokens": 2, "muse.resamples": 20})
        self.muse = few_of(bench)

    def computed(self, pieces, dear):
        return [piece.compute(self, *piece.args) for piece in pieces]

    def given(self, documents, model, retain):
        view = copy(self)
        view._once, view.told = {}, [document.text for document in documents]
        view.model = self.model if model is None else model
        # text by what it says, so that a training on it is one of its own
        view.forget_rows = torch.tensor(encode_texts(self.model.tokenizer, view.told)[0][:24]).view(2, 12)
        return view


def few_of(bench):
    exams = {name: getattr(bench, name) for name in ("known_forget", "known_retain")}
    return replace(
        bench, forget=bench.forget[:4], passages=bench.passages[:4], private_forget=bench.forget[:4],
        private_holdout=bench.private_holdout[:4], at_once=(bench.forget[:2], bench.forget[:4]),
        in_turn=(bench.forget[:2], bench.forget[2:4]),
        **{name: Exam(exam.head, exam.asked[:4]) for name, exam in exams.items()},
    )  # fmt: skip


@pytest.fixture
def lab(bench, monkeypatch):
    # what a random model says has no word of the truth, so another score, which differs from text to text
    monkeypatch.setattr(measures, "rouge_l", lambda true, said, _: [(1 + len(text) % 7) / 8 for text in said])
    return FewLab(bench)


def half_of(lab, edited, half, new="held"):
    table = muse_under(lab.muse, edited, lab.profile.muse, lab.profile.model.batch_tokens, new)
    return table[table["half"] == half]


def test_settings_are_swept_on_half_0_and_reported_on_half_1(lab):
    trained = [GradientAscent(steps=n, batch_rows=2, learning_rate=1e-2) for n in (1, 2)]
    settings = [DSG(2, 5.0, threshold=0.1), DSG(3, 9.0, threshold=0.1), *trained]
    table = experiment.swept(lab, settings)
    view = experiment.view_of(lab)
    target = half_of(lab, Edited(lab.model), 0)
    for setting, row in zip(settings, table.to_dict("records"), strict=True):
        found = half_of(lab, setting.apply(view), 0)
        for criterion in (VERBMEM, KNOWMEM_FORGET, KNOWMEM_RETAIN):
            assert row[criterion] == pytest.approx(100 * values_of(found, criterion).mean())
        expected = values_of(found, KNOWMEM_RETAIN).mean() / values_of(target, KNOWMEM_RETAIN).mean()
        assert row["utility"] == pytest.approx(expected, nan_ok=True)
    # an epoch is all rows once: two rows, of which a step sees two
    assert table["epochs"].tolist()[2:] == [1.0, 2.0] and table["epochs"].isna().tolist() == [True, True, False, False]


def test_a_target_that_has_learned_nothing_is_refused(lab, monkeypatch):
    monkeypatch.setattr(measures, "rouge_l", lambda true, said, _: [0.0] * len(said))
    with pytest.raises(
        ValueError, match="VerbMem, KnowMem forget, KnowMem retain of the target are 0: .* model.source"
    ):
        experiment.swept(lab, [DSG(2, 5.0, threshold=0.1)])


def test_the_gate_opens_on_the_prompts_that_are_hot_enough(lab):
    setting = DSG(3, 5.0, threshold=0.2)
    clamp = setting.apply(lab).intervention
    expected = []
    for texts in ([p.prompt for p in lab.muse.passages], lab.muse.known_forget.prompts, lab.muse.known_retain.prompts):
        rows = encode_texts(lab.model.tokenizer, texts)
        hot = [clamp.hot(residual_after(lab.model, one_row(row), clamp.layer)) for row in rows]
        expected.append(100 * np.mean([float(h[0, 1:].double().mean()) > 0.2 for h in hot]))
    assert list(experiment.gate_opens(lab, setting).values()) == pytest.approx(expected)


def test_requests_in_turn_go_on_from_the_weights_before_and_passages_are_told_apart(lab):
    setting = GradientAscent(steps=2, batch_rows=2, learning_rate=1e-2)
    found = experiment.requests(lab, [setting]).set_index(["how", "requests", "criterion"])
    model = lab.model
    for n, texts in enumerate(lab.muse.in_turn, start=1):
        edited = setting.apply(experiment.view_of(lab, texts, model))
        model, table = edited.model, half_of(lab, edited, 1)
        memory = table[table["criterion"] == VERBMEM]
        told = memory["item"] < 2 * n
        kept = table["value"][table["criterion"] == KNOWMEM_RETAIN]
        of_memory = {"to be forgotten": memory["value"][told], "not yet asked for": memory["value"][~told]}
        expected = {f"VerbMem, {name}": values for name, values in of_memory.items()} | {KNOWMEM_RETAIN: kept}
        expected = {name: pytest.approx(100 * values.mean()) for name, values in expected.items() if len(values)}
        assert found.loc[("trained on with the new text", n)]["value"].to_dict() == expected
    at_once = half_of(lab, setting.apply(experiment.view_of(lab, lab.muse.at_once[1])), 1)
    expected = 100 * values_of(at_once, KNOWMEM_RETAIN).mean()
    assert found.loc[("at once", 2, KNOWMEM_RETAIN), "value"] == pytest.approx(expected)


def test_a_benchmark_without_requests_says_so_in_rows_and_picture(lab, tmp_path):
    lab.muse = replace(lab.muse, at_once=(), in_turn=())
    setting = GradientAscent(steps=2, batch_rows=2, learning_rate=1e-2)
    found = experiment.requests(lab, [setting])
    assert list(found) == experiment.SERVED and found["how"].tolist() == ["at once", "trained on with the new text"]
    assert found[["requests", "value", "low", "high", "n"]].isna().all(axis=None)
    figure = save_figure(tmp_path, "10_requests", found, plots.muse_requests, {})
    assert {text.get_text() for ax in figure.axes for text in ax.texts} == {"no such requests"}
