"""Parsing shared by all kinds: the keys of a request into `PodSet` and `Work`, with the path in each error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from tuttilab.scheduler.core.placement.taints import toleration_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import MASTER, Ends, Framework, Gang, Input, Output, PodSet, Work
from tuttilab.scheduler.domain.requests import MOST_ENV_BYTES, JobRequest, PodRequest
from tuttilab.scheduler.domain.resources import (
    CPU,
    GPU,
    MEMORY,
    PODS,
    Resources,
    parse_count,
    parse_cpu,
    parse_duration,
    parse_memory,
)

MAX_PODS: Final = 10_000
LEAST_MEMORY: Final = 2**20
"""Bytes of a pod."""
GPU_TYPE_LABEL: Final = "gpu-model"

_ROLE = re.compile(r"[a-z](?:[-a-z0-9]{0,14}[a-z0-9])?")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def gang_of(request: JobRequest) -> Gang:
    if not request.pods:
        raise BadInput("pods: an empty list starts nothing; expected at least one pod set.")
    pod_sets = tuple(_pod_set(pod, f"pods[{index}]") for index, pod in enumerate(request.pods))
    roles = [pod_set.role for pod_set in pod_sets]
    if len(set(roles)) != len(roles):
        raise BadInput(f"pods: the roles {', '.join(roles)} are not all different; expected each role once.")
    gang = Gang(pod_sets)
    if gang.size > MAX_PODS:
        raise BadInput(f"pods: {gang.size} pods are too many; expected at most {MAX_PODS}.")
    if all(pod_set.ends is Ends.WITH_JOB for pod_set in pod_sets):
        raise BadInput("pods: every set ends with the job, so it would never end; expected one with `ends: required`.")
    return gang


def _pod_set(pod: PodRequest, path: str) -> PodSet:
    if not _ROLE.fullmatch(pod.role) or pod.role == MASTER:
        raise BadInput(f"{path}.role: {pod.role!r} is not a role; expected lower-case letters and digits, and not {MASTER!r}.")
    if not 1 <= pod.count <= MAX_PODS:
        raise BadInput(f"{path}.count: {pod.count} is out of range; expected 1 to {MAX_PODS}.")
    if pod.min_count is not None and not 1 <= pod.min_count <= pod.count:
        raise BadInput(f"{path}.min_count: {pod.min_count} is out of range; expected 1 to count ({pod.count}).")
    if pod.ends not in list(Ends):
        raise BadInput(f"{path}.ends: {pod.ends!r} is not known; expected {' or '.join(Ends)}.")
    for key in pod.resources:
        if key in (CPU, MEMORY, GPU):
            word = {CPU: "cpus", MEMORY: "memory", GPU: "gpus"}[key]
            raise BadInput(f"{path}.resources.{key}: use the key {word!r} of the pod for this.")
        if key == PODS:
            raise BadInput(f"{path}.resources.{key}: each pod counts as one by itself; leave it out.")
    cpu = parse_cpu(pod.cpus, f"{path}.cpus")
    if cpu == 0:
        raise BadInput(f"{path}.cpus: {pod.cpus!r} is no CPU at all; expected at least 1m.")
    memory = parse_memory(pod.memory, f"{path}.memory")
    if memory < LEAST_MEMORY:
        # None at all would be no limit, and cost no quota; a few bytes are a forgotten unit.
        what = f"{memory} bytes" if memory else "no memory at all"
        raise BadInput(f"{path}.memory: {pod.memory!r} is {what}; expected at least 1Mi, such as 512Mi or 8Gi.")
    amounts = {CPU: cpu, MEMORY: memory, GPU: parse_count(pod.gpus, f"{path}.gpus")}
    resources = Resources.of(amounts) + Resources.parse(pod.resources, f"{path}.resources")
    labels = {**pod.node_labels, **({GPU_TYPE_LABEL: pod.gpu_type} if pod.gpu_type else {})}
    tolerations = tuple(toleration_of(text, f"{path}.tolerations[{index}]") for index, text in enumerate(pod.tolerations))
    return PodSet(pod.role, pod.count, resources, pod.min_count, Ends(pod.ends), labels, tolerations=tolerations)


def work_of(request: JobRequest) -> Work:
    if not request.command or not request.command[0]:
        raise BadInput("command: it is empty; expected a program and its arguments, such as [python, train.py].")
    texts = [("command", text) for text in request.command] + [
        (f"env.{k}", v) for k, v in [*request.env.items(), *request.inherited.items()]
    ]
    for field, text in texts:
        if "\x00" in text:
            raise BadInput(f"{field}: it holds a NUL character, which no program can be given.")
    check_env_names([*request.env, *request.inherited])
    size = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in request.inherited.items())
    if size > MOST_ENV_BYTES:
        raise BadInput(f"inherited: the environment has {size} bytes; expected at most {MOST_ENV_BYTES}.")
    if request.framework not in list(Framework):
        raise BadInput(f"framework: {request.framework!r} is not known; expected one of {', '.join(Framework)}.")
    if request.code is not None and not _SHA256.fullmatch(request.code):
        raise BadInput(f"code: {request.code[:70]!r} is not an artifact id; expected 64 hexadecimal digits.")
    outputs = tuple(
        Output(o.name, _below_result_dir(o.path, f"outputs[{i}].path"), o.optional) for i, o in enumerate(request.outputs)
    )
    for index, output in enumerate(outputs):
        if not _OUTPUT_NAME.fullmatch(output.name):
            raise BadInput(
                f"outputs[{index}].name: {output.name[:60]!r} is not a name; expected letters, digits, '-', '_' and '.'."
            )
    for index, given in enumerate(request.inputs):
        if given.artifact is not None and not _SHA256.fullmatch(given.artifact):
            raise BadInput(
                f"inputs[{index}].artifact: {given.artifact[:70]!r} is not an artifact id; expected 64 hexadecimal digits."
            )
    return Work(
        command=request.command,
        image=request.image,
        env=dict(request.env),
        inherited=_shared(tuple(request.inherited.items())),
        workdir=request.workdir,
        code=request.code,
        inputs=tuple(Input(i.path, i.artifact) for i in request.inputs),
        outputs=outputs,
        framework=Framework(request.framework),
        sidecar=request.sidecar,
        grace_s=parse_duration(request.grace, "grace"),
        run_as=request.run_as,
    )


@lru_cache(maxsize=32)
def _shared(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """The jobs of one notebook mostly have one environment, which is kept once."""
    return dict(items)


def check_env_names(env: Iterable[str]) -> None:
    for name in env:
        if not _ENV.fullmatch(name):
            raise BadInput(f"env: {name[:60]!r} is not a variable's name; expected letters, digits and underscores.")


def _below_result_dir(path: str, field: str) -> str:
    """The path of a declared output, relative to RESULT_DIR. Raises BadInput if it is not below RESULT_DIR."""
    steps = path.removeprefix("$(RESULT_DIR)/").split("/")
    if not path or path.startswith("/") or ".." in steps or "" in steps or "\x00" in path:
        raise BadInput(f"{field}: {path[:80]!r} is not below RESULT_DIR; expected a relative path without '..', such as model.pt.")
    return "/".join(steps)
