"""Runs seeds until one shows a violation: `python -m tests.simulation.service.hunt FROM TO STEPS FOLDER`; exit 1 then."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tests.simulation.service.world import Outcome, simulate


def hunt(first: int, last: int, steps: int, folder: Path) -> list[Outcome]:
    """The outcomes up to the first violation."""
    # What the service says about the faults it is given would be many megabytes.
    logging.disable(logging.CRITICAL)
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for seed in range(first, last):
        outcomes.append(simulate(seed, steps, folder))
        if outcomes[-1].violation:
            break
    return outcomes


if __name__ == "__main__":
    found = hunt(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    sys.stdout.write(found[-1].violation or found[-1].digest)
    sys.exit(1 if found[-1].violation else 0)
