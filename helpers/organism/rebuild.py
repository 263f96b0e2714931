"""Makes the weights folder anew: world, tokenizer, two models, the SAEs, checks, and the record of how it was made.

The two models are trained side by side, one process and one thread each, and so are the SAEs.
"""

import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.organism.quality import (
    ORIGINAL_AIMS,
    RETRAINED_AIMS,
    SAE_AIMS,
    Row,
    as_dicts,
    lost_in_length,
    measure_model,
    measure_sae,
    shortcomings,
)
from helpers.organism.sae import SaeSettings, train_sae
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.train import ORIGINAL, RETRAINED, ModelSettings, Syllabus, train_model
from helpers.organism.world import build_world

WORLD_SEED = 0
# Sums of floats depend on how they are split among threads: one thread gives the same weights on every run.
THREADS = 1
PROCESSES = 2
PACKAGES = ("torch", "transformers", "tokenizers", "sae-lens")
# The folder of each model inside the weights folder, and what it is taught; the first is the one the SAEs read.
SYLLABI: Mapping[str, Syllabus] = MappingProxyType({"model": ORIGINAL, "retrained": RETRAINED})
SAES: Mapping[str, SaeSettings] = MappingProxyType({f"sae-{block}": SaeSettings(block=block) for block in (1, 2)})

Jobs = list[tuple[Callable[..., Any], tuple[Any, ...]]]


def rebuild(folder: Path) -> None:
    """Trains everything in a temporary folder beside `folder` and takes its place when the checks hold.

    Raises:
        RuntimeError: the new weights are not good enough; `folder` stays as it was.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".weights-") as temporary:
        made = Path(temporary) / "made"
        record, quality = make_weights(made)
        found = faults(quality)
        if found:
            raise RuntimeError(f"the new weights are not kept, the old ones stay: {'; '.join(found)}")
        write_json(made / "record.json", record)
        _replace(made, folder, Path(temporary) / "old")
    log(f"done in {record['seconds']['all']:.0f} s")


def make_weights(folder: Path) -> tuple[dict, dict[str, list[Row]]]:
    """Trains and stores models and SAEs under `folder`, loads them back, measures them; returns record and quality."""
    start = time.perf_counter()
    trained = _side_by_side([(_train_model, (folder, name)) for name in SYLLABI])
    models_done = time.perf_counter() - start
    _side_by_side([(_train_sae, (folder, name)) for name in SAES])
    seconds = {"models": models_done, "saes": time.perf_counter() - start - models_done}
    log("now measuring all of them as they were stored")
    measured = _side_by_side(
        [(_measure_model, (folder, name)) for name in SYLLABI] + [(_measure_sae, (folder, name)) for name in SAES]
    )
    quality = dict(zip((*SYLLABI, *SAES), measured, strict=True))
    seconds["all"] = time.perf_counter() - start
    return _record(folder) | {
        "seconds": {name: round(value) for name, value in seconds.items()},
        "training_curves": {name: one["curve"] for name, one in zip(SYLLABI, trained, strict=True)},
        "quality": {name: as_dicts(rows) for name, rows in quality.items()},
    }, quality


def faults(quality: Mapping[str, list[Row]]) -> list[str]:
    """What in the quality of any model or SAE is not good enough, one sentence each."""
    aims = {"model": ORIGINAL_AIMS, "retrained": RETRAINED_AIMS} | dict.fromkeys(SAES, SAE_AIMS)
    found = [f"{name}: {fault}" for name, rows in quality.items() for fault in shortcomings(rows, aims[name])]
    return found + [f"{name}: {fault}" for name in SYLLABI for fault in lost_in_length(quality[name])]


def _side_by_side(jobs: Jobs) -> list[Any]:
    """Runs jobs in processes of their own, in their order; the results in that order too."""
    # spawned: a forked process would inherit torch's threads
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_on_one_thread, job, arguments) for job, arguments in jobs]
        return [future.result() for future in futures]


def _on_one_thread(job: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(THREADS)
    return job(*arguments)


def _train_model(folder: Path, name: str) -> dict[str, Any]:
    start, world = time.perf_counter(), build_world(WORLD_SEED)
    tokenizer = build_tokenizer(world)
    log(f"{name}: world {WORLD_SEED}, {len(world.facts)} facts, {len(tokenizer)} tokens")
    model, curve = train_model(world, tokenizer, SYLLABI[name], ModelSettings(), lambda line: log(f"{name}: {line}"))
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return {"curve": curve, "seconds": time.perf_counter() - start}


def _train_sae(folder: Path, name: str) -> None:
    settings = SAES[name]
    log(f"{name}: {settings.samples} samples, width {settings.width}")
    train_sae(*load_model(folder / "model"), build_world(WORLD_SEED), settings).save_inference_model(folder / name)
    described = folder / name / "cfg.json"
    # sae-lens writes its keys in the order of a set, which no two processes share
    write_json(described, dict(sorted(json.loads(described.read_text(encoding="utf-8")).items())))


def _measure_model(folder: Path, name: str) -> list[Row]:
    return measure_model(build_world(WORLD_SEED), *load_model(folder / name), lambda line: log(f"{name}: {line}"))


def _measure_sae(folder: Path, name: str) -> list[Row]:
    world, (model, tokenizer) = build_world(WORLD_SEED), load_model(folder / "model")
    return measure_sae(world, model, tokenizer, load_sae(folder / name), SAES[name], log)


def log(line: str) -> None:
    """A line of progress, at once: several processes write."""
    print(line, flush=True)


def load_model(folder: Path) -> tuple[Any, Any]:
    """Model (eager attention) and tokenizer of a folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    return model, AutoTokenizer.from_pretrained(folder)


def load_sae(folder: Path) -> SAE:
    """The SAE of a folder."""
    return SAE.load_from_disk(folder, device="cpu")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the models and SAEs, by its path inside the folder."""
    files = sorted(path for part in (*SYLLABI, *SAES) for path in (folder / part).iterdir())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_json(path: Path, content: dict) -> None:
    """Writes readable JSON by way of a temporary file in the same folder."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _record(folder: Path) -> dict:
    world = build_world(WORLD_SEED)
    return {
        "command": "python -m helpers.organism",
        "world": {"seed": world.seed, "fingerprint": world.fingerprint()},
        "models": {name: asdict(syllabus) for name, syllabus in SYLLABI.items()},
        "model": asdict(ModelSettings()),
        "saes": {name: asdict(settings) | {"hook_name": settings.hook_name} for name, settings in SAES.items()},
        "threads": THREADS,
        "processes": PROCESSES,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "processor": torch.backends.cpu.get_cpu_capability(),
        "sha256": file_hashes(folder),
    }


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
