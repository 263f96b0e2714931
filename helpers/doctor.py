"""What stands between this machine and a profile's figures: `python -m helpers.doctor --profile gemma-2-2b-it`.

Looks at versions, device, memory, disk, the hub, the token, the access to what is gated and the cache, estimates time
and memory of every notebook, and downloads nothing. `--probe` fetches a few megabytes instead, and looks at every
assumption about what is on the hub: config, tokenizer, SAE files, columns of questions and texts. `--fidelity` runs the
model and sets what others have measured on it beside ours. `--try N` runs one notebook's path with N known questions
and says what all notebooks would take at the rates it reached. Every line is ok, warning or fails, with the next step;
the exit code is 1 when one fails. The token is never shown. What is observed and what is said of it are apart: a
function called `..._lines` knows neither network nor disk.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from huggingface_hub import auth_check, constants, get_token, snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import disable_progress_bars, get_session

from helpers.engine.steps import check_optimizer
from helpers.experiments.costs import (
    MEASURED,
    SMALLEST,
    duration,
    finetuning_disk,
    in_words,
    measured_shares,
    projections,
    target_costs,
)
from helpers.experiments.fidelity import fidelity, known_by_notebook
from helpers.experiments.trial import Trial, try_profile
from helpers.lab.lab import TOLERANCE, open_lab
from helpers.lab.published import published_statistics
from helpers.loading.data import FORGET_FILE, characters_of
from helpers.loading.finetuned import REFERENCE, finetuned, made_by
from helpers.loading.hub import TOKENS, explained, files_of, own_cache, streamed_file
from helpers.loading.models import device_of
from helpers.loading.probe import probe
from helpers.loading.sources import Source, needed, text_source
from helpers.profiles import Profile, available_profiles, load_profile, options_of
from helpers.records.provenance import NUMERIC_PACKAGES, ROOT, versions
from helpers.reproduce import find_notebooks

State = Literal["ok", "warning", "fails"]

# The fixed part of a run is short, so that no other processes are started, each with a model of its own.
IN_THIS_PROCESS = {"compute.jobs": 1, "compute.scheduler": ""}
# What a run writes beside downloads: stages, executed notebooks, figures.
OWN_FILES_GB = 1.0


@dataclass(frozen=True)
class Line:
    """One finding: what was looked at, what was found, and the next step where it is not ok."""

    state: State
    what: str
    found: str
    step: str = ""


@dataclass(frozen=True)
class Device:
    """What computes: torch's name of it, its product name, and the memory it computes in, in bytes."""

    kind: str
    name: str
    memory: int


@dataclass(frozen=True)
class Need:
    """A source of the hub, and what is here of it.

    Attributes:
        commit: of the cached copy; None where there is none, or not all of it.
        refusal: why the hub would not give it, with the next step; '' where it would, None where it was not asked.
    """

    source: Source
    commit: str | None
    refusal: str | None = None


# --- what is said -----------------------------------------------------------------------------------------------------


def version_lines(python: tuple[int, int], pins: Mapping[str, str], direct: Iterable[str],
                  installed: Mapping[str, str | None]) -> list[Line]:  # fmt: skip
    """Python, and packages against the lock.

    Args:
        pins: the version of each package in the lock.
        direct: the packages that cannot be done without.
        installed: the version of each package that is here, None where it is not.
    """
    step = "install what the lock says: make setup, or pip install -r requirements.lock"
    found = f"{python[0]}.{python[1]}"
    allowed = (3, 11) <= python <= (3, 13)
    lines = [Line("ok" if allowed else "fails", "Python", found, "" if allowed else "use Python 3.11, 3.12 or 3.13")]
    missing = [name for name in direct if installed.get(name) is None]
    other = {name: f"{name} {have}, not {pins[name]}" for name, have in installed.items()
             if have is not None and name in pins and have.partition("+")[0] != pins[name]}  # fmt: skip
    if missing:
        lines.append(Line("fails", "packages", f"missing: {', '.join(missing)}", step))
    if other:
        # those that can change a number come first
        ranked = sorted(other, key=lambda name: (name not in NUMERIC_PACKAGES, name))
        named = "; ".join(other[name] for name in ranked[:5]) + ("; ..." if len(other) > 5 else "")
        lines.append(Line("warning", "packages", f"{len(other)} differ from the lock: {named}", step))
    if not missing and not other:
        lines.append(Line("ok", "packages", f"{len([v for v in installed.values() if v])} as the lock says"))
    return lines


