"""`python -m helpers.report.claims`."""

import argparse
from functools import partial
from pathlib import Path

from helpers.records.provenance import ROOT
from helpers.records.store import write_atomically
from helpers.report.claims import PAGE, README, verdicts, with_claims, with_summary


def main() -> None:
    """Write the claims on the tiny profile into docs/claims.md, and their verdicts, counted, into the README."""
    parser = argparse.ArgumentParser(prog="python -m helpers.report.claims", description=main.__doc__)
    parser.parse_args()
    table = verdicts(ROOT / "figures" / "tiny")
    for path, filled in ((PAGE, with_claims), (README, with_summary)):
        text = filled(path.read_text(encoding="utf-8"), table)
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    main()
