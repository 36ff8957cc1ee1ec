"""A Postgres server for tests: Debian's programs, a data folder that is removed at the end, a Unix socket.

Postgres refuses to run as root; as root it is run as the user `postgres`, who then owns the folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

USER = "postgres"
_numbers = count(1)


def programs() -> Path | None:
    """The folder with initdb and pg_ctl: on PATH, or where Debian keeps them, the newest version first."""
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        return Path(on_path).parent
    found = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    return max((path.parent for path in found), key=lambda folder: int(folder.parent.name), default=None)


def can_run() -> bool:
    """Whether the programs are installed, and there is a user that can run them."""
    return programs() is not None and (os.geteuid() != 0 or _has_user())


def _has_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return shutil.which("setpriv") is not None


class Postgres:
    """One server. ``stop`` and ``start`` may be called repeatedly."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        assert found is not None, "a test that needs Postgres says so: @pytest.mark.requires('postgres')"
        self._programs = found
        self.folder = folder
        self._data = folder / "data"
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        self._run(
            "initdb", "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "-D", str(self._data)
        )

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"] if os.geteuid() == 0 else []
        # Not a pipe: the server inherits it and would keep it open.
        with open(self.folder / "programs.log", "a", encoding="utf-8") as log:
            return subprocess.run(
                [*as_user, str(self._programs / program), *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                check=check,
                text=True,
            )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c max_connections=60"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self.folder / "server.log"), "-o", options)

    def stop(self, mode: str = "fast", *, check: bool = True) -> None:
        """``immediate`` is like kill -9: nothing is finished, and the next start recovers from the log."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self._data), check=check)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}"

    def execute(self, database: str, statement: str) -> None:
        import psycopg  # every run of pytest imports this module, and few have a server

        with psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True) as connection:
            connection.execute(statement.encode())

    def ask(self, database: str, question: str) -> Any:
        """The first value of the first row."""
        import psycopg  # every run of pytest imports this module, and few have a server

        with psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True) as connection:
            row = connection.execute(question.encode()).fetchone()
        return row[0] if row else None

    def new_database(self) -> str:
        """The name of an empty database."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return name

    def drop(self, database: str) -> None:
        self.execute("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="tuttilab-pg-"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate", check=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


NewDatabase = Callable[[], str]
"""Returns the URL of a new, empty database."""
