"""The process of the control plane: `python -m tuttilab.scheduler.serve`. Lock, log, store, clusters, service, API, and the end.

It says that it is ready, or in one sentence why it is not, on the pipe that TUTTILAB_NOTIFY_FD names (see `discovery`). What it is
told to do is in the configuration; the token is made here and only ever written to files of mode 0600.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import logging.handlers
import os
import pwd
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler import __version__, discovery
from tuttilab.scheduler.collector import collect_seldom
from tuttilab.scheduler.discovery import NOTIFY_FD, Last, Runtime
from tuttilab.scheduler.errors import EnvironmentProblem, StaleEpoch, StoreError, TuttiError, Unavailable
from tuttilab.scheduler.processes import this_process

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tuttilab.scheduler.clusters.base import Cluster
    from tuttilab.scheduler.config import ClusterConfig, Config, Limits
    from tuttilab.scheduler.ending import Ending
    from tuttilab.scheduler.service import Service
    from tuttilab.scheduler.store.leading import Candidate
    from tuttilab.scheduler.store.sql import SqlStore

LOG_BYTES: Final = 5 * 2**20
LOG_FILES: Final = 3
SETTLE_S: Final = 20
"""So long a replica waits for a leader before it says that it is ready; later callers are told to try again."""
LOOK_S: Final = 2.0
"""Between two looks at who leads the file."""
SWITCH_S: Final = 0.0005
"""So long a thread that waits for the interpreter lets another compute. At Python's 5 ms every request that comes during a cycle of
the scheduler would lose that much at each change between the loop and the store's threads."""
DRAIN_REQUESTS_S: Final = 2
"""How long requests under way may take when the process ends; long polls are cut off then."""
# Run as a program, this module would call itself __main__.
log = logging.getLogger("tuttilab.scheduler.serve")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tuttilab.scheduler.serve", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--config", type=Path, help="tuttilab.yaml; the built-in configuration without it")
    return serve(parser.parse_args(arguments).config, os.environ)


def serve(config_path: Path | None, environ: Mapping[str, str], *, in_foreground: bool = False) -> int:
    """Run until SIGTERM, `tuttilab down` or a long time without work; answers the exit code. Raises the error of a failed start."""
    collect_seldom()
    notify = _Notify(environ)
    state = discovery.state_dir(environ)
    try:
        with _named(state):
            discovery.prepare(state)
            with _only_one(state), _logging(state, in_foreground):
                try:
                    with _named(state):
                        return asyncio.run(_run(config_path.absolute() if config_path else None, state, environ, notify))
                except TuttiError as error:
                    if not in_foreground:
                        log.error("not started: %s", error)
                    raise
    except TuttiError as error:
        notify.failed(error)
        if notify.is_heard:
            return error.exit_code
        raise


@contextlib.contextmanager
def _named(state: Path) -> Iterator[None]:
    """What the disk refuses is one sentence; its log may be what it refuses."""
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            f"{error.filename or state}: {error.strerror or error}; `tuttilab doctor` checks the state folder and its disk."
        ) from error


