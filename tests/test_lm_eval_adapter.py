"""Under lm-evaluation-harness an intervention is what it is in our own code, whatever the batch and its padding."""

import importlib
import json
import sys
from dataclasses import replace
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.hf_steered import SteeredModel

from helpers.engine.columns import layer_of
from helpers.engine.edited import Edited, Trained
from helpers.engine.forward import huggingface, residual_after, unembed
from helpers.engine.interventions import Add, Clamp, Gate, hot_fraction
from helpers.engine.scoring import everywhere, is_right, read_rows, read_spaced_letters, row_batches
from helpers.loading.data import load_questions
from helpers.measures.lm_eval.adapter import harness_model, run_tasks, task_manager
from helpers.organism import MODEL_DIR
from helpers.steering import write_steered
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from tests.toy import toy_model, toy_sae

SUBJECTS, N = ("toxins", "biology"), 24
METHODS = ("none", "clamp_prime", "refusal_clamp", "dsg", "unconditional")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without lm-eval's description of the machine, which takes two seconds a call."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="module")
def questions(profile):
    return {subject: load_questions(profile)[subject][:N] for subject in SUBJECTS}


@pytest.fixture(scope="module")
def clamps(model, sae, questions):
    """One intervention of each kind on features that fire in both subjects, and a gate that parts the prompts."""
    asked = prompt_tokens(model.tokenizer, [q for qs in questions.values() for q in qs], ORIGINAL_ORDER, "lm-eval")
    residuals = [(residual_after(model, batch, layer_of(sae)), batch.mask) for batch in row_batches(model, asked, 999)]
    rates = sum((sae.encode(r) > 0)[m].double().sum(dim=0) for r, m in residuals) / sum(map(len, asked))
    features = ((rates - 0.1).abs()).argsort()[:6].tolist()  # they fire at about a tenth of the tokens
    rho = torch.cat([hot_fraction((sae.encode(r)[..., features] > 0).any(dim=-1), m) for r, m in residuals])
    return {
        "none": None,
        "clamp_prime": Clamp(sae, features, -8.0),
        "refusal_clamp": Clamp(sae, [0], -20.0, "any", triggers=features, fires_above=0.05),
        "dsg": Clamp(sae, features, -20.0, "any", Gate(float(rho.median()))),
        "unconditional": Clamp(sae, features[:2], Add([-6.0, 3.0]), "always", bos=True),
    }


def asked_by_lm_eval(asked: Any) -> dict[str, Any]:
    """lm-eval's own results of the first N questions of each subject."""
    tasks = [f"organism_{subject}" for subject in SUBJECTS]
    return lm_eval.simple_evaluate(
        asked, tasks=tasks, task_manager=task_manager("organism"), limit=N, bootstrap_iters=0
    )


def log_probabilities(results: dict[str, Any], subject: str) -> torch.Tensor:
    samples = sorted(results["samples"][f"organism_{subject}"], key=lambda sample: sample["doc_id"])
    return torch.tensor([[answer[0] for answer in sample["filtered_resps"]] for sample in samples])


@pytest.fixture(scope="module")
def unedited(model, questions):
    return {s: ours(model, questions[s], None) for s in SUBJECTS}


def ours(model, questions, clamp) -> torch.Tensor:
    rows = prompt_tokens(model.tokenizer, questions, ORIGINAL_ORDER, "lm-eval")
    return read_rows(model, rows, read_spaced_letters, clamp, 700)


@pytest.mark.parametrize("method", METHODS)
def test_lm_eval_and_our_scorer_agree(model, questions, clamps, unedited, method):
    results = asked_by_lm_eval(harness_model(model, model.tokenizer, clamps[method]))
    changed = []
    for subject in SUBJECTS:
        expected, theirs = ours(model, questions[subject], clamps[method]), log_probabilities(results, subject)
        torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=0)
        right = is_right(expected[:, None], questions[subject], ORIGINAL_ORDER).double().mean()
        assert results["results"][f"organism_{subject}"]["acc,none"] == pytest.approx(float(right))
        changed.append((expected - unedited[subject]).abs().amax(dim=1) > 1e-3)
    share = float(torch.cat(changed).double().mean())
    # the gate stands at the median: it opens for some prompts and for some not
    assert {"none": share == 0, "dsg": 0.2 < share < 0.6}.get(method, share > 0.9)


