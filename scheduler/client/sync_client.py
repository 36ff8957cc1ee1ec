"""The blocking client of the REST API, and `connect`, which finds the service. Import it from `tuttilab.scheduler.client`."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from tuttilab.scheduler.client.async_client import POLL_S, AsyncClient
from tuttilab.scheduler.client.quiet import THREAD, keep_quiet
from tuttilab.scheduler.client.silence import Say
from tuttilab.scheduler.client.transport import Rediscover
from tuttilab.scheduler.domain.detail_views import DetailsView, DisplaysView, ShownListView, UsageView
from tuttilab.scheduler.domain.errors import EnvironmentProblem, Unavailable
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, ProfileRequest, RunRequest, SparkRequest
from tuttilab.scheduler.domain.wire import (
    AuditView,
    ChangesView,
    ClusterView,
    DagView,
    DryRunView,
    EventView,
    IdentityView,
    JobList,
    JobView,
    LogView,
    NodeView,
    PolicyView,
    ProfileView,
    QueueView,
    ReloadView,
    ResultView,
    RunView,
    SparkEndpointView,
    SparkSessionView,
    WaitView,
)

T = TypeVar("T")

_lock = threading.Lock()
_thread: tuple[int, asyncio.AbstractEventLoop] | None = None


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all `Client`s of this process, in its own thread: a Jupyter kernel's main thread already runs a loop."""
    global _thread
    with _lock:
        if _thread is None or _thread[0] != os.getpid():
            made: Future[asyncio.AbstractEventLoop] = Future()
            if _thread is None:
                keep_quiet()
            threading.Thread(target=_run_loop, args=(made,), name=THREAD, daemon=True).start()
            _thread = (os.getpid(), made.result())
        return _thread[1]


def _run_loop(made: Future[asyncio.AbstractEventLoop]) -> None:
    loop = asyncio.new_event_loop()
    made.set_result(loop)
    loop.run_forever()


