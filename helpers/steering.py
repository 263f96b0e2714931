"""A steering CSV into the tensors that lm-eval's `steered` model reads.

    python -m helpers.steering steer.csv steer.pt --profile tiny

reads the first (of action `add`) against the profile's SAE and writes the second.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.loading.saes import load_sae
from helpers.methods.steering_files import read_steering, write_steered
from helpers.profiles import available_profiles, load_profile
from helpers.records.progress import show_progress

log = logging.getLogger("helpers.steering")  # by name: this module is __main__ when it is run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: a steering CSV into lm-eval's `.pt`. Returns 0, or 2 with one line saying what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m helpers.steering", description="A steering CSV into lm-eval's .pt")
    parser.add_argument("csv", type=Path, help="the authors' CSV, of action add")
    parser.add_argument("pt", type=Path, help="the file to write")
    parser.add_argument("--profile", default="tiny", choices=available_profiles(), help="whose SAE the latents are of")
    options = parser.parse_args(arguments)
    show_progress()
    try:
        # bos: what `steered` does, and the authors' code does too
        steering = read_steering(options.csv, load_sae(load_profile(options.profile)), bos=True)
        write_steered(options.pt, [steering.clamp])
    except (ValueError, OSError) as error:
        log.error("error: %s", error)
        return 2
    log.info("written: %s", options.pt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
