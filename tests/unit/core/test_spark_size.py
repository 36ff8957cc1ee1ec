"""Sizes of Spark's pods, and the jobs of sessions and applications with executors."""

from __future__ import annotations

import json

import pytest

from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.kinds.definition import definition_of
from tuttilab.scheduler.core.kinds.spark import SPEC, executors_of, request_of
from tuttilab.scheduler.core.kinds.spark_size import MIB, heap_of, pod_memory, size_of_executors
from tuttilab.scheduler.core.placement.work_places import SPARK_APPLICATION as APPLICATION
from tuttilab.scheduler.domain.errors import AboveMax, BadInput
from tuttilab.scheduler.domain.model import Framework, Job, JobKind, Queue
from tuttilab.scheduler.domain.requests import JobRequest, SparkBatchRequest, SparkRequest, Who
from tuttilab.scheduler.domain.resources import CPU, MEMORY, Resources, parse_spark_memory

WHO = Who("ada", is_admin=True, in_every_group=True)


def built(request: JobRequest, most_cpu: int = 100) -> Job:
    site = Site({"main": Queue("main", max=Resources.of({CPU: most_cpu * 1000}))}, {}, default_queue="main")
    return build(request, WHO, site, job_id="j", order=1, now=0.0)


@pytest.mark.parametrize("heap", [450, 512, 1000, 1152, 1153, 4096, 4097, 65536])
def test_a_pod_of_a_heap_has_that_heap(heap: int) -> None:
    assert heap_of(pod_memory(heap * MIB)) // MIB == heap


@pytest.mark.parametrize(("text", "mib"), [("4g", 4096), ("4G", 4096), ("512m", 512), ("512MB", 512), ("4Gi", 4096)])
def test_memory_is_read_as_spark_reads_it(text: str, mib: int) -> None:
    assert parse_spark_memory(text, "memory") == mib * MIB


@pytest.mark.feature("N23")
def test_a_session_with_executors_is_one_gang_of_their_sizes() -> None:
    asked = SparkRequest(executors=4, executor_cores=2, executor_memory="4g", driver_memory="2g", ttl="8h")
    job = built(request_of(asked, "python"))
    driver, executors = job.gang.pod_sets
    assert (driver.role, driver.count, driver.resources[CPU]) == ("driver", 1, 1000)
    assert (executors.role, executors.count, executors.resources[CPU], executors.ends) == ("executor", 4, 2000, "with_job")
    assert executors.resources[MEMORY] == pod_memory(4096 * MIB) + 256 * MIB
    assert (job.kind, job.work.framework, job.timeout_s) == (JobKind.SPARK, Framework.SPARK, 8 * 3600)
    assert (executors_of(job).executors, executors_of(job).heap_text()) == (4, "4096m")
    assert heap_of(json.loads(job.work.env[SPEC])["memory_bytes"]) // MIB == 2048


def test_a_session_without_executors_stays_what_it_was() -> None:
    job = built(request_of(SparkRequest(), "python"))
    assert (job.gang.size, job.work.framework, executors_of(job).executors) == (1, Framework.NONE, 0)
    assert sorted(json.loads(job.work.env[SPEC])) == ["conf", "cores", "idle_s", "keep", "memory_bytes", "ui"]


def test_more_than_the_queue_may_have_names_both() -> None:
    with pytest.raises(AboveMax, match=r"9.*4"):
        built(request_of(SparkRequest(executors=8, cpus=1), "python"), most_cpu=4)


@pytest.mark.parametrize(
    ("executors", "cores", "memory", "sentence"),
    [
        (-1, None, None, "executors: -1 is out of range"),
        (True, None, None, "executors: True is out of range"),
        (0, 2, None, "executor_cores: 2 is the size of executors, and there are none"),
        (1, "1500m", None, "executor_cores: '1500m' is no whole number of cores"),
        (1, 0, None, "executor_cores: 0 is no whole number of cores"),
        (1, None, "100m", "executor_memory: '100m' is too small for Spark"),
        (1, None, "4x", "unknown unit"),
    ],
)
def test_sizes_that_are_none(executors: object, cores: int | str | None, memory: str | None, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        size_of_executors(executors, cores, memory)
    assert sentence in str(caught.value)


@pytest.mark.feature("J08", "S01")
def test_an_application_is_a_gang_whose_definition_submits_it_again() -> None:
    spark = SparkBatchRequest(main="job.py", args=("1",), py_files=("a.py",), conf={"spark.speculation": True}, executors=3)
    request = JobRequest(name="app", kind="spark-batch", env={"A": "b"}, spark=spark, workdir="/w")
    job = built(request)
    assert (job.kind, [one.role for one in job.gang.pod_sets], job.gang.size) == (JobKind.DISTRIBUTED, ["driver", "executor"], 4)
    assert APPLICATION in job.work.env
    again = definition_of(job)
    assert (again.kind, again.spark, again.env) == ("spark-batch", spark, {"A": "b"})
    assert built(again).gang == job.gang
    alone = built(JobRequest(kind="spark-batch", spark=SparkBatchRequest(main="job.py")))
    assert (alone.kind, alone.gang.size, alone.work.framework) == (JobKind.BATCH, 1, Framework.NONE)


def test_an_image_has_a_python_of_its_own_for_sessions_and_applications() -> None:
    session = built(request_of(SparkRequest(image="registry.example/spark:1", cluster=None), "/here/python"))
    assert (session.work.image, session.work.command[0]) == ("registry.example/spark:1", "python3")
    chosen = built(request_of(SparkRequest(image="i", interpreter="/opt/python"), "/here/python"))
    assert chosen.work.command[0] == "/opt/python"
    application = built(JobRequest(kind="spark-batch", image="i", spark=SparkBatchRequest(main="job.py")))
    assert (application.work.image, application.work.command[0]) == ("i", "python3")
    assert definition_of(application).image == "i"


@pytest.mark.feature("J08")
@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (
            JobRequest(kind="batch", command=("true",), spark=SparkBatchRequest(main="a.py")),
            "spark: a job of kind batch has no such",
        ),
        (JobRequest(kind="batch", command=("true",), framework="spark"), "framework: spark comes with Spark jobs and sessions"),
        (JobRequest(kind="spark-batch"), "spark: it is missing"),
        (JobRequest(kind="spark-batch", spark=SparkBatchRequest(main="a.py", args=("x" * 70_000,))), "expected at most 65536"),
        (JobRequest(kind="spark-batch", spark=SparkBatchRequest(main="a.jar")), "spark.main_class: a jar has one"),
        (
            JobRequest(kind="spark-batch", spark=SparkBatchRequest(main="a.py", archives=("a.zip,b.zip",))),
            "spark.archives[0]: 'a.zip,b.zip' is not such a file",
        ),
        (
            JobRequest(kind="spark-batch", env={APPLICATION: "{}"}, spark=SparkBatchRequest(main="a.py")),
            f"env.{APPLICATION}: it is set by the service",
        ),
        (
            # By it a job would be taken for an application, and its definition read from there.
            JobRequest(command=("true",), env={APPLICATION: "no JSON"}),
            f"env.{APPLICATION}: it is set by the service",
        ),
        (
            JobRequest(kind="spark-batch", spark=SparkBatchRequest(main="a.py", executor_memory="4g")),
            "spark.executor_memory: '4g' is the size of executors",
        ),
    ],
)
def test_what_is_no_application(request_: JobRequest, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        built(request_)
    assert sentence in str(caught.value)
