"""A control plane for as long as something is measured with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tuttilab.scheduler.client import Client
from tuttilab.scheduler.runtime import discovery


@contextmanager
def control_plane() -> Iterator[tuple[Client, dict[str, str]]]:
    with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder:
        environ = {**os.environ, "TUTTILAB_STATE_DIR": folder}
        os.environ["TUTTILAB_STATE_DIR"] = folder
        runtime = discovery.ensure_started(environ)
        client = Client(runtime.url, runtime.token)
        try:
            yield client, environ
        finally:
            client.close()
            down = [sys.executable, "-m", "tuttilab.scheduler.cli", "down", "--now"]
            subprocess.run(down, env=environ, check=True, capture_output=True)