def device_lines(device: Device, profile: Profile) -> list[Line]:
    """What computes, and whether it is up to the profile."""
    found = f"{device.name}, {device.memory / 1e9:.1f} GB of memory"
    if device.kind == "cpu" and profile.model.source != "organism":
        step = f"use a machine with a GPU; a trial: python -m helpers.reproduce --profile {profile.name} --limit 4"
        return [Line("warning", "device", found + ", no GPU", step)]
    return [Line("ok", "device", found)]


def optimizer_lines(profile: Profile, fault: str) -> list[Line]:
    """Whether an optimiser that is no part of torch can be had; `fault` says why not, '' if it can."""
    if profile.model.optimizer == "adamw":
        return []
    return [Line("fails" if fault else "ok", "optimizer", profile.model.optimizer, fault)]


def disk_lines(free: float, needs: Sequence[Need], kept: float, where: str, made: float = 0.0) -> list[Line]:
    """Free disk against what is still to be downloaded, what residuals take while a sweep runs, and a run's own files.

    Args:
        free: bytes.
        kept: bytes of residuals.
        where: the folder of the hub's cache.
        made: bytes while models are fine-tuned here (`costs.finetuning_disk`).
    """
    missing = sum(need.source.size_gb for need in needs if need.commit is None)
    wanted = missing + (kept + made) / 1e9 + OWN_FILES_GB
    parts = f"{missing:.1f} to download, {kept / 1e9:.1f} for residuals, {OWN_FILES_GB:.1f} for what it writes"
    parts += f", {made / 1e9:.1f} to make models" if made else ""
    found = f"{free / 1e9:.1f} GB free, {wanted:.1f} needed ({parts})"
    if free / 1e9 >= wanted:
        return [Line("ok", "disk", found)]
    step = f"make room in {where}, or put the cache elsewhere: HF_HOME=FOLDER; less for residuals: cache.disk_mb"
    return [Line("fails", "disk", found, step)]


def temporary_lines(free: float, kept: float, where: str) -> list[Line]:
    """Free room for temporary files, where they have a disk of their own, against what residuals take in a sweep."""
    found = f"{free / 1e9:.1f} GB free in {where}, {kept / 1e9:.1f} for residuals"
    if free >= kept:
        return [Line("ok", "temporary files", found)]
    return [Line("fails", "temporary files", found, "put them elsewhere: TMPDIR=FOLDER; or keep less: cache.disk_mb")]


def hub_lines(fault: str, needs: Sequence[Need]) -> list[Line]:
    """Whether the hub can be reached: `fault` says why not, '' if it can."""
    if not fault:
        return [Line("ok", "hub", "reachable")]
    missing = [need.source for need in needs if need.commit is None]
    if not missing:
        return [Line("ok", "hub", f"not reachable ({fault}), and not needed: all is in the cache")]
    step = "go online once (HF_HUB_OFFLINE must not be set), or copy a cache here and name it: HF_HOME=FOLDER"
    return [Line("fails", "hub", f"not reachable ({fault}), and {len(missing)} sources are not in the cache", step)]


def token_lines(present: bool, needs: Sequence[Need]) -> list[Line]:
    """Whether there is a token; it is not shown."""
    if present:
        return [Line("ok", "token", "there is one (not shown)")]
    gated = [need.source.repo for need in needs if need.source.gated and need.commit is None]
    if not gated:
        return [Line("ok", "token", "none, and none is needed")]
    step = f"make one that may read gated repositories at {TOKENS}, then: hf auth login"
    return [Line("fails", "token", f"none; needed for {', '.join(dict.fromkeys(gated))}", step)]


def source_lines(needs: Sequence[Need], spare: Mapping[str, str]) -> list[Line]:
    """Each source: in the cache, to be downloaded, or refused.

    Args:
        spare: what takes the place of a refused source, by repository; without it a refusal fails.
    """
    return [_source_line(need, spare.get(need.source.repo, "")) for need in needs]


