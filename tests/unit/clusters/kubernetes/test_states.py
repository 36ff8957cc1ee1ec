"""What the control plane sees of a pod, by what the API server shows of it."""

from typing import Any

import pytest

from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.kept import node_kept
from tuttilab.scheduler.clusters.kubernetes.states import Seen, hopeless, node_of, resources_of, state_of
from tuttilab.scheduler.domain.model import Taint, Toleration
from tuttilab.scheduler.domain.resources import Resources

AT = "2026-11-29T12:00:00Z"
NOW = 1_795_953_600.0  # AT
LABELS = {names.JOB: "job", names.ATTEMPT: "2", names.EPOCH: "7", names.ROLE: "worker"}


def seen(
    phase: str = "Running",
    main: dict[str, Any] | None = None,
    inits: dict[str, dict[str, Any]] | None = None,
    *,
    metadata: dict[str, Any] | None = None,
    is_out_of_reach: bool = False,
    is_told: bool = False,
    why: str = "",
    **status: Any,
) -> Seen:
    given = {
        "phase": phase,
        "containerStatuses": [{"name": "main", "image": "i:1", "state": main or {"waiting": {"reason": "PodInitializing"}}}],
        "initContainerStatuses": [{"name": name, "image": "i:1", "state": state} for name, state in (inits or {}).items()],
    }
    own = {"name": "p", "uid": "u1", "creationTimestamp": AT, "labels": LABELS, **(metadata or {})}
    return Seen({"metadata": own, "spec": {}, "status": {**given, **status}}, is_out_of_reach, is_told, why)


def ended(code: int, reason: str, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "containerID": "c1", "finishedAt": AT, **more}}


def told(text: str) -> dict[str, dict[str, Any]]:
    return {"sidecar": ended(0, "Completed", message=text)}


DELETED = {"deletionTimestamp": "2026-11-29T12:00:30Z", "deletionGracePeriodSeconds": 30}
MASTER = {**LABELS, names.ROLE: "master"}
DRAINED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]


@pytest.mark.parametrize(
    ("pod", "phase", "exit_code", "reason"),
    [
        (seen("Pending"), "Pending", None, ""),
        (seen("Running", {"running": {}}), "Running", None, ""),
        (seen("Running", ended(0, "Completed")), "Running", None, ""),
        (seen("Succeeded", ended(0, "Completed")), "Ended", 0, "Completed"),
        (seen("Failed", ended(3, "Error")), "Ended", 3, "Error"),
        (seen("Failed", ended(137, "OOMKilled")), "Ended", 137, "OOMKilled"),
        (seen("Failed", ended(137, "OOMKilled"), metadata=DELETED), "Ended", 137, "OOMKilled"),
        (seen("Failed", ended(143, "Error"), metadata=DELETED, is_told=True), "Ended", 143, "Stopped"),
        (seen("Failed", ended(143, "Error"), metadata=DELETED), "Ended", None, "Deleted"),
        (seen("Succeeded", ended(0, "Completed"), metadata={**DELETED, "labels": MASTER}, is_told=True), "Ended", 0, "Completed"),
        (seen("Failed", ended(137, "Error"), metadata={**DELETED, "labels": MASTER}, is_told=True), "Ended", 0, "Completed"),
        (seen("Failed", metadata=DELETED), "Ended", 143, "NeverStarted"),
        (seen("Failed", metadata=DELETED, why="ImagePullBackOff"), "Ended", 1, "ImagePullBackOff"),
        (seen("Failed", metadata=DELETED, why="Unschedulable"), "Ended", None, "Unschedulable"),
        (seen("Failed", ended(137, "Error"), reason="Evicted"), "Ended", None, "Evicted"),
        (
            seen("Failed", ended(137, "Error"), reason="Evicted", message="The node was low on resource:\n memory. "),
            "Ended",
            None,
            "Evicted: The node was low on resource: memory.",
        ),
        (
            seen(
                "Failed", ended(137, "Error"), reason="Evicted", message='Usage of EmptyDir volume "own" exceeds the limit "1Mi". '
            ),
            "Ended",
            137,
            "StorageExceeded",
        ),
        (seen("Failed", ended(137, "Error"), metadata=DELETED, conditions=DRAINED), "Ended", None, "EvictionByEvictionAPI"),
        (seen("Failed", reason="OutOfcpu"), "Ended", None, "OutOfcpu"),
        (seen("Failed", ended(128, "StartError", message="exec: no such file or directory")), "Ended", 127, "CommandNotFound"),
        (seen("Failed", ended(128, "StartError", message="permission denied")), "Ended", 126, "CommandNotExecutable"),
        (seen("Failed", ended(128, "StartError", message="exec /bin/sh: exec format error")), "Ended", 126, "WrongArchitecture"),
        (seen("Failed", metadata=DELETED, why="WrongArchitecture"), "Ended", 1, "WrongArchitecture"),
        (seen("Failed", ended(137, "Error"), told('{"reason": "LeaseLost"}')), "Ended", 137, "LeaseLost"),
        (seen("Failed", ended(143, "Error"), told('{"reason": "LeaseLost"}'), is_told=True), "Ended", 143, "Stopped"),
        (seen("Failed", ended(137, "Error"), told('{"reason": "LeaseLost"}'), metadata=DELETED), "Ended", 137, "LeaseLost"),
        (seen("Succeeded", ended(0, "Completed"), told('{"reason": "OutputMissing"}')), "Ended", 1, "OutputMissing"),
        (seen("Failed", ended(2, "Error"), told('{"reason": "OutputMissing"}')), "Ended", 2, "Error"),
        (seen("Succeeded", ended(0, "Completed"), told("no JSON")), "Ended", 0, "Completed"),
        (seen("Failed", inits={"prepare": ended(1, "Error", message='{"reason": "InputCorrupt"}')}), "Ended", 1, "InputCorrupt"),
        (seen("Failed", inits={"image": ended(1, "Error")}), "Ended", 1, "ImageNotRunnable"),
    ],
)
def test_phase_exit_code_and_reason(pod: Seen, phase: str, exit_code: int | None, reason: str) -> None:
    state = state_of(pod, NOW)

    assert (str(state.phase), state.exit_code, state.reason) == (phase, exit_code, reason)
    assert (state.job_id, state.attempt, state.epoch, state.uid, state.name) == ("job", 2, 7, "u1", "p")


