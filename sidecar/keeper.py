"""The keeper of a pod: its sidecar's parent, which outlives it to end what it left.

A sidecar that is killed cannot end anything any more, and who detached himself from the main command would go on as a child of
init. The keeper is a subreaper above the sidecar, so it gets them instead, whatever they made of their environment and their
session, and kills until it has no child left. It holds the pod's lock as the sidecar does: a pod that counts as lost has no
process any more. It sleeps all its life, so that nothing but a kill ends it; then the sidecar goes on alone.
"""

from __future__ import annotations

import os
import signal
import time
import traceback

from tuttilab.sidecar import processes

TITLE = "tuttilab-keeper"
AGAIN_S = 0.02


def stand_behind(pod_dir: str) -> None:
    """Returns in a child, which is to be the sidecar; the caller itself stays behind as its keeper, and ends after it."""
    processes.become_subreaper()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    sidecar = os.fork()
    if sidecar == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    try:
        _keep(sidecar, pod_dir)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _keep(sidecar: int, pod_dir: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    processes.show_as(TITLE, pod_dir)
    while not os.waitpid(sidecar, os.WNOHANG)[0]:
        if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
            # By whoever knows no other pid of the pod than ours. It is not reaped yet, so the number is still its own.
            os.kill(sidecar, signal.SIGTERM)
    while processes.reap()[1]:
        processes.kill(processes.descendants(os.getpid()))
        time.sleep(AGAIN_S)