def _source_line(need: Need, spare: str) -> Line:
    source = need.source
    several = source.what in ("SAE", "questions", "requests")  # of one repository
    what = f"{source.what} {source.repo}" + (f" {source.files[0]}" if several else "")
    if need.commit is not None:
        return Line("ok", what, f"in the cache ({need.commit[:12]})")
    if need.refusal:
        found = f"refused; instead: {spare}" if spare else "refused"
        return Line("warning" if spare else "fails", what, found, need.refusal)
    if need.refusal is None:
        return Line("warning", what, f"{_size(source.size_gb)} not in the cache, and the hub could not be asked")
    return Line("ok", what, f"{'access granted, ' if source.gated else ''}{_size(source.size_gb)} to download")


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 0.1 else f"{max(1, round(gigabytes * 1000))} MB"


def explained_lines(records: Sequence[Mapping[str, Any]], expected: float) -> list[Line]:
    """Whether the SAE has explained as much variance as the profile says, from the records of figures made here."""
    found = [r["facts"]["explained_variance"] for r in records if "explained_variance" in r.get("facts", {})]
    if not found:
        return []
    words = f"explained {found[-1]:.3f} of the variance in the latest figures, the profile says {expected:.3f}"
    if found[-1] >= expected - TOLERANCE:
        return [Line("ok", "SAE", words)]
    step = "check sae.id and sae.layer, that the SAE was trained on this model or its untuned twin, and model.dtype"
    return [Line("warning", "SAE", words, step)]


def time_lines(profile: Profile, minutes: Mapping[str, float]) -> list[Line]:
    """Times of the embedded model's notebooks, which were measured: `minutes` by notebook."""
    return [
        Line("ok", f"notebook {number}", f"{minutes[number]:.1f} min, 2 GB of memory (measured on two cores)")
        for number in profile.notebooks or sorted(minutes) if number in minutes
    ]  # fmt: skip


ASSUMED = (
    "projections, from counted work, the matrix product measured on this device just now, and each kind of work's "
    "share of it measured on a CPU (tests/benchmarks/full_shape.py): of the order of magnitude; each notebook alone"
)


def projection_lines(
    device: Device,
    estimates: Mapping[str, tuple[float, float] | None],
    least: Mapping[str, tuple[float, float] | None] | None = None,
    basis: str = ASSUMED,
    smallest: Mapping[str, Any] = SMALLEST,
) -> list[Line]:
    """Time and memory of notebooks that nobody has run here.

    Args:
        estimates: seconds and bytes by notebook, None where the work has not been counted (`costs.projections`).
        least: the same under the settings that take least memory.
        basis: what they rest on.
        smallest: these settings.
    """
    lines = [_projection_line(device, n, found, (least or {}).get(n), smallest) for n, found in estimates.items()]
    return [Line("ok", "estimates", basis), *lines]


def _projection_line(
    device: Device,
    number: str,
    found: tuple[float, float] | None,
    least: tuple[float, float] | None,
    settings: Mapping[str, Any],
) -> Line:
    if found is None:
        return Line("ok", f"notebook {number}", "no estimate: its work has not been counted")
    seconds, memory = found
    text = in_words(seconds, memory)
    if memory <= device.memory:
        return Line("ok", f"notebook {number}", text)
    here = f"{text}, and {device.memory / 1e9:.0f} GB are here"
    return Line("warning", f"notebook {number}", here, _less(device, least, settings))


def _less(device: Device, least: tuple[float, float] | None, settings: Mapping[str, Any]) -> str:
    """What to do where there is no memory for a notebook, from what it takes at least, under such settings."""
    if least is None:
        return "leave it out: --only"
    fits = "which fits" if least[1] <= device.memory else "which does not fit either: leave it out with --only"
    return f"--set {options_of(settings)} takes {least[1] / 1e9:.0f} GB, {fits}"