class _Notify:
    """The pipe to whoever started us; says one thing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        number = environ.get(NOTIFY_FD, "")
        self._fd = int(number) if number.isdecimal() else None
        self.is_heard = self._fd is not None
        if self._fd is not None:
            # Pods must not inherit it: the starter waits for its last holder.
            os.set_inheritable(self._fd, False)
            os.environ.pop(NOTIFY_FD, None)

    def ready(self) -> None:
        self._say({"ready": True})

    def failed(self, error: TuttiError) -> None:
        self._say({"type": error.type, "message": str(error)[:1500]})

    def _say(self, notice: Mapping[str, object]) -> None:
        if self._fd is None:
            return
        # Whoever started us may be gone.
        with contextlib.suppress(OSError):
            os.write(self._fd, json.dumps(notice).encode())
            os.close(self._fd)
        self._fd = None


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            # Others hold it for an instant to see whether somebody does.
            stack.enter_context(discovery.locked(state / "control.lock", 1.0))
        except Unavailable:
            running = discovery.find(state).runtime
            who = f"pid {running.pid}, {running.url}" if running else "it is starting or ending"
            raise EnvironmentProblem(
                f"A control plane already runs in {state} ({who}); `tuttilab down` ends it, "
                "and TUTTILAB_STATE_DIR names another folder."
            ) from None
        yield


@contextlib.contextmanager
def _logging(state: Path, in_foreground: bool) -> Iterator[None]:
    path = discovery.log_file(state)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handlers: list[logging.Handler] = [logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)]
    if in_foreground:
        handlers.append(logging.StreamHandler())
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Their lines about connections, plugins and their own start say nothing that ours do not.
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            # On a full disk the last lines are lost; why we end is not.
            with contextlib.suppress(OSError):
                handler.close()


async def _run(config_path: Path | None, state: Path, environ: Mapping[str, str], notify: _Notify) -> int:
    from tuttilab.scheduler.config import POSTGRES, load_config
    from tuttilab.scheduler.ending import Ending
    from tuttilab.scheduler.service import Service
    from tuttilab.scheduler.store.sql import SqlStore

    sys.setswitchinterval(SWITCH_S)
    digest = discovery.config_digest(config_path)
    config = load_config(config_path, state, environ)
    log.info("tuttilab %s starts in %s with %s", __version__, state, config_path or "the built-in configuration")
    with contextlib.closing(listener(config.listen.host, config.listen.port)) as bound:
        host, port = bound.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if config.store.url.startswith(POSTGRES):
            return await _run_replica(bound, _runtime(url, state, config, config_path, digest), config, environ, notify)
        store = SqlStore(config.store.url, candidate=_alone(config, state))
        clusters = clusters_of(config, state, environ)
        service = Service(config, store, clusters, state_dir=state, may_act=lambda: not service.deposed.is_set())
        service.addresses = replace(service.addresses, report_url=url)
        # Before recovery, because pods that are launched or adopted by it want to report.
        discovery.write_private(discovery.url_file(state), json.dumps({"url": url}))
        ending = Ending(service, user_name())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ending.at_once, signal.Signals(number).name)
        await service.start()
        watching = asyncio.create_task(_watch_epoch(service, store), name="epoch")
        runtime = _runtime(url, state, config, config_path, digest)
        if service.deposed.is_set():
            raise StaleEpoch("Another process has opened this database and leads; end it, then start again.")
        try:
            await _serve_embedded(service, bound, ending, runtime, notify, environ)
        finally:
            _withdraw(runtime)
            watching.cancel()
            left = sum(not job.phase.is_terminal for job in service.state.jobs.values())
            await service.stop()
            discovery.write_last(state, Last(config=runtime.config, live_jobs=left))
            log.info("ended; %d live jobs go on by themselves", left)
    return 0


def _alone(config: Config, state: Path) -> Candidate:
    """Of an embedded control plane: the pods of a local cluster are known in its state folder and nowhere else."""
    from tuttilab.scheduler.store.leading import Candidate

    is_local = any(cluster.kind == "local" for cluster in config.clusters)
    digest = hashlib.sha256(os.fsencode(state.resolve())).hexdigest() if is_local else ""
    return Candidate(key_digest=digest, folder=state, above=_led_by(config, state))


def _led_by(config: Config, state: Path) -> int:
    """The newest epoch that a local cluster of ours was led with; more than ours, when the database is another one."""
    from tuttilab.scheduler.clusters import local_fence

    return max((local_fence.recorded(pods_of(one, state)) for one in config.clusters if one.kind == "local"), default=0)


def pods_of(cluster: ClusterConfig, state: Path) -> Path:
    # A folder each: two clusters must not adopt one another's pods.
    return state / "clusters" / cluster.name


async def _watch_epoch(service: Service, store: SqlStore) -> None:
    """Until another process leads, whatever became of the lock: what it decides must not meet what is decided here."""
    from tuttilab.scheduler.store import leading

    while True:
        await asyncio.sleep(LOOK_S)
        try:
            leads = (await store.leader()).epoch
        except StoreError:
            # It answers nobody now, and is asked again.
            continue
        if leads != service.state.epoch:
            service.step_down(leading.stale(service.state.epoch, leads))
            return


async def _serve_embedded(
    service: Service, bound: socket.socket, ending: Ending, runtime: Runtime, notify: _Notify, environ: Mapping[str, str]
) -> None:
    from tuttilab.scheduler.api import create_app
    from tuttilab.scheduler.api.artifact_process import ArtifactProcess
    from tuttilab.scheduler.api.artifacts import blobs_of, received
    from tuttilab.scheduler.auth import Authenticator, HubAuthenticator, LocalAuthenticator, hub_settings
    from tuttilab.scheduler.ending import Activity
    from tuttilab.scheduler.hub_servers import look_after

    operator = LocalAuthenticator(runtime.token, user_name())
    authenticator: Authenticator = operator
    beside = [asyncio.create_task(_end_when_deposed(service, ending))]
    if service.config.auth.kind == "hub":
        hub = hub_settings(service.config.auth, environ)
        authenticator = HubAuthenticator(hub, operator)
        beside.append(asyncio.create_task(look_after(service, hub, authenticator.http)))
    artifacts = ArtifactProcess(blobs_of(service.config), service.config.listen.host)
    artifacts.acknowledged_by(partial(received, service))
    again = _reading_again(service, runtime, environ)
    activity = Activity(create_app(service, authenticator, shut_down=ending.after_jobs, reload=again, artifacts=artifacts))
    if service.config.auth.kind != "hub":
        ending.when_idle(activity, service.config.limits.idle_stop_s)
    await _serve_api(activity, bound, runtime, notify, ending.wait())
    await artifacts.close()
    for task in beside:
        task.cancel()
    if isinstance(authenticator, HubAuthenticator):
        await authenticator.close()


async def _end_when_deposed(service: Service, ending: Ending) -> None:
    await service.deposed.wait()
    ending.at_once("another process leads")


async def _run_replica(bound: socket.socket, runtime: Runtime, config: Config, environ: Mapping[str, str], notify: _Notify) -> int:
    """One of several on Postgres: leads or follows until SIGTERM, and does not end by itself."""
    from tuttilab.scheduler.api import create_app
    from tuttilab.scheduler.api.artifact_process import ArtifactProcess
    from tuttilab.scheduler.api.artifacts import blobs_of, received
    from tuttilab.scheduler.api.guard import Guard
    from tuttilab.scheduler.auth import LocalAuthenticator
    from tuttilab.scheduler.launch import Secrets
    from tuttilab.scheduler.replica import MayAct, Replica
    from tuttilab.scheduler.service import Service
    from tuttilab.scheduler.store.leading import Candidate

    state = Path(runtime.state_dir)
    keys = Secrets.of(config.auth.key_file, state)
    # Each replica knows the others' callers.
    runtime = replace(runtime, token=keys.user_token())
    authenticator = LocalAuthenticator(runtime.token, user_name())
    is_local = any(cluster.kind == "local" for cluster in config.clusters)
    in_common = f"{keys.digest()} {socket.gethostname()} {state}" if is_local else keys.digest()
    discovery.write_private(discovery.url_file(state), json.dumps({"url": runtime.url}))

    def service_of(store: SqlStore, may_act: MayAct) -> Service:
        # Its file may have changed while another one led.
        newest = _newest(config, runtime, environ)
        service = Service(newest, store, clusters_of(config, state, environ), state_dir=state, may_act=may_act)
        service.addresses = replace(service.addresses, report_url=runtime.url)
        return service

    artifacts = ArtifactProcess(blobs_of(config), config.listen.host)

    def app_of(service: Service) -> ASGIApp:
        artifacts.acknowledged_by(partial(received, service))
        return create_app(service, authenticator, reload=_reading_again(service, runtime, environ), artifacts=artifacts)

    replica = Replica(
        config.store.url,
        Candidate(runtime.url, hashlib.sha256(in_common.encode()).hexdigest(), above=_led_by(config, state)),
        service_of,
        app_of,
        lambda forward: Guard(forward, authenticator, [config.listen.host]),
        ended_epoch=discovery.ended_epoch(state),
        note_leading=partial(discovery.note_leading, state),
    )
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    running = asyncio.create_task(replica.run())
    settled = asyncio.create_task(replica.is_settled.wait())
    ended = asyncio.create_task(end.wait())
    try:
        await asyncio.wait({running, settled, ended}, timeout=SETTLE_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        ending = asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
        await _serve_api(replica, bound, runtime, notify, ending)
        if running.done():
            await running
    finally:
        _withdraw(runtime)
        for task in (running, settled, ended):
            task.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await artifacts.close()
        log.info("ended; live jobs go on by themselves")
    return 0


def _reading_again(
    service: Service, runtime: Runtime, environ: Mapping[str, str]
) -> Callable[[], Awaitable[tuple[str, ...]]] | None:
    """`tuttilab scheduler reload`; None where there is no file."""
    from tuttilab.scheduler.config import load_config
    from tuttilab.scheduler.reload import reload

    path, state = Path(runtime.config), Path(runtime.state_dir)

    async def read_again() -> tuple[str, ...]:
        digest = discovery.config_digest(path)
        changes = await reload(service, await asyncio.to_thread(load_config, path, state, environ))
        log.info("%s was read again: %s", path, "; ".join(changes) or "nothing changed")
        found = discovery.find(state).runtime
        if found is not None and found.process == runtime.process:
            discovery.write_runtime(replace(found, config_digest=digest))
        return changes

    return read_again if runtime.config else None


def _newest(config: Config, runtime: Runtime, environ: Mapping[str, str]) -> Config:
    """With the queues and defaults that the file has now, if it is sound."""
    from tuttilab.scheduler.config import load_config

    if not runtime.config:
        return config
    try:
        found = load_config(Path(runtime.config), Path(runtime.state_dir), environ)
    except TuttiError as error:
        log.error("goes on with the queues of its start: %s", error)
        return config
    return replace(config, queues=found.queues, defaults=found.defaults)


async def _serve_api(app: ASGIApp, bound: socket.socket, runtime: Runtime, notify: _Notify, end: Awaitable[object]) -> None:
    """Until ``end`` is over or the server ends by itself."""
    import uvicorn

    started = asyncio.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Signals are ours: uvicorn would raise them again at the end, and the exit code would say that we were killed."""
            yield

    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_REQUESTS_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    await asyncio.wait({serving, asyncio.ensure_future(started.wait())}, return_when=asyncio.FIRST_COMPLETED)
    discovery.write_last(Path(runtime.state_dir), Last(config=runtime.config))
    discovery.write_runtime(runtime)
    log.info("ready: %s, pid %d", runtime.url, runtime.pid)
    notify.ready()
    asked = asyncio.ensure_future(end)
    await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    _withdraw(runtime)
    asked.cancel()
    server.should_exit = True
    await serving


