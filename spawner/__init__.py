"""Hub spawners whose servers are jobs of kind `notebook` in the control plane's ledger before anything of them exists.

`TuttiSpawner` makes pods and is a KubeSpawner, `TuttiLocalSpawner` makes processes on the hub's machine. Belongs here: traits,
hooks of JupyterHub and KubeSpawner, and pure functions from a profile to the pieces of a pod. Does not belong here: whether there
is room, and who may have what: the control plane says so. A class is imported when it is asked for, so that a hub without
Kubernetes needs no KubeSpawner.
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