def test_results_are_of_the_edited_model_under_its_intervention(model, questions, clamps, monkeypatch):
    """Other weights, and an intervention on them: the results are as JSON, the table names the task."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: results.update(pretty_env_info="secret"))
    name = "model.layers.2.mlp.down_proj.weight"  # where facts are recalled
    made = {name: -3 * huggingface(model).get_parameter(name).detach()}
    found = []
    for edited in (
        Edited(model),
        Edited(model, clamps["dsg"]),
        Edited(model, weights=Trained("negative", lambda: made)),
        Edited(model, clamps["dsg"], Trained("negative", lambda: made)),
    ):
        results, table = run_tasks(edited, ["organism_toxins"], task_manager("organism"), N, 8)
        right = is_right(
            ours(edited.model, questions["toxins"], edited.intervention)[:, None], questions["toxins"], ORIGINAL_ORDER
        )
        found.append(results["results"]["organism_toxins"]["acc,none"])
        assert found[-1] == pytest.approx(float(right.double().mean())) and "organism_toxins" in table
        assert json.loads(json.dumps(results, allow_nan=False)) == results and "secret" not in json.dumps(results)
    assert len(set(found)) > 2


def test_our_prompt_is_lm_evals(model, questions):
    (task,) = task_manager("organism").load("organism_toxins")["tasks"].values()
    task.build_all_requests(limit=2, rank=0, world_size=1)
    context, choices = task.instances[4].args[0], [instance.args[1] for instance in task.instances[4:]]
    (row,) = prompt_tokens(model.tokenizer, questions["toxins"][1:2], ORIGINAL_ORDER, "lm-eval")
    assert context.startswith("The following are multiple choice questions (with answers) about biology.\n\n")
    assert model.tokenizer(context).input_ids == row and choices == [" A", " B", " C", " D"]


def test_lm_evals_steered_is_our_unconditional_add_that_touches_bos_too(model, clamps, tmp_path):
    """It also adds to padding, which no real token sees: 24 prompts of unequal length are asked in batches of 5."""
    write_steered(tmp_path / "steer.pt", [clamps["unconditional"]])
    theirs = SteeredModel(
        str(MODEL_DIR), str(tmp_path / "steer.pt"), device="cpu", dtype="float32", batch_size=5,
        attn_implementation="eager",
    )  # fmt: skip
    ours = harness_model(model, model.tokenizer, clamps["unconditional"], batch_size=5)
    ours, theirs = asked_by_lm_eval(ours), asked_by_lm_eval(theirs)
    for subject in SUBJECTS:
        pair = [log_probabilities(results, subject) for results in (ours, theirs)]
        torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


# --- batches, padding, generation: on a random model whose sliding window is shorter than the prompts -----------------


LENGTHS = (5, 12, 9, 3, 7, 11, 6, 4, 10)


@pytest.fixture(scope="module")
def toy():
    return toy_model()


@pytest.fixture(scope="module")
def texts(toy):
    """Texts of that many words, drawn at random."""
    draw = torch.Generator().manual_seed(0)
    return [toy.tokenizer.decode(torch.randint(40, 140, (n,), generator=draw)) for n in LENGTHS]


def toy_clamp(method: str) -> Clamp | None:
    sae, features = toy_sae(), [3, 5, 8, 13, 21]
    return {
        "none": None,
        "clamp_prime": Clamp(sae, features, -6.0),
        "refusal_clamp": Clamp(sae, [2], -6.0, "any", triggers=features, fires_above=0.05),
        "dsg": Clamp(sae, features, -6.0, "any", Gate(0.5)),
        "unconditional": Clamp(sae, features, Add(-2.0), "always"),
        "unconditional_bos": Clamp(sae, features, Add(-2.0), "always", bos=True),
    }[method]


def judged_on(toy, clamp: Clamp, prompt: list[int]) -> Clamp | None:
    """The intervention on a sequence that begins with the prompt: its gate's verdict, once and for all."""
    if clamp.gate is None:
        return clamp
    (batch,) = row_batches(toy, [prompt], 999)
    opened = clamp.opened(clamp.hot(residual_after(toy, batch, clamp.layer)), batch.mask)
    return replace(clamp, gate=None) if opened else None


@everywhere
def read_steps(model, state, batch):
    """Log-probabilities of every next token of one row, [1, seq, words]."""
    return unembed(model, state).log_softmax(dim=-1)


def steps_by_hand(toy, clamp, row, prompt):
    return read_rows(toy, [row], read_steps, judged_on(toy, clamp, prompt), 999)[0]


def ask(lm, kind, arguments):
    return getattr(lm, kind)([Instance(kind, {}, pair, i) for i, pair in enumerate(arguments)], disable_tqdm=True)


each_method = pytest.mark.parametrize(
    "method", ["clamp_prime", "refusal_clamp", "dsg", "unconditional", "unconditional_bos"]
)