def test_outputs_are_those_that_the_sidecar_told() -> None:
    pod = seen("Succeeded", ended(0, "Completed"), told('{"reason": "", "message": "", "outputs": {"model": "abc"}}'))

    assert state_of(pod, NOW).outputs == {"model": "abc"}


def test_a_stopped_pod_on_a_silent_node_ends_once_it_must_have_stopped_itself() -> None:
    pod = seen("Running", {"running": {}}, metadata=DELETED, is_out_of_reach=True)

    assert str(state_of(pod, NOW + 40).phase) == "Running"
    assert (str(state_of(pod, NOW + 51).phase), state_of(pod, NOW + 51).exit_code) == ("Ended", None)
    assert str(state_of(seen("Running", {"running": {}}, metadata=DELETED), NOW + 51).phase) == "Running"


def test_the_pods_own_name_is_the_one_of_the_control_plane() -> None:
    assert state_of(seen(metadata={"name": "tt-1", "annotations": {names.POD: "Long_Name"}}), NOW).name == "Long_Name"


def waiting(reason: str, message: str = "m") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


OTHER_MACHINE = "no match for platform in manifest: not found"


UNPLACED = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}]


@pytest.mark.parametrize(
    ("pod", "after_s", "reason"),
    [
        (seen("Pending", inits={"image": waiting("InvalidImageName")}), 0, "InvalidImageName"),
        (seen("Pending", inits={"image": waiting("ImagePullBackOff")}), 10, None),
        (seen("Pending", inits={"image": waiting("ImagePullBackOff")}), 31, "ImagePullBackOff"),
        (seen("Pending", inits={"image": waiting("ErrImagePull")}), 31, "ImagePullBackOff"),
        (seen("Pending", inits={"image": waiting("ErrImagePull", OTHER_MACHINE)}), 0, "WrongArchitecture"),
        (seen("Pending", waiting("CreateContainerConfigError")), 0, "CreateContainerConfigError"),
        (seen("Pending", conditions=UNPLACED), 10, None),
        (seen("Pending", conditions=UNPLACED), 31, "Unschedulable"),
        (seen("Pending"), 1000, None),
        (seen("Running", {"running": {}}, {"image": waiting("ImagePullBackOff")}), 31, None),
        (seen("Pending", inits={"image": waiting("InvalidImageName")}, metadata=DELETED), 0, None),
    ],
)
def test_a_pod_that_will_not_run_is_given_up_with_a_sentence(pod: Seen, after_s: float, reason: str | None) -> None:
    found = hopeless(pod, NOW + after_s, 30.0)

    assert (found[0] if found else None) == reason
    assert found is None or found[1].endswith(".") or "0/2 nodes" in found[1]


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({"cpu": "3920m", "memory": "15Gi", "nvidia.com/gpu": "4"}, {"cpu": "3920m", "memory": "15Gi", "nvidia.com/gpu": 4}),
        ({"cpu": "2", "memory": "128974848000m"}, {"cpu": 2, "memory": 128974848}),
        ({"cpu": "2", "memory": "129e6", "pods": "110", "hugepages-2Mi": "0"}, {"cpu": 2, "memory": 129_000_000}),
    ],
)
def test_amounts_of_a_node(amounts: dict[str, str], expected: dict[str, Any]) -> None:
    assert resources_of(amounts) == Resources.parse(expected)


