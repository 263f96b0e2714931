"""A MUSE benchmark (Shi et al. 2024): texts to forget, what is asked of them, and texts that no training has seen."""

from collections.abc import Sequence
from dataclasses import dataclass

# MUSE's criteria in the order of the papers' tables: of texts to forget, of answers about them, of who was trained on,
# and of answers about what is to be kept, which is the utility.
VERBMEM, KNOWMEM_FORGET, PRIVLEAK, KNOWMEM_RETAIN = "VerbMem", "KnowMem forget", "PrivLeak", "KnowMem retain"
CRITERIA = (VERBMEM, KNOWMEM_FORGET, PRIVLEAK, KNOWMEM_RETAIN)
BAND = 5.0  # a PrivLeak from -5 to 5 says as little about who was trained on as the retrained model does
# Where an answer ends: a model that goes on writes the next question of the head.
ANSWER_ENDS = ("\n\n", "\nQuestion", "Question:")


@dataclass(frozen=True)
class Passage:
    """A text to be continued: what is given of it, and how it goes on."""

    prompt: str
    continuation: str


@dataclass(frozen=True)
class Asked:
    """A question about a text, and its answer in a few words."""

    question: str
    answer: str


@dataclass(frozen=True)
class Exam:
    """Questions, each of which is asked below the same few solved ones.

    Raises:
        ValueError: there are no questions, or one of them is solved in the head.
    """

    head: tuple[Asked, ...]
    asked: tuple[Asked, ...]

    def __post_init__(self) -> None:
        if not self.asked:
            raise ValueError("an exam of MUSE has no questions: at least one is needed")
        solved = sorted({one.question for one in self.head} & {one.question for one in self.asked})
        if solved:
            raise ValueError(f"the question {solved[0]!r} is asked, and is solved in the head above it: leave out one")

    @property
    def prompts(self) -> list[str]:
        """What the model is given for each question.

        MUSE ends it with a space, which in tokenizers whose words begin with one would be a token that no text has in
        that place.
        """
        head = "".join(f"Question: {one.question}\nAnswer: {one.answer}\n\n" for one in self.head)
        return [f"{head}Question: {one.question}\nAnswer:" for one in self.asked]


@dataclass(frozen=True)
class Muse:
    """The texts and questions of one benchmark.

    Attributes:
        name: as in 'MUSE-News'.
        forget, retain: the texts that the target was trained on; methods are given both and are to forget the first.
        at_once: texts to forget in sets that grow, each of which is one request (MUSE: 'scal').
        in_turn: disjoint texts to forget, one request after another (MUSE: 'sust').
        passages: of texts to forget, for VerbMem.
        known_forget, known_retain: for KnowMem.
        private_forget, private_holdout: texts of one kind, which the target was trained on and which it never saw; for
            PrivLeak.
        read: more that the target was trained on and is to retain, which no method is given and `known_retain` is about
            (MUSE: retain2).

    Raises:
        ValueError: something is empty, two requests in turn have a text in common, or the holdout has a text that was
            to be forgotten.
    """

    name: str
    forget: tuple[str, ...]
    retain: tuple[str, ...]
    at_once: tuple[tuple[str, ...], ...]
    in_turn: tuple[tuple[str, ...], ...]
    passages: tuple[Passage, ...]
    known_forget: Exam
    known_retain: Exam
    private_forget: tuple[str, ...]
    private_holdout: tuple[str, ...]
    read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what in ("forget", "retain", "passages", "private_forget", "private_holdout"):
            if not getattr(self, what):
                raise ValueError(f"{self.name} has no {what}: at least one text is needed")
        told = {*self.forget, *self.private_forget}
        leaked = [number for number, text in enumerate(self.private_holdout) if text in told]
        if leaked:
            raise ValueError(
                f"{self.name}: holdout text {leaked[0]} is a text to forget too ({len(leaked)} of "
                f"{len(self.private_holdout)} are), and the holdout must be what no training has seen"
            )
        requests = [set(texts) for texts in self.in_turn]
        if sum(map(len, requests)) > len(set().union(*requests)):
            raise ValueError(f"{self.name}: two requests in turn have a text in common, and each may be in one only")
        if not all([*self.at_once, *self.in_turn]):
            raise ValueError(f"{self.name}: a request to forget holds no text")


def passages_of(tokenizer, texts: Sequence[str], prompt_tokens: int) -> tuple[Passage, ...]:
    """Texts cut after so many tokens, BOS not counted.

    Raises:
        ValueError: a text has nothing to be continued with.
    """
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    for number, places in enumerate(found):
        if len(places) <= prompt_tokens:
            raise ValueError(
                f"passage {number} has {len(places)} tokens, and its first {prompt_tokens} are the prompt: lower "
                "muse.prompt_tokens, or leave the passage out"
            )
    cuts = [places[prompt_tokens - 1][1] for places in found]
    return tuple(Passage(text[:cut], text[cut:]) for text, cut in zip(texts, cuts, strict=True))


def answer_of(said: str) -> str:
    """What a model answers: its text up to where it begins another question."""
    cuts = [said.find(end) for end in ANSWER_ENDS]
    return said[: min((cut for cut in cuts if cut >= 0), default=len(said))].strip()