def trial_lines(profile: Profile, device: Device, trial: Trial) -> list[Line]:
    """What a trial ran, the rate of each kind of work, and the notebooks at these rates."""
    run = (
        f"notebook {trial.notebook} with {trial.forget} known questions of {profile.questions.forget}, {trial.known} "
        f"of all subjects, on {device.name}: loaded in {trial.loading:.1f} s, computed in "
        f"{sum(part.seconds for part in trial.parts):.1f} s, {trial.memory / 1e9:.1f} GB of memory at the peak"
    )
    lines = [Line("ok", "tried", run)] + [
        Line("ok", part.kind, f"{part.what}: {part.operations / 1e12:.3g} x 10^12 operations in "
             f"{part.seconds:.2f} s, {part.rate / 1e12:.3g} x 10^12 a second")
        for part in trial.parts
    ]  # fmt: skip
    basis = (
        f"each notebook's counted work (helpers/experiments/costs.py) at these rates, measured just now, and with "
        f"{trial.known} of {trial.asked} questions known; each notebook alone and in one process. Kinds of work that "
        "fill no batch here run faster there"
    )
    lines += projection_lines(device, trial.full, basis=basis)
    known = [found[0] for found in trial.full.values() if found is not None]
    unknown = len(trial.full) - len(known)
    rest = f", and {unknown} of unknown length" if unknown else ""
    return [*lines, Line("ok", "all", f"{len(known)} notebooks one after another: {duration(sum(known))}{rest}")]


def finetuned_lines(
    profile: Profile, device: Device, faults: Mapping[str, str], costs: Mapping[str, tuple[float, float] | None]
) -> list[Line]:
    """The models that have to be fine-tuned here before a notebook can be run.

    Args:
        faults: by their texts, why one is not there, '' where it is.
        costs: seconds and bytes to make each (`costs.target_costs`).
    """
    lines = []
    for texts, fault in faults.items():
        what, found = f"fine-tuned on {texts}", costs.get(texts)
        if not fault:
            lines.append(Line("ok", what, "there, made by the profile's settings"))
            continue
        price = "no estimate" if found is None else in_words(*found)
        short = found is not None and found[1] > device.memory
        room = f", and {device.memory / 1e9:.0f} GB are here" if short else ""
        lines.append(Line("fails", what, f"not there; to make it: {price}{room}", fault))
    return lines


# --- what is observed -------------------------------------------------------------------------------------------------


def locked(lock: str) -> dict[str, str]:
    """Version of each package, from the text of requirements.lock."""
    pins = re.findall(r"^([\w.-]+)==(\S+)$", lock, flags=re.MULTILINE)
    return {_canonical(name): version for name, version in pins}