@each_method
def test_the_batch_size_changes_no_score(toy, texts, method):
    pairs = [
        (text, " " + " ".join(end.split()[:n])) for text, end, n in zip(texts, texts[::-1], (1, 3, 2) * 3, strict=True)
    ]
    scores = []
    for name, size in ((method, 1), (method, 3), (method, 8), ("none", 8)):
        lm = harness_model(toy, toy.tokenizer, toy_clamp(name), size)
        answers = [score for score, _ in ask(lm, "loglikelihood", pairs)]
        scores.append(torch.tensor(answers + ask(lm, "loglikelihood_rolling", [(text,) for text in texts])))
    torch.testing.assert_close(scores[1], scores[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores[2], scores[0], atol=1e-4, rtol=0)
    assert (scores[3] - scores[0]).abs().max() > 0.1


@each_method
def test_scores_are_those_of_one_row_alone_and_the_gate_is_asked_about_the_context(toy, texts, method):
    """Contexts with a continuation of two words each, and texts without a context, which are judged as a whole."""
    clamp, opened = toy_clamp(method), []
    pairs = [(text, " " + " ".join(texts[1].split()[:2])) for text in texts] + [("", text) for text in texts]
    lm = harness_model(toy, toy.tokenizer, clamp, 5)
    for (context, continuation), (score, _) in zip(pairs, ask(lm, "loglikelihood", pairs), strict=True):
        row = toy.tokenizer(context + continuation).input_ids
        prompt = toy.tokenizer(context).input_ids if context else row[:-1]
        opened.append(judged_on(toy, clamp, prompt) is not None)
        n = len(toy.tokenizer(context).input_ids)
        steps = steps_by_hand(toy, clamp, row, prompt)[n - 1 : -1]
        assert score == pytest.approx(float(steps[range(len(row) - n), row[n:]].sum()), abs=1e-4)
    assert (method == "dsg") == (0 < sum(opened) < len(opened))


@each_method
def test_generation_with_a_cache_is_generation_without_one(toy, texts, method):
    """Batches of unequal prompts against the whole row run anew for every token."""
    clamp, tokenizer, expected = toy_clamp(method), toy.tokenizer, []
    for prompt in (tokenizer(text).input_ids for text in texts[:5]):
        row = prompt
        while len(row) < len(prompt) + 8 and tokenizer.eos_token_id not in row:
            row = [*row, int(steps_by_hand(toy, clamp, row, prompt)[-1].argmax())]
        expected.append(tokenizer.decode(row[len(prompt) :], skip_special_tokens=True))
    said = {}
    for name, size in ((method, 1), (method, 3), ("none", 3)):
        requests = [(text, {"max_gen_toks": 8, "until": []}) for text in texts[:5]]
        said[name, size] = ask(harness_model(toy, tokenizer, toy_clamp(name), size), "generate_until", requests)
    assert said[method, 1] == said[method, 3] == expected != said["none", 3]


def test_beams_share_the_verdict_of_their_prompt(toy, texts):
    how, said = {"max_gen_toks": 6, "until": [], "num_beams": 3, "do_sample": False}, []
    for size in (1, 4):
        lm = harness_model(toy, toy.tokenizer, toy_clamp("dsg"), size)
        said.append(ask(lm, "generate_until", [(text, how) for text in texts]))
    assert said[0] == said[1]


class Watched(Clamp):
    """Adds nothing; remembers which tokens it was allowed to touch."""

    def edit(self, residual, touchable):
        seen.append(touchable.tolist())
        return residual


seen: list = []


@pytest.mark.parametrize("bos", [False, True])
def test_padding_is_told_from_a_word_whose_id_is_zero(toy, bos):
    """lm-eval pads with zeros on the right; the tokens here end in a real 0, as an exclamation mark does in GPT-2."""
    seen.clear()
    lm = harness_model(toy, toy.tokenizer, Watched(toy_sae(), [3], 0.0, bos=bos), 2)
    lm._loglikelihood_tokens([(("", ""), [2, 50, 0, 0], [60]), (("", ""), [2, 51, 52, 53, 54], [0, 61])])
    first, second = [bos, True, True, True, False, False], [bos, True, True, True, True, True]
    assert seen == [[second, first]]


@pytest.mark.parametrize("bos", [False, True])
def test_in_generation_padding_is_on_the_left_and_new_tokens_are_touched(toy, texts, bos):
    seen.clear()
    lm = harness_model(toy, toy.tokenizer, Watched(toy_sae(), [3], 0.0, bos=bos), 2)
    ask(lm, "generate_until", [(text, {"max_gen_toks": 2, "until": []}) for text in (texts[0], texts[3])])
    n, m = (len(toy.tokenizer(text).input_ids) for text in (texts[0], texts[3]))
    prompts = [[bos] + [True] * (n - 1), [False] * (n - m) + [bos] + [True] * (m - 1)]
    assert seen == [prompts, [[True], [True]]]


def test_no_hook_stays_behind_not_even_after_an_error(toy, texts):
    block = huggingface(toy).model.layers[1]

    class Broken(Clamp):
        def edit(self, residual, touchable):
            assert len(block._forward_hooks) == before + 1
            raise RuntimeError("broken")

    before = len(block._forward_hooks)
    lm = harness_model(toy, toy.tokenizer, Broken(toy_sae(), [3], 0.0))
    for kind, arguments in (
        ("loglikelihood", (texts[0], " a")),
        ("generate_until", (texts[0], {"max_gen_toks": 2, "until": []})),
    ):
        with pytest.raises(RuntimeError, match="broken"):
            ask(lm, kind, [arguments])
        assert len(block._forward_hooks) == before


def test_a_hugging_face_model_is_as_good_as_ours(toy, texts):
    both = [harness_model(model, toy.tokenizer, toy_clamp("dsg")) for model in (toy, huggingface(toy))]
    first, second = (ask(lm, "loglikelihood", [(text, " a") for text in texts]) for lm in both)
    assert first == second


def test_without_lm_eval_the_adapter_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "helpers.measures.lm_eval.adapter")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"lm-eval is needed and is an extra: pip install '\.\[lm-eval\]'"):
        importlib.import_module("helpers.measures.lm_eval.adapter")
