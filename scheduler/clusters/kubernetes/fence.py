"""Who leads the pods of a cluster: the epoch in a Lease, compared before each call that changes something.

The API server has no condition that spans objects, so a control plane that is suspended between the comparison and its write
still writes when it goes on. With deploy/kubernetes/epoch.yaml the API server refuses its pods. Without it, what holds then: a
pod that it makes carries its epoch, and the token of its side-car is of that epoch, so that the new leader takes no report of it
and gives it no code; the new leader finds the pod by its labels and removes it when it looks next; what is deleted is named by
its uid.

Who leads renews the Lease, for a control plane of the same key with a new database: it takes an epoch above the one there, once it
has seen that nobody leads any more.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tuttilab.scheduler.clusters.kept import epoch as epochs
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError, as_cluster_error
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import ClusterError, ClusterUnreachable, StaleEpoch
from tuttilab.scheduler.domain.model import DOMAIN

log = logging.getLogger(__name__)

EPOCH: Final = f"{DOMAIN}/epoch"
RENEW_S: Final = 5.0
SILENT_S: Final = 3 * RENEW_S
"""Nobody leads whose Lease was not written for so long, by the clock of who looks."""
TRIES: Final = 5
LABELS: Final = {"app.kubernetes.io/managed-by": "tuttilab"}
"""By which the admission policy finds it."""


class LeaseFence:
    """The fence of one control plane. ``folder``: keeps the newest epoch too, for a new database in an old state folder."""

    def __init__(self, api: Api, cluster: str, namespace: str, installation: str, folder: Path) -> None:
        self._api = api
        self._cluster = cluster
        self._namespace = namespace
        self._name = f"tuttilab-{installation}"
        self._folder = folder
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._epoch = 0
        self._is_raised = True
        self.is_without_place = False
        """Whether the Lease's namespace is gone, so that no control plane can write that it leads."""
        self._reading: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        """Begins when the read that is under way has ended."""

    async def raise_to(self, epoch: int) -> None:
        """From now on, calls of earlier epochs are refused. Raises StaleEpoch, ClusterUnreachable; the next call tries again."""
        self._epoch, self._is_raised = epoch, False
        for _ in range(TRIES):
            lease = await self.read()
            self._compare(lease)
            try:
                if lease is None:
                    metadata = {"name": self._name, "labels": LABELS, "annotations": {EPOCH: str(epoch)}}
                    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
                    await self._api.call("POST", self._path, body)
                else:
                    lease["metadata"]["labels"] = {**lease["metadata"].get("labels", {}), **LABELS}
                    lease["metadata"]["annotations"] = {**lease["metadata"].get("annotations", {}), EPOCH: str(epoch)}
                    await self._api.call("PUT", f"{self._path}/{self._name}", lease)
            except ApiError as error:
                if error.status == 409:
                    continue  # somebody else wrote it meanwhile
                self.is_without_place = error.is_about_a_missing_namespace
                raise as_cluster_error(error, self._cluster, f"write the lease {self._name}") from error
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / epochs.FILE).write_bytes(epochs.written(epoch))
            self._is_raised, self.is_without_place = True, False
            return
        raise ClusterUnreachable(f"cluster {self._cluster}: others write the lease {self._name} all the time; it is tried again.")

    async def check(self, *, creates: bool = False) -> None:
        """Before an effect. Raises StaleEpoch, ClusterUnreachable.

        Calls that come together share a read, which begins after each of them has asked. Where the Lease has no place, what was
        there is ended and let go all the same, and nothing is made (``creates``).
        """
        if not self._is_raised:
            try:
                await self.raise_to(self._epoch)
            except ClusterUnreachable:
                if creates or not self.is_without_place:
                    raise
            return
        if self._next is None:
            before = self._reading if self._reading is not None and not self._reading.done() else None
            self._next = asyncio.create_task(self._read_after(before), name=f"read the lease {self._name}")
        await asyncio.shield(self._next)

    async def renew(self) -> None:
        """Until cancelled: write the Lease again and again, while it has our epoch."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                lease = await self.read()
                if lease is not None and self._is_raised and epoch_of(lease) == self._epoch:
                    lease["spec"] = {**(lease.get("spec") or {}), "renewTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
                    await self._api.call("PUT", f"{self._path}/{self._name}", lease)
            except (ApiError, ClusterError) as error:
                log.debug("the lease %s is not renewed: %s", self._name, error)

    async def _read_after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        self._reading, self._next = self._next, None
        self._compare(await self.read())

    async def read(self) -> dict[str, Any] | None:
        """None where there is none. Raises ClusterUnreachable."""
        try:
            return await self._api.call("GET", f"{self._path}/{self._name}")
        except ApiError as error:
            if error.is_gone:
                return None
            raise as_cluster_error(error, self._cluster, f"read the lease {self._name}") from error

    def _compare(self, lease: dict[str, Any] | None) -> None:
        leads = epoch_of(lease)
        if leads > self._epoch:
            raise StaleEpoch(
                f"epoch {self._epoch} was given, and {leads} leads the pods of cluster {self._cluster}, as its lease "
                f"{self._namespace}/{self._name} says. If no control plane of that key is left, delete the lease."
            )


def epoch_of(lease: dict[str, Any] | None) -> int:
    text = (lease or {"metadata": {}})["metadata"].get("annotations", {}).get(EPOCH, "0")
    return int(text) if text.isdecimal() else 0


async def last_led(cluster: str, settings: KubernetesSettings, installation: str, above: int) -> tuple[int, bool]:
    """The epoch of the Lease, and whether its leader lives: for a control plane whose database is new and of epoch ``above``.

    Where the Lease has no later one, nobody is waited for. Raises ClusterUnreachable.
    """
    api = Api(cluster, settings)
    try:
        fence = LeaseFence(api, cluster, settings.namespace, installation, Path())
        before = await fence.read()
        epoch = epoch_of(before)
        if before is None or epoch <= above:
            return epoch, False
        log.info(
            "cluster %s was led in epoch %d with another database; waiting %.0f s for a sign of life", cluster, epoch, SILENT_S
        )
        await asyncio.sleep(SILENT_S)
        now = await fence.read()
        is_led = now is not None and now["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
        return max(epoch, epoch_of(now)), is_led
    finally:
        await api.close()
