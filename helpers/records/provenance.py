"""What made a result: commit, versions, profile, machine, time and memory, as a JSON-able record beside every figure.

A record is published with its figure, so it names no host, no user, no path and no environment variable.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from helpers.profiles import Profile

ROOT = Path(__file__).resolve().parents[2]

# The packages whose version can change a number: they are part of the key of every cached stage.
NUMERIC_PACKAGES = (
    "torch", "transformers", "tokenizers", "nnsight", "sae-lens", "numpy", "scipy", "scikit-learn", "pandas", "peft",
    "rouge-score", "bitsandbytes",
)  # fmt: skip
PACKAGES = (*NUMERIC_PACKAGES, "datasets", "safetensors", "pyarrow", "matplotlib", "seaborn")
# Endings of a figure's files: two pictures, the rows they are drawn from, and this record.
FIGURE_FILES = (".png", ".pdf", ".csv", ".json")
# Settings that name files of this machine, and those that name the machine itself.
LOCAL_FILES, LOCAL_HOSTS = ("forget_file", "own_methods"), ("scheduler",)
HIDDEN_HOST = "there was one"


def record(profile: Profile, facts: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a figure.

    Args:
        profile: the settings, recorded in full.
        facts: what only the caller knows: ids and revisions of model, SAE and data, prompt hash, seeds.
        stages: by name, seconds it took when it was made, and whether this run took it from the cache.

    Raises:
        ValueError: a fact is not JSON or names a path (`check_facts`).
    """
    check_facts(facts)
    return {
        **commit(),
        "made": now(),
        "profile": profile.name,
        "settings": json.loads(json.dumps(without_folders(asdict(cast(Any, profile))))),
        "facts": dict(facts),
        "dtype": profile.model.dtype,
        "stages": {name: dict(stage) for name, stage in stages.items()},
        "peak_memory_bytes": peak_memory(),
        "environment": environment(),
    }


def without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the folders of local files and without hosts: what a file is called says nothing of either."""
    scrubbed = {key: without_folders(value) for key, value in settings.items() if isinstance(value, Mapping)}
    files = {key: _file_names(value) for key, value in settings.items() if key.rpartition(".")[2] in LOCAL_FILES}
    hosts = {key: value and HIDDEN_HOST for key, value in settings.items() if key.rpartition(".")[2] in LOCAL_HOSTS}
    return {**settings, **scrubbed, **files, **hosts}


def _file_names(files: str | Sequence[str]) -> str | list[str]:
    return Path(files).name if isinstance(files, str) else [Path(file).name for file in files]


def check_facts(facts: Mapping[str, Any]) -> None:
    """Raises ValueError when a fact cannot be written as JSON, or names an absolute path, which would be published."""
    for name, value in facts.items():
        try:
            text = json.dumps(value)
        except TypeError as error:
            raise ValueError(f"fact {name} = {value!r} is not JSON: {error}") from None
        # a home that is the root, as in some containers, would forbid every address
        homes = [json.dumps(str(Path.home()))[1:-1] + os.sep] * (Path.home() != Path(Path.home().anchor))
        if any(place in text for place in (*homes, json.dumps(str(ROOT))[1:-1])):
            raise ValueError(f"fact {name} = {value!r} names a path of this machine; give an id and a revision instead")


def environment() -> dict[str, Any]:
    """Versions and the kind of machine: python, packages, system, device, threads, CPUs."""
    return {
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(),
        "threads": sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None,
        "cpus": os.cpu_count(),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Installed version of each distribution, None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def device_type() -> str:
    """'cuda' where torch sees a GPU, else 'cpu'; which of them computed is in the facts of a figure."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The GPU's product name, or 'cpu'."""
    return sys.modules["torch"].cuda.get_device_name() if device_type() == "cuda" else "cpu"


def peak_memory() -> dict[str, int]:
    """Highest memory of this process so far in bytes: 'ram', and 'cuda' (allocated by torch) where there is a GPU."""
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device_type() == "cuda":
        peak["cuda"] = sys.modules["torch"].cuda.max_memory_allocated()
    return peak


def commit(root: Path = ROOT) -> dict[str, str | bool | None]:
    """{'commit': hash, 'dirty': whether files differ from it}; both None outside a git checkout of this repository.

    Figures do not count as differences: they are what the commit makes, and each new one would call the next one dirty.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": None, "dirty": None}
    changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)figures")
    return {"commit": _git(root, "rev-parse", "--verify", "HEAD"), "dirty": bool(changes)}


def now() -> str:
    """The time in UTC, to the second: '2026-01-31T12:00:00+00:00'."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(root: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