def test_a_node_with_its_taints_but_for_those_that_all_our_pods_tolerate() -> None:
    taints = [{"key": "dedicated", "value": "ml", "effect": "NoSchedule"}, {"key": "spot", "effect": "NoExecute"}]
    ready = [{"type": "Ready", "status": "True"}]
    body = {"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": {"taints": taints}, "status": {"conditions": ready}}

    node = node_of(body, "k", [Toleration("dedicated", "ml")])

    assert (node.name, node.cluster, node.labels, node.is_ready) == ("n", "k", {"zone": "a"}, True)
    assert node.taints == (Taint("spot", "", "NoExecute"),)


def test_a_node_says_how_many_pods_it_takes() -> None:
    body = {"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "pods": "110"}}}

    assert node_of(body, "k", []).allocatable == Resources.parse({"cpu": 4, "pods": 110})


def test_devices_that_a_node_has_and_cannot_give_out_are_told_apart() -> None:
    capacity = {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": "8", "attachable-volumes-csi": "9"}
    body = {"metadata": {"name": "n"}, "status": {"capacity": capacity, "allocatable": {"cpu": "7", "nvidia.com/gpu": "6"}}}

    for shown in (body, node_kept(body)):
        node = node_of(shown, "k", [])
        assert (node.allocatable["nvidia.com/gpu"], node.failing) == (6, Resources.parse({"nvidia.com/gpu": 2}))


def test_a_cordoned_node_has_a_taint_that_nobody_tolerates() -> None:
    body = {"metadata": {"name": "n"}, "spec": {"unschedulable": True}, "status": {}}

    assert [taint.key for taint in node_of(body, "k", []).taints] == ["node.kubernetes.io/unschedulable"]
    assert not node_of(body, "k", []).is_ready


def test_times_that_a_node_writes_change_nothing() -> None:
    """A node's clock is a day behind, or ahead: what its kubelet wrote of when a pod started and ended is not read."""
    for skewed in ("2026-11-28T12:00:00Z", "2026-11-30T12:00:00Z"):
        state = ended(3, "Error", startedAt=skewed, finishedAt=skewed)
        stamps: dict[str, Any] = {
            "startTime": skewed,
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": skewed}],
        }

        assert (state_of(seen("Failed", state, **stamps), NOW).exit_code, state_of(seen("Failed", state), NOW).exit_code) == (3, 3)
        late = seen("Pending", inits={"image": waiting("ImagePullBackOff")}, **stamps)
        assert (hopeless(late, NOW + 10, 30.0), (hopeless(late, NOW + 31, 30.0) or ("",))[0]) == (None, "ImagePullBackOff")
        gone = seen("Running", {"running": {"startedAt": skewed}}, metadata=DELETED, is_out_of_reach=True, **stamps)
        assert [str(state_of(gone, NOW + after_s).phase) for after_s in (49, 51)] == ["Running", "Ended"]
