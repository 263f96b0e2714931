"""A target for MUSE, or its reference: `python -m helpers.finetune --profile P --data forget+retain` (or `retain`).

The papers' targets are not published, so the profile's model is trained on MUSE's texts here. Hours and memory are
projected before anything starts. A training that was killed goes on where its state was kept last, and ends with the
same weights bit for bit: on a CPU with a fixed number of threads, on a GPU as far as its kernels are deterministic.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.engine.finetuning import FineTuning
from helpers.engine.forward import huggingface
from helpers.engine.steps import Passes
from helpers.experiments.costs import finetuning_costs, in_words, shape_of
from helpers.loading.finetuned import (
    RECORD,
    REFERENCE,
    STATE,
    TARGET,
    WEIGHTS,
    again,
    check_recipe,
    finetuned,
    folder_of,
    recipe,
)
from helpers.loading.hub import Hub
from helpers.loading.models import load_model
from helpers.loading.muse import load_muse
from helpers.profiles import Profile, available_profiles, load_profile, settings_in_words
from helpers.records.progress import show_progress
from helpers.records.provenance import commit, environment, now
from helpers.records.store import file_sha256, fingerprint, write_atomically
from helpers.text.corpora import pack

ABANDONED = 3600  # seconds without a byte, after which a file that is half written has no writer any more

log = logging.getLogger("helpers.finetune")  # by name: this module is __main__ when it is run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the weights are there, 2 with one line saying what is wrong."""
    options = _parser().parse_args(arguments)
    show_progress()
    try:
        file = finetune(load_profile(options.profile, settings_in_words(options.set)), options.data)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        log.error("error: %s", error)
        return 2
    log.info("written: %s", file)
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Fine-tune a profile's model on MUSE's texts; a killed training goes on when it is run again."
    parser = argparse.ArgumentParser(prog="python -m helpers.finetune", description=description)
    parser.add_argument("--profile", required=True, help=f"one of: {', '.join(available_profiles())}")
    parser.add_argument("--data", required=True, choices=(TARGET, REFERENCE), help="the texts: the target's, or the "
                        "reference's, which never sees what is to be forgotten")  # fmt: skip
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="TABLE.KEY=VALUE",
                        help="settings to change, as in model.training_tokens=1024")  # fmt: skip
    return parser


def finetune(profile: Profile, data: str) -> Path:
    """The file of a profile's model trained on texts, made here where it is not there yet.

    Args:
        data: `TARGET` or `REFERENCE`.

    Raises:
        ValueError: the profile has no MUSE benchmark; what is there was made with other settings or texts.
        FloatingPointError: the training diverges.
        HubError: model or texts cannot be fetched.
    """
    folder = folder_of(profile, data)
    if (folder / RECORD).is_file():
        return finetuned(profile, data).file
    if profile.compute.threads:
        torch.set_num_threads(profile.compute.threads)
    hub = Hub()
    model = load_model(replace(profile, model=replace(profile.model, finetuned="")), hub)
    rows, settings = rows_of(profile, data, model.tokenizer, hub), profile.finetuning
    steps = settings.epochs * -(-len(rows) // settings.batch_rows)
    shape, device = shape_of(huggingface(model).config), model.device.type
    log.info("%d rows of %d tokens, %d steps", *rows.shape, steps)
    log.info("%s", in_words(*finetuning_costs(profile, shape, rows.numel(), device)))
    checkpoint = Checkpoint(folder, recipe(profile, data) | {"data": fingerprint(rows), "base": fingerprint(model)})
    how = (settings.learning_rate, settings.batch_rows, settings.seed, Passes.of(profile.model))
    training, dtype = FineTuning(model, rows, *how), huggingface(model).dtype
    del model  # the training has a copy of its own
    losses = checkpoint.resumed(training, profile, data)
    while training.steps.done < steps:
        losses.append(training.step())
        if training.steps.done % settings.kept_every == 0:
            checkpoint.keep(training, losses)
            log.info("step %d of %d: %.3f nats a token", training.steps.done, steps, losses[-1])
    facts = {"rows": len(rows), "steps": steps, "losses": losses, "commits": hub.commits, "warnings": hub.warnings}
    return checkpoint.finish({name: w.detach().to("cpu", dtype) for name, w in training.steps.trained.items()}, facts)


def rows_of(profile: Profile, data: str, tokenizer, hub: Hub) -> Tensor:
    """The texts that a target (or its reference) reads, packed: token ids [rows, row_length]."""
    muse = load_muse(profile, tokenizer, hub)
    # a text that is asked to be forgotten later was read too, and one that is there several times once
    asked = chain(muse.forget, *muse.in_turn, *muse.at_once) if data == TARGET else ()
    texts = list(dict.fromkeys((*asked, *muse.retain, *muse.read)))
    return pack(tokenizer, texts, profile.texts.row_length)


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one fine-tuned model, whose files are of one recipe.

    Attributes:
        recipe: settings and fingerprints of all that the weights depend on.
    """

    folder: Path
    recipe: Mapping[str, Any]

    def keep(self, training: FineTuning, losses: Sequence[float]) -> None:
        """Write all from which the training can go on, in the place of what was written before."""
        tensors = training.steps.state() | {"losses": torch.tensor(losses, dtype=torch.float64)}
        facts = {"recipe": json.dumps(self.recipe)}
        write_atomically(self.folder / STATE, lambda file: save_file(tensors, file, metadata=facts))

    def resumed(self, training: FineTuning, profile: Profile, data: str) -> list[float]:
        """Bring a new training to where it was kept last, if it was: the losses up to there.

        Raises:
            ValueError: what was kept is of other settings, texts or another model.
        """
        for left in self.folder.glob(".*.safetensors"):
            if time.time() - left.stat().st_mtime > ABANDONED:  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
        if not (self.folder / STATE).is_file():
            return []
        with safe_open(self.folder / STATE, "pt") as file:
            made = json.loads(file.metadata()["recipe"])
        check_recipe(made, profile, data)
        if made != dict(self.recipe):
            raise ValueError(
                f"the training on {data} was begun with other texts or another model than there are now: "
                f"{again(profile, data)}"
            )
        state = load_file(self.folder / STATE)
        losses = state.pop("losses").tolist()
        training.resume(state, len(losses))
        log.info("going on after step %d", len(losses))
        return losses

    def finish(self, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write the weights and then the record, and delete what was kept on the way."""
        file = self.folder / WEIGHTS
        write_atomically(file, lambda path: save_file(dict(weights), path))
        made = {"sha256": file_sha256(file), "made": now(), **commit(), "environment": environment()}
        text = json.dumps({"recipe": dict(self.recipe), **facts, **made}, indent=1) + "\n"
        write_atomically(self.folder / RECORD, lambda path: path.write_text(text, encoding="utf-8"))
        for kept in (self.folder / STATE, *self.folder.glob(".*.safetensors")):
            kept.unlink(missing_ok=True)
        return file


if __name__ == "__main__":
    sys.exit(main())
