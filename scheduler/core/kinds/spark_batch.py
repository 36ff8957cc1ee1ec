"""Kind spark-batch: a Spark application that runs to its end, as a driver and its executors.

Its job is of kind batch, or with executors distributed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, Final

from tuttilab.scheduler.core.kinds.pods import gang_of, work_of
from tuttilab.scheduler.core.kinds.spark_size import DRIVER, MIB, heap, in_mib, pod_memory, size_of_executors
from tuttilab.scheduler.core.placement.work_places import SPARK_APPLICATION as APPLICATION
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Framework, Gang, Job, JobKind, Work
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest, SparkBatchRequest
from tuttilab.scheduler.domain.resources import parse_cpu

KIND: Final = "spark-batch"
LONGEST: Final = 64 * 1024
"""Bytes of an application with its arguments: Linux takes twice as much in one variable."""
PROGRAM: Final = ("-m", "tuttilab.scheduler.spark.batch")
MASTER_HEAP: Final = 128 * MIB
"""Of the process that holds the master, beside the driver's own."""
_MASTER: Final = 256 * MIB
"""What that process takes in all."""
_JAR: Final = ".jar"
_ENDINGS: Final = {"py_files": (".py", ".zip", ".egg"), "jars": (_JAR,), "archives": (".zip", ".tgz", ".tar.gz", _JAR)}


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    asked = request.spark
    if asked is None:
        raise BadInput("spark: it is missing; expected the application, such as `spark: {main: job.py, executors: 4}`.")
    plain = JobRequest()
    for key in ("pods", "command", "framework"):
        if getattr(request, key) != getattr(plain, key):
            raise BadInput(
                f"{key}: a job of kind {KIND} has none; its size is executors and driver_memory of `spark`, its program main."
            )
    _check_program(asked)
    size = size_of_executors(asked.executors, asked.executor_cores, asked.executor_memory, "spark.")
    cpus = 1 if asked.driver_cores is None else asked.driver_cores
    driver_heap = heap(1024 * MIB if asked.driver_memory is None else asked.driver_memory, "spark.driver_memory")
    memory = pod_memory(driver_heap) + (_MASTER if size.executors else 0)
    spec = {
        **size.spec(),
        "cores": max(1, parse_cpu(cpus, "spark.driver_cores") // 1000),
        "driver_heap": driver_heap,
        "application": asdict(asked),
    }
    text = json.dumps(spec, sort_keys=True)
    if len(text) > LONGEST:
        raise BadInput(f"spark: it has {len(text)} bytes; expected at most {LONGEST}, with what is longer in a file.")
    filled = replace(
        request,
        pods=(PodRequest(role=DRIVER, cpus=cpus, memory=in_mib(memory)), *size.executor_pods()),
        command=(asked.interpreter or "python3", *PROGRAM),
        env={**request.env, APPLICATION: text},
        framework=Framework.SPARK if size.executors else Framework.NONE,
    )
    return (JobKind.DISTRIBUTED if size.executors else JobKind.BATCH), gang_of(filled), work_of(filled)


def is_application(job: Job) -> bool:
    return APPLICATION in job.work.env


def definition_of(job: Job, plain: JobRequest) -> JobRequest:
    """The request of such a job. ``plain``: as it would be for a command."""
    asked: dict[str, Any] = json.loads(job.work.env[APPLICATION])["application"]
    lists = ("args", "py_files", "jars", "archives")
    application: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in asked.items()}
    return replace(
        plain,
        kind=KIND,
        pods=JobRequest().pods,
        command=(),
        framework=JobRequest().framework,
        env={name: value for name, value in plain.env.items() if name != APPLICATION},
        spark=SparkBatchRequest(**application),
    )


def _check_program(asked: SparkBatchRequest) -> None:
    if not asked.main.endswith((".py", _JAR)):
        raise BadInput(
            f"spark.main: {asked.main[:80]!r} is neither a Python file nor a jar; expected a path that ends in .py or .jar."
        )
    if asked.main.endswith(_JAR) != (asked.main_class is not None):
        raise BadInput("spark.main_class: a jar has one and a Python file has none; expected it with `main: NAME.jar` only.")
    for key, endings in _ENDINGS.items():
        for index, path in enumerate(getattr(asked, key)):
            if "," in path or not path.partition("#")[0].endswith(endings):
                raise BadInput(
                    f"spark.{key}[{index}]: {path[:80]!r} is not such a file; expected a path that ends in {' or '.join(endings)}, "
                    "without a comma."
                )
