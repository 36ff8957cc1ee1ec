"""The hub of these tests: the snippets of both guides, and what differs from one run to the next, which comes in a variable."""

import json
import os
from typing import Any

from tests.e2e.hub.common_config import configure
from tests.e2e.hub.guide import CONTROL_URL, blocks

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821  JupyterHub gives it to its configuration
GIVEN = json.loads(os.environ["TEST_HUB"])

exec(blocks("python")[0].replace(CONTROL_URL, GIVEN["control_url"]))  # noqa: S102  what people are told to write is what runs here
exec(GIVEN["snippet"])  # noqa: S102

configure(c, GIVEN)

c.TuttiSpawner.patience_s = GIVEN["patience_s"]
c.TuttiSpawner.poll_interval = 1
c.TuttiSpawner.http_timeout = 90
c.TuttiSpawner.consecutive_failure_limit = 0
c.TuttiSpawner.container_patience_s = GIVEN["container_patience_s"]


def prepare(spawner: Any) -> None:
    """Pod Security "restricted" allows no folder of a node. A label that no node has is what keeps `no-room` from its node."""
    profile = str(spawner.user_options.get("profile", ""))
    is_open = profile.startswith("path-")
    spawner.node_selector = {"pool": "none"} if profile == "no-room" else {}
    spawner.namespace = GIVEN["open_namespace"] if is_open else c.TuttiSpawner.namespace


c.Spawner.pre_spawn_hook = prepare
c.TuttiSpawner.notebook_dir = GIVEN.get("notebook_dir", "")
# The images of these tests have no user but root and nobody.
c.TuttiSpawner.uid = 1000
c.TuttiSpawner.gid = 1000
