"""Load for a while, calm first, then with a kill -9 every 20 s: `python -m tests.soak.run MINUTES [FOLDER]`; exit 1 on a violation.

Prints the throughput of both halves, and writes nothing but its state folder. The figures of a run are kept in docs/soak-report.md.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.kills.plane import MARK, Plane, plane_in

KILL_EVERY_S = 20.0
WAITING = 12
"""Jobs in the system at any time."""


@dataclass
class Half:
    seconds: float
    done: int = 0
    kills: int = 0
    longest_answer_s: float = 0.0
    jobs: list[str] = field(default_factory=list)

    @property
    def per_minute(self) -> float:
        return self.done * 60.0 / self.seconds


def load(plane: Plane, name: str, seconds: float, *, with_kills: bool) -> Half:
    """Keeps a number of jobs waiting or running, every third one a gang of two."""
    half = Half(seconds)
    kills_before = plane.kills
    ends = threading.Event()
    killer = threading.Thread(target=_kill, args=(plane, ends), daemon=True)
    if with_kills:
        killer.start()
    live: dict[str, int] = {}
    number = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        while len(live) < WAITING and time.monotonic() < until:
            number += 1
            workers = 2 if number % 3 == 0 else 1
            begun = time.monotonic()
            job_id = plane.submit(f"{name}-{number}", workers=workers, script=f"{MARK}; sleep 0.5")
            half.longest_answer_s = max(half.longest_answer_s, time.monotonic() - begun)
            live[job_id] = workers
            half.jobs.append(job_id)
        shown = {job.id for job in plane.ask(lambda client: client.jobs(limit=200)).jobs}
        for job_id in [one for one in live if one not in shown]:
            del live[job_id]
            half.done += 1
        time.sleep(0.2)
    ends.set()
    if with_kills:
        killer.join()
    half.kills = plane.kills - kills_before
    return half


def _kill(plane: Plane, ends: threading.Event) -> None:
    while not ends.wait(KILL_EVERY_S):
        process = plane.process
        if process is not None:
            process.kill()


def violations(plane: Plane, half: Half) -> list[str]:
    """Every job has ended well, in one attempt, and each of its members ran once."""
    found = []
    for job_id in half.jobs:
        job = plane.ended(job_id)
        attempts = [attempt.phase for attempt in job.attempts]
        ran = plane.ran(job_id)
        wanted = Counter({f"{rank} 1": 1 for rank in range(job.pods[0].count)})
        if (job.phase, attempts) != ("Succeeded", ["Succeeded"]) or ran != wanted:
            found.append(f"{job_id}: {job.phase}, attempts {attempts}, ran {dict(ran)}, {job.reason}")
    return found


def main(minutes: float, folder: Path) -> int:
    with plane_in(folder / "plane") as plane:
        plane.ensure()
        calm = load(plane, "calm", minutes * 60 / 2, with_kills=False)
        killed = load(plane, "killed", minutes * 60 / 2, with_kills=True)
        found = [*violations(plane, calm), *violations(plane, killed)]
        plane.check_at_rest()
    share = killed.per_minute / calm.per_minute if calm.done else 0.0
    for name, half in (("calm", calm), ("with kills", killed)):
        sys.stdout.write(
            f"{name}: {half.seconds:.0f} s, {half.done} jobs done, {half.per_minute:.1f} a minute, {half.kills} kills, "
            f"longest submit {half.longest_answer_s:.2f} s\n"
        )
    sys.stdout.write(f"throughput with kills: {share:.0%} of calm; {len(found)} violations\n")
    sys.stdout.writelines(f"  {sentence}\n" for sentence in found)
    return 1 if found else 0


if __name__ == "__main__":
    given = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="tuttilab-soak-"))
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0, given))
