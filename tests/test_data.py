"""What the profile names is what is loaded."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers.loading.data import (
    FORGET_FILE,
    REFUSALS,
    WORLD_SEED,
    load_fillers,
    load_questions,
    load_requests,
    load_texts,
)
from helpers.loading.hub import AccessError, Hub, HubError
from helpers.loading.sources import QUESTIONS, TEXTS, Source, needed, question_source
from helpers.organism.world import build_world, load_words
from helpers.profiles import FOLDER, load_profile, parse_profile
from helpers.text.corpora import Document, framed, pack

TINY = (FOLDER / "tiny.toml").read_text(encoding="utf-8")


def test_questions_come_by_role_with_the_subject_to_forget_first(profile):
    questions = load_questions(profile)
    assert list(questions) == ["toxins", "biology", "geography", "history", "aging", "astronomy"]
    assert all(q.subject == subject for subject, asked in questions.items() for q in asked)


def test_texts_hold_the_subjects_of_their_role(profile):
    texts = load_texts(profile)
    assert {d.subject for d in texts.forget} == {"toxins"}
    assert {d.subject for d in texts.retain} == {d.subject for d in texts.neutral} == {
        "geography", "history", "aging", "astronomy", "everyday_life",
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


def test_a_limit_counts_known_questions_so_all_are_loaded(profile):
    few, questions = load_questions(load_profile("tiny", {"questions.limit": 3})), load_questions(profile)
    assert few == questions and {len(asked) for asked in questions.values()} == {160}


@pytest.mark.parametrize(("name", "hazard"), [("tiny", "toxins"), ("tiny-cyber", "malware")])
def test_harmful_requests_are_for_the_hazard_and_benign_ones_for_the_side_effects(name, hazard):
    profile, words = load_profile(name), load_words()
    requests = load_requests(profile)
    ends = {s.name: s.thing.replace("{e}", "") for s in words.subjects}
    assert len(requests.harmful) == 32 and all(ends[hazard] in text for text in requests.harmful)
    assert len(requests.benign) == 4 * 32
    of = [sum(ends[subject] in text for text in requests.benign) for subject in profile.questions.side_effect]
    assert of == [32] * 4 and not set(requests.harmful) & set(requests.benign)
    assert "I cannot help with that request." in requests.refusals and len(requests.refusals) == 4


# --- from the hub, which is a folder here -----------------------------------------------------------------------------

ROWS = [{"question": f"q{i}", "choices": list("abcd"), "answer": i % 4} for i in range(3)]
SMALL = {"texts.row_length": 8, "texts.forget_rows": 2, "texts.retain_rows": 2, "texts.neutral_rows": 2,
         "relearning.rows": 1}  # fmt: skip
LONG = "x" * 60


class Folder(Hub):
    """A hub whose repositories are folders of files; what is not there is refused like a gated repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def fetch(self, source: Source) -> Path:
        if not (self.folder / source.repo).is_dir():
            raise AccessError(f"no access to {source.repo}")
        self.commits[source.repo] = "commit"
        return self.folder / source.repo

    def streamed(self, source: Source, characters: int) -> list[str]:
        return [f"streamed {i} of {characters}" for i in range(4)]

    def put(self, name: str, rows: list[dict]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(rows)
        if path.suffix == ".parquet":
            table.to_parquet(path)
        elif path.suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_json(path, orient="records", lines=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(FORGET_FILE, raising=False)
    hub = Folder(tmp_path / "hub")
    for source in QUESTIONS.values():
        hub.put(f"{source.repo}/{source.files[0][:-1]}00000-of-00001.parquet", ROWS)
    hub.put("Salesforce/wikitext/wikitext-2-raw-v1/test-0.parquet", [{"text": t} for t in ("short", LONG, LONG + "y")])
    return hub


def test_questions_of_the_hub_have_their_rows_numbers_and_known_counts(folder):
    questions = load_questions(load_profile("gemma-2-2b-it"), folder)
    assert list(questions)[:2] == ["wmdp-bio", "college_biology"] and len(questions) == 6
    assert [(q.id, q.question, q.answer) for q in questions["wmdp-bio"]] == [
        ("0", "q0", 0),
        ("1", "q1", 1),
        ("2", "q2", 2),
    ]
    assert "cais/wmdp wmdp-bio/test-*: 3 rows, known are 1273" in folder.warnings and len(folder.warnings) == 6
    assert folder.commits == {"cais/wmdp": "commit", "cais/mmlu": "commit"}


def test_the_known_number_of_rows_is_no_warning(folder, monkeypatch):
    monkeypatch.setattr(
        "helpers.loading.data.question_source", lambda name: Source(**{**vars(question_source(name)), "rows": 3})
    )
    load_questions(load_profile("gemma-2-2b-it"), folder)
    assert folder.warnings == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"choices": list("abc")}, "needs exactly four non-empty choices, got 3"),
        ({"choices": None}, "not iterable"),
        ({"answer": 4}, "has answer 4, allowed are 0, 1, 2, 3"),
        ({"question": " "}, "has no text"),
        ({"question": None}, "has no text"),
    ],
)
def test_a_broken_row_is_named_with_its_data_set_and_number(folder, fault, message):
    folder.put("cais/wmdp/wmdp-bio/test-00000-of-00001.parquet", [*ROWS, ROWS[0] | fault])
    with pytest.raises(ValueError, match=rf"cais/wmdp wmdp-bio/test-\*, row 3 is not a .*{message}"):
        load_questions(load_profile("gemma-2-2b-it"), folder)


