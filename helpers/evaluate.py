"""A method of the papers under lm-evaluation-harness: `python -m helpers.evaluate --method dsg --tasks organism`.

Writes lm-eval's results as JSON, with what made them beside them under `provenance`. Features, clamp unit and gate
threshold are the profile's, found (and cached) as by the notebooks; a settings file sets some or all of it by hand.
"""

import argparse
import difflib
import json
import logging
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from helpers.experiments.bench import open_bench
from helpers.experiments.methods import METHODS, Edited, Settings, check_names, check_settings, clamp_facts, edited
from helpers.lab.run import show_progress, start
from helpers.loading.saes import load_sae
from helpers.profiles import Profile, available_profiles, load_profile
from helpers.records.provenance import ROOT, now
from helpers.records.store import write_atomically
from helpers.steering import Steering, read_steering

# The methods that a steering file's action is.
METHODS_OF_ACTIONS = {
    "add": ("add",),
    "clamp": ("clamp", "clamp_prime"),
    "clamp_cond": ("clamp", "clamp_prime"),
    "clamp_refusal": ("refusal",),
}

log = logging.getLogger("helpers.evaluate")  # by name: this module is __main__ when it is run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the results are written, 2 with one line saying what is wrong."""
    options = _parser().parse_args(arguments)
    show_progress()
    try:
        path, table = _carry_out(options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        log.error("error: %s", error)
        return 2
    log.info("%s\nwritten: %s", table, path)
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Evaluate a method with lm-evaluation-harness."
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluate", description=description)
    parser.add_argument("--profile", default="tiny", help=f"one of: {', '.join(available_profiles())} (default: tiny)")
    parser.add_argument("--method", required=True, help=f"one of: {', '.join(METHODS)}")
    parser.add_argument("--tasks", required=True, help="lm-eval's task names, with commas between them")
    parser.add_argument("--settings", type=Path, help="JSON, TOML or steering CSV in place of the profile's choice")
    parser.add_argument("--limit", type=_count, help="ask only the first so many questions of each task")
    parser.add_argument("--batch-size", type=_count, default=8, help="requests a forward pass; changes no score")
    parser.add_argument("--out", type=Path, help="folder for the results (default: runs/<profile>/lm_eval)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder for cached stages")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _carry_out(options: argparse.Namespace) -> tuple[Path, str]:
    profile, method = load_profile(options.profile), options.method
    check_names(method, ())
    from helpers.measures.lm_eval.adapter import run_tasks, task_manager  # of an extra, which may be missing

    manager, tasks = task_manager(profile.questions.source), options.tasks.split(",")
    check_tasks(tasks, manager.all_tasks)
    by_hand = read_settings(options.settings, method, profile)
    run = start(profile.name, "04_lm_eval", str(options.runs))
    lab = open_bench(run)
    if isinstance(by_hand, Steering):
        facts = {"method": method, "chosen": f"steering file, {by_hand.action}", **clamp_facts(by_hand.clamp)}
        asked = Edited(lab.model, by_hand.clamp, facts)
    else:
        asked = edited(run, lab, method, by_hand)
    log.info("%s: %s", method, json.dumps(asked.facts))
    results, table = run_tasks(asked.model, asked.intervention, tasks, manager, options.limit, options.batch_size)
    run.note(evaluated=asked.facts, tasks=tasks, limit=options.limit, lm_eval=metadata.version("lm-eval"))
    path = (options.out or options.runs / profile.name / "lm_eval") / f"results_{method}_{_stamp()}.json"
    text = json.dumps({**results, "provenance": run.record()}, indent=1) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return path, table


def _stamp() -> str:
    return now().partition("+")[0].replace(":", "-")


def check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError where a task is not among the known, which are listed, or the most similar of very many."""
    for task in tasks:
        if task in known:
            continue
        if len(known) <= 20:
            raise ValueError(f"task {task!r} is unknown, the known ones are: {', '.join(known)}")
        similar = difflib.get_close_matches(task, known, n=10, cutoff=0.5)
        hint = f"similar ones are: {', '.join(similar)}; " if similar else ""
        raise ValueError(f"task {task!r} is unknown; {hint}`lm_eval ls tasks` lists all {len(known)}")


def read_settings(path: Path | None, method: str, profile: Profile) -> Settings | Steering:
    """What a settings file sets by hand: keys of `Settings` in JSON or TOML, or the intervention of a steering CSV.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind, not well formed, an unknown key or a value that is not allowed, or a
            steering file of an action that the method is not.
    """
    if path is None:
        settings = Settings()
    elif not path.is_file():
        raise FileNotFoundError(f"there is no settings file {path}")
    elif path.suffix == ".csv":
        return _steering(path, method, profile)
    else:
        settings = _parse_settings(path, method)
    check_settings(method, settings)
    return settings


def _steering(path: Path, method: str, profile: Profile) -> Steering:
    steering = read_steering(path, load_sae(profile))
    methods = METHODS_OF_ACTIONS[steering.action]
    if method not in methods:
        raise ValueError(f"{path.name} is of action {steering.action!r}: use --method {' or '.join(methods)}")
    return steering


def _parse_settings(path: Path, method: str) -> Settings:
    readers = {".json": json.loads, ".toml": tomllib.loads}
    if path.suffix not in readers:
        raise ValueError(f"settings file {path.name!r} ends in none of {', '.join(readers)}, .csv")
    try:
        data = readers[path.suffix](path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path.name} is not valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds a {type(data).__name__}, a table of settings is needed")
    check_names(method, data)
    try:
        # through JSON, because strict validation takes a JSON array for a tuple but nothing else for a number
        return TypeAdapter(Settings).validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        faults = [f"{e['loc'][0]} = {data[e['loc'][0]]!r}: {e['msg'].lower()}" for e in error.errors()]
        raise ValueError(f"{path.name}: {'; '.join(faults)}") from None


if __name__ == "__main__":
    sys.exit(main())
