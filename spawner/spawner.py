"""`tutti`: a KubeSpawner whose pods have the admitted size, node, image and volumes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final
from urllib.parse import urlsplit

from jupyterhub.spawner import SpawnException
from kubespawner import KubeSpawner
from kubespawner.spawner import ApiException
from traitlets import Float, Unicode, default

from tuttilab.spawner import options
from tuttilab.spawner.containers import Pod, problem_of, words_of
from tuttilab.spawner.driver_ports import HOST_OF_POD, service_body, service_name
from tuttilab.spawner.mixin import NotebookJobMixin
from tuttilab.spawner.pods import JOB_LABEL, POD_SECURITY, Pieces, merged_env, pieces_of

ANSWER_PAUSE_S: Final = 0.3
CONNECT_S: Final = 2.0
PORT_LIMIT_S: Final = 30.0
"""For a port that another server had to be free at the API server."""
INVALID: Final = 422
NOT_FOUND: Final = 404


class TuttiSpawner(NotebookJobMixin, KubeSpawner):  # type: ignore[misc]  # KubeSpawner has no types
    cephfs_claim = Unicode("cephfs-{name}", config=True, help="The PersistentVolumeClaim of a profile's `cephfs: NAME`.")
    node_label = Unicode("kubernetes.io/hostname", config=True, help="The node label that holds its name.")
    # Longer than the base's: a pod may have to pull its image first.
    starting_s = Float(600.0, min=1.0, config=True, help="How long a pod may take to start once it has room, in seconds.")

    container_patience_s = Float(
        30.0, min=0.0, config=True, help="How long a pod may wait for an image that could not be pulled, or for room, in seconds."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_starting = False
        self._first_seen = "", 0.0
        """The uid of the pod that was shown last, and when it was shown first (monotonic)."""

    @default("cmd")
    def _cmd(self) -> list[str]:
        # KubeSpawner's own default is the image's command, to which no arguments can be given.
        return ["jupyterhub-singleuser"]

    async def start(self) -> Any:
        # The progress page asks this future whether the start has ended; an earlier start's future has.
        self._start_future = None
        self._is_starting = True
        try:
            where = await super().start()
            await self._open_driver_ports()
            await self._wait_until_it_listens(where)
            return where
        except ApiException as error:
            sentence = f"the cluster refuses its pod: {words_of(error.body) or error.reason or error.status}"
            self._failure = (1, sentence)
            raise SpawnException(f"The server did not start: {sentence}.", reason="cluster", status_code=409) from error
        finally:
            self._is_starting = False

    async def stop(self, now: bool = False) -> None:
        await self._close_driver_ports()
        await super().stop(now)

    async def _open_driver_ports(self) -> None:
        """Raises ApiException. A port that was freed a moment ago may still be taken by a Service that is being deleted."""
        pod = self._shown_pod()
        if not self._driver_ports or pod is None:
            return
        body = service_body(self._job_id, self._driver_ports, {JOB_LABEL: self._job_id}, pod["metadata"])
        end = time.monotonic() + PORT_LIMIT_S
        while True:
            try:
                await self.api.create_namespaced_service(self.namespace, body)
                return
            except ApiException as error:
                if error.status != INVALID or "already allocated" not in str(error.body) or time.monotonic() > end:
                    raise
            await asyncio.sleep(ANSWER_PAUSE_S)

    async def _close_driver_ports(self) -> None:
        """The Service goes with its pod; this frees the ports sooner."""
        if not self._driver_ports or not self._job_id:
            return
        try:
            await self.api.delete_namespaced_service(service_name(self._job_id), self.namespace)
        except ApiException as error:
            if error.status != NOT_FOUND:
                self.log.warning("the Service of %s's driver ports is left to its pod's end: %s", self._log_name, error.reason)

    async def poll(self) -> int | None:
        # KubeSpawner deletes a pod that has ended, and with it what is known of its end.
        if not self._is_changing and self.pod_reflector is not None:
            self._note_problem(self._shown_pod())
        status: int | None = await super().poll()
        return status

    def is_pod_running(self, pod: Any) -> bool:
        """KubeSpawner asks this while it waits for a start; a start that is in vain ends here."""
        if self._is_starting:
            self._note_problem(pod)
            if self._failure is not None:
                sentence = self._failure[1]
                raise SpawnException(f"The server did not start: {sentence}.", reason="container", status_code=409)
        return bool(super().is_pod_running(pod))

    def _shown_pod(self) -> Pod | None:
        found: Pod | None = self.pod_reflector.pods.get(f"{self.namespace}/{self.pod_name}")
        return found

    def _note_problem(self, pod: Pod | None) -> None:
        """Of the pod of this start: one of an earlier start may still be shown."""
        if pod is None or self._failure is not None or pod["metadata"].get("labels", {}).get(JOB_LABEL) != self._job_id:
            return
        # Counted from the first sight of it: by the pod's own times, a hub with another clock would wait never, or for ever.
        uid = str(pod["metadata"]["uid"])
        if self._first_seen[0] != uid:
            self._first_seen = uid, time.monotonic()
        found = problem_of(pod, is_late=time.monotonic() - self._first_seen[1] > self.container_patience_s)
        if found is not None:
            self._failure = (found.exit_code, found.sentence)

    def _told_end(self, exit_code: int) -> tuple[int, str]:
        is_gone = self._shown_pod() is None and self._failure is None
        return exit_code, "its pod is gone: deleted by a person or another program, or with its node" if is_gone else ""

    async def _wait_until_it_listens(self, url: str) -> None:
        """A pod counts as running before its server does: one that ends meanwhile says why. The hub judges a silent one."""
        parts = urlsplit(url)
        end = time.monotonic() + self.http_timeout
        while time.monotonic() < end:
            self.is_pod_running(self._shown_pod())
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.close()
                return
            await asyncio.sleep(ANSWER_PAUSE_S)

    async def load_user_options(self) -> None:
        """KubeSpawner would look the choice up in a list of its own; profiles are the control plane's."""
        if self.profile_list:
            what = "The hub's settings have a profile_list, which does not go with tutti; an admin has to apply profiles instead."
            raise SpawnException(what, reason="options", status_code=409)

    async def get_pod_manifest(self) -> Any:
        """KubeSpawner's manifest; the admitted parts replace those of traits or an earlier spawn."""
        return patched(await super().get_pod_manifest(), self.pieces())

    def pieces(self) -> Pieces:
        view, asked = self._admitted, options.checked(self.user_options or {}).get("run_as")
        if view is None:
            raise RuntimeError(f"{self._log_name} is not admitted, so it gets no pod")
        if asked and view.run_as is None:
            # Its profile was changed meanwhile.
            what = f"run_as: {asked!r} is no proxy user of profile {view.profile.name!r} any more; choose again."
            raise SpawnException(what, reason="options", status_code=400)
        return pieces_of(
            view.profile,
            owner=self.user.name,
            job_id=view.job.id,
            node=view.node or "",
            installation=view.installation,
            image=view.image,
            run_as=view.run_as,
            cephfs_claim=self.cephfs_claim,
            node_label=self.node_label,
            has_driver_ports=bool(view.driver_ports),
        )