def direct_dependencies(project: str) -> list[str]:
    """Names of what the text of pyproject.toml depends on."""
    return [_canonical(line.partition("==")[0]) for line in tomllib.loads(project)["project"]["dependencies"]]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def observed_device(profile: Profile) -> Device:
    """What the profile would run on. Raises ValueError when there is no such device."""
    device = device_of(profile.model)
    if device.type != "cuda":
        return Device(device.type, device.type, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    about = torch.cuda.get_device_properties(device)
    return Device(str(device), about.name, about.total_memory)


def observed_optimizer(profile: Profile) -> str:
    """'' when the profile's optimiser can be had, else why it cannot."""
    try:
        check_optimizer(profile.model.optimizer, device_of(profile.model))
    except ValueError as error:
        return str(error)
    return ""


def observed_hub() -> str:
    """'' when the hub answers, whatever it answers, else why it does not."""
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except (HTTPError, OSError) as error:
        return type(error).__name__
    return ""


def observed_need(source: Source, amounts: Iterable[int], online: bool) -> Need:
    """A source's state in the cache, and if it is not there and the hub is online, whether the hub would give it.

    Args:
        amounts: of a text that is streamed, how many characters of it are asked for.
    """
    commit = cached_commit(source, amounts)
    return Need(source, commit, _refusal(source) if online and commit is None else None)


def cached_commit(source: Source, amounts: Iterable[int] = ()) -> str | None:
    """The commit of the copy in the hub's cache, None where there is none or a part is missing. Downloads nothing."""
    if not source.files:
        there = [streamed_file(source, n).is_file() for n in amounts]
        return source.revision if there and all(there) else None
    where: dict[str, Any] = {
        "repo_type": source.kind,
        "revision": source.revision,
        "allow_patterns": list(source.files),
    }
    try:
        folder = Path(snapshot_download(source.repo, local_files_only=True, **where))
    except LocalEntryNotFoundError:
        return None
    return folder.name if files_of(source, folder) else None


def _refusal(source: Source) -> str:
    try:
        auth_check(source.repo, repo_type=source.kind)
    except (HTTPError, OSError) as error:
        return str(explained(source, error))
    return ""


def observed_finetuned(profile: Profile) -> dict[str, str]:
    """Of each model that the profile needs fine-tuned, by its texts, why it is not there; '' where it is."""
    reference = [REFERENCE] if profile.method["retrained"]["source"] == "finetuned" else []
    found = {}
    for texts in [profile.model.finetuned] * bool(profile.model.finetuned) + reference:
        try:
            finetuned(profile, texts)
            found[texts] = ""
        except (ValueError, FileNotFoundError) as error:
            found[texts] = str(error)
    return found


def numbers_of(profile: Profile) -> tuple[str, ...]:
    """The numbers of the notebooks that a profile serves, which are all where it names none."""
    return profile.notebooks or tuple(book.name[:2] for book in find_notebooks(ROOT / "notebooks"))


def sources_of(profile: Profile) -> tuple[Source, ...]:
    """What the profile needs of the hub for all of its notebooks, each once."""
    return tuple(dict.fromkeys(source for version in versions_for(profile) for source in needed(version)))


def amounts_of(profile: Profile, source: Source) -> set[int]:
    """How many characters of a text its notebooks ask for."""
    asked = {(name, n) for version in versions_for(profile) for name, n in characters_of(version).items()}
    return {n for name, n in asked if source == text_source(name)}


def versions_for(profile: Profile) -> list[Profile]:
    """The profile as it is for each of its notebooks."""
    return [load_profile(profile.name, notebook=number) for number in numbers_of(profile)]


def spares(profile: Profile) -> dict[str, str]:
    """What takes the place of the gated forget corpus, by its repository; nothing where the profile needs none."""
    corpus = text_source(profile.texts.forget) if profile.texts.source == "hub" else None
    if corpus is None or not corpus.gated:
        return {}
    local = profile.texts.forget_file or os.environ.get(FORGET_FILE, "")
    if Path(local).is_file():
        return {corpus.repo: f"the local file {Path(local).name}"}
    if local:
        return {}  # a run would stop, for it is not there
    able = [book.name[:2] for book in find_notebooks(ROOT / "notebooks")
            if book.name[:2] in numbers_of(profile) and book.published_features
            and not published_statistics(load_profile(profile.name, notebook=book.name[:2])).empty]  # fmt: skip
    return {corpus.repo: f"published features in notebook {', '.join(able)}, none in the others"} if able else {}


# --- the examination --------------------------------------------------------------------------------------------------


def figure_records(profile: Profile) -> list[dict[str, Any]]:
    """Records of the profile's figures in the repository, oldest first."""
    paths = (ROOT / "figures" / profile.name).glob("*.json")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(records, key=lambda record: record.get("made", ""))


def examine(profile: Profile) -> list[Line]:
    """Everything, in the order in which it would stop a run."""
    pins = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    direct = direct_dependencies((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    sources, device = sources_of(profile), observed_device(profile)
    fault = observed_hub() if sources else ""
    needs = [observed_need(source, amounts_of(profile, source), online=not fault) for source in sources]
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    room, temporary, kept = shutil.disk_usage(there).free, Path(tempfile.gettempdir()), profile.cache.disk_mb * 2**20
    one_disk = there.stat().st_dev == temporary.stat().st_dev
    lines = version_lines(sys.version_info[:2], pins, direct, versions(tuple(pins)))
    lines += device_lines(device, profile)
    lines += optimizer_lines(profile, observed_optimizer(profile))
    lines += explained_lines(figure_records(profile), profile.sae.explained_variance)
    there_or_not = observed_finetuned(profile)
    made = finetuning_disk(profile, sum(map(bool, there_or_not.values())))
    lines += disk_lines(room, needs, kept if one_disk else 0, "the hub's cache", made)
    if not one_disk:
        lines += temporary_lines(shutil.disk_usage(temporary).free, kept, str(temporary))
    if not sources:
        minutes = {book.name[:2]: book.minutes[profile.name] for book in find_notebooks(ROOT / "notebooks")
                   if profile.name in book.minutes}  # fmt: skip
        return [*lines, Line("ok", "hub", "nothing is loaded from it"), *time_lines(profile, minutes)]
    lines += hub_lines(fault, needs) + token_lines(get_token() is not None, needs)
    lines += source_lines(needs, spares(profile))
    lines += finetuned_lines(profile, device, there_or_not, target_costs(profile, device.kind))
    shares = measured_shares(pd.read_csv(MEASURED))
    # what was fine-tuned was so by some settings, which stay
    smallest = {key: value for key, value in SMALLEST.items() if key not in made_by(profile)}
    least = projections(profile.name, device.kind, shares, product=1.0, overrides=smallest)  # for its memory
    found = projections(profile.name, device.kind, shares)
    return lines + projection_lines(device, found, least, smallest=smallest)


def probed(profile: Profile) -> list[Line]:
    """What the profile takes for granted about the hub, as far as a few megabytes tell (`loading.probe`)."""
    if profile.model.source == "organism":
        return [Line("ok", "hub", "nothing is loaded from it")]
    disable_progress_bars()
    version = load_profile(profile.name, notebook=numbers_of(profile)[0])
    return [
        Line("ok" if one.holds else "fails", one.name, one.found, "" if one.holds else f"expected: {one.expected}")
        for one in probe(version, own_cache() / "probe")
    ]


def compared(profile: Profile, runs: str | None) -> list[Line]:
    """Known answers of others beside what comes out here (`experiments.fidelity`).

    Args:
        runs: where stages are kept, of which the notebooks make use.
    """
    found = known_by_notebook(profile.name)
    answers = [
        one
        for number, known in found.items()
        for one in fidelity(open_lab(profile.name, f"{number}_fidelity", runs, overrides=IN_THIS_PROCESS), known)
    ]
    return [
        Line("ok", one.quantity, f"{one.ours}, as known")
        if one.agrees
        else Line("warning", one.quantity, f"{one.ours}, differs", f"known: {one.theirs}")
        for one in answers
    ]


def tried(profile: Profile, n: int) -> list[Line]:
    """One notebook's path with so many known questions, and what every notebook would take (`experiments.trial`)."""
    device = observed_device(profile)
    return trial_lines(profile, device, try_profile(profile.name, n))


def report(profile: Profile, lines: Sequence[Line]) -> list[str]:
    """The lines as text, and a last one that counts."""
    text = [f"profile {profile.name}: {profile.title}"]
    for line in lines:
        text.append(f"{line.state:8} {line.what}: {line.found}")
        text += [f"{'':8}   -> {line.step}"] if line.step else []
    bad = {state: sum(line.state == state for line in lines) for state in ("fails", "warning")}
    return [*text, f"{bad['fails']} fail, {bad['warning']} warnings"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when nothing fails, 1 when something does, 2 for a profile that does not exist."""
    parser = argparse.ArgumentParser(prog="python -m helpers.doctor", description="What is missing for a profile.")
    parser.add_argument("--profile", default="tiny", help=f"one of: {', '.join(available_profiles())} (default: tiny)")
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument("--probe", action="store_true", help="look at every assumption about the hub, on a few MB of it")
    looks.add_argument("--fidelity", action="store_true", help="what others measured on the model, beside ours: a run")
    looks.add_argument(
        "--try", dest="tried", type=int, metavar="N", help="run one notebook's path with N known questions, for time"
    )
    parser.add_argument("--runs", metavar="FOLDER", help="where --fidelity keeps stages, as helpers.reproduce does")
    options = parser.parse_args(arguments)
    try:
        profile = load_profile(options.profile)
        if options.tried is not None:
            lines = tried(profile, options.tried)
        elif options.fidelity:
            lines = compared(profile, options.runs)
        else:
            lines = probed(profile) if options.probe else examine(profile)
    except (ValueError, OSError, RuntimeError) as error:  # no network, a pair that does not belong together, no memory
        print(f"error: {error}")
        return 2
    print("\n".join(report(profile, lines)))
    return int(any(line.state == "fails" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
