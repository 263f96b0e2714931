"""`python -m tests.doctored LINE...`: command lines of the doctor in one process, each a line of JSON: code and words.

Run by tests/test_first_contact.py, for to start a process and import the hub's clients takes longer than a small run.
"""

import contextlib
import io
import json
import sys

import helpers.experiments.trial
import helpers.lab.run
from helpers.doctor import main
from helpers.profiles import Profile, load_profile

# Of what is computed: rows and steps that a core does in a second.
SMALL = {"model.batch_tokens": 256, "texts.row_length": 128, "texts.framed_documents": 4, "method.rmu.batch_rows": 1}


def load_small(name: str, overrides: dict | None = None, notebook: str | None = None) -> Profile:
    """A profile with small sizes, whatever else is changed."""
    return load_profile(name, {**SMALL, **(overrides or {})}, notebook)


def doctored(line: str) -> tuple[int, str]:
    """The exit code of one command line, and what it said."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(line.split())
    return code, said.getvalue()


if __name__ == "__main__":
    for module in (helpers.experiments.trial, helpers.lab.run):
        vars(module)["load_profile"] = load_small
    for one in sys.argv[1:]:
        print(json.dumps(doctored(one)), flush=True)
