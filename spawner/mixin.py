"""The base of both spawners: traits of the control plane, and JupyterHub's hooks around the start and the end of a server.

The order is always: admission of the job, then the start of the server; the server's end, then the end of the job. `poll` renews
the job's lease.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

from jupyterhub.spawner import Spawner
from jupyterhub.utils import maybe_future
from traitlets import Float, Unicode, default

from tuttilab.scheduler.domain.errors import BadInput, TuttiError
from tuttilab.scheduler.domain.model import NOTEBOOK_VARIABLE
from tuttilab.scheduler.domain.requests import NotebookRequest
from tuttilab.scheduler.domain.wire import NotebookView
from tuttilab.spawner import options
from tuttilab.spawner.driver_ports import DRIVER_PORTS_VARIABLE
from tuttilab.spawner.notebook_jobs import NotebookJobs, refusal
from tuttilab.spawner.pods import idle_arguments

SERVER_SCOPES = ("users:activity!user", "access:servers!server")
"""The scopes that the hub gives a server's token by default."""
_IS_POLLING: Final[ContextVar[bool]] = ContextVar("is_polling", default=False)
"""A spawner's `poll` may stop what has ended by itself; then it is `poll` that reports the end."""


class NotebookJobMixin(Spawner):  # type: ignore[misc]  # JupyterHub has no types
    """Must precede the spawner class in the order of bases. ``Any``: values from JupyterHub."""

    control_url = Unicode(config=True, help="URL of the control plane, as the hub reaches it. Default: TUTTILAB_URL.")
    control_token = Unicode(config=True, help="The token of the hub's service `tuttilab`. Default: TUTTILAB_HUB_TOKEN.")
    control_url_for_servers = Unicode(config=True, help="URL of the control plane, as servers reach it. Default: control_url.")
    service_name = Unicode("tuttilab", config=True, help="The name under which the hub knows the control plane.")
    cluster = Unicode(None, allow_none=True, config=True, help="The control plane's name of the cluster where servers run.")
    patience_s = Float(300.0, min=0.0, config=True, help="How long a user waits for room before the spawn is refused, in seconds.")
    starting_s = Float(120.0, min=1.0, config=True, help="How long a server may take to start once it has room, in seconds.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._job_id = ""
        self._admitted: NotebookView | None = None
        self._is_changing = False
        """True during `start` and `stop`: `poll` then neither renews nor ends the job."""
        self._failure: tuple[int, str] | None = None
        """Exit code and sentence of a server that did not start, or ended by itself, where the spawner knows why."""
        self._driver_ports: tuple[int, ...] = ()
        """Of the server that starts or runs; what the control plane chose at its admission."""
        self._messages: list[str] = []
        self._message_added = asyncio.Event()

    @default("control_url")
    def _control_url(self) -> str:
        return os.environ.get("TUTTILAB_URL", "")

    @default("control_token")
    def _control_token(self) -> str:
        return os.environ.get("TUTTILAB_HUB_TOKEN", "")

    @default("start_timeout")
    def _start_timeout(self) -> int:
        return round(self.patience_s + self.starting_s)

    @default("server_token_scopes")
    def _server_token_scopes(self) -> list[str]:
        return [*SERVER_SCOPES, f"access:services!service={self.service_name}"]

    def _notebook_jobs(self) -> NotebookJobs:
        return NotebookJobs(self.control_url, self.control_token)

    def _groups(self) -> tuple[str, ...]:
        return tuple(sorted(group.name for group in self.user.groups))

    # --- what the user chooses -----------------------------------------------------------------------------------------

    async def get_options_form(self) -> str:
        try:
            return options.form(await self._notebook_jobs().profiles(self.user.name, self._groups()))
        except TuttiError as error:
            return options.notice(refusal(error).message)

    def run_options_from_form(self, form_data: Mapping[str, list[str]]) -> dict[str, str]:
        return options.from_form(form_data)

    async def _run_apply_user_options(self, user_options: Mapping[str, object]) -> None:
        try:
            options.checked(user_options)
        except BadInput as error:
            raise refusal(error) from error

    # --- the life of a server ------------------------------------------------------------------------------------------

    async def start(self) -> Any:
        self._is_changing = True
        self._messages, self._admitted, self._failure, self._driver_ports = [], None, None, ()
        try:
            view = await self._notebook_jobs().admit(self._request(), self.patience_s, self._add_message)
            self._job_id, self._admitted, self._driver_ports = view.job.id, view, view.driver_ports
            self._add_message(f"Room on {view.node} of cluster {view.job.cluster}; the server starts")
            where = await maybe_future(super().start())
            # If the start fails, the hub calls `poll`, and `stop` if something is left; both end the job.
            await self._notebook_jobs().renew(self._job_id)
            return where
        finally:
            self._is_changing = False

    def _request(self) -> NotebookRequest:
        chosen = options.checked(self.user_options)
        return NotebookRequest(
            owner=self.user.name,
            groups=self._groups(),
            server=self.name,
            profile=chosen.get("profile"),
            image=chosen.get("image"),
            cluster=self.cluster,
            run_as=chosen.get("run_as"),
            queue=chosen.get("queue"),
            driver_ports=self._driver_ports,
        )

    async def stop(self, now: bool = False) -> None:
        was_changing, self._is_changing = self._is_changing, True
        try:
            await maybe_future(super().stop(now=now))
        finally:
            self._is_changing = was_changing
        if not was_changing and not _IS_POLLING.get():
            await self._end(0, "stopped on the hub")

    async def poll(self) -> int | None:
        was_polling = _IS_POLLING.set(True)
        try:
            status: int | None = await maybe_future(super().poll())
        finally:
            _IS_POLLING.reset(was_polling)
        if self._is_changing or not self._job_id:
            return status
        if status is not None:
            await self._end(*self._told_end(status))
            return status
        if self._failure is not None:
            return status  # it did not start: the hub stops it next
        renewal = await self._notebook_jobs().renew(self._job_id, self._request())
        if renewal.job_id != self._job_id:
            self._job_id = renewal.job_id
            # The hub saves a server's state at its start and its end; a restart of the hub would lose the new id.
            self.orm_spawner.state = self.get_state()
            self.db.commit()
        if not renewal.is_wanted:
            self.log.info("Server %s is stopped: its job %s was cancelled", self._log_name, self._job_id)
            await self.stop()
            return 0
        return status

    def _told_end(self, exit_code: int) -> tuple[int, str]:
        """Exit code and sentence of a server that ended by itself; the sentence is empty where nothing is known."""
        return exit_code, ""

    async def _end(self, exit_code: int, reason: str) -> None:
        job_id, self._job_id, self._admitted = self._job_id, "", None
        if job_id:
            await self._notebook_jobs().end(job_id, *(self._failure or (exit_code, reason)))

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return {**state, "tutti_job": self._job_id, "tutti_driver_ports": list(self._driver_ports)} if self._job_id else state

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._job_id = state.get("tutti_job", "")
        self._driver_ports = tuple(state.get("tutti_driver_ports", ()))

    # --- what the server gets ------------------------------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """The server authenticates at the control plane with its own hub token, so it gets no other."""
        env: dict[str, str] = super().get_env()
        view = self._admitted
        own = {NOTEBOOK_VARIABLE: view.job.id} if view is not None and view.profile.preemptible else {}
        ports = {DRIVER_PORTS_VARIABLE: ",".join(map(str, view.driver_ports))} if view is not None and view.driver_ports else {}
        return {**env, "TUTTILAB_URL": self.control_url_for_servers or self.control_url, **own, **ports}

    def get_args(self) -> list[str]:
        args: list[str] = super().get_args()
        return [*args, *(idle_arguments(self._admitted.profile) if self._admitted is not None else [])]

    # --- the progress page ---------------------------------------------------------------------------------------------

    def _add_message(self, text: str) -> None:
        if self._messages[-1:] != [text]:
            self._messages.append(text)
            self._message_added.set()
            self._message_added = asyncio.Event()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yields the place in the queue as it changes, then the progress of the underlying spawner."""
        shown = 0
        while self._admitted is None or shown < len(self._messages):
            for text in self._messages[shown:]:
                shown += 1
                yield {"progress": 10, "message": text}
            if self._admitted is None:
                await self._message_added.wait()
        async for event in super().progress():
            yield event
