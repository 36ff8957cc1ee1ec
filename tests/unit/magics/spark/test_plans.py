"""Relative paths mean the notebook's folder, and a function's pickle brings the notebook's folders to Spark's Python."""

import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.shared.paths import absolute
from tuttilab.magics.spark.plans import FromHere, OfOnePython, adding_folders


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("trades.csv", "file:///nb/trades.csv"),
        ("./a b/c", "file:///nb/a b/c"),
        ("../x", "file:///nb/../x"),
        ("/data/x", "/data/x"),
        ("s3a://bucket/x", "s3a://bucket/x"),
        ("file:/x", "file:/x"),
        ("", ""),
    ],
)
def test_a_relative_path_is_below_the_folder(path: str, expected: str) -> None:
    assert absolute(path, "/nb") == expected


def test_a_pickle_behind_the_folders_is_loaded_as_if_it_stood_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/first"])
    shared: list[Any] = [1]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        both = adding_folders(["/first", "/it's \\ here"]) + pickle.dumps((shared, {"a": shared}, len), protocol)
        found = pickle.loads(both)  # noqa: S301  our own
        assert found == ([1], {"a": [1]}, len)
        assert found[0] is found[1]["a"]
    assert sys.path == ["/first", "/it's \\ here"]
    assert adding_folders([]) == b""


def test_a_request_is_changed_once_however_often_it_is_sent() -> None:
    from pyspark.sql.connect.proto import base_pb2 as messages

    request = messages.ExecutePlanRequest()
    source = request.plan.root.filter.input.read.data_source
    source.paths.extend(["trades.csv", "/there"])
    source.options["Path"] = "x"
    function = request.plan.root.filter.condition.common_inline_user_defined_function.python_udf
    function.command = pickle.dumps(1)
    here = FromHere(lambda: ["/nb"])
    for _ in range(2):
        here.intercept_unary_stream(lambda _details, sent: SimpleNamespace(sent=sent), None, request)
    assert [path.rpartition("/")[2] for path in source.paths] == ["trades.csv", "there"]
    assert all(path.startswith(("file://", "/")) for path in [*source.paths, source.options["Path"]])
    assert function.command == adding_folders(["/nb"]) + pickle.dumps(1)
    write = messages.ExecutePlanRequest()
    write.plan.command.write_operation.path = "out"
    here.intercept_unary_unary(lambda _details, sent: sent, None, write)
    assert write.plan.command.write_operation.path.startswith("file:///")


def test_a_function_for_another_python_is_not_sent() -> None:
    from pyspark.sql.connect.proto import base_pb2 as messages

    plain = messages.ExecutePlanRequest()
    plain.plan.root.filter.input.read.data_source.paths.append("x")
    function = messages.AnalyzePlanRequest()
    function.schema.plan.root.filter.condition.common_inline_user_defined_function.python_udf.command = pickle.dumps(1)
    sent: list[Any] = []
    guard = OfOnePython(lambda: "Python 3.11 there, Python 3.12 here.")
    guard.intercept_unary_stream(lambda _details, request: sent.append(request), None, plain)
    with pytest.raises(UsageError, match=r"3\.11 there, Python 3\.12 here"):
        guard.intercept_unary_unary(lambda _details, request: sent.append(request), None, function)
    assert sent == [plain]
    OfOnePython(lambda: "").intercept_unary_unary(lambda _details, request: sent.append(request), None, function)
    assert sent == [plain, function]


def test_both_versions_are_named_before_anything_is_sent() -> None:
    import pyspark

    from tuttilab.magics.spark.calls import Gate
    from tuttilab.magics.spark.errors import SparkCellError
    from tuttilab.magics.spark.sessions import check_versions

    gate = Gate()
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    check_versions("wide", gate, mine, pyspark.__version__)
    check_versions("wide", gate, None, None)
    assert gate.no_functions == ""
    check_versions("wide", gate, "3.1", pyspark.__version__)
    assert f"Spark session wide runs functions with Python 3.1, and this kernel is Python {mine}" in gate.no_functions
    with pytest.raises(SparkCellError, match=f"session wide runs Spark 3.5.1 and this kernel has Spark {pyspark.__version__}"):
        check_versions("wide", gate, mine, "3.5.1")
