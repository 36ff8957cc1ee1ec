"""The typed client of the REST API: `AsyncClient`, the blocking `Client`, and `connect`, which finds the service.

Every kernel imports it, so it must stay quick to import: httpx and pydantic are its only libraries. `client.notebooks`, which few
need, is imported by its own name.
"""

from tuttilab.scheduler.client.additions import read_mount, read_sidecar, read_spark
from tuttilab.scheduler.client.archives import tar_of
from tuttilab.scheduler.client.async_client import AsyncClient, new_key
from tuttilab.scheduler.client.environment import LOCAL, Environment, environment_for, is_local, run_environment
from tuttilab.scheduler.client.sync_client import Client, connect, connect_async, read_dags, results_here

__all__ = [
    "LOCAL",
    "AsyncClient",
    "Client",
    "Environment",
    "connect",
    "connect_async",
    "environment_for",
    "is_local",
    "new_key",
    "read_dags",
    "read_mount",
    "read_sidecar",
    "read_spark",
    "results_here",
    "run_environment",
    "tar_of",
]
