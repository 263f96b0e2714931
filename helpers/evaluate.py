"""A method of the papers under lm-evaluation-harness: `python -m helpers.evaluate --method dsg --tasks organism`.

Writes lm-eval's results as JSON, with what made them beside them under `provenance`. Features, clamp unit and gate
threshold are the profile's, found (and cached) as by the notebooks; a settings file sets some or all of it by hand.
"""

import argparse
import difflib
import json
import logging
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from helpers.engine.edited import Edited
from helpers.lab.by_hand import UNEDITED, put_in_place, read_settings
from helpers.lab.lab import Lab, open_lab
from helpers.loading.saes import load_sae
from helpers.methods import METHODS
from helpers.methods.method import Method
from helpers.methods.own import load_own
from helpers.methods.steering_files import Steering, read_steering
from helpers.profiles import Profile, available_profiles, load_profile
from helpers.records.progress import show_progress
from helpers.records.provenance import ROOT, now
from helpers.records.store import write_atomically

log = logging.getLogger("helpers.evaluate")  # by name: this module is __main__ when it is run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the results are written, 2 with one line saying what is wrong."""
    options = _parser().parse_args(arguments)
    show_progress()
    try:
        path, table = _carry_out(options)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        log.error("error: %s", error)
        return 2
    log.info("%s\nwritten: %s", table, path)
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Evaluate a method with lm-evaluation-harness."
    methods = f"one of: {', '.join((UNEDITED, *METHODS))}; or a .py file with a method of your own"
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluate", description=description)
    parser.add_argument("--profile", default="tiny", help=f"one of: {', '.join(available_profiles())} (default: tiny)")
    parser.add_argument("--method", required=True, help=methods)
    parser.add_argument("--tasks", required=True, help="lm-eval's task names, with commas between them")
    parser.add_argument("--notebook", default="04", metavar="NN", help="whose settings of the profile (default: 04)")
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
    profile = load_profile(options.profile, notebook=options.notebook)
    own = [options.method] if options.method.endswith(".py") else []
    name, method = _method(options.method, own)
    from helpers.measures.lm_eval.adapter import run_tasks, task_manager  # of an extra, which may be missing

    manager, tasks = task_manager(profile.questions.source), options.tasks.split(",")
    check_tasks(tasks, manager.all_tasks)
    by_hand = _by_hand(options.settings, name, method, profile)
    overrides = {"own_methods": [str(Path(file).resolve()) for file in own]} if own else None
    lab = open_lab(profile.name, f"{options.notebook}_lm_eval", str(options.runs), None, overrides)
    edit, facts = _edit(lab, name, by_hand)
    log.info("%s: %s", name, json.dumps(facts))
    results, table = run_tasks(edit, tasks, manager, options.limit, options.batch_size)
    lab.note(evaluated=facts, tasks=tasks, limit=options.limit, lm_eval=metadata.version("lm-eval"))
    path = (options.out or options.runs / profile.name / "lm_eval") / f"results_{name}_{_stamp()}.json"
    text = json.dumps({**results, "provenance": lab.record()}, indent=1) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return path, table


def _method(name: str, own: Sequence[str]) -> tuple[str, type[Method] | None]:
    """A method by its name or file, None for the unedited model. Raises ValueError for an unknown name."""
    if own:
        (first, *others) = load_own(own).items()
        if others:
            names = ", ".join(name for name, _ in (first, *others))
            raise ValueError(f"{name} holds several methods, {names}: put the one to evaluate into a file of its own")
        return first
    if name not in (UNEDITED, *METHODS):
        raise ValueError(f"method {name!r} is unknown, the known ones are: {', '.join((UNEDITED, *METHODS))}")
    return name, METHODS.get(name)


def _by_hand(path: Path | None, name: str, method: type[Method] | None, profile: Profile) -> dict[str, Any] | Steering:
    """What is set by hand: fields of the method, or the intervention of a steering CSV whose action the method is."""
    if path is None:
        return {}
    if path.suffix != ".csv" or not path.is_file():
        return read_settings(path, name, method)
    steering = read_steering(path, load_sae(profile))
    if method is None or steering.action not in method.actions:
        able = [name for name, one in METHODS.items() if steering.action in one.actions]
        raise ValueError(f"{path.name} is of action {steering.action!r}: use --method {' or '.join(able)}")
    return steering


def _edit(lab: Lab, name: str, by_hand: dict[str, Any] | Steering) -> tuple[Edited, dict[str, Any]]:
    if not isinstance(by_hand, Steering):
        return put_in_place(lab, name, by_hand)
    edit = Edited(lab.model, by_hand.clamp)
    return edit, {"method": name, "chosen": f"steering file, {by_hand.action}", **edit.facts()}


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


if __name__ == "__main__":
    sys.exit(main())
