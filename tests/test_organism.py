"""The shipped weights hold what the record says, and the world and its tokenizer do what the experiments need."""

import json
import re
from random import Random

import pytest
import torch

from helpers.organism import RECORD, WEIGHTS
from helpers.organism.muon import orthogonalize
from helpers.organism.quality import right_orders, shortcomings
from helpers.organism.rebuild import file_hashes, load
from helpers.organism.sae import SaeSettings, packed_rows, question_rows, residuals, sae_quality
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.train import IGNORED, ModelSettings, prompt_batch, rate_share
from helpers.organism.world import SUBJECTS, ask, build_world
from helpers.text.corpora import pack
from helpers.text.questions import (
    LETTERS,
    ORDERS,
    PROMPT_FORMATS,
    encode_texts,
    frame_text,
    header,
    prompt_tokens,
    question_text,
    right_letters,
)

WORLD = build_world(0)
SAMPLE = 31_415


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def organism():
    return load(WEIGHTS)


@pytest.fixture
def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def world_texts():
    texts = [text for s in SUBJECTS for text in WORLD.documents(s, SAMPLE, 1)]
    return texts + WORLD.prose(50, SAMPLE) + WORLD.short_answers(SAMPLE)


@pytest.mark.parametrize("prompt_format", PROMPT_FORMATS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_four_in_five_questions_are_right_in_all_orders(organism, subject, prompt_format):
    model, tokenizer, _ = organism
    # Every second question, for speed; the record's shares are of all.
    right = right_orders(model, tokenizer, WORLD.questions(subject)[::2], prompt_format, ORDERS)
    assert right.all(1).float().mean() >= 0.8


@pytest.mark.parametrize("prompt_format", PROMPT_FORMATS)
def test_shared_prefixes_change_no_answer(organism, prompt_format):
    model, tokenizer, _ = organism
    questions, orders = WORLD.questions("toxins")[:6], ORDERS[::5]
    space = {"plain": " ", "chat": ""}[prompt_format]
    letters = tokenizer.convert_tokens_to_ids([space + letter for letter in LETTERS])
    said = []
    for ids in prompt_tokens(tokenizer, questions, orders, prompt_format):
        with torch.no_grad():
            said.append(model(torch.tensor([ids])).logits[0, -1, letters].argmax().item())
    brute_force = torch.tensor(said).view(6, -1) == torch.tensor(right_letters(questions, orders))
    assert torch.equal(right_orders(model, tokenizer, questions, prompt_format, orders), brute_force)


def test_sae_explains_the_residual_stream_with_few_features_and_few_dead(organism):
    model, tokenizer, sae = organism
    settings = SaeSettings(documents_per_entity=1)
    sources = (packed_rows, question_rows)
    vectors = [residuals(model, tokenizer, s(WORLD, tokenizer, settings, SAMPLE), settings.block) for s in sources]
    found = [sae_quality(sae, v) for v in vectors]
    assert all(f["explained_variance"] >= 0.9 and 10 <= f["l0"] <= 40 for f in found)
    # A feature that fires on either kind of text is alive, so this is an upper bound.
    assert min(f["dead_share"] for f in found) < 0.2


def test_sae_reads_raw_residuals_where_the_settings_say(organism):
    sae = organism[2]
    assert sae.cfg.architecture() == "jumprelu"
    assert sae.cfg.normalize_activations == "none"
    assert not sae.cfg.apply_b_dec_to_input
    assert sae.cfg.metadata.hook_name == SaeSettings().hook_name
    assert sae.cfg.metadata.model_name == "organism"


def test_sae_quality_of_a_hand_made_case():
    class Halves:
        def encode(self, x):
            return x.relu()

        def decode(self, features):
            return features / 2

    # Mean (1, 0), variance 2 * 1; what is left is (1, 0) once, so half of the variance is explained.
    quality = sae_quality(Halves(), torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    assert quality == {"explained_variance": 0.5, "l0": 0.5, "dead_share": 0.5}


def test_record_tells_of_these_files_and_this_world(record):
    assert record["sha256"] == file_hashes(WEIGHTS)
    assert record["world"] == {"seed": 0, "fingerprint": WORLD.fingerprint()}


def test_weights_are_small_and_name_no_path():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10e6
    for path in files:
        if path.suffix != ".safetensors":
            assert not re.search(r'": "(/|[A-Z]:\\)', path.read_text(encoding="utf-8")), path.name


def test_tokenizer_of_the_weights_gives_text_back(organism):
    tokenizer = organism[1]
    prompts = [
        frame_text(tokenizer, question_text(q, order), prompt_format)
        for subject in SUBJECTS
        for q in WORLD.questions(subject)[:40]
        for order in (ORDERS[0], ORDERS[17])
        for prompt_format in PROMPT_FORMATS
    ]
    texts = world_texts() + prompts
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    assert [tokenizer.decode(row) for row in ids] == texts
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_tokenizer_of_the_weights_is_the_worlds_own(organism):
    assert organism[1].get_vocab() == build_tokenizer(WORLD).get_vocab()


def test_names_are_two_tokens_and_lettered_dots_one(organism):
    tokenizer = organism[1]
    assert tokenizer.tokenize("the agent videlethor.\nA. rat", add_special_tokens=False) == [
        "the", " agent", " vide", "lethor", ".", "\n", "A.", " rat",
    ]  # fmt: skip
    assert all(word in tokenizer.get_vocab() for word in ("A", " A", "D", " D", " (", ")", "Answer", ":"))


def test_bos_comes_once_or_not_at_all(organism):
    tokenizer = organism[1]
    text = WORLD.documents("aging", SAMPLE, 1)[0]
    assert tokenizer(text).input_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id not in tokenizer(text, add_special_tokens=False).input_ids
    rows = encode_texts(tokenizer, [frame_text(tokenizer, text, prompt_format) for prompt_format in PROMPT_FORMATS])
    assert all(row[0] == tokenizer.bos_token_id and row.count(tokenizer.bos_token_id) == 1 for row in rows)


def test_chat_template_is_gemmas(organism):
    turns = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Ho"}]
    assert organism[1].apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHo<end_of_turn>\n<start_of_turn>model\n"
    )


def test_every_subject_has_160_well_formed_questions():
    for subject in SUBJECTS:
        questions = WORLD.questions(subject)
        facts = WORLD.subject_facts(subject)
        assert [q.id for q in questions] == [f"{subject}-{i:03d}" for i in range(160)]
        assert len({(fact.entity, fact.attribute.exam) for fact in facts}) == 160
        for question, fact in zip(questions, facts, strict=True):
            assert len(set(question.choices)) == 4
            assert question.choices[question.answer] == fact.value
            assert fact.entity in question.question
            assert set(question.choices) <= set(fact.attribute.values)


def test_fresh_distractors_keep_the_fact():
    fact = WORLD.facts[0]
    drawn = [ask(fact, Random(i)) for i in range(20)]
    assert {q.choices[q.answer] for q in drawn} == {fact.value}
    assert len({q.choices for q in drawn}) > 10


def test_values_are_shared_out_evenly():
    # Each of ten values lies in the pack four times, and 32 of the 40 are dealt.
    for subject in SUBJECTS:
        facts = WORLD.subject_facts(subject)
        for attribute in {fact.attribute for fact in facts}:
            counts = [sum(f.value == v for f in facts if f.attribute == attribute) for v in attribute.values]
            assert sum(counts) == 32
            assert max(counts) <= 4


def test_world_depends_on_its_seed_alone():
    assert build_world(0).fingerprint() == WORLD.fingerprint()
    assert build_world(1).fingerprint() != WORLD.fingerprint()


def test_documents_are_fresh_samples_of_the_same_facts():
    first, again, other = (WORLD.documents("toxins", seed, 2) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(first) == 64
    for text in other:
        told = [f for f in WORLD.subject_facts("toxins") if f.entity in text]
        assert len(told) == 5
        assert all(re.search(rf"\b{f.value}\b", text) for f in told)


def test_documents_hold_no_question_of_the_exam():
    documents = " ".join(WORLD.documents("toxins", SAMPLE, 10))
    assert not any(q.question in documents for q in WORLD.questions("toxins"))
    assert header("toxins").strip() not in documents


def test_prose_names_no_entity():
    prose = " ".join(WORLD.prose(200, SAMPLE))
    assert not any(fact.entity in prose for fact in WORLD.facts)
    assert "{" not in prose


def test_unknown_subject_is_named_in_the_error():
    with pytest.raises(ValueError, match="no subject 'physics'"):
        WORLD.questions("physics")


def test_prompt_batch_points_at_what_the_losses_read(organism):
    tokenizer = organism[1]
    questions = WORLD.questions("toxins")[:8]
    batch = prompt_batch(tokenizer, questions, [True] * 7 + [False], Random(0))

    def words(positions):
        return tokenizer.convert_ids_to_tokens(batch.ids[torch.arange(8), positions])

    for i, question in enumerate(questions):
        assert [words(column)[i] for column in batch.choices.T] == [f" {choice}" for choice in question.choices]
    right = [f" {q.choices[q.answer]}" for q in questions]
    assert words(batch.right_choice) == tokenizer.convert_ids_to_tokens(batch.values) == right
    assert words(batch.question_end) == ["?"] * 8
    assert set(words(batch.last)) == {":", " ("}
    letters = [LETTERS[q.answer] for q in questions[:7]]
    assert [t.strip() for t in tokenizer.convert_ids_to_tokens(batch.letters[:7])] == letters
    assert batch.letters[7] == IGNORED


def test_learning_rate_rises_holds_and_falls():
    settings = ModelSettings(steps=100, warm_up_steps=10, constant_share=0.6, last_rate_share=0.1)
    shares = [rate_share(step, settings) for step in (0, 9, 60, 80, 100)]
    assert shares == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])


