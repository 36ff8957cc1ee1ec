"""The sidecar of one member: performs what `machine.WorkerMachine` says, and tells it what happens in the pod."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tuttilab.sidecar import context, processes, protocol, records
from tuttilab.sidecar import machine as m
from tuttilab.sidecar.heartbeat import Heartbeat, Listener
from tuttilab.sidecar.log import PodLog, Pump
from tuttilab.sidecar.machine import WorkerMachine
from tuttilab.sidecar.protocol import Member
from tuttilab.sidecar.pulse import Pulse

ENDPOINTS_S = 0.2
MEMORY_S = 0.3
CLEAR_S = 0.02
LIST_S = 1.0
"""Between two looks at what runs in the pod, for whoever has to end it when neither we nor the keeper are there any more."""
OUTPUT_S = 2.0
"""For the last output of processes that are gone."""
LAST_REPORT_S = 1.0


class Worker:
    def __init__(self, plan: dict[str, Any], pod_dir: str, uid: str) -> None:
        self._plan = plan
        self._dir = pod_dir
        self._pulse = Pulse()
        self._log = PodLog(pod_dir, plan["log_bytes"])
        self._pump = Pump(self._log)
        self._machine = WorkerMachine(
            Member(plan["pod"], plan["rank"], uid),
            has_master=plan["master"] is not None,
            grace_s=plan["grace_s"],
            has_outputs=bool(plan["outputs"]),
        )
        self._main: int | None = None
        self._is_clearing = False
        self._started_at: float | None = None
        self._offered: tuple[int, int] | None = None
        self._seen: set[tuple[int, int | None]] = set()
        self._listed: set[tuple[int, int | None]] = set()
        self._is_over = False
        self._heartbeat = self._make_heartbeat()

    def _make_heartbeat(self) -> Heartbeat:
        plan = self._plan
        if plan["master"] is not None:
            from tuttilab.sidecar.lease import Lease

            lease = Lease(plan["master"], plan["token"], plan["lease_s"], self._pulse)
            heard, silent = lease.heard, lease.check
            listener = Listener(lease.url)
        else:
            heard, silent = self._control_plane_said, lambda: None
            listener = Listener(plan["report_url"], plan["report_url_file"])
        return Heartbeat(listener, plan["token"], heard, silent, plan["heartbeat_s"])

    def _control_plane_said(self, reply: dict[str, Any]) -> None:
        try:
            stop = protocol.read_stop(reply)
        except ValueError as error:
            sys.stderr.write(f"unreadable answer: {error}\n")
            return
        if stop is not None:
            self._pulse.post(m.StopAsked(stop.grace_s, stop.why))

    def run(self) -> int:
        """Until the pod has ended; 0, for how the main command ended is in the terminal record."""
        self._pulse.on_signal(signal.SIGTERM, self._told_by_cluster)
        if os.path.exists(f"{self._dir}/{records.STOP}"):
            self._told_by_cluster()  # before anybody could know our pid
        self._pulse.on_signal(signal.SIGCHLD, self._reap)
        if self._plan["master"] is not None:
            self._heartbeat.start()
        self._perform(self._machine.begin())
        while not self._is_over:
            self._perform(self._machine.handle(self._pulse.next()))
        return 0

    def _told_by_cluster(self) -> None:
        order = records.read(f"{self._dir}/{records.STOP}") or {}
        self._pulse.post(m.StopAsked(float(order.get("grace_s", self._plan["grace_s"])), str(order.get("why", ""))))

    def _perform(self, instructions: list[m.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case m.Report():
                    self._report()
                case m.Prepare():
                    self._prepare()
                case m.StartMain():
                    self._perform(self._machine.handle(self._start_main()))
                case m.AskMain():
                    if self._main is not None:
                        processes.signal_group(self._main, signal.SIGTERM)
                case m.KillAll():
                    self._is_clearing = True
                    self._pulse.every(CLEAR_S, self._clear)
                    self._clear()
                case m.Arm(seconds):
                    self._pulse.arm(seconds, m.TimeOver())
                case m.KeepOutputs():
                    self._in_background(self._keep_outputs)
                case m.Note(sentence):
                    self._log.note(sentence)
                case m.Record(exit_code, reason):
                    self._record(exit_code, reason)
                case m.Exit():
                    self._heartbeat.finish(LAST_REPORT_S)
                    self._is_over = True

    def _in_background(self, call: Callable[[], m.Event]) -> None:
        """The answer comes as an event; a stop is heard meanwhile."""
        threading.Thread(target=lambda: self._pulse.post(call()), daemon=True).start()

    def _report(self) -> None:
        member = self._machine.member
        if member.phase == protocol.READY:
            records.write(f"{self._dir}/{records.READY}", {"at": time.time()}, is_durable=False)
        self._heartbeat.report(protocol.report(self._plan, [member]))

    def _prepare(self) -> None:
        if not context.is_needed(self._plan):
            self._pulse.post(m.Prepared())
            return
        self._heartbeat.start()
        self._in_background(self._fetch)

    def _fetch(self) -> m.Event:
        try:
            context.prepare(self._plan)
        except context.Unprepared as error:
            return m.NotPrepared(error.reason, str(error))
        except Exception as error:  # whatever it is, the pod must not wait for ever
            return m.NotPrepared(protocol.INPUT_MISSING, f"{type(error).__name__}: {error}")
        return m.Prepared()

    def _start_main(self) -> m.Event:
        plan = self._plan
        try:
            folder = context.working_directory(plan)
            self._main = processes.start(context.command_line(plan), plan["env"], folder, self._pump.output)
        except context.Unprepared as error:
            return m.MainRefused(1, error.reason, str(error))
        except processes.NotStarted as error:
            return m.MainRefused(error.exit_code, error.reason, str(error))
        self._started_at = time.time()
        self._pump.start()
        started = {"pid": self._main, "start_time": records.start_time(self._main), "at": self._started_at}
        records.write(f"{self._dir}/{records.STARTED}", started, is_durable=False)
        self._heartbeat.start()
        self._pulse.every(ENDPOINTS_S, self._look_for_endpoints)
        self._pulse.every(LIST_S, self._list_processes)
        if plan["memory"]:
            self._pulse.every(MEMORY_S, self._weigh)
        return m.MainStarted()

    def _reap(self) -> None:
        ended, is_any_left = processes.reap()
        if self._main is not None and self._main in ended:
            self._pulse.no_more(self._weigh)
            self._pulse.no_more(self._look_for_endpoints)
            self._look_for_endpoints()
            self._pulse.post(m.MainExited(ended[self._main]))
            self._main = None
        if self._is_clearing and not is_any_left:
            self._is_clearing = False
            self._pulse.no_more(self._clear)
            if self._started_at is not None:
                self._pump.finish(OUTPUT_S)
            self._pulse.post(m.Cleared())

    def _clear(self) -> None:
        processes.kill(processes.descendants(os.getpid()))
        self._reap()

    def _weigh(self) -> None:
        limit: int = self._plan["memory"]
        pids = processes.descendants(os.getpid())
        # Forked workers share pages: only a sum that is too large is worth the exact answer.
        if processes.resident(pids) > limit and (used := processes.proportional(pids)) > limit:
            self._pulse.post(m.MemoryPassed(used, limit))

    def _list_processes(self) -> None:
        """Those of two looks in a row: what comes and goes is not worth a write."""
        seen: set[tuple[int, int | None]] = {(pid, records.start_time(pid)) for pid in processes.descendants(os.getpid())}
        lasting, self._seen = seen & self._seen, seen
        if lasting != self._listed:
            self._listed = lasting
            try:
                records.write(f"{self._dir}/{records.PROCESSES}", {"processes": sorted(lasting, key=str)}, is_durable=False)
            except OSError:
                self._listed = set()  # a full disk: tried again at the next look

    def _look_for_endpoints(self) -> None:
        path = self._plan["env"]["TUTTILAB_ENDPOINTS"]
        try:
            stat = os.stat(path)
        except OSError:
            return
        if (stat.st_mtime_ns, stat.st_ino) == self._offered:
            return
        try:
            endpoints = protocol.read_names(records.read(path))
        except ValueError:
            return  # half written: the next look sees more
        self._offered = (stat.st_mtime_ns, stat.st_ino)
        records.write(f"{self._dir}/{records.ENDPOINTS}", endpoints, is_durable=False)
        self._pulse.post(m.Offered(endpoints))

    def _keep_outputs(self) -> m.Event:
        from tuttilab.sidecar import drain

        try:
            return m.Kept(*drain.keep(self._plan))
        except Exception as error:  # an output that is lost is told, never silently
            return m.Kept({}, protocol.OUTPUT_LOST, f"outputs: {type(error).__name__}: {error}")

    def _record(self, exit_code: int, reason: str) -> None:
        self._log.close()
        end = {
            "exit_code": exit_code,
            "reason": reason,
            "outputs": self._machine.member.outputs,
            "started_at": self._started_at,
            "ended_at": time.time(),
        }
        while True:
            try:
                records.write(f"{self._dir}/{records.END}", end)
                return
            except OSError as error:
                # A full disk: without this record the pod would count as lost, so its end waits for space.
                sys.stderr.write(f"{records.END}: {error}\n")
                time.sleep(1.0)