# A lock that another thread holds during a fork would stay locked in the child for ever.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Client:
    """`AsyncClient` for code that does not await: the same methods, each of which blocks. Threads may share one."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 30.0,
        rediscover: Rediscover | None = None,
        look: Rediscover | None = None,
        say: Say | None = None,
    ) -> None:
        """``look`` is ``rediscover`` that starts nothing. ``say`` is called in a thread of the client."""
        self._look = look
        self._async = AsyncClient(url, token, timeout_s=timeout_s, rediscover=rediscover, say=say)
        self._pid = os.getpid()

    @property
    def url(self) -> str:
        return self._async.url

    def token(self) -> str:
        """What the service takes from this caller now: a local one has another after each start. Starts nothing."""
        found = self._look() if self._look is not None else None
        return self._async.token if found is None else found[1]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._pid != os.getpid():
            work.close()
            raise EnvironmentProblem(
                f"This client belongs to process {self._pid}, and this is its fork {os.getpid()}; call connect() again here."
            )
        return asyncio.run_coroutine_threadsafe(work, _loop())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._start(work)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C cancels the request too, not only the wait for it.
            future.cancel()
            raise

    def close(self) -> None:
        self._run(self._async.close())

    def submit(self, request: JobRequest, *, key: str | None = None) -> JobView:
        return self._run(self._async.submit(request, key=key))

    def submit_many(self, requests: Sequence[JobRequest], keys: Sequence[str] | None = None) -> list[JobView]:
        return self._run(self._async.submit_many(requests, keys))

    def dry_run(self, request: JobRequest) -> DryRunView:
        return self._run(self._async.dry_run(request))

    def jobs(
        self,
        *,
        all: bool = False,
        state: str | None = None,
        group: str | None = None,
        owner: str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        text: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> JobList:
        page = self._async.jobs(
            all=all, state=state, group=group, owner=owner, queue=queue, kind=kind, text=text, limit=limit, cursor=cursor
        )
        return self._run(page)

    def job(self, id: str) -> JobView:
        return self._run(self._async.job(id))

    def cancel(self, id: str) -> JobView:
        return self._run(self._async.cancel(id))

    def retry(self, id: str, *, key: str | None = None) -> JobView:
        return self._run(self._async.retry(id, key=key))

    def delete(self, id: str) -> None:
        self._run(self._async.delete(id))

    def explain(self, id: str) -> WaitView | None:
        return self._run(self._async.explain(id))

    def logs(self, id: str, *, rank: int = 0, start: int = 0, limit: int = 1000, attempt: int | None = None) -> LogView:
        return self._run(self._async.logs(id, rank=rank, start=start, limit=limit, attempt=attempt))

    def details(self, id: str) -> DetailsView:
        return self._run(self._async.details(id))

    def shown(self, id: str, *, rank: int = 0, known: int = 0) -> ShownListView:
        return self._run(self._async.shown(id, rank=rank, known=known))

    def usage(self, id: str, *, attempt: int | None = None, first: int = 0, limit: int = 16) -> UsageView:
        return self._run(self._async.usage(id, attempt=attempt, first=first, limit=limit))

    def displays(self, id: str, *, attempt: int, rank: int = 0, start: int = 0) -> DisplaysView:
        return self._run(self._async.displays(id, attempt=attempt, rank=rank, start=start))

    def definition(self, id: str) -> JobRequest:
        """The request that submits the same job again. Raises Forbidden for another's job."""
        return self._run(self._async.definition(id))

    def manifest(self, id: str) -> str:
        """The job as a manifest of kind Job, which submits it again."""
        from tuttilab.scheduler.client import manifests  # YAML is slow to import, and most kernels never write one.

        return manifests.write(self.definition(id))

    def events(self, id: str) -> list[EventView]:
        return self._run(self._async.events(id))

    def result(self, id: str, *, rank: int = 0) -> ResultView:
        return self._run(self._async.result(id, rank=rank))

    def wait(self, id: str, *, timeout_s: float | None = None, on_change: Callable[[JobView], None] | None = None) -> JobView:
        """As of `AsyncClient`; ``on_change`` is called in the thread that waits, where a notebook's output belongs."""
        if on_change is None:
            return self._run(self._async.wait(id, timeout_s=timeout_s))
        seen: queue.SimpleQueue[JobView | None] = queue.SimpleQueue()
        future = self._start(self._async.wait(id, timeout_s=timeout_s, on_change=seen.put))
        future.add_done_callback(lambda _: seen.put(None))
        try:
            while (view := seen.get()) is not None:
                on_change(view)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def put_artifact(self, source: bytes | Path) -> str:
        return self._run(self._async.put_artifact(source))

    def get_artifact(self, id: str, to: Path | None = None) -> bytes:
        return self._run(self._async.get_artifact(id, to))

    def quota(self) -> list[QueueView]:
        return self._run(self._async.quota())

    def queues(self) -> list[QueueView]:
        return self._run(self._async.queues())

    def clusters(self) -> list[ClusterView]:
        return self._run(self._async.clusters())

    def nodes(self) -> list[NodeView]:
        return self._run(self._async.nodes())

    def me(self) -> IdentityView:
        return self._run(self._async.me())

    def reload(self, *, dry_run: bool = False, accept: Sequence[str] = ()) -> ReloadView:
        return self._run(self._async.reload(dry_run=dry_run, accept=accept))

    def policy(self) -> PolicyView:
        return self._run(self._async.policy())

    def set_policy(self, values: Mapping[str, float | str | bool], why: str = "") -> PolicyView:
        return self._run(self._async.set_policy(values, why))

    def check_ready(self) -> None:
        self._run(self._async.check_ready())

    def shutdown(self, now: bool) -> None:
        self._run(self._async.shutdown(now))

    def changes(self, since: int | None, wait_s: float = POLL_S, key: str | None = None) -> ChangesView:
        return self._run(self._async.changes(since, wait_s, key))

    def audit(self, *, key: str | None = None, limit: int = 50, cursor: str | None = None) -> AuditView:
        return self._run(self._async.audit(key=key, limit=limit, cursor=cursor))

    def profiles(self) -> list[ProfileView]:
        return self._run(self._async.profiles())

    def profile(self, name: str) -> ProfileView:
        return self._run(self._async.profile(name))

    def apply_profile(self, request: ProfileRequest) -> ProfileView:
        return self._run(self._async.apply_profile(request))

    def delete_profile(self, name: str) -> None:
        self._run(self._async.delete_profile(name))

    def dags(self) -> list[DagView]:
        return self._run(self._async.dags())

    def dag_definition(self, name: str) -> DagRequest:
        """An applied DAG as it was applied. Raises Forbidden for another's."""
        return self._run(self._async.dag_definition(name))

    def apply_dag(self, request: DagRequest) -> DagView:
        return self._run(self._async.apply_dag(request))

    def run_dag(self, request: RunRequest, *, key: str | None = None) -> RunView:
        return self._run(self._async.run_dag(request, key=key))

    def runs(self, limit: int = 100) -> list[RunView]:
        return self._run(self._async.runs(limit))

    def run(self, id: str) -> RunView:
        return self._run(self._async.run(id))

    def cancel_run(self, id: str) -> RunView:
        return self._run(self._async.cancel_run(id))

    def retry_run(self, id: str, *, key: str | None = None) -> RunView:
        return self._run(self._async.retry_run(id, key=key))

    def wait_run(self, id: str, *, on_change: Callable[[RunView], None] | None = None) -> RunView:
        return self._run(self._async.wait_run(id, on_change=on_change))

    def spark_sessions(self) -> list[SparkSessionView]:
        return self._run(self._async.spark_sessions())

    def spark_start(self, request: SparkRequest) -> SparkSessionView:
        return self._run(self._async.spark_start(request))

    def spark_endpoint(self, name: str) -> SparkEndpointView:
        return self._run(self._async.spark_endpoint(name))

    def spark_stop(self, name: str) -> None:
        self._run(self._async.spark_stop(name))


