"""The MUSE benchmark that a profile names: chronicles of the invented world, or a data set of the hub."""

from itertools import starmap

from helpers.loading.data import WORLD_SEED
from helpers.loading.hub import Hub
from helpers.loading.sources import MUSE_SPLITS, muse_source
from helpers.organism.world import FOLDS, build_world
from helpers.profiles import Profile
from helpers.text.muse import Asked, Exam, Muse, Passage, passages_of


def load_muse(profile: Profile, tokenizer, hub: Hub | None = None) -> Muse:
    """The profile's benchmark.

    Args:
        tokenizer: the model's, which counts the tokens that are given of a passage.
        hub: keeps the record of what is fetched.

    Raises:
        ValueError: the profile names none, or something in it is wrong (`Muse`, `passages_of`).
        HubError: it cannot be fetched.
    """
    match profile.muse.source:
        case "":
            raise ValueError(f"profile {profile.name!r} has no MUSE benchmark: set muse.source to 'organism' or 'hub'")
        case "organism":
            return _chronicles(profile, tokenizer)
        case "hub":
            return _of_hub(profile, hub or Hub())


def _chronicles(profile: Profile, tokenizer) -> Muse:
    """The chronicles of the invented world; the head is of the first ones to retain, about which nothing is asked."""
    world, settings = build_world(WORLD_SEED), profile.muse
    forget, retain, holdout = (world.chronicles(which) for which in ("forget", "retain", "holdout"))
    solved, kept = retain[: settings.head], retain[settings.head :]
    head = tuple(Asked(*chronicle.answers[i % 2]) for i, chronicle in enumerate(solved))
    exams = [
        Exam(head, tuple(Asked(*answer) for chronicle in of for answer in chronicle.answers)) for of in (forget, kept)
    ]
    folds = [tuple(chronicle.text for chronicle in world.chronicles("forget", fold)) for fold in range(FOLDS)]
    texts = tuple(chronicle.text for chronicle in forget)
    return Muse(
        name=settings.name,
        forget=texts,
        retain=tuple(chronicle.text for chronicle in retain),
        at_once=tuple(sum(folds[:n], ()) for n in range(1, FOLDS + 1)),
        in_turn=tuple(folds),
        passages=passages_of(tokenizer, texts, settings.prompt_tokens),
        known_forget=exams[0],
        known_retain=exams[1],
        private_forget=texts,
        private_holdout=tuple(chronicle.text for chronicle in holdout),
    )


def _of_hub(profile: Profile, hub: Hub) -> Muse:
    """MUSE's own files. Methods are given the calibration text (retain1); what is to be retained is retain2."""
    name, head = profile.muse.name, profile.muse.head
    muse_source(name)  # an unknown one is an error here

    def texts(split: str) -> tuple[str, ...]:
        return tuple(text for (text,) in _rows(name, split, ["text"], hub))

    def exam(of: str) -> Exam:
        solved, asked = (
            tuple(starmap(Asked, _rows(name, f"knowmem/{of}_{kind}", ["question", "answer"], hub)))
            for kind in ("qa_icl", "qa")
        )
        if len(solved) < head:
            raise ValueError(f"muse.head = {head}, and {name} has {len(solved)} solved questions: lower it")
        return Exam(solved[:head], asked)

    requests = [
        tuple(texts(split) for split in MUSE_SPLITS[name] if split.startswith(f"{config}/"))
        for config in ("scal", "sust")
    ]
    return Muse(
        name=name,
        forget=texts("raw/forget"),
        retain=texts("raw/retain1"),
        at_once=requests[0],
        in_turn=requests[1],
        passages=tuple(starmap(Passage, _rows(name, "verbmem/forget", ["prompt", "gt"], hub))),
        known_forget=exam("forget"),
        known_retain=exam("retain"),
        private_forget=texts("privleak/forget"),
        private_holdout=texts("privleak/holdout"),
        read=texts("raw/retain2"),
    )


def _rows(name: str, split: str, columns: list[str], hub: Hub) -> list[tuple[str, ...]]:
    """Some columns of a split, row by row. Raises ValueError where there are no rows, or a cell is not text."""
    table, place = hub.table(muse_source(name, split), columns), f"{name}, {split}"
    if table.empty:
        raise ValueError(f"{place} holds no rows: see {muse_source(name).page}")
    for number, row in enumerate(table.itertuples(index=False)):
        for column, cell in zip(columns, row, strict=True):
            if not isinstance(cell, str) or not cell.strip():
                raise ValueError(f"{place}, row {number}: {column} is not text but {cell!r}")
    return list(table.itertuples(index=False, name=None))
