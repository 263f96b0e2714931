"""Models that were fine-tuned here: where they lie, what made them, and whether that is what a profile asks for.

A folder holds the weights (safetensors), and the record of what made them, which is written last. While a training goes
on, and where one was killed, it holds the state from which it goes on instead.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers.loading.hub import own_cache
from helpers.profiles import Profile, load_profile, options_of
from helpers.records.store import file_sha256

# The texts that a target is trained on, and those of the reference that never saw what is to be forgotten.
TARGET, REFERENCE = "forget+retain", "retain"
# Where in a profile the parts of a recipe stand that are no settings of fine-tuning.
PLACES = {"model": "model.source", "dtype": "model.dtype", "training_dtype": "model.training_dtype",
          "optimizer": "model.optimizer", "benchmark": "muse.name", "row_length": "texts.row_length"}  # fmt: skip
WEIGHTS, RECORD, STATE = "model.safetensors", "record.json", "state.safetensors"


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model: the file of its weights, and the record of what made them."""

    file: Path
    record: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Of the weights' file, as it was written."""
        return self.record["sha256"]

    def is_whole(self) -> bool:
        """Whether the weights are the ones that were written."""
        return self.file.is_file() and file_sha256(self.file) == self.sha256


def folder_of(profile: Profile, texts: str) -> Path:
    """Where what is fine-tuned for a profile on these texts lies: with what else is made of downloads."""
    return own_cache() / "finetuned" / profile.name / texts


def command(profile: Profile, texts: str) -> str:
    """What makes it, on the command line, with the settings that are not those of the profile's file."""
    shipped, wanted = (recipe(of, texts) for of in (load_profile(profile.name), profile))
    changed = {place_of(key): value for key, value in wanted.items() if value != shipped[key]}
    options = f" --set {options_of(changed)}" if changed else ""
    return f"python -m helpers.finetune --profile {profile.name} --data {texts}{options}"


def place_of(key: str) -> str:
    """Where in a profile a part of a recipe stands."""
    return PLACES.get(key, f"finetuning.{key}")


def made_by(profile: Profile) -> frozenset[str]:
    """The settings on which what is fine-tuned for a profile depends; none where nothing is."""
    return frozenset(map(place_of, recipe(profile, TARGET))) if profile.model.finetuned else frozenset()


def again(profile: Profile, texts: str) -> str:
    """The next step where what is there is of no use."""
    return f"delete {folder_of(profile, texts)} and run `{command(profile, texts)}`"


def recipe(profile: Profile, texts: str) -> dict[str, Any]:
    """All in a profile that the fine-tuned weights depend on; last digits depend on the machine as well."""
    settings: Any = profile.finetuning
    rest = {key: value for key, value in asdict(settings).items() if key != "kept_every"}
    model, muse = profile.model, profile.muse
    benchmark = {"model": model.source, "dtype": model.dtype, "benchmark": muse.name, "texts": texts}
    benchmark |= {"training_dtype": model.training_dtype, "optimizer": model.optimizer}
    return {**benchmark, "row_length": profile.texts.row_length, **rest}


def finetuned(profile: Profile, texts: str) -> FineTuned:
    """What was fine-tuned for a profile on texts (`TARGET`, `REFERENCE`).

    Raises:
        FileNotFoundError: it has not been made, or not to the end, or its weights are gone.
        ValueError: it was made with other settings than the profile's.
    """
    folder = folder_of(profile, texts)
    if not (folder / RECORD).is_file():
        what = {TARGET: "the target that has read the text to forget", REFERENCE: "the reference that has not read it"}
        begun = ", and its training has not come to its end" if (folder / STATE).is_file() else ""
        raise FileNotFoundError(
            f"profile {profile.name!r} needs {what[texts]}, which is not here{begun}: make it with "
            f"`{command(profile, texts)}`"
        )
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    check_recipe(record["recipe"], profile, texts)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"what was fine-tuned on {texts} for {profile.name!r} has lost its weights: {again(profile, texts)}"
        )
    return FineTuned(folder / WEIGHTS, record)


def check_recipe(made: Mapping[str, Any], profile: Profile, texts: str) -> None:
    """Raises ValueError where something was not made by the profile's recipe, with the settings that differ."""
    wanted = recipe(profile, texts)
    other = [f"{key} {made.get(key)!r} and not {value!r}" for key, value in wanted.items() if made.get(key) != value]
    if other:
        raise ValueError(
            f"what was fine-tuned on {texts} for {profile.name!r} has {', '.join(other)}: put the settings back, or "
            f"{again(profile, texts)}"
        )
