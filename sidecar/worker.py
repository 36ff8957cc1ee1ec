"""The sidecar of one member: performs the instructions of `WorkerMachine` and feeds it what happens in the pod."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuttilab.sidecar import accounts, context, processes, protocol, records
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.event_loop import EventLoop
from tuttilab.sidecar.heartbeat import Heartbeat, ReportUrl
from tuttilab.sidecar.log import PodLog, Pump
from tuttilab.sidecar.protocol import Member
from tuttilab.sidecar.worker_machine import WorkerMachine

if TYPE_CHECKING:
    from tuttilab.sidecar.usage import Usage
    from tuttilab.sidecar.wish import Wish

OFFERS_CHECK_S = 0.2
MEMORY_CHECK_S = 0.3
KILL_INTERVAL_S = 0.02
LIST_INTERVAL_S = 1.0
"""Between two lists of the pod's processes, which the cluster kills by that list when sidecar and keeper are both dead."""
OUTPUT_TIMEOUT_S = 2.0
"""For reading the last output of processes that have ended."""
LAST_REPORT_TIMEOUT_S = 1.0


class Worker:
    def __init__(self, plan: dict[str, Any], pod_dir: str, uid: str) -> None:
        self._plan = plan
        self._dir = pod_dir
        self._owner = accounts.read(plan.get("owner_account"))
        """As whom the main command runs, if not as this process."""
        self._loop = EventLoop()
        self._log = PodLog(pod_dir, plan["log_bytes"])
        self._pump = Pump(self._log, self._owner)
        self._machine = WorkerMachine(
            Member(plan["pod"], plan["rank"], uid),
            has_master=plan["master"] is not None,
            grace_s=plan["grace_s"],
            has_outputs=bool(plan["outputs"]),
        )
        self._main: int | None = None
        self._is_killing = False
        self._started_at: float | None = None
        self._endpoints_version: tuple[int, int] | None = None
        self._endpoints: dict[str, str] = {}
        self._wish: Wish | None = None
        self._offers: dict[str, str] = {}
        """What was told last: endpoints, and how many workers the job asks for."""
        self._seen: set[tuple[int, int | None]] = set()
        self._listed: set[tuple[int, int | None]] = set()
        self._is_over = False
        self._usage: Usage | None = None
        self._heartbeat = self._make_heartbeat()

    def _make_heartbeat(self) -> Heartbeat:
        plan = self._plan
        if plan["master"] is not None:
            from tuttilab.sidecar.lease import Lease

            lease = Lease(plan["master"], plan["token"], plan["lease_s"], self._loop)
            on_reply, on_no_answer = lease.handle_reply, lease.check_master
            report_url = ReportUrl(lease.url)
        else:
            on_reply, on_no_answer = self._on_reply, lambda: None
            report_url = ReportUrl(plan["report_url"], plan["report_url_file"])
        return Heartbeat(report_url, plan["token"], on_reply, on_no_answer, plan["heartbeat_s"])

    def _on_reply(self, reply: dict[str, Any]) -> None:
        try:
            stop = protocol.read_stop(reply)
        except ValueError as error:
            sys.stderr.write(f"unreadable answer: {error}\n")
            return
        if stop is not None:
            self._loop.post(m.StopRequested(stop.grace_s, stop.why))

    def run(self) -> int:
        """Runs until the pod has ended. Always 0: the end of the main command is in the terminal record."""
        self._loop.on_signal(signal.SIGTERM, self._on_sigterm)
        if os.path.exists(f"{self._dir}/{records.STOP}"):
            self._on_sigterm()  # a stop from before our pid was known
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        if self._plan["master"] is not None:
            self._heartbeat.start()
        self._perform(self._machine.begin())
        while not self._is_over:
            self._perform(self._machine.handle(self._loop.next_event()))
        return 0

    def _on_sigterm(self) -> None:
        order = records.read(f"{self._dir}/{records.STOP}") or {}
        self._loop.post(m.StopRequested(float(order.get("grace_s", self._plan["grace_s"])), str(order.get("why", ""))))

    def _perform(self, instructions: list[m.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case m.Report():
                    self._report()
                case m.Prepare():
                    self._prepare()
                case m.StartMain():
                    self._perform(self._machine.handle(self._start_main()))
                case m.TerminateMain():
                    if self._main is not None:
                        processes.signal_group(self._main, signal.SIGTERM)
                case m.KillAll():
                    self._is_killing = True
                    self._loop.call_every(KILL_INTERVAL_S, self._kill_all)
                    self._kill_all()
                case m.SetTimer(seconds):
                    self._loop.set_timer(seconds, m.TimerExpired())
                case m.KeepOutputs():
                    self._in_background(self._keep_outputs)
                case m.Note(sentence):
                    self._log.note(sentence)
                case m.Record(exit_code, reason):
                    self._record(exit_code, reason)
                case m.Exit():
                    self._heartbeat.finish(LAST_REPORT_TIMEOUT_S)
                    self._is_over = True

    def _in_background(self, call: Callable[[], m.Event]) -> None:
        """Posts the result as an event; the event loop handles a stop meanwhile."""
        threading.Thread(target=lambda: self._loop.post(call()), daemon=True).start()

    def _report(self) -> None:
        member = self._machine.member
        if member.phase == protocol.READY:
            records.write(f"{self._dir}/{records.READY}", {"at": time.time()}, is_durable=False)
        self._heartbeat.report(protocol.report(self._plan, [member]))

    def _prepare(self) -> None:
        if not context.needs_preparation(self._plan):
            self._loop.post(m.Prepared())
            return
        self._heartbeat.start()
        self._in_background(self._fetch)

    def _fetch(self) -> m.Event:
        try:
            with accounts.acting_as(self._owner):
                context.prepare(self._plan)
        except context.PreparationFailed as error:
            return m.NotPrepared(error.reason, str(error))
        except Exception as error:  # any failure ends the pod: it must not wait for ever
            return m.NotPrepared(protocol.INPUT_MISSING, f"{type(error).__name__}: {error}")
        return m.Prepared()

    def _start_main(self) -> m.Event:
        plan = self._plan
        try:
            with accounts.acting_as(self._owner):
                folder = context.working_directory(plan)
            self._main = processes.start(context.command_line(plan), plan["env"], folder, self._pump.output, self._owner)
        except context.PreparationFailed as error:
            return m.MainNotStarted(1, error.reason, str(error))
        except processes.NotStarted as error:
            return m.MainNotStarted(error.exit_code, error.reason, str(error))
        self._started_at = time.time()
        self._pump.start()
        started = {"pid": self._main, "start_time": records.start_time(self._main), "at": self._started_at}
        records.write(f"{self._dir}/{records.STARTED}", started, is_durable=False)
        self._heartbeat.start()
        self._loop.call_every(OFFERS_CHECK_S, self._check_offers)
        self._loop.call_every(LIST_INTERVAL_S, self._list_processes)
        if plan["memory"]:
            self._loop.call_every(MEMORY_CHECK_S, self._check_memory)
        from tuttilab.sidecar import wish
        from tuttilab.sidecar.usage import Usage  # after the start of the main command, which does not wait for it

        self._usage = Usage(self._dir, self._owner)
        self._wish = wish.of_env(plan["env"])
        return m.MainStarted()

    def _reap(self) -> None:
        ended, is_any_left = processes.reap()
        if self._main is not None and self._main in ended:
            self._loop.cancel_periodic(self._check_memory)
            self._loop.cancel_periodic(self._check_offers)
            self._check_offers()
            if self._usage is not None:
                self._usage.sample(processes.descendants(os.getpid()), is_last=True)
                self._usage = None
            self._loop.post(m.MainExited(ended[self._main]))
            self._main = None
        if self._is_killing and not is_any_left:
            self._is_killing = False
            self._loop.cancel_periodic(self._kill_all)
            if self._started_at is not None:
                self._pump.finish(OUTPUT_TIMEOUT_S)
            self._loop.post(m.AllProcessesEnded())

    def _kill_all(self) -> None:
        processes.kill(processes.descendants(os.getpid()))
        self._reap()

    def _check_memory(self) -> None:
        limit: int = self._plan["memory"]
        pids = processes.descendants(os.getpid())
        # Forked workers share pages: the exact but slow sum is computed only when the cheap one is above the limit.
        if processes.resident_bytes(pids) > limit and (used := processes.proportional_bytes(pids, self._owner)) > limit:
            self._loop.post(m.MemoryLimitExceeded(used, limit))

    def _list_processes(self) -> None:
        """Writes the list of processes that two looks in a row found: short-lived ones are left out. Measures them too."""
        pids = processes.descendants(os.getpid())
        if self._usage is not None:
            self._usage.sample(pids)
        seen: set[tuple[int, int | None]] = {(pid, records.start_time(pid)) for pid in pids}
        lasting, self._seen = seen & self._seen, seen
        if lasting != self._listed:
            self._listed = lasting
            try:
                records.write(f"{self._dir}/{records.PROCESSES}", {"processes": sorted(lasting, key=str)}, is_durable=False)
            except OSError:
                self._listed = set()  # a full disk: retried at the next look

    def _check_offers(self) -> None:
        with accounts.acting_as(self._owner):
            self._look_for_endpoints()
            if self._wish is not None:
                self._wish.look()
        offers = self._endpoints | (self._wish.offers if self._wish is not None else {})
        if offers == self._offers:
            return
        try:
            records.write(f"{self._dir}/{records.ENDPOINTS}", offers, is_durable=False)
        except OSError as error:
            sys.stderr.write(f"{records.ENDPOINTS}: {error}\n")
            return  # a full disk: written at a later look
        self._offers = offers
        self._loop.post(m.EndpointsFound(offers))

    def _look_for_endpoints(self) -> None:
        path = self._plan["env"]["TUTTILAB_ENDPOINTS"]
        try:
            stat = os.stat(path)
        except OSError:
            return
        version = (stat.st_mtime_ns, stat.st_ino)
        if version == self._endpoints_version:
            return
        try:
            self._endpoints = protocol.read_names(records.read(path))
        except ValueError:
            return  # half written: read again at the next look
        self._endpoints_version = version

    def _keep_outputs(self) -> m.Event:
        from tuttilab.sidecar.artifacts import outputs

        try:
            with accounts.acting_as(self._owner):
                return m.OutputsKept(*outputs.keep(self._plan, beside=self._dir))
        except Exception as error:  # a lost output is always reported
            return m.OutputsKept({}, protocol.OUTPUT_LOST, f"outputs: {type(error).__name__}: {error}")

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
                # A full disk: without this record the pod would count as lost, so it waits for space.
                sys.stderr.write(f"{records.END}: {error}\n")
                time.sleep(1.0)