def patched(pod: Any, pieces: Pieces) -> Any:
    """Writes the pieces into the pod (Kubernetes client classes, without types) and returns it. The first container is
    the server's."""
    server = pod.spec.containers[0]
    server.resources = pieces.resources
    server.env = [*merged_env(server.env or [], pieces), *([HOST_OF_POD] if pieces.has_driver_ports else [])]
    server.image = pieces.image or server.image
    pod.spec.volumes = [*(pod.spec.volumes or []), *pieces.volumes]
    server.volume_mounts = [*(server.volume_mounts or []), *pieces.mounts]
    pod.metadata.labels = {**(pod.metadata.labels or {}), **pieces.labels}
    pod.spec.node_selector = {**(pod.spec.node_selector or {}), **pieces.node_selector}
    # A server that ended has ended: the hub is told why, and nobody is charged for one that nobody asked for again.
    pod.spec.restart_policy = "Never"
    pod.spec.enable_service_links = False
    pod.spec.automount_service_account_token = False
    pod.spec.security_context = {**_as_dict(pod.spec.security_context), **POD_SECURITY}
    server.security_context = {**_as_dict(server.security_context), **pieces.security}
    if 0 in (server.security_context.get("runAsUser"), pod.spec.security_context.get("runAsUser")):
        what = "The hub's settings say uid 0, and no server runs as root; an admin has to set c.TuttiSpawner.uid."
        raise SpawnException(what, reason="options", status_code=409)
    return pod


def _as_dict(context: Any) -> dict[str, Any]:
    """KubeSpawner makes a mapping, or nothing."""
    return dict(context) if context else {}
