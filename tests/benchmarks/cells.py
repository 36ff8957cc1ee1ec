"""What a cell's way to its job and back costs, and how soon one sees what the job prints."""

from __future__ import annotations

import pickle
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np

from tests.benchmarks.figures import Figure, shown
from tests.e2e.magics.conftest import SMALL, Kernel
from tuttilab.magics.jobs.results import unpack
from tuttilab.magics.submission.capture import capture
from tuttilab.sidecar.cell import results

ROUNDS = 7
ARRAY_BYTES = 100 * 2**20


def capture_and_return() -> Figure:
    """CPU time of capture, saving and loading a 100 MB array, over cloudpickle's own for the same steps."""
    array = np.random.default_rng(0).random(ARRAY_BYTES // 8)
    body = cloudpickle.dumps(array)
    with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder:
        results.save(folder, array, results.Wanted(), {})
        result = (Path(folder) / "result.pkl").read_bytes()
        ours = (
            _cpu_s(lambda: capture({"array": array})),
            _cpu_s(lambda: results.save(folder, array, results.Wanted(), {})),
            _cpu_s(lambda: unpack(result, "the job", "")),
        )
        peers = (
            _cpu_s(lambda: cloudpickle.dumps(array)),
            _cpu_s(lambda: (Path(folder) / "peer.pkl").write_bytes(cloudpickle.dumps(array))),
            _cpu_s(lambda: pickle.loads(body)),  # noqa: S301 - written above
        )
    steps = ", ".join(f"{name} {one / peer:.2f}" for name, one, peer in zip(("capture", "save", "load"), ours, peers, strict=True))
    return Figure("a 100 MB array to a job and back, over cloudpickle", sum(ours) / sum(peers), 1.3, steps, unit="x")


def _cpu_s(call: Callable[[], object]) -> float:
    """The least of several rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def bar_in_the_cell(environ: dict[str, str]) -> Figure:
    """From the moment a job prints a state of its progress bar to the moment the front end gets it."""
    kernel = Kernel(environ, "bench.ipynb")
    try:
        loop = "for _ in range(60):\n    print(f'\\r{time.time():.3f}', end='')\n    time.sleep(0.13)"
        sent = kernel.send(f"%%submit {SMALL}\nimport time\n{loop}\nprint()")
        waits: dict[str, float] = {}

        def look(ran: object) -> bool:
            updates = getattr(ran, "updates", [])
            found = re.search(r"\| (\d{10}\.\d{3})", str(updates[-1][1]["text/plain"])) if updates else None
            if found:
                waits.setdefault(found[1], time.time() - float(found[1]))
            return False

        kernel.gather(sent, until=look)
        times = sorted(waits.values())[:-1]  # the last state stays while the job ends
        return Figure(
            "a bar's state: print to the cell", max(times), 1.0, f"worst of {len(times)}, median {shown(statistics.median(times))}"
        )
    finally:
        kernel.close()
