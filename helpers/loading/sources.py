"""Everything that is loaded from the Hugging Face hub: where it lies, under which licence, and where to ask for it.

A profile names entries of these tables. A revision is a commit where one is known, else a branch; which commit it was
stands in every result.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from helpers.profiles import Profile

Entry = TypeVar("Entry")

GEMMA = "Gemma Terms of Use"
MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja")


@dataclass(frozen=True)
class Source:
    """A repository of the hub, or the part of one that is used.

    Attributes:
        repo: its id.
        kind: what the hub calls it; SAEs lie in repositories of kind 'model'.
        what: 'model', 'SAE', 'questions', 'text', 'requests' or 'benchmark'.
        files: patterns of the files that are used; none for a data set that is streamed.
        size_gb: of these files in 10^9 bytes, as far as known.
        licence: short name.
        gated: whether access has to be asked for.
        rows: how many rows it is known to have, None where nobody counted.
        columns: of a text those that hold it, one below the other.
        revision: a commit, or a branch.
    """

    repo: str
    kind: Literal["model", "dataset"]
    what: Literal["model", "SAE", "questions", "text", "requests", "benchmark"]
    files: tuple[str, ...]
    size_gb: float
    licence: str
    gated: bool = False
    rows: int | None = None
    columns: tuple[str, ...] = ("text",)
    revision: str = "main"

    @property
    def page(self) -> str:
        """The page that describes it, where access is asked for and a licence accepted."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


def _mmlu(subject: str, rows: int) -> Source:
    return Source("cais/mmlu", "dataset", "questions", (f"{subject}/test-*",), 0.0001, "MIT", rows=rows)


# Every split of MUSE that is used, as configuration/split: its rows (dataset cards), None where nobody counted them.
MUSE_SPLITS: dict[str, dict[str, int | None]] = {
    "MUSE-News": {
        "knowmem/forget_qa": 100, "knowmem/forget_qa_icl": 10, "knowmem/retain_qa": 100, "knowmem/retain_qa_icl": 10,
        "verbmem/forget": 100, "privleak/forget": 100, "privleak/holdout": 100,
        "raw/forget": 889, "raw/retain1": 1777, "raw/retain2": 1778,
        **{f"{config}/forget_{fold}": None for config in ("scal", "sust") for fold in (1, 2, 3, 4)},
    },
    "MUSE-Books": {
        "knowmem/forget_qa": 100, "knowmem/forget_qa_icl": 10, "knowmem/retain_qa": 100, "knowmem/retain_qa_icl": 10,
        "verbmem/forget": 100, "privleak/forget": 100, "privleak/holdout": 100,
        "raw/forget": 4, "raw/retain1": 12, "raw/retain2": 13,
    },
}  # fmt: skip
# Bytes of the texts that a target reads (dataset cards); the last of News' growing requests holds all others.
MUSE_BYTES = {
    "MUSE-News": {"scal/forget_4": 13_219_611, "raw/retain1": 6_456_895, "raw/retain2": 6_437_312},
    "MUSE-Books": {"raw/forget": 4_096_855, "raw/retain1": 836_924, "raw/retain2": 1_969_626},
}


def _muse(name: str, *splits: str, what: Literal["text", "benchmark"] = "benchmark") -> Source:
    """Some splits of a benchmark; the rows of one are known, of several they are told apart where they are loaded."""
    rows = MUSE_SPLITS[name][splits[0]] if len(splits) == 1 else None
    files = tuple(f"{split}-*.parquet" for split in splits)
    return Source(f"muse-bench/{name}", "dataset", what, files, 0.02, "CC BY 4.0", rows=rows)


def _scope(repo: str, files: str, size: float, licence: str = "CC BY 4.0") -> Source:
    return Source(repo, "model", "SAE", (files,), size, licence)


