"""Sizes of Spark's pods: the driver's and those of its executors, from heaps and cores as Spark counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import Amount, PodRequest
from tuttilab.scheduler.domain.resources import parse_cpu, parse_spark_memory

MIB: Final = 2**20
MOST_EXECUTORS: Final = 5_000
LEAST_HEAP: Final = 450 * MIB
"""Below it Spark does not start."""
BESIDE_HEAP: Final = 384 * MIB
"""At least so much of a pod, or a quarter of it, is for Java beside the heap and for Python."""
WORKER: Final = 256 * MIB
"""Of an executor's pod: what starts the executor in it, a Spark worker and its parent."""
DRIVER: Final = "driver"
EXECUTOR: Final = "executor"
SECRET: Final = "spark-secret"  # noqa: S105  the secret file's name, not a secret


@dataclass(frozen=True, slots=True)
class SparkSize:
    """``executor_heap``: bytes, a whole number of MiB. ``executors`` 0: tasks run in the driver."""

    executors: int
    executor_cores: int
    executor_heap: int

    def executor_pods(self) -> tuple[PodRequest, ...]:
        if not self.executors:
            return ()
        memory = pod_memory(self.executor_heap) + WORKER
        return (PodRequest(role=EXECUTOR, count=self.executors, cpus=self.executor_cores, memory=in_mib(memory), ends="with_job"),)

    def heap_text(self) -> str:
        return f"{self.executor_heap // MIB}m"

    def spec(self) -> dict[str, int]:
        """For the programs in the pods; nothing without executors."""
        if not self.executors:
            return {}
        return {"executors": self.executors, "executor_cores": self.executor_cores, "executor_heap": self.executor_heap}


NO_EXECUTORS: Final = SparkSize(0, 0, 0)


def size_of_executors(executors: object, cores: Amount | None, memory: Amount | None, path: str = "") -> SparkSize:
    """Raises BadInput with the key, which is below ``path``."""
    if type(executors) is not int or not 0 <= executors <= MOST_EXECUTORS:
        raise BadInput(f"{path}executors: {executors!r} is out of range; expected 0 (tasks run in the driver) to {MOST_EXECUTORS}.")
    for key, given in (("executor_cores", cores), ("executor_memory", memory)):
        if not executors and given is not None:
            raise BadInput(f"{path}{key}: {given!r} is the size of executors, and there are none; say how many with executors.")
    return SparkSize(
        executors,
        whole_cores(1 if cores is None else cores, f"{path}executor_cores"),
        heap(1024 * MIB if memory is None else memory, f"{path}executor_memory"),
    )


def whole_cores(value: Amount, field: str) -> int:
    """Raises BadInput for a part of a core: an executor runs a task on each core."""
    milli = parse_cpu(value, field)
    if milli % 1000 or not milli:
        raise BadInput(f"{field}: {value!r} is no whole number of cores; expected 1 or more.")
    return milli // 1000


def heap(value: Amount, field: str) -> int:
    """Bytes of a heap, whole MiB. Raises BadInput for one in which Spark does not start."""
    amount = parse_spark_memory(value, field) // MIB * MIB
    if amount < LEAST_HEAP:
        raise BadInput(f"{field}: {value!r} is too small for Spark; expected at least {LEAST_HEAP // MIB}m, such as 1g.")
    return amount


def pod_memory(heap_bytes: int) -> int:
    """Memory of a pod with this heap; `heap_of` of it gives the heap, to the MiB."""
    return max(heap_bytes + BESIDE_HEAP, -(-4 * (heap_bytes // MIB) // 3) * MIB)


def heap_of(memory: int) -> int:
    """The heap in a pod of ``memory`` bytes: all but a quarter, of which at least `BESIDE_HEAP` is left."""
    return memory - max(BESIDE_HEAP, memory // 4)


def in_mib(amount: int) -> str:
    return f"{-(-amount // MIB)}Mi"
