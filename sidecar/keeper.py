"""The keeper of a pod: the sidecar's parent, which ends the processes that a killed sidecar left.

A killed sidecar cannot end its processes, and those that detached from the main command would live on as children of init. The
keeper is a subreaper above the sidecar, so it becomes their parent instead, whatever their environment and session, and kills
until it has no child left. It holds the pod's lock as the sidecar does: a pod that counts as lost has no process left. The
keeper only sleeps until then, so that nothing but a kill ends it; after that the sidecar runs alone.
"""

from __future__ import annotations

import os
import signal
import time
import traceback

from tuttilab.sidecar import accounts, processes, records

TITLE = "tuttilab-keeper"
KILL_INTERVAL_S = 0.02


def fork_sidecar(pod_dir: str, *, is_other_user: bool = False) -> None:
    """Forks: returns in the child, which becomes the sidecar. The parent becomes its keeper, ends after it and never returns.

    ``is_other_user``: what it may have to kill runs as another user.
    """
    processes.become_subreaper()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    sidecar = os.fork()
    if sidecar == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    try:
        if is_other_user:
            accounts.keep_rights(accounts.CAP_KILL)
        _supervise(sidecar, pod_dir)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _supervise(sidecar: int, pod_dir: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    processes.set_title(TITLE, pod_dir)
    while not os.waitpid(sidecar, os.WNOHANG)[0]:
        if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
            # The sender may know no other pid of the pod. The sidecar is not reaped yet, so its pid is still valid.
            os.kill(sidecar, signal.SIGTERM)
    while processes.reap()[1]:
        processes.kill(processes.descendants(os.getpid()))
        time.sleep(KILL_INTERVAL_S)
    # In the pod's own folder, which this process is in, whatever the job put in its place.
    records.write(records.SWEPT, {"at": time.time()}, is_durable=False)