# --- finding the service -----------------------------------------------------------------------------------------------


def read_dags(path: Path) -> list[DagRequest]:
    """The DAGs of a manifest. Raises BadInput with file, document and key."""
    from tuttilab.scheduler.client import manifests  # YAML is slow to import, and most kernels never read one.

    return manifests.read(path, DagRequest)


def connect(*, start: bool = True, say: Say | None = None) -> Client:
    """A client of the service that this process belongs to.

    With TUTTILAB_URL that service, with the token of TUTTILAB_TOKEN or, in a hub's server, the hub's own; else the control plane of
    this machine, which is started when there is none and ``start`` is true. ``say`` is told when an answer takes long, in another
    thread.
    """
    url, token, rediscover, look = _locate(start, start)
    return Client(url, token, rediscover=rediscover, look=look, say=say)


def connect_async(*, start: bool = True, restart: bool = True, say: Say | None = None) -> AsyncClient:
    """As `connect`, for asyncio code; call it in a thread, because it blocks while a service starts.

    Without ``restart`` the client does not start a local service again that ended later, say by `tuttilab down`; it finds the
    service again after something else has started it.
    """
    url, token, rediscover, _ = _locate(start, start and restart)
    return AsyncClient(url, token, rediscover=rediscover, say=say)


def results_here(job: JobView, rank: int = 0) -> Path | None:
    """RESULT_DIR of a rank of the job's newest attempt, if its pod ran on this machine and the folder exists, else None."""
    from tuttilab.scheduler.runtime import discovery

    attempt = job.attempts[-1] if job.attempts else None
    pod = next((pod for pod in attempt.pods if pod.rank == rank), None) if attempt else None
    if attempt is None or pod is None:
        return None
    state = discovery.state_dir(os.environ)
    folder = discovery.results_folder(state, attempt.cluster, job.id, attempt.number, pod.name)
    return folder if folder.is_dir() else None


def _locate(start: bool, restart: bool) -> tuple[str, str, Rediscover | None, Rediscover | None]:
    environ = dict(os.environ)
    url = environ.get("TUTTILAB_URL")
    if url:
        token = environ.get("TUTTILAB_TOKEN") or environ.get("JUPYTERHUB_API_TOKEN")
        if not token:
            raise EnvironmentProblem(
                f"TUTTILAB_URL is set ({url}) and TUTTILAB_TOKEN is not; set both, or neither for a local service."
            )
        return url, token, None, None
    # Only here, because a kernel of a site never needs it.
    from tuttilab.scheduler.runtime import discovery

    def find(may_start: bool) -> tuple[str, str] | None:
        if may_start:
            runtime: discovery.Runtime | None = discovery.ensure_started(environ)
        else:
            runtime = discovery.read_runtime(discovery.state_dir(environ))
        return (runtime.url, runtime.token) if runtime else None

    found = find(start)
    if found is None:
        raise Unavailable(f"No control plane runs for {discovery.state_dir(environ)}; `tuttilab up` starts one.")
    return *found, lambda: find(restart), lambda: find(False)
