"""The process of the control plane: `python -m tuttilab.scheduler.server.serve`.

Takes the lock of the state folder, opens the log, loads the configuration, binds the port, then runs the control plane: `embedded`
on SQLite, as one of several `replicated` ones on Postgres. Reports on the pipe that TUTTILAB_NOTIFY_FD names (see `discovery`) that
it is ready, or in one sentence why not. All settings are in the configuration. The token is made here and is only ever written to
files of mode 0600.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler import __version__
from tuttilab.scheduler.domain.errors import EnvironmentProblem, TuttiError, Unavailable
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.discovery import Runtime
from tuttilab.scheduler.runtime.file_limit import raise_file_limit
from tuttilab.scheduler.runtime.garbage_collection import collect_seldom
from tuttilab.scheduler.runtime.processes import this_process
from tuttilab.scheduler.server.listener import bind, url_of
from tuttilab.scheduler.server.logging_setup import logging_to
from tuttilab.scheduler.server.readiness import ReadinessPipe

if TYPE_CHECKING:
    from tuttilab.scheduler.config.model import Config

SWITCH_S: Final = 0.0005
"""How long a thread that waits for the interpreter lets another one compute. With Python's 5 ms every request that arrives during a
cycle of the scheduler would lose that much at each change between the event loop and the store's threads."""
# Run as a program, this module would call itself __main__.
log = logging.getLogger("tuttilab.scheduler.server.serve")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tuttilab.scheduler.server.serve", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--config", type=Path, help="tuttilab.yaml; the built-in configuration without it")
    return serve(parser.parse_args(arguments).config, os.environ)


def serve(config_path: Path | None, environ: Mapping[str, str], *, in_foreground: bool = False) -> int:
    """Run until SIGTERM, `tuttilab down` or a long time without work; returns the exit code. Raises the error of a failed start."""
    collect_seldom()
    raise_file_limit()
    readiness = ReadinessPipe(environ)
    state = discovery.state_dir(environ)
    try:
        with _os_errors_explained(state):
            discovery.prepare(state)
            with _single_instance(state), logging_to(state, in_foreground):
                try:
                    with _os_errors_explained(state):
                        asyncio.run(_run(config_path.absolute() if config_path else None, state, environ, readiness))
                        return 0
                except TuttiError as error:
                    if not in_foreground:
                        log.error("not started: %s", error)
                    raise
    except TuttiError as error:
        readiness.failed(error)
        if readiness.is_connected:
            return error.exit_code
        raise


@contextlib.contextmanager
def _os_errors_explained(state: Path) -> Iterator[None]:
    """Raises an OSError as an EnvironmentProblem of one sentence. The log cannot hold it when its own disk is what fails."""
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            f"{error.filename or state}: {error.strerror or error}; `tuttilab doctor` checks the state folder and its disk."
        ) from error


@contextlib.contextmanager
def _single_instance(state: Path) -> Iterator[None]:
    """Holds the lock of the state folder. Raises EnvironmentProblem when another control plane holds it."""
    with contextlib.ExitStack() as stack:
        try:
            # Other commands hold it for an instant when they test whether a control plane runs.
            stack.enter_context(discovery.locked(state / "control.lock", 1.0))
        except Unavailable:
            running = discovery.find(state).runtime
            if running is None and (restoring := discovery.being_restored(state)):
                raise EnvironmentProblem(restoring) from None
            who = f"pid {running.pid}, {running.url}" if running else "it is starting or ending"
            raise EnvironmentProblem(
                f"A control plane already runs in {state} ({who}); `tuttilab down` ends it, "
                "and TUTTILAB_STATE_DIR names another folder."
            ) from None
        discovery.note_holder(state)
        yield


async def _run(config_path: Path | None, state: Path, environ: Mapping[str, str], readiness: ReadinessPipe) -> None:
    # Imported here and below, so that a wrong option or a held lock is reported without loading the whole service.
    from tuttilab.scheduler.config.load import load_config
    from tuttilab.scheduler.config.model import POSTGRES
    from tuttilab.scheduler.config.resources import unchecked_resources
    from tuttilab.scheduler.store.blobs import Blobs

    sys.setswitchinterval(SWITCH_S)
    digest = discovery.config_digest(config_path)
    config = load_config(config_path, state, environ)
    Blobs(config.artifacts_dir, config.limits.bundle_bytes).prepare()
    for sentence in unchecked_resources(config.queues, config.clusters):
        log.warning("%s", sentence)
    log.info("tuttilab %s starts in %s with %s", __version__, state, config_path or "the built-in configuration")
    with contextlib.closing(bind(config.listen.host, config.listen.port)) as bound:
        is_site = not readiness.is_connected or config.auth.kind == "hub"
        runtime = _runtime(url_of(bound), state, config, config_path, digest, is_site)
        if config.store.url.startswith(POSTGRES):
            from tuttilab.scheduler.server.replicated import run_replica

            await run_replica(bound, runtime, config, environ, readiness)
        else:
            from tuttilab.scheduler.server.embedded import run_embedded

            await run_embedded(bound, runtime, config, environ, readiness)


def _runtime(url: str, state: Path, config: Config, config_path: Path | None, digest: str, is_site: bool) -> Runtime:
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
        is_site=is_site,
    )


if __name__ == "__main__":
    sys.exit(main())
