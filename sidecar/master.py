"""The master of a gang: serves its members on an inherited socket and performs the instructions of `MasterMachine`."""

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

from tuttilab.sidecar import master_machine, protocol, records
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.event_loop import EventLoop
from tuttilab.sidecar.heartbeat import Heartbeat, ReportUrl
from tuttilab.sidecar.lease import LONG_POLL_S

MEMBER_CHECK_S = 0.5
"""Between two checks whether the members' sidecars are alive."""
LAST_REPORT_TIMEOUT_S = 1.0


class Master:
    def __init__(self, plan: dict[str, Any], pod_dir: str, uid: str, listen: int) -> None:
        self._plan = plan
        self._dir = pod_dir
        self._loop = EventLoop()
        self._machine = master_machine.MasterMachine({member["pod"]: member["rank"] for member in plan["members"]})
        self._changed = threading.Condition()
        self._is_over = False
        self._heartbeat = Heartbeat(
            ReportUrl(plan["report_url"], plan.get("report_url_file")),
            plan["token"],
            self._on_reply,
            self.note_silence,
            plan["heartbeat_s"],
        )
        self._server = _Server(listen, self)

    def run(self) -> int:
        self._loop.on_signal(signal.SIGTERM, self._on_sigterm)
        if os.path.exists(f"{self._dir}/{records.STOP}"):
            self._on_sigterm()  # a stop from before our pid was known
        threading.Thread(target=self._server.serve_forever, name="members", daemon=True).start()
        for record in (records.READY, records.STARTED):
            records.write(f"{self._dir}/{record}", {"at": time.time()}, is_durable=False)
        self._heartbeat.start()
        self._loop.call_every(MEMBER_CHECK_S, self.check_members)
        while not self._is_over:
            self._handle(self._loop.next_event())
        return 0

    def sender(self, authorization: str) -> protocol.Sender | None:
        """The pod of this attempt that the token identifies; None for any other token."""
        scheme, _, token = authorization.partition(" ")
        return protocol.sender_of(token, self._plan["gang_key"]) if scheme == "Bearer" else None

    def handle_report(self, body: Any, sender: protocol.Sender) -> dict[str, Any]:
        """Handles a member's report; returns the present orders.

        Raises ValueError for anything but a report of this attempt, PermissionError for a report of another pod than the sender.
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
            other = f"rank {member.rank}" if member.rank != sender.rank else "another pod of that rank"
            raise PermissionError(f"rank {sender.rank} may report of itself only, not of {other}")
        self._handle(master_machine.MemberReported(member, seq))
        return self.orders(None)

    def orders(self, known: int | None) -> dict[str, Any]:
        """The orders: at once when their version is not ``known``, else when they change or after `LONG_POLL_S`."""
        with self._changed:
            if known is not None:
                self._changed.wait_for(lambda: self._machine.orders.version != known, LONG_POLL_S)
            return protocol.show_orders(self._machine.orders)

    def members_to_report(self) -> list[protocol.Member]:
        """What the control plane is told of the members."""
        return self._machine.state()

    def note_reply(self) -> None:
        """The control plane has answered. On its own machine nothing follows from that."""

    def note_silence(self) -> None:
        """A report had no answer. On the control plane's own machine nothing follows: the gang goes on without it."""

    def post_stop(self, stop: m.StopRequested) -> None:
        self._loop.post(stop)

    def _on_reply(self, reply: dict[str, Any]) -> None:
        self.note_reply()
        try:
            stop = protocol.read_stop(reply)
        except ValueError as error:
            sys.stderr.write(f"unreadable answer: {error}\n")
            return
        if stop is not None:
            self.post_stop(m.StopRequested(stop.grace_s, stop.why))

    def _on_sigterm(self) -> None:
        order = records.read(f"{self._dir}/{records.STOP}") or {}
        self._loop.post(m.StopRequested(float(order.get("grace_s", self._plan["grace_s"])), str(order.get("why", ""))))

    def check_members(self) -> None:
        """A sidecar that is no longer alive has left a terminal record, or is lost."""
        with self._changed:
            known_members = dict(self._machine.members)
        # The directories of members that joined later are siblings of ours too.
        for pod in {**{member["pod"]: None for member in self._plan["members"]}, **known_members}:
            folder = f"{os.path.dirname(self._dir)}/{pod}"
            known = known_members.get(pod)
            if known is not None and known.phase == protocol.ENDED:
                continue
            if records.is_locked(f"{folder}/{records.LOCK}"):
                continue
            end = records.read(f"{folder}/{records.END}")
            if end is not None:
                self._handle(master_machine.SidecarEnded(pod, end["exit_code"], end["reason"], end.get("outputs", {})))
            elif known is not None:  # else it has not been started yet
                self._handle(master_machine.SidecarEnded(pod))

    def _handle(self, event: master_machine.Event) -> None:
        with self._changed:  # events come from members' threads and from the main thread
            for instruction in self._machine.handle(event):
                match instruction:
                    case m.Report():
                        self._heartbeat.report(protocol.report(self._plan, self.members_to_report()))
                    case master_machine.Announce():
                        self._changed.notify_all()
                    case m.SetTimer(seconds):
                        self._loop.set_timer(seconds, m.TimerExpired())
                    case m.Note(sentence):
                        sys.stderr.write(f"{sentence}\n")
                    case m.Record(exit_code, reason):
                        end = {"exit_code": exit_code, "reason": reason, "started_at": None, "ended_at": time.time()}
                        records.write(f"{self._dir}/{records.END}", end)
                    case m.Exit():
                        threading.Thread(target=self._exit, daemon=True).start()

    def _exit(self) -> None:
        """Runs on a thread of its own: the calling one may still have to answer a member."""
        self._heartbeat.finish(LAST_REPORT_TIMEOUT_S)
        self._is_over = True
        self._loop.post(m.TimerExpired())


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
        """Silent: one line per heartbeat would flood the log."""

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
                self._reply(200, self._dispatch(master, sender, parts.query))
            except PermissionError as error:
                self._reply(403, {"detail": str(error)})
            except ValueError as error:
                self._reply(400, {"detail": str(error)})

    def _dispatch(self, master: Master, sender: protocol.Sender, query: str) -> dict[str, Any]:
        if self.command == "GET":
            return master.orders(int(parse_qs(query).get("known", ["-1"])[0]))
        size = int(self.headers.get("Content-Length", "0"))
        if not 0 < size <= protocol.LARGEST_BODY:
            raise ValueError(f"a report of {size} bytes: expected at most {protocol.LARGEST_BODY}")
        return master.handle_report(json.loads(self.rfile.read(size)), sender)

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
