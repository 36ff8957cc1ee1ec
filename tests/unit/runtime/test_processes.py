"""What is known of a process by its id."""

import subprocess
import sys

from tuttilab.scheduler.runtime.processes import ProcessId, _start_time, boot_id

LARGE = "import time; x = bytearray(300_000_000); print(flush=True); time.sleep(600)"
"""A process that is not gone at once, because its memory is given back first."""


def test_from_the_moment_a_process_is_killed_it_is_being_killed_until_it_is_gone() -> None:
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", LARGE], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            who = ProcessId(process.pid, _start_time(process.pid) or 0, boot_id())
            assert who.is_alive()
            assert not who.is_being_killed()
            process.kill()

            seen = [who.is_being_killed() or not who.is_alive() for _ in range(50)]
            process.wait()

        assert all(seen)
        assert not who.is_alive()
        assert not who.is_being_killed()
