"""Makes the weights folder anew: world, tokenizer, model, SAE, checks, and the record of how it was made."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.organism.quality import measure, shortcomings
from helpers.organism.sae import SaeSettings, train_sae
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.train import ModelSettings, train_model
from helpers.organism.world import World, build_world

WORLD_SEED = 0
# Sums of floats depend on how they are split among threads: one thread gives the same weights on every run.
THREADS = 1
PACKAGES = ("torch", "transformers", "tokenizers", "sae-lens")


def rebuild(folder: Path, log: Callable[[str], None]) -> None:
    """Trains everything in a temporary folder beside `folder` and takes its place when the checks hold.

    Raises:
        RuntimeError: the new weights are not good enough; `folder` stays as it was.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".weights-") as temporary, _threads(THREADS):
        made = Path(temporary) / "made"
        record = make_weights(made, log)
        found = shortcomings(record["quality"])
        if found:
            raise RuntimeError(f"the new weights are not kept, the old ones stay: {'; '.join(found)}")
        write_json(made / "record.json", record)
        _replace(made, folder, Path(temporary) / "old")
    log(f"done in {record['seconds']['all']:.0f} s")


def make_weights(folder: Path, log: Callable[[str], None]) -> dict:
    """Trains and stores model and SAE under `folder`, loads them back, measures them; returns the record."""
    start = time.perf_counter()
    world, model_settings, sae_settings = build_world(WORLD_SEED), ModelSettings(), SaeSettings()
    tokenizer = build_tokenizer(world)
    log(f"world {WORLD_SEED}: {len(world.facts)} facts, {len(tokenizer)} tokens")
    model, curve = train_model(world, tokenizer, model_settings, log)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    model_seconds = time.perf_counter() - start
    log(f"sae   after block {sae_settings.block}: {sae_settings.samples} samples, width {sae_settings.width}")
    train_sae(model, tokenizer, world, sae_settings).save_inference_model(folder / "sae")
    sae_seconds = time.perf_counter() - start - model_seconds
    log(f"sae   trained in {sae_seconds:.0f} s; now measuring both as they were stored")
    quality = measure(world, *load(folder), sae_settings, log)
    seconds = {"model": model_seconds, "sae": sae_seconds, "all": time.perf_counter() - start}
    return _record(folder, world, model_settings, sae_settings) | {
        "seconds": {name: round(value) for name, value in seconds.items()},
        "training_curve": curve,
        "quality": quality,
    }


def load(folder: Path) -> tuple[Any, Any, Any]:
    """Model (eager attention), tokenizer and SAE of a weights folder."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    return model, tokenizer, SAE.load_from_disk(folder / "sae", device="cpu")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of model and SAE, by its path inside the folder."""
    files = sorted(path for part in ("model", "sae") for path in (folder / part).iterdir())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_json(path: Path, content: dict) -> None:
    """Writes readable JSON by way of a temporary file in the same folder."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _record(folder: Path, world: World, model_settings: ModelSettings, sae_settings: SaeSettings) -> dict:
    return {
        "command": "python -m helpers.organism",
        "world": {"seed": world.seed, "fingerprint": world.fingerprint()},
        "model": asdict(model_settings),
        "sae": asdict(sae_settings) | {"hook_name": sae_settings.hook_name},
        "threads": THREADS,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "processor": torch.backends.cpu.get_cpu_capability(),
        "sha256": file_hashes(folder),
    }


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _replace(new: Path, place: Path, aside: Path) -> None:
    """Puts `new` where `place` is, which is moved aside first: a folder cannot be replaced in one step."""
    if place.exists():
        os.replace(place, aside)
    try:
        shutil.move(new, place)
    except OSError:
        if aside.exists():
            os.replace(aside, place)
        raise
