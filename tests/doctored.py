"""`python -m tests.doctored LINE...`: command lines of the doctor in one process, each a line of JSON: code and words.

Run by tests/test_first_contact.py, for to start a process and import the hub's clients takes longer than a small run.
"""

import contextlib
import io
import json
import sys

from helpers.doctor import main


def doctored(line: str) -> tuple[int, str]:
    """The exit code of one command line, and what it said."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(line.split())
    return code, said.getvalue()


if __name__ == "__main__":
    for one in sys.argv[1:]:
        print(json.dumps(doctored(one)), flush=True)