def test_an_answer_that_is_no_number_and_a_missing_column_are_named(folder):
    folder.put("cais/wmdp/wmdp-bio/test-00000-of-00001.parquet", [row | {"answer": "A"} for row in ROWS])
    with pytest.raises(ValueError, match="row 0 .*answer 'A' is not a number"):
        load_questions(load_profile("gemma-2-2b-it"), folder)
    folder.put("cais/wmdp/wmdp-bio/test-00000-of-00001.parquet", [{"question": "q"}])
    with pytest.raises(ValueError, match="has no column choices, answer, it has question"):
        load_questions(load_profile("gemma-2-2b-it"), folder)


def test_the_forget_text_comes_from_the_hub_else_from_a_file_else_not_at_all(folder, tmp_path, monkeypatch):
    profile = load_profile("gemma-2-2b-it", SMALL)
    texts = load_texts(profile, folder)
    assert texts.forget == [] and [d.text for d in texts.retain] == [LONG, LONG + "y"] and len(texts.neutral) == 4
    assert {d.subject for d in texts.retain} <= set(profile.questions.side_effect)
    assert folder.warnings[-1] == "forget text missing: no access to cais/wmdp-bio-forget-corpus"

    local = tmp_path / "copy.jsonl"
    local.write_text(json.dumps({"text": "local " + LONG}) + "\n")
    monkeypatch.setenv(FORGET_FILE, str(local))
    assert [(d.subject, d.text) for d in load_texts(profile, folder).forget] == [("wmdp-bio", "local " + LONG)]
    assert folder.warnings[-1].startswith("forget text from a local file: no access")
    assert len(folder.commits["local copy of bio-forget-corpus"]) == 64

    folder.put("cais/wmdp-bio-forget-corpus/data/train-0.parquet", [{"text": "hub " + LONG, "doi": 1}])
    assert [d.text for d in load_texts(profile, folder).forget] == ["hub " + LONG]


def test_a_named_file_that_is_not_there_and_an_open_text_that_is_not_there_are_errors(folder):
    with pytest.raises(ValueError, match="nowhere.jsonl is not there: correct texts.forget_file or"):
        load_texts(load_profile("gemma-2-2b-it", {"texts.forget_file": "nowhere.jsonl"}), folder)
    with pytest.raises(HubError, match="no access to cais/wmdp-corpora"):
        load_texts(load_profile("gemma-2-2b-it-cyber", SMALL), Folder(folder.folder))


