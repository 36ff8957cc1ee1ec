"""Which files of a Spark application are sent to containers, and what stays as it was."""

from pathlib import Path

import pytest

from tuttilab.scheduler.client.application_files import goes_to_containers, with_files
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, SparkBatchRequest
from tuttilab.scheduler.domain.wire import ClusterView

LOCAL, K = (
    ClusterView(name=name, kind=kind, nodes=1, is_reachable=True, unreachable_since=None, allocatable={}, used={})
    for name, kind in (("here", "local"), ("k", "kubernetes"))
)
SPARK = SparkBatchRequest(
    main="main.py", py_files=("lib/helpers.py",), jars=("/opt/a.jar",), archives=("lib/note.zip#data", "note.zip")
)
REQUEST = JobRequest(kind="spark-batch", image="i", spark=SPARK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    for name in ("main.py", "lib/helpers.py", "lib/note.zip", "note.zip"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("request_", "clusters", "goes"),
    [
        (JobRequest(), [LOCAL, K], False),
        (JobRequest(), [K], True),
        (JobRequest(cluster="k"), [LOCAL, K], True),
        (JobRequest(cluster="here"), [LOCAL, K], False),
        (JobRequest(image="i"), [LOCAL, K], True),
        (JobRequest(cluster="nowhere"), [LOCAL], False),
    ],
)
def test_where_files_are_needed(request_: JobRequest, clusters: list[ClusterView], goes: bool) -> None:
    assert goes_to_containers(request_, clusters) is goes


def test_relative_files_are_inputs_each_once_and_absolute_ones_are_the_images(folder: Path) -> None:
    put: list[Path] = []

    def upload(path: Path) -> str:
        put.append(path)
        return f"{len(put)}" * 64

    made = with_files(REQUEST, [K], folder, upload)
    assert made.spark == SparkBatchRequest(
        main="$(DATA_DIR)/application/main.py",
        py_files=("$(DATA_DIR)/application/helpers.py",),
        jars=("/opt/a.jar",),
        archives=("$(DATA_DIR)/application/note.zip#data", "$(DATA_DIR)/application/2/note.zip"),
    )
    assert {one.path: one.artifact for one in made.inputs} == {
        "application/helpers.py": "1" * 64,
        "application/note.zip": "2" * 64,
        "application/2/note.zip": "3" * 64,
        "application/main.py": "4" * 64,
    }
    assert made.workdir is None


def test_on_the_submitters_machine_nothing_is_sent(folder: Path) -> None:
    request = JobRequest(kind="spark-batch", spark=SPARK, workdir=str(folder))
    assert with_files(request, [LOCAL], folder, lambda _path: "a" * 64) is request


def test_a_manifests_own_folder_is_where_its_files_are(folder: Path) -> None:
    request = JobRequest(kind="spark-batch", cluster="k", spark=SparkBatchRequest(main="helpers.py"), workdir=str(folder / "lib"))
    made = with_files(request, [LOCAL, K], folder, lambda _path: "a" * 64)
    assert made.inputs == (InputRequest(path="application/helpers.py", artifact="a" * 64),)


def test_a_file_that_is_missing_is_named_before_anything_is_submitted(folder: Path) -> None:
    request = JobRequest(kind="spark-batch", image="i", spark=SparkBatchRequest(main="absent.py"))
    with pytest.raises(BadInput, match=r"spark.main: there is no file 'absent.py' in .*; expected one, or the absolute path"):
        with_files(request, [K], folder, None)
