"""How long a pod on this machine takes from the spawn of its sidecar to the exec of its main command.

    .venv/bin/python -m tests.benchmarks.sidecar_start [ROUNDS]

For single pods, for gangs of four, and for the bare interpreter that the sidecar needs at least.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.contract.clusters import NODES, all_lines, plan, watching
from tuttilab.scheduler.clusters.local import launch as local_launch
from tuttilab.scheduler.clusters.local.cluster import LocalCluster


def show(what: str, seconds: list[float]) -> None:
    ordered = sorted(1000 * s for s in seconds)
    print(f"{what:<44} median {statistics.median(ordered):6.1f} ms   min {ordered[0]:6.1f}   max {ordered[-1]:6.1f}")


def bare_interpreter() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.perf_counter() - begun


async def main(rounds: int) -> None:
    spawned: dict[str, float] = {}
    spawn = local_launch._spawn

    def timed(python: str, folder: Path, lock: int, listening: object) -> int:
        spawned[folder.name] = time.time()
        return spawn(python, folder, lock, listening)  # type: ignore[arg-type]  # passed on as it came

    local_launch._spawn = timed
    show("python -I -S -c pass", [bare_interpreter() for _ in range(rounds)])
    with tempfile.TemporaryDirectory() as folder:
        cluster = LocalCluster("here", NODES, Path(folder), os.environ, sys.executable)
        async with watching(cluster) as seen:
            for members in (1, 4):
                first, last, calls = [], [], []
                for turn in range(rounds):
                    launch = plan(f"m{members}-{turn}", "date", "+%s.%N", members=members)
                    begun = time.perf_counter()
                    await cluster.launch(launch)
                    calls.append(time.perf_counter() - begun)
                    await seen.ended(*(pod.name for pod in launch.pods))
                    starts = [float((await all_lines(cluster, launch, rank))[0]) for rank in range(members)]
                    first.append(min(starts) - min(spawned[pod.name] for pod in launch.pods))
                    last.append(max(starts) - max(spawned[pod.name] for pod in launch.pods))
                show(f"{members} member(s): launch() returns after", calls)
                if members > 1:
                    show("  first spawn to first main command", first)
                show("  last spawn to last main command", last)
        await cluster.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