MODELS = {
    name: Source(name, "model", "model", MODEL_FILES, size, licence, gated=True)
    for name, size, licence in (
        ("google/gemma-2-2b-it", 5.3, GEMMA), ("google/gemma-2b-it", 5.0, GEMMA), ("google/gemma-2-2b", 10.5, GEMMA),
        ("google/gemma-2-9b-it", 18.5, GEMMA), ("google/gemma-3-1b-it", 2.0, GEMMA),
        ("google/gemma-3-4b-it", 8.6, GEMMA),  # with what it has for images
        ("meta-llama/Llama-3.1-8B-Instruct", 16.1, "Llama 3.1 Community License"),
    )
}  # fmt: skip
# By release, as sae-lens names it; Farrell's own SAE is in no release. One SAE's files are found by its id and layer.
SAES = {
    "gemma-scope-2b-pt-res": _scope("google/gemma-scope-2b-pt-res", "{id}/*", 0.3),
    "gemma-scope-9b-it-res": _scope("google/gemma-scope-9b-it-res", "{id}/*", 0.5),
    "gemma-scope-2-1b-it-res": _scope("google/gemma-scope-2-1b-it", "resid_post/{id}/*", 0.2),
    "gemma-scope-2-4b-it-res": _scope("google/gemma-scope-2-4b-it", "resid_post/{id}/*", 0.4),
    "llama_scope_lxr_8x": _scope(
        "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L{layer}R-8x/*", 0.6, "see its page"
    ),
    "eoinf/unlearning_saes": _scope("eoinf/unlearning_saes", "{id}", 0.3, "none stated"),
}
QUESTIONS = {
    "wmdp-bio": Source("cais/wmdp", "dataset", "questions", ("wmdp-bio/test-*",), 0.001, "MIT", rows=1273),
    "wmdp-cyber": Source("cais/wmdp", "dataset", "questions", ("wmdp-cyber/test-*",), 0.001, "MIT", rows=1987),
    "high_school_us_history": _mmlu("high_school_us_history", 204),
    "high_school_geography": _mmlu("high_school_geography", 198),
    "human_aging": _mmlu("human_aging", 223),
    "college_computer_science": _mmlu("college_computer_science", 100),
    "college_biology": _mmlu("college_biology", 144),
}
TEXTS = {
    "bio-forget-corpus": Source(
        "cais/wmdp-bio-forget-corpus", "dataset", "text", ("*.parquet", "*.jsonl"), 0.7, "may not be passed on",
        gated=True, rows=24453,
    ),
    "cyber-forget-corpus": Source(
        "cais/wmdp-corpora", "dataset", "text", ("cyber-forget-corpus/train-*",), 0.011, "MIT", rows=1000
    ),
    "wikitext": Source(
        "Salesforce/wikitext", "dataset", "text", ("wikitext-2-raw-v1/test-*",), 0.001, "CC BY-SA 3.0", rows=4358
    ),
    # requests for help, and what a model said to each
    "alpaca": Source(
        "tatsu-lab/alpaca", "dataset", "text", ("data/train-*",), 0.024, "CC BY-NC 4.0", rows=52002,
        columns=("instruction", "input", "output"),
    ),
    # what is to be forgotten, and MUSE's calibration text
    **{f"{name}/{split}": _muse(name, f"raw/{split}", what="text")
       for name in MUSE_SPLITS for split in ("forget", "retain1")},
    # streamed: only the first documents are read, and kept
    "openwebtext": Source("Skylion007/openwebtext", "dataset", "text", (), 0.01, "CC0"),
}  # fmt: skip
# Requests for help: harmful ones, and benign ones like them.
REQUESTS = {
    "jailbreakbench": (
        Source("JailbreakBench/JBB-Behaviors", "dataset", "requests", ("data/harmful-behaviors.csv",), 0.0001, "MIT",
               rows=100),
        Source("JailbreakBench/JBB-Behaviors", "dataset", "requests", ("data/benign-behaviors.csv",), 0.0001, "MIT",
               rows=100),
    ),
}  # fmt: skip


def muse_source(name: str, split: str = "") -> Source:
    """The entry of a MUSE benchmark, or of one of its splits ('raw/forget'). Raises ValueError if it is unknown."""
    splits = _entry(MUSE_SPLITS, name, "MUSE benchmark")
    return _muse(name, *((split,) if split else splits))


def sae_source(profile: Profile) -> Source:
    """The entry of the profile's SAE, of which only this one's files are used. Raises ValueError if it is unknown."""
    known, sae = _entry(SAES, profile.sae.source, "SAE"), profile.sae
    return replace(known, files=tuple(file.format(id=sae.id, layer=sae.layer) for file in known.files))


def model_source(profile: Profile) -> Source:
    """The entry of the profile's model. Raises ValueError if it is unknown."""
    return _entry(MODELS, profile.model.source, "model")


def question_source(name: str) -> Source:
    """The entry of a question set. Raises ValueError if it is unknown."""
    return _entry(QUESTIONS, name, "question set")


def text_source(name: str) -> Source:
    """The entry of a text: a corpus, or a question set that serves as text. Raises ValueError if it is unknown."""
    return _entry(TEXTS | QUESTIONS, name, "text")


def request_sources(name: str) -> tuple[Source, Source]:
    """The entries of harmful and of benign requests. Raises ValueError if they are unknown."""
    return _entry(REQUESTS, name, "requests")


def needed(profile: Profile) -> tuple[Source, ...]:
    """What a profile loads from the hub, each once; nothing for what is embedded.

    Raises:
        ValueError: the profile names something that is in no table (what is, is listed).
    """
    asked, texts = profile.questions, profile.texts
    found = [model_source(profile)] if profile.model.source != "organism" else []
    found += [sae_source(profile)] if profile.sae.source != "organism" else []
    if asked.source == "hub":
        found += [question_source(name) for name in (asked.forget, asked.near, *asked.side_effect)]
    if texts.source == "hub":
        named = (texts.forget, texts.retain, texts.neutral, *profile.prompt_attacks.fillers.values())
        found += [text_source(name) for name in named]
    if profile.muse.source == "hub":
        found.append(muse_source(profile.muse.name))
    if texts.requests not in ("", "organism"):
        found += request_sources(texts.requests)
    return tuple(dict.fromkeys(found))


def _entry(table: dict[str, Entry], name: str, what: str) -> Entry:
    if name not in table:
        raise ValueError(f"{what} {name!r} is unknown, allowed are: 'organism', {', '.join(map(repr, table))}")
    return table[name]
