"""`tutti-local`: servers as processes on the hub's machine, for a hub without Kubernetes.

All of them run as the hub's own user, who can read everything of everybody: for tests, and for people who trust one another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jupyterhub.spawner import SimpleLocalProcessSpawner
from traitlets import Unicode, default

from tuttilab.scheduler.resources import GPU
from tuttilab.spawner.ledgered import Ledgered
from tuttilab.spawner.pods import NO_GPU, amounts_of
from tuttilab.spawner.volumes import folder_of


class TuttiLocalSpawner(Ledgered, SimpleLocalProcessSpawner):  # type: ignore[misc]  # JupyterHub has no types
    homes = Unicode("homes", config=True, help="The folder below which every user has a home, made on the first start.")

    @default("home_dir")
    def _default_home_dir(self) -> str:
        return str(Path(self.homes).absolute() / folder_of(self.user.name))

    def make_preexec_fn(self, name: str) -> Any:
        """Nothing runs between fork and exec but the change into the home, which is made before."""
        home = self.home_dir
        os.makedirs(home, 0o700, exist_ok=True)
        return lambda: os.chdir(home)

    def get_env(self) -> dict[str, str]:
        env: dict[str, str] = super().get_env()
        if self._admitted is None:
            return env
        profile = self._admitted.profile
        return {**env, **profile.env, **({} if amounts_of(profile)[GPU] else NO_GPU)}
