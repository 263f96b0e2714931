"""The MUSE benchmark that a profile names: chronicles of the invented world, or a data set of the hub."""

from helpers.loading.data import WORLD_SEED
from helpers.loading.hub import Hub
from helpers.organism.world import FOLDS, build_world
from helpers.profiles import Profile
from helpers.text.muse import Asked, Exam, Muse, passages_of


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
            raise NotImplementedError("MUSE of the hub")


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
