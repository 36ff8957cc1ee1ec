"""The master of a gang: listens to its members on a socket it was given, performs what `gang.MasterMachine` says."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tuttilab.sidecar import gang, protocol, records
from tuttilab.sidecar import machine as m
from tuttilab.sidecar.heartbeat import Heartbeat, Listener
from tuttilab.sidecar.lease import HOLD_S
from tuttilab.sidecar.pulse import Pulse

LOOK_S = 0.5
"""Between two looks whether the members' sidecars live."""
LAST_REPORT_S = 1.0


class Master:
    def __init__(self, plan: dict[str, Any], pod_dir: str, uid: str, listen: int) -> None:
        self._plan = plan
        self._dir = pod_dir
        self._pulse = Pulse()
        self._machine = gang.MasterMachine({member["pod"]: member["rank"] for member in plan["members"]})
        self._changed = threading.Condition()
        self._is_over = False
        self._heartbeat = Heartbeat(
            Listener(plan["report_url"], plan["report_url_file"]),
            plan["token"],
            self._control_plane_said,
            period_s=plan["heartbeat_s"],
        )
        self._server = _Server(listen, self)

    def run(self) -> int:
        self._pulse.on_signal(signal.SIGTERM, self._told_by_cluster)
        if os.path.exists(f"{self._dir}/{records.STOP}"):
            self._told_by_cluster()  # before anybody could know our pid
        threading.Thread(target=self._server.serve_forever, name="members", daemon=True).start()
        for record in (records.READY, records.STARTED):
            records.write(f"{self._dir}/{record}", {"at": time.time()}, is_durable=False)
        self._heartbeat.start()
        self._pulse.every(LOOK_S, self._look_after_members)
        while not self._is_over:
            self._handle(self._pulse.next())
        return 0

    def sender(self, authorization: str) -> protocol.Sender | None:
        """The pod of this attempt whose token it is."""
        scheme, _, token = authorization.partition(" ")
        return protocol.sender_of(token, self._plan["gang_key"]) if scheme == "Bearer" else None

    def hear(self, body: Any, sender: protocol.Sender) -> dict[str, Any]:
        """A member's report; answers with the orders as they are.

        Raises ValueError for what is no report of this attempt, PermissionError for one of another pod than the sender.
        """
        if not isinstance(body, dict) or (body.get("job_id"), body.get("attempt")) != (
            self._plan["job_id"],
            self._plan["attempt"],
        ):
            raise ValueError("it is no report of this attempt")
        seq, members = body.get("seq"), body.get("members")
        if not isinstance(seq, int) or not isinstance(members, list) or len(members) != 1:
            raise ValueError("it needs a seq and one member")
        member = protocol.read_member(members[0])
        if "/" in member.pod or member.pod.startswith("."):
            raise ValueError(f"{member.pod!r:.200} is no pod's name")
        if (member.rank, member.pod) != sender:
            raise PermissionError(f"{sender.pod} may report of itself only, not of {member.pod!r:.200}, rank {member.rank}")
        self._handle(gang.MemberReported(member, seq))
        return self.orders(None)

    def orders(self, known: int | None) -> dict[str, Any]:
        """At once when they are others than version ``known``, else when they change or `HOLD_S` is over."""
        with self._changed:
            if known is not None:
                self._changed.wait_for(lambda: self._machine.orders.version != known, HOLD_S)
            return protocol.show_orders(self._machine.orders)

    def _control_plane_said(self, reply: dict[str, Any]) -> None:
        try:
            stop = protocol.read_stop(reply)
        except ValueError as error:
            sys.stderr.write(f"unreadable answer: {error}\n")
            return
        if stop is not None:
            self._pulse.post(m.StopAsked(stop.grace_s, stop.why))

    def _told_by_cluster(self) -> None:
        order = records.read(f"{self._dir}/{records.STOP}") or {}
        self._pulse.post(m.StopAsked(float(order.get("grace_s", self._plan["grace_s"])), str(order.get("why", ""))))

    def _look_after_members(self) -> None:
        """A sidecar that does not live any more has left a terminal record, or is lost."""
        with self._changed:
            known_members = dict(self._machine.members)
        # Those that joined later lie beside us as the first ones do.
        for pod in {**{member["pod"]: None for member in self._plan["members"]}, **known_members}:
            folder = f"{os.path.dirname(self._dir)}/{pod}"
            known = known_members.get(pod)
            if known is not None and known.phase == protocol.ENDED:
                continue
            if records.is_locked(f"{folder}/{records.LOCK}"):
                continue
            end = records.read(f"{folder}/{records.END}")
            if end is not None:
                self._handle(gang.MemberGone(pod, end["exit_code"], end["reason"], end.get("outputs", {})))
            elif known is not None:  # else it was not made yet
                self._handle(gang.MemberGone(pod))

    def _handle(self, event: gang.Event) -> None:
        with self._changed:  # members' threads and the main thread take turns
            for instruction in self._machine.handle(event):
                match instruction:
                    case m.Report():
                        self._heartbeat.report(protocol.report(self._plan, self._machine.state()))
                    case gang.Announce():
                        self._changed.notify_all()
                    case m.Arm(seconds):
                        self._pulse.arm(seconds, m.TimeOver())
                    case m.Note(sentence):
                        sys.stderr.write(f"{sentence}\n")
                    case m.Record(exit_code, reason):
                        end = {"exit_code": exit_code, "reason": reason, "started_at": None, "ended_at": time.time()}
                        records.write(f"{self._dir}/{records.END}", end)
                    case m.Exit():
                        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        """Not by the thread that answers a member, for its answer must still go out."""
        self._heartbeat.finish(LAST_REPORT_S)
        self._is_over = True
        self._pulse.post(m.TimeOver())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listen: int, master: Master) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=listen)
        self.master = master


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30.0

    def do_POST(self) -> None:
        self._answer(protocol.REPORT_PATH)

    def do_GET(self) -> None:
        self._answer(protocol.ORDERS_PATH)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each heartbeat would drown what matters."""

    def _answer(self, allowed_path: str) -> None:
        master = self.server.master
        parts = urlsplit(self.path)
        sender = master.sender(self.headers.get("Authorization", ""))
        if sender is None:
            self._reply(401, {})
        elif parts.path != allowed_path:
            self._reply(404, {})
        else:
            try:
                self._reply(200, self._ask(master, sender, parts.query))
            except PermissionError as error:
                self._reply(403, {"detail": str(error)})
            except ValueError as error:
                self._reply(400, {"detail": str(error)})

    def _ask(self, master: Master, sender: protocol.Sender, query: str) -> dict[str, Any]:
        if self.command == "GET":
            return master.orders(int(parse_qs(query).get("known", ["-1"])[0]))
        size = int(self.headers.get("Content-Length", "0"))
        if not 0 < size <= protocol.LARGEST_BODY:
            raise ValueError(f"a report of {size} bytes: expected at most {protocol.LARGEST_BODY}")
        return master.hear(json.loads(self.rfile.read(size)), sender)

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