def _withdraw(runtime: Runtime) -> None:
    """Nobody shall find us any more; what a successor wrote stays."""
    state = Path(runtime.state_dir)
    found = discovery.find(state).runtime
    if found is not None and found.process == runtime.process:
        discovery.runtime_file(state).unlink(missing_ok=True)
        discovery.token_file(state).unlink(missing_ok=True)


def _runtime(url: str, state: Path, config: Config, config_path: Path | None, digest: str) -> Runtime:
    me = this_process()
    return Runtime(
        url=url,
        token=secrets.token_urlsafe(32),
        pid=me.pid,
        start_time=me.start_time,
        boot_id=me.boot_id,
        version=__version__,
        state_dir=str(state),
        clusters=tuple(cluster.name for cluster in config.clusters),
        config=str(config_path or ""),
        config_digest=digest,
    )


def listener(host: str, port: int) -> socket.socket:
    """A bound socket. Raises EnvironmentProblem that names the port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio does not turn Nagle's algorithm off, which costs 40 ms an answer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A port that was ours a moment ago still has connections in TIME_WAIT.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # Two sockets may be bound with SO_REUSEADDR; only one may listen.
        bound.listen(2048)
    except OSError as error:
        bound.close()
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise EnvironmentProblem(
            f"Port {port} of {host} {why}; end what listens there, or set listen.port to another one (0: any that is free)."
        ) from error
    return bound


def clusters_of(config: Config, state: Path, environ: Mapping[str, str]) -> dict[str, Cluster]:
    return {cluster.name: _cluster(cluster, config.limits, state, environ) for cluster in config.clusters}


def _cluster(cluster: ClusterConfig, limits: Limits, state: Path, environ: Mapping[str, str]) -> Cluster:
    if cluster.kind == "fake":
        from tuttilab.scheduler.clusters.fake import FakeCluster

        return FakeCluster(cluster.name, cluster.nodes or ())
    from tuttilab.scheduler.clusters.local import LocalCluster

    folder = pods_of(cluster, state)
    beat, lease = limits.heartbeat_s, limits.lease_s
    return LocalCluster(cluster.name, cluster.nodes, folder, environ, sys.executable, heartbeat_s=beat, lease_s=lease)


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # A container may run under a uid that no one gave a name.
        return str(os.geteuid())


if __name__ == "__main__":
    sys.exit(main())
