"""JupyterHub spawners: the control plane admits a server as a job of kind `notebook` before the server is started.

`TuttiSpawner` starts pods and is a KubeSpawner, `TuttiLocalSpawner` starts processes on the hub's machine. Belongs here: traits,
hooks of JupyterHub and KubeSpawner, and pure functions from a profile to parts of a pod manifest. Does not belong here: admission
and rights, which the control plane decides. A class is imported on first use, so that a hub without Kubernetes needs no
KubeSpawner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuttilab.spawner.local import TuttiLocalSpawner
    from tuttilab.spawner.spawner import TuttiSpawner

__all__ = ["TuttiLocalSpawner", "TuttiSpawner"]


def __getattr__(name: str) -> object:
    if name == "TuttiSpawner":
        from tuttilab.spawner.spawner import TuttiSpawner

        return TuttiSpawner
    if name == "TuttiLocalSpawner":
        from tuttilab.spawner.local import TuttiLocalSpawner

        return TuttiLocalSpawner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
