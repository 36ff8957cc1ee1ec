"""The master of a gang in a pod of its own: as on one machine, but its members are in other pods.

How a member ended is not its to tell: the control plane reads that in the members' own pods. It tells who waits at the barrier.
"""

from __future__ import annotations

import socket
from typing import Any

from tuttilab.sidecar import protocol
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.container.contact import Contact, watch
from tuttilab.sidecar.master import Master


def listen(port: int) -> int:
    """The descriptor of a socket that listens on all addresses of the pod."""
    return socket.create_server(("", port), backlog=512).detach()


class PodMaster(Master):
    def __init__(self, plan: dict[str, Any], pod_dir: str, uid: str, listen: int) -> None:
        self._contact = Contact(plan["lease_s"])
        super().__init__(plan, pod_dir, uid, listen)
        watch(lambda: self.note_silence() if self._contact.is_overdue() else None)

    def members_to_report(self) -> list[protocol.Member]:
        return [member for member in super().members_to_report() if member.phase != protocol.ENDED]

    def check_members(self) -> None:
        """Members report their own end; of one that cannot, the cluster shows it."""

    def note_reply(self) -> None:
        self._contact.answered()

    def note_silence(self) -> None:
        if self._contact.is_lost():
            self.post_stop(m.StopRequested(0.0, "cut off from the control plane and the cluster"))
