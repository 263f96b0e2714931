"""A method by its name and what is set by hand; the rest is chosen as the notebooks choose it."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from helpers.engine.edited import Edited
from helpers.lab.choosing import AS_SET, choose
from helpers.lab.lab import Lab
from helpers.methods.method import Method

UNEDITED = "none"


def put_in_place(lab: Lab, name: str, given: Mapping[str, Any]) -> tuple[Edited, dict[str, Any]]:
    """The model under a method, and what that is, as JSON.

    What is not set is chosen as in the notebooks: of the profile's grid the setting that does best on half of the known
    questions, by the method's own rule.

    Args:
        name: of a method, or 'none' for the unedited model.
        given: fields of the method by name, as `read_settings` gives them.

    Raises:
        ValueError: an unknown method, or one that has no setting under the profile; fields that contradict each other;
            or a rule finds too few features.
    """
    if name == UNEDITED:
        return lab.unedited, {"method": name}
    candidates = lab.method(name).narrowed(lab.profile, given)
    if not candidates:
        raise ValueError(f"method {name!r} has no setting under profile {lab.profile.name!r}")
    setting, rule = (candidates[0], AS_SET) if len(candidates) == 1 else choose(lab.sweep(candidates))
    edit = lab.edited(setting)
    return edit, {"method": name, "chosen": rule, **(edit.facts() or asdict(setting))}


def settable(method: type[Method]) -> tuple[str, ...]:
    """Names of what may be set of a method."""
    return tuple(field.name for field in fields(method) if field.name not in method.without)


def check_names(name: str, method: type[Method] | None, given: Iterable[str]) -> None:
    """Make sure that a method takes settings of these names; None is the unedited model, which takes none.

    Raises:
        ValueError: it does not; the allowed ones are listed.
    """
    allowed = () if method is None else settable(method)
    unknown = [one for one in given if one not in allowed]
    if unknown:
        settings = f"the settings {', '.join(allowed)}" if allowed else "no settings"
        raise ValueError(f"method {name!r} takes {settings}, not {', '.join(map(repr, unknown))}")


def read_settings(path: Path, name: str, method: type[Method] | None) -> dict[str, Any]:
    """What a JSON or TOML file sets of a method by hand.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind, not well formed, an unknown key, or a value that is not allowed.
    """
    readers = {".json": json.loads, ".toml": tomllib.loads}
    if not path.is_file():
        raise FileNotFoundError(f"there is no settings file {path}")
    if path.suffix not in readers:
        raise ValueError(f"settings file {path.name!r} ends in none of {', '.join(readers)}, .csv")
    try:
        data = readers[path.suffix](path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path.name} is not valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds a {type(data).__name__}, a table of settings is needed")
    check_names(name, method, data)
    kinds = {} if method is None else get_type_hints(method, include_extras=True)
    checked, faults = {}, []
    for key, value in data.items():
        try:
            # through JSON, because strict validation takes a JSON array for a tuple but nothing else for a number
            checked[key] = TypeAdapter(kinds[key]).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            faults.append(f"{key} = {value!r}: {error.errors()[0]['msg'].lower()}")
    if faults:
        raise ValueError(f"{path.name}: {'; '.join(faults)}")
    return checked
