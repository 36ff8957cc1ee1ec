"""The hub of `tests/benchmarks/spawns.py`: the guide's snippet, and either our spawner or KubeSpawner as it is."""

import json
import os
from typing import Any

from tests.e2e.hub.common_config import configure
from tests.e2e.hub.guide import CONTROL_URL, blocks

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821  JupyterHub gives it to its configuration
GIVEN = json.loads(os.environ["TEST_HUB"])

exec(blocks("python")[0].replace(CONTROL_URL, GIVEN["control_url"]))  # noqa: S102  what people are told to write is what runs here
configure(c, GIVEN)
c.JupyterHub.services.append({"name": "bench", "api_token": GIVEN["bench_token"]})
c.JupyterHub.load_roles.append({"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "servers"]})
c.JupyterHub.concurrent_spawn_limit = GIVEN["at_once"]
c.JupyterHub.active_server_limit = 0
# An answer only when the server is there, as a person's browser waits.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 600, "slow_stop_timeout": 600}
c.Spawner.http_timeout = 300
c.Spawner.start_timeout = 600
c.Spawner.consecutive_failure_limit = 0

c.JupyterHub.spawner_class = GIVEN["spawner"]
c.KubeSpawner.namespace = GIVEN["namespace"]
c.KubeSpawner.image = "none"
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.KubeSpawner.port = GIVEN["server_port"]
c.KubeSpawner.uid = c.KubeSpawner.gid = 1000
if GIVEN["spawner"] == "kubespawner.KubeSpawner":
    c.KubeSpawner.cpu_limit = c.KubeSpawner.cpu_guarantee = 1.0
    c.KubeSpawner.mem_limit = c.KubeSpawner.mem_guarantee = "1G"
c.TuttiSpawner.control_url = control_url  # type: ignore[name-defined]  # noqa: F821  of the snippet
c.TuttiSpawner.control_token = control_token  # type: ignore[name-defined]  # noqa: F821
c.TuttiSpawner.cluster = "k"