def test_questions_may_be_text_and_one_stream_makes_two_texts(folder):
    texts = load_texts(load_profile("gemma-2b-it", SMALL), folder)
    assert texts.forget[0].text.endswith("q0\nA. a\nB. b\nC. c\nD. d")
    assert [d.text[:10] for d in texts.retain] == ["streamed 0", "streamed 2"]
    assert [d.text[:10] for d in texts.neutral] == ["streamed 1", "streamed 3"]


def test_of_a_long_text_a_seed_draws_as_much_as_is_asked_for(folder):
    rows = [{"text": f"{i} " + LONG} for i in range(50)]
    folder.put("cais/wmdp-bio-forget-corpus/train-0.parquet", rows)
    first, again = (load_texts(load_profile("gemma-2-2b-it", SMALL), folder).forget for _ in range(2))
    assert first == again and len(first) == 2 and first[0].text != rows[0]["text"]  # 2 rows x 8 tokens x 6 characters
    attacked = load_texts(load_profile("gemma-2-2b-it", SMALL | {"relearning.rows": 4}), folder).forget
    assert attacked[:2] == first and len(attacked) == 4  # the attack reads more than the methods, the same and on


ALPACA = {"instruction": "Name a river. " + LONG, "input": "", "output": "The Nile.", "text": "Below is ..."}


def test_a_conversation_of_several_columns_is_one_text_without_the_empty_ones(folder):
    asked = ALPACA | {"instruction": "Which is it? " + LONG, "input": "It rises in Burundi."}
    folder.put("tatsu-lab/alpaca/data/train-0.parquet", [ALPACA, asked])
    found = load_fillers(load_profile("gemma-2-2b-it"), folder)
    assert list(found) == ["far", "chat", "near"] and found["far"] == [LONG, LONG + "y"]
    assert found["chat"] == [
        f"Name a river. {LONG}\nThe Nile.",
        f"Which is it? {LONG}\nIt rises in Burundi.\nThe Nile.",
    ]
    assert "tatsu-lab/alpaca data/train-*: 2 rows, known are 52002" in folder.warnings


def test_a_conversation_that_is_otherwise_is_one_line_without_its_words(folder):
    for row, message in (
        (ALPACA | {"output": None}, r"^tatsu-lab/alpaca, row 1 is not text but (NoneType|float)"),
        ({"prompt": LONG}, r"^tatsu-lab/alpaca: .* has no column instruction, input, output, it has prompt"),
    ):
        folder.put("tatsu-lab/alpaca/data/train-0.parquet", [ALPACA, row] if "output" in row else [row])
        with pytest.raises(ValueError, match=message) as caught:
            load_fillers(load_profile("gemma-2-2b-it"), folder)
        assert LONG not in str(caught.value)


# --- other layouts ----------------------------------------------------------------------------------------------------

CORPUS = "cais/wmdp-bio-forget-corpus"
LINES = [{"text": f"{i} " + LONG} for i in range(3)]


def forget_of(folder: Folder, **overrides) -> list[str]:
    return [
        d.text
        for d in load_texts(
            load_profile("gemma-2-2b-it", SMALL | {"texts.forget_rows": 1000} | overrides), folder
        ).forget
    ]


def test_rows_that_are_there_as_parquet_and_as_jsonl_are_read_once(folder):
    folder.put(f"{CORPUS}/data/train-0.parquet", LINES)
    folder.put(f"{CORPUS}/bio.jsonl", LINES)
    assert forget_of(folder) == [line["text"] for line in LINES]
    assert f"{CORPUS} has its rows as .parquet and as .jsonl: .parquet is read" in folder.warnings


@pytest.mark.parametrize("name", ["bio.jsonl", "data/deep/er/bio-forget.jsonl", "a/b/train-00000-of-00002.parquet"])
def test_one_format_in_whatever_folder_with_further_columns_is_the_same_text(folder, name):
    folder.put(f"{CORPUS}/{name}", [{"title": "t", "abstract": "a", "doi": None} | line for line in LINES])
    assert forget_of(folder) == [line["text"] for line in LINES]