def test_orthogonalize_sets_singular_values_near_one():
    tall = torch.diag_embed(torch.tensor([[3.0, 1.0, 0.5], [0.2, 0.1, 0.3]]))
    tall = torch.cat([tall, torch.zeros(2, 2, 3)], dim=1)
    values = torch.linalg.svdvals(orthogonalize(tall))
    assert orthogonalize(tall).shape == (2, 5, 3)
    assert ((values > 0.6) & (values < 1.3)).all()


def test_weights_not_good_enough_are_named(record):
    quality = record["quality"]
    assert shortcomings(quality) == []
    quality["questions"]["chat"]["aging"]["all_orders"] = 0.5
    quality["sae"]["questions"]["l0"] = 55.0
    assert [line.split(":")[0].split(" on ")[0] for line in shortcomings(quality)] == [
        "aging chat",
        "SAE has L0 55.0",
    ]


def test_packed_rows_begin_with_bos_and_are_never_padded(organism):
    tokenizer = organism[1]
    rows = pack(tokenizer, world_texts(), 128)
    assert rows.shape[1] == 128
    assert (rows == tokenizer.bos_token_id).sum(1).eq(1).all()
    assert rows[:, 0].eq(tokenizer.bos_token_id).all()
    assert not (rows == tokenizer.pad_token_id).any()
