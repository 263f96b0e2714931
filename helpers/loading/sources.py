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
        what: 'model', 'SAE', 'questions', 'text' or 'requests'.
        files: patterns of the files that are used; none for a data set that is streamed.
        size_gb: of these files in 10^9 bytes, as far as known.
        licence: short name.
        gated: whether access has to be asked for.
        rows: how many rows it is known to have, None where nobody counted.
        revision: a commit, or a branch.
    """

    repo: str
    kind: Literal["model", "dataset"]
    what: Literal["model", "SAE", "questions", "text", "requests"]
    files: tuple[str, ...]
    size_gb: float
    licence: str
    gated: bool = False
    rows: int | None = None
    revision: str = "main"

    @property
    def page(self) -> str:
        """The page that describes it, where access is asked for and a licence accepted."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"


def _mmlu(subject: str, rows: int) -> Source:
    return Source("cais/mmlu", "dataset", "questions", (f"{subject}/test-*",), 0.0001, "MIT", rows=rows)


MODELS = {
    name: Source(name, "model", "model", MODEL_FILES, size, GEMMA, gated=True)
    for name, size in (("google/gemma-2-2b-it", 5.3), ("google/gemma-2b-it", 5.0), ("google/gemma-2-2b", 10.5))
}
# by release, as sae-lens names it; Farrell's own SAE is in no release
SAES = {
    "gemma-scope-2b-pt-res": Source("google/gemma-scope-2b-pt-res", "model", "SAE", (), 0.3, "CC BY 4.0"),
    "eoinf/unlearning_saes": Source("eoinf/unlearning_saes", "model", "SAE", (), 0.3, "none stated"),
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


def sae_source(profile: Profile) -> Source:
    """The entry of the profile's SAE, of which only this one's files are used. Raises ValueError if it is unknown."""
    known, wanted = _entry(SAES, profile.sae.source, "SAE"), profile.sae.id
    return replace(known, files=(wanted if wanted.endswith(".pt") else f"{wanted}/*",))


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
    if texts.requests not in ("", "organism"):
        found += request_sources(texts.requests)
    return tuple(dict.fromkeys(found))


def _entry(table: dict[str, Entry], name: str, what: str) -> Entry:
    if name not in table:
        raise ValueError(f"{what} {name!r} is unknown, allowed are: 'organism', {', '.join(map(repr, table))}")
    return table[name]
