"""`tutti`: a KubeSpawner whose pods have the admitted size, node, image and volumes."""

from __future__ import annotations

from typing import Any

from kubespawner import KubeSpawner
from traitlets import Float, Unicode

from tuttilab.spawner.mixin import NotebookJobMixin
from tuttilab.spawner.pods import Pieces, merged_env, pieces_of


class TuttiSpawner(NotebookJobMixin, KubeSpawner):  # type: ignore[misc]  # KubeSpawner has no types
    cephfs_claim = Unicode("cephfs-{name}", config=True, help="The PersistentVolumeClaim of a profile's `cephfs: NAME`.")
    node_label = Unicode("kubernetes.io/hostname", config=True, help="The node label that holds its name.")
    # Longer than the base's: a pod may have to pull its image first.
    starting_s = Float(600.0, min=1.0, config=True, help="How long a pod may take to start once it has room, in seconds.")

    async def start(self) -> Any:
        # The progress page asks this future whether the start has ended; an earlier start's future has.
        self._start_future = None
        return await super().start()

    async def get_pod_manifest(self) -> Any:
        """KubeSpawner's manifest; the admitted parts replace those of traits or an earlier spawn."""
        return patched(await super().get_pod_manifest(), self.pieces())

    def pieces(self) -> Pieces:
        view = self._admitted
        if view is None:
            raise RuntimeError(f"{self._log_name} is not admitted, so it gets no pod")
        return pieces_of(
            view.profile,
            owner=self.user.name,
            job_id=view.job.id,
            node=view.node or "",
            image=view.image,
            cephfs_claim=self.cephfs_claim,
            node_label=self.node_label,
        )


def patched(pod: Any, pieces: Pieces) -> Any:
    """Writes the pieces into the pod (Kubernetes client classes, without types) and returns it. The first container is
    the server's."""
    server = pod.spec.containers[0]
    server.resources = pieces.resources
    server.env = merged_env(server.env or [], pieces)
    server.image = pieces.image or server.image
    pod.spec.volumes = [*(pod.spec.volumes or []), *pieces.volumes]
    server.volume_mounts = [*(server.volume_mounts or []), *pieces.mounts]
    pod.metadata.labels = {**(pod.metadata.labels or {}), **pieces.labels}
    pod.spec.node_selector = {**(pod.spec.node_selector or {}), **pieces.node_selector}
    return pod
