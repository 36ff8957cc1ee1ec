"""`tutti-local`: servers as processes on the hub's machine, for a hub without Kubernetes.

All servers run as the hub's own user and can read each other's files: for tests, and for users who trust one another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jupyterhub.spawner import SimpleLocalProcessSpawner, SpawnException
from traitlets import Unicode, default

from tuttilab.scheduler.domain.resources import GPU
from tuttilab.spawner import options
from tuttilab.spawner.mixin import NotebookJobMixin
from tuttilab.spawner.pods import NO_GPU, amounts_of
from tuttilab.spawner.volumes import folder_of


class TuttiLocalSpawner(NotebookJobMixin, SimpleLocalProcessSpawner):  # type: ignore[misc]  # JupyterHub has no types
    homes = Unicode("homes", config=True, help="The folder below which every user has a home, made on the first start.")

    async def start(self) -> Any:
        if options.checked(self.user_options).get("run_as"):
            what = "run_as: servers on the hub's machine all run as the hub's user; leave it out."
            raise SpawnException(what, reason="options", status_code=400)
        return await super().start()

    @default("home_dir")
    def _default_home_dir(self) -> str:
        return str(Path(self.homes).absolute() / folder_of(self.user.name))

    def make_preexec_fn(self, name: str) -> Any:
        """Creates the home here, so that only a chdir runs between fork and exec."""
        home = self.home_dir
        os.makedirs(home, 0o700, exist_ok=True)
        return lambda: os.chdir(home)

    def get_env(self) -> dict[str, str]:
        env: dict[str, str] = super().get_env()
        if self._admitted is None:
            return env
        profile = self._admitted.profile
        return {**env, **profile.env, **({} if amounts_of(profile)[GPU] else NO_GPU)}
