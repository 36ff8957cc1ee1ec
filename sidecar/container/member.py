"""The side-car of one pod: waits at the barrier, keeps the lease, keeps the outputs when the user's container has ended.

The kubelet starts the user's container when the start-up probe finds the barrier open, and ends it when the liveness probe finds
the lease lost. It sends SIGTERM to the side-car once the user's container has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from tuttilab.sidecar import protocol, records, wish
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.container import shown
from tuttilab.sidecar.container.contact import Contact, watch
from tuttilab.sidecar.container.endpoints import Endpoints
from tuttilab.sidecar.container.probe import ALIVE_PATH, STARTED_PATH, ProbeServer
from tuttilab.sidecar.container.start import leave_message
from tuttilab.sidecar.event_loop import EventLoop
from tuttilab.sidecar.heartbeat import Heartbeat, ReportUrl
from tuttilab.sidecar.lease import Lease
from tuttilab.sidecar.protocol import Member

NAMES_TIMEOUT_S = 120.0
"""For the names of the gang to be known to the cluster's DNS."""
NAMES_PAUSE_S = 0.2
LAST_REPORT_TIMEOUT_S = 2.0
OFFERS_CHECK_S = 1.0


class Sidecar:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._opened_file = f"{plan['dirs']['pod']}/{records.STARTED}"
        # The kubelet restarts a side-car that ends: one that comes back to an open barrier passes it at once.
        self._is_open = os.path.exists(self._opened_file)
        self._shows = False
        """Whether what the cell displays is being sent."""
        self._lost = ""
        """Why user code has to end, once it does."""
        self._offers: wish.Wish | Endpoints | None = None
        """What the control plane is told of the pod while it runs."""
        if "workers_file" in plan:
            self._offers = wish.Wish(plan["workers_file"])
        elif "endpoints_file" in plan:
            self._offers = Endpoints(plan["endpoints_file"], os.environ["TUTTILAB_POD_IP"])
        self._loop = EventLoop()
        self._member = Member(plan["pod"], plan["rank"], os.environ["TUTTILAB_POD_UID"])
        self._probes = ProbeServer(plan["port"], {STARTED_PATH: lambda: self._is_open, ALIVE_PATH: lambda: not self._lost})

    def run(self) -> int:
        self._loop.on_signal(signal.SIGTERM, lambda: self._loop.post(m.MainExited(0)))
        self._probes.start()
        threading.Thread(target=self._wait_for_names, name="names", daemon=True).start()
        heartbeat = self._heartbeat()
        if self._offers is not None:
            self._loop.call_every(OFFERS_CHECK_S, lambda: self._look_for_offers(heartbeat))
        while True:
            match self._loop.next_event():
                case m.Prepared():
                    self._report(heartbeat, protocol.READY)
                    heartbeat.start()
                    if not self._plan["master"]:
                        self._open()
                case m.BarrierOpened():
                    self._open()
                case m.StopRequested(_, why):
                    self._lose(why or "told to stop")
                case m.MasterLost(why):
                    self._lose(why)
                case m.MainExited():
                    break
        self._finish(heartbeat)
        return 0

    def _wait_for_names(self) -> None:
        """Of whom the gang needs to reach: they are in the DNS only once their pods have addresses."""
        until = time.monotonic() + NAMES_TIMEOUT_S
        for host in self._plan["hosts"]:
            while time.monotonic() < until:
                try:
                    socket.getaddrinfo(host, None)
                    break
                except OSError:
                    time.sleep(NAMES_PAUSE_S)
        self._loop.post(m.Prepared())

    def _heartbeat(self) -> Heartbeat:
        plan = self._plan
        if plan["master"]:
            lease = Lease(plan["master"], plan["token"], plan["lease_s"], self._loop)
            watch(lease.check_master)
            return Heartbeat(ReportUrl(lease.url), plan["token"], lease.handle_reply, lease.check_master, plan["heartbeat_s"])
        contact = Contact(plan["lease_s"])

        def check() -> None:
            if contact.is_lost():
                self._loop.post(m.MasterLost(f"neither the control plane nor the cluster answered for {plan['lease_s']:g} s"))

        watch(lambda: check() if contact.is_overdue() else None)
        return Heartbeat(ReportUrl(plan["report_url"]), plan["token"], lambda _: contact.answered(), check, plan["heartbeat_s"])

    def _report(self, heartbeat: Heartbeat, phase: str) -> None:
        self._member = self._member._replace(phase=phase)
        heartbeat.report(protocol.report(self._plan, [self._member]))

    def _look_for_offers(self, heartbeat: Heartbeat) -> None:
        if self._is_open and self._offers is not None and self._offers.look():
            self._member = self._member._replace(endpoints=self._offers.offers)
            self._report(heartbeat, self._member.phase)

    def _open(self) -> None:
        if not self._is_open:
            records.write(self._opened_file, {"at": time.time()}, is_durable=False)
            self._is_open = True
        if not self._shows and shown.is_asked_for(self._plan):
            self._shows = True
            shown.start(self._plan)

    def _lose(self, why: str) -> None:
        if not self._lost:
            self._lost = why
            sys.stderr.write(f"user code has to end: {why}\n")

    def _finish(self, heartbeat: Heartbeat) -> None:
        """Keeps the outputs, and tells the master; the control plane reads the rest in the pod's status."""
        reason, message = (protocol.LEASE_LOST, self._lost) if self._lost else ("", "")
        outputs: dict[str, str] = {}
        if self._is_open and self._plan["outputs"]:
            from tuttilab.sidecar.artifacts import outputs as kept_outputs

            try:
                outputs, why, sentence = kept_outputs.keep(self._plan)
                reason, message = (reason or why), (message or sentence)
            except Exception as error:  # a lost output is always reported
                reason, message = reason or protocol.OUTPUT_LOST, message or f"outputs: {type(error).__name__}: {error}"
        leave_message(self._plan, {"reason": reason, "message": message, "outputs": outputs})
        if self._plan["master"]:
            self._report(heartbeat, protocol.ENDED)
            heartbeat.finish(LAST_REPORT_TIMEOUT_S)
