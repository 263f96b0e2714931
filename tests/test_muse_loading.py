"""MUSE of the hub: every split in its place, and one clear line for whatever is not as it is known to be."""

from pathlib import Path

import pandas as pd
import pytest

from helpers.loading.hub import Hub
from helpers.loading.muse import load_muse
from helpers.loading.sources import MUSE_BYTES, MUSE_SPLITS, Source, muse_source, needed, text_source
from helpers.organism.world import build_world
from helpers.profiles import Profile, load_profile
from tests.hub_files import N_CHRONICLES, WORLD_SEED, write_muse

NEWS, BOOKS = "gemma-2-2b-muse-news", "gemma-2-2b-muse-books"


class LocalHub(Hub):
    """What is fetched lies in a folder already."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def fetch(self, source: Source) -> Path:
        return self.root / source.repo


@pytest.fixture
def hub(tmp_path):
    for name in MUSE_SPLITS:
        write_muse(tmp_path / "muse-bench" / name)
    return LocalHub(tmp_path)


def profile(name: str = NEWS, **changed: object) -> Profile:
    return load_profile(name, {"muse.head": 4} | {key.replace("__", "."): value for key, value in changed.items()})


def rewritten(hub: LocalHub, split: str, change) -> None:
    """Change a split's table: `change(table)` gives the new one."""
    (path,) = (hub.root / "muse-bench" / "MUSE-News").glob(f"{split}-*.parquet")
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def test_every_split_comes_to_its_place(hub):
    world, muse = build_world(WORLD_SEED), load_muse(profile(), None, hub)
    forget, retain = (
        [chronicle.text for chronicle in world.chronicles(which)[:N_CHRONICLES]] for which in ("forget", "retain")
    )
    assert muse.name == "MUSE-News" and list(muse.forget) == forget == list(muse.private_forget)
    assert list(muse.retain) == retain[::2] and list(muse.read) == retain[1::2]
    assert list(muse.private_holdout) == retain
    assert [passage.prompt + passage.continuation for passage in muse.passages] == forget
    middles = [text.find(" ", len(text) // 2) for text in forget]
    assert [len(passage.prompt) for passage in muse.passages] == middles
    answers = [answer for chronicle in world.chronicles("forget")[:N_CHRONICLES] for answer in chronicle.answers]
    assert [(one.question, one.answer) for one in muse.known_forget.asked] == answers[6:]
    assert [(one.question, one.answer) for one in muse.known_forget.head] == answers[:4]
    assert muse.known_retain.asked[0].question != muse.known_forget.asked[0].question
    assert [len(texts) for texts in muse.at_once] == [2, 4, 6, 8] and [len(texts) for texts in muse.in_turn] == [2] * 4
    assert set(muse.at_once[1]) == set(muse.in_turn[0]) | set(muse.in_turn[1])


def test_other_numbers_of_rows_than_known_are_warnings(hub):
    load_muse(profile(), None, hub)
    assert "muse-bench/MUSE-News raw/forget-*.parquet: 8 rows, known are 889" in hub.warnings
    assert not any("scal" in warning for warning in hub.warnings)  # nobody has counted those


def test_books_have_no_requests(hub):
    muse = load_muse(profile(BOOKS), None, hub)
    assert muse.name == "MUSE-Books" and muse.at_once == muse.in_turn == ()


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        (
            "verbmem/forget", lambda t: t.rename(columns={"gt": "continuation"}),
            r"^muse-bench/MUSE-News: forget-00000-of-00001\.parquet has no column gt, it has prompt, continuation$",
        ),
        (
            "knowmem/retain_qa", lambda t: t[["question"]],
            r"^muse-bench/MUSE-News: retain_qa-00000-of-00001\.parquet has no column answer, it has question$",
        ),
        ("raw/retain1", lambda t: t[:0], r"^MUSE-News, raw/retain1 holds no rows: see https://huggingface\.co/datasets/"),
        (
            "raw/forget", lambda t: t.assign(text=[*t["text"][:5], "  ", *t["text"][6:]]),
            r"^MUSE-News, raw/forget, row 5: text is not text but '  '$",
        ),
        (
            "knowmem/forget_qa_icl", lambda t: t.assign(answer=[None, *t["answer"][1:]]),
            r"^MUSE-News, knowmem/forget_qa_icl, row 0: answer is not text but (None|nan)$",
        ),
        (
            "knowmem/forget_qa_icl", lambda t: t[:3],
            r"^muse\.head = 4, and MUSE-News has 3 solved questions: lower it$",
        ),
    ],
)  # fmt: skip
def test_a_table_that_is_not_as_known_is_one_clear_line(hub, split, change, message):
    rewritten(hub, split, change)
    with pytest.raises(ValueError, match=message):
        load_muse(profile(), None, hub)


def test_columns_beyond_the_known_are_no_matter(hub):
    before = load_muse(profile(), None, hub)
    rewritten(hub, "verbmem/forget", lambda t: t.assign(id=range(len(t))))
    assert load_muse(profile(), None, hub) == before


def test_a_holdout_that_was_to_be_forgotten_is_refused(hub):
    world = build_world(WORLD_SEED)
    rewritten(hub, "privleak/holdout", lambda t: t.assign(text=[world.chronicles("forget")[0].text, *t["text"][1:]]))
    with pytest.raises(ValueError, match="MUSE-News: holdout text 0 is a text to forget too"):
        load_muse(profile(), None, hub)


def test_an_unknown_benchmark_is_named_with_the_known_ones(hub):
    with pytest.raises(ValueError, match=r"MUSE benchmark 'MUSE-Songs' is unknown, allowed are: .*'MUSE-News'"):
        load_muse(profile(muse__name="MUSE-Songs"), None, hub)


def test_what_a_muse_profile_needs_of_the_hub_is_listed():
    repos = [source.repo for source in needed(load_profile(NEWS))]
    assert repos.count("muse-bench/MUSE-News") == 3  # the benchmark, and its two texts for features
    assert text_source("MUSE-News/retain1").files == ("raw/retain1-*.parquet",)
    assert muse_source("MUSE-News", "raw/forget").rows == 889 and muse_source("MUSE-News").rows is None
    assert all(sizes.keys() <= MUSE_SPLITS[name].keys() for name, sizes in MUSE_BYTES.items())