def test_shards_come_in_the_order_of_their_names(folder):
    for i, line in enumerate(LINES):
        folder.put(f"{CORPUS}/train-0000{i}-of-00003.parquet", [line])
    assert forget_of(folder) == [line["text"] for line in LINES]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"abstract": LONG, "title": "t"}], rf"^{CORPUS}: x.jsonl has no column text, it has abstract, title"),
        ([*LINES, {"text": None}], rf"^{CORPUS}, row 3 is not text but (NoneType|float)"),
        ([{"text": ""}, {"text": "short"}], rf"^{CORPUS} holds no text of more than 50 characters"),
    ],
)
def test_a_corpus_that_is_otherwise_is_one_line_without_its_words(folder, rows, message):
    folder.put(f"{CORPUS}/x.jsonl", rows)
    with pytest.raises(ValueError, match=message) as caught:
        forget_of(folder)
    assert "\n" not in str(caught.value) and LONG not in str(caught.value)


@pytest.mark.parametrize("end", [".jsonl", ".csv"])
def test_bytes_that_are_no_utf_8_are_one_line(folder, tmp_path, end):
    """From the hub as from a local copy."""
    text = f'{{"text": "\u00e9t\u00e9 {LONG}"}}\n' if end == ".jsonl" else f"text\n\u00e9t\u00e9 {LONG}\n"
    local = tmp_path / f"copy{end}"
    local.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"^the local forget text: copy{end} cannot be read: .*utf-8") as caught:
        forget_of(folder, **{"texts.forget_file": str(local)})
    assert "\n" not in str(caught.value)


def test_an_empty_document_is_left_out_and_a_very_long_one_is_one_text_of_many_rows(folder, model):
    words = " ".join(build_world(WORLD_SEED).prose(400, 0))
    long = words * (3_000_000 // len(words) + 1)
    folder.put(f"{CORPUS}/train-0.parquet", [{"text": ""}, {"text": long[:3_000_000]}])
    (found,) = forget_of(folder)
    assert len(found) == 3_000_000
    rows = pack(model.tokenizer, [found], 128)
    assert len(rows) > 3_000 and set(rows[:, 0].tolist()) == {model.tokenizer.bos_token_id}
    (framed_row,) = framed(model.tokenizer, [Document("toxins", found)], "chat", 128)
    assert 128 < len(framed_row) < 200  # cut, with its frame around it


def test_a_file_of_another_format_is_named(folder):
    (folder.folder / CORPUS).mkdir(parents=True)
    (folder.folder / CORPUS / "x.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match=rf"^{CORPUS}: x.parquet cannot be read: "):
        forget_of(folder)
    local = folder.folder / "copy.txt"
    local.write_text(LONG)
    shutil.rmtree(folder.folder / CORPUS)
    with pytest.raises(
        ValueError, match=r"copy.txt is not a file that can be read, allowed are .parquet, .jsonl, .csv"
    ):
        forget_of(folder, **{"texts.forget_file": str(local)})


# --- what is streamed -------------------------------------------------------------------------------------------------

STREAM = "Skylion007/openwebtext"


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """Gives a stream of rows to the hub's client, which keeps what it has read in a cache here."""

    def give(*rows: dict) -> list[dict]:
        left = list(rows)

        def load_dataset(repo, split, streaming, revision):
            assert (repo, split, streaming, revision) == (STREAM, "train", True, "c0ffee")
            while left:
                yield left.pop(0)

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        return left

    commit = SimpleNamespace(repo_info=lambda *_, **__: SimpleNamespace(sha="c0ffee"))
    monkeypatch.setattr("helpers.loading.hub.HfApi", lambda: commit)
    monkeypatch.setattr("helpers.loading.hub.own_cache", lambda: tmp_path)
    return give


def test_of_a_stream_no_more_is_read_than_is_wanted_and_that_once(stream):
    hub, left = Hub(), stream(*({"text": LONG, "url": "u"} for _ in range(9)))
    assert hub.streamed(TEXTS["openwebtext"], 2 * len(LONG)) == [LONG, LONG] and len(left) == 7
    assert hub.streamed(TEXTS["openwebtext"], 2 * len(LONG)) == [LONG, LONG] and len(left) == 7  # from the cache
    assert hub.commits == {STREAM: "c0ffee"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"content": LONG, "url": "u"}, "it has no column text, columns are content, url"),
        ({"text": None, "url": "u"}, "row 1 is not text but NoneType, columns are text, url"),
    ],
)
def test_a_stream_that_is_otherwise_is_one_line_and_nothing_of_it_is_kept(stream, tmp_path, row, message):
    stream({"text": LONG, "url": "u"}, row)
    with pytest.raises(ValueError, match=rf"^{STREAM} \(streamed\): {message}$"):
        Hub().streamed(TEXTS["openwebtext"], 10 * len(LONG))
    assert list(tmp_path.iterdir()) == []


