"""Several control planes as real processes on one real Postgres, which a test starts, kills, stops and continues."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import warm
from tests.postgres import Postgres
from tests.user_machine import eventually
from tests.warm import AnyProcess
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import TuttiError, Unavailable
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.runtime import discovery

CONFIG = """
store: {{url: "{url}"}}
auth: {{key_file: {key}}}
clusters:
  - name: here
    kind: fake
    nodes: [{{name: a, cpus: 2, memory: 4Gi}}]
"""
LONG = JobRequest(name="load", pods=(PodRequest(cpus=1, memory="256Mi"),), command=("sleep", "3600"))


@dataclass
class Replica:
    name: str
    process: AnyProcess
    runtime: discovery.Runtime

    def client(self, timeout_s: float = 60.0) -> Client:
        """On a busy machine a leader may lose its lease and win it again: what can be repeated is, for that long."""
        return Client(self.runtime.url, self.runtime.token, timeout_s=timeout_s)

    def knows(self, job_id: str) -> bool:
        with self.client() as client:
            try:
                return client.job(job_id).id == job_id
            except TuttiError:
                return False

    def submit_until_accepted(self, limit_s: float = 120.0) -> str:
        """The job's id."""
        with self.client(10.0) as client:
            key = f"until-{time.monotonic()}"

            def accepted() -> str | None:
                try:
                    return client.submit(LONG, key=key).id
                except Unavailable:
                    return None

            return str(eventually(accepted, limit_s))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@dataclass
class Site:
    folder: Path
    server: Postgres
    database: str
    replicas: dict[str, Replica] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    def write_config(self, text: str = CONFIG) -> Path:
        config = self.folder / "tuttilab.yaml"
        key = self.folder / "key"
        key.write_bytes(b"k" * 32)
        config.write_text(text.format(url=self.url, key=key))
        return config

    def start(self, name: str, text: str = CONFIG) -> Replica:
        config = self.write_config(text)
        state = self.folder / name
        environ = {**os.environ, "TUTTILAB_STATE_DIR": str(state)}
        with open(self.folder / f"{name}.out", "ab") as out:
            process = warm.serve(["--config", str(config)], Path.cwd(), environ, out)
        found = eventually(lambda: self._runtime(state, process))
        self.replicas[name] = Replica(name, process, found)
        return self.replicas[name]

    @staticmethod
    def _runtime(state: Path, process: AnyProcess) -> discovery.Runtime | None:
        assert process.poll() is None, "it ended instead of starting"
        found = discovery.find(state).runtime
        return found if found is not None and found.pid == process.pid else None

    def leader(self) -> Replica:
        """Wait for a leader in the database, and return it."""

        def named() -> Replica | None:
            url = self.server.ask(self.database, "SELECT url FROM leader")
            return next((replica for replica in self.replicas.values() if replica.runtime.url == url), None)

        found: Replica = eventually(named)
        return found

    def followers(self) -> list[Replica]:
        leader = self.leader()
        return [replica for replica in self.replicas.values() if replica is not leader]

    def end(self) -> None:
        for replica in self.replicas.values():
            if replica.process.poll() is None:
                replica.signal(signal.SIGCONT)
                replica.signal(signal.SIGKILL)
            replica.process.wait(150)


@contextlib.contextmanager
def made_site(folder: Path, server: Postgres) -> Iterator[Site]:
    site = Site(folder, server, server.new_database())
    try:
        yield site
    finally:
        site.end()
        server.drop(site.database)


class Load:
    """Submits jobs one after another to random replicas, and retries each under its key until it is acknowledged."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(seed)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: list[tuple[float, float, str, str]] = []
        """For each job: when it was first sent, when it was acknowledged, its key and its id."""
        self.refused = 0
        self.broken: list[TuttiError] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)

    def _run(self) -> None:
        clients: dict[str, Client] = {}
        while not self._end.is_set():
            key, sent = f"key-{len(self.acknowledged)}", time.monotonic()
            while not self._end.is_set():
                replica = self._chance.choice([r for r in self._site.replicas.values() if r.process.poll() is None])
                client = clients.setdefault(replica.runtime.url, replica.client(2.0))
                try:
                    job = client.submit(LONG, key=key)
                    self.acknowledged.append((sent, time.monotonic(), key, job.id))
                    break
                except Unavailable:
                    self.refused += 1
                except TuttiError as error:
                    self.broken.append(error)
                self._end.wait(0.1)
            self._end.wait(0.02)
        for client in clients.values():
            client.close()