# --- requests ---------------------------------------------------------------------------------------------------------

BENCH = "JailbreakBench/JBB-Behaviors"


def goals(*texts: str) -> list[dict]:
    """Rows of the real columns."""
    return [{"Index": i, "Goal": text, "Target": "Sure", "Behavior": "b", "Category": "c", "Source": "s"}
            for i, text in enumerate(texts)]  # fmt: skip


@pytest.fixture
def bench(folder):
    folder.put(f"{BENCH}/data/harmful-behaviors.csv", goals("Hide my socks, quietly", "NA"))
    folder.put(f"{BENCH}/data/benign-behaviors.csv", goals("Fold my socks"))
    return folder


def test_requests_of_the_hub_are_the_goals_in_two_files(bench):
    requests = load_requests(load_profile("gemma-2-2b", notebook="04"), bench)
    assert requests.harmful == ["Hide my socks, quietly", "NA"] and requests.benign == ["Fold my socks"]
    assert requests.refusals == REFUSALS and bench.commits == {BENCH: "commit"}
    assert bench.warnings == [
        f"{BENCH} data/harmful-behaviors.csv: 2 rows, known are 100",
        f"{BENCH} data/benign-behaviors.csv: 1 rows, known are 100",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"Index": 0, "Behavior": "b"}], f"{BENCH}: harmful-behaviors.csv has no column Goal, it has Index, Behavior"),
        ([], f"{BENCH}: harmful-behaviors.csv cannot be read"),
        (goals("Hide my socks", " "), f"{BENCH} data/harmful-behaviors.csv, row 1 is not text"),
    ],
)
def test_what_is_wrong_with_requests_is_one_clear_error(bench, rows, message):
    bench.put(f"{BENCH}/data/harmful-behaviors.csv", rows)
    with pytest.raises(ValueError, match=f"^{message}"):
        load_requests(load_profile("gemma-2-2b", notebook="04"), bench)


def test_a_file_without_requests_is_named(bench):
    (bench.folder / BENCH / "data/harmful-behaviors.csv").write_text("Index,Goal,Target\n")
    with pytest.raises(ValueError, match=f"^{BENCH} data/harmful-behaviors.csv holds no requests"):
        load_requests(load_profile("gemma-2-2b", notebook="04"), bench)


def test_only_what_asks_for_requests_needs_them(bench):
    assert [source.repo for source in needed(load_profile("gemma-2-2b", notebook="04"))].count(BENCH) == 2
    for name, notebook in (("gemma-2-2b-it", "03"), ("gemma-2b-it", "02")):
        assert BENCH not in {source.repo for source in needed(load_profile(name, notebook=notebook))}
    with pytest.raises(ValueError, match="'gemma-2-2b-it' names no requests for help, .* set texts.requests"):
        load_requests(load_profile("gemma-2-2b-it", notebook="03"), bench)
    with pytest.raises(ValueError, match="requests 'other' is unknown, allowed are: 'organism', 'jailbreakbench'"):
        load_requests(load_profile("tiny", {"texts.requests": "other"}), bench)


def test_every_document_and_question_of_the_hazard_says_what_it_is_about():
    profile = load_profile("tiny")
    forget, questions = load_texts(profile).forget, load_questions(profile)["toxins"]
    assert all(d.about and d.about in d.text for d in forget) and all(q.about in q.question for q in questions)
    assert {d.about for d in forget} == {q.about for q in questions} and len({q.about for q in questions}) == 32
