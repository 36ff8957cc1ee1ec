"""Settings of a session: those that its owner may choose, and the fixed ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tuttilab.scheduler.core.kinds.spark_size import MIB, SparkSize
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark.conf import Master, SparkSpec, check_conf, heap_bytes, parse_spec, server_conf

SPEC = SparkSpec(cores=4, memory_bytes=4096 * MIB)


def test_allowed_settings_pass_as_text() -> None:
    assert check_conf({"spark.sql.ansi.enabled": False, "spark.default.parallelism": 8, "spark.locality.wait": "1s"}) == {
        "spark.sql.ansi.enabled": "false",
        "spark.default.parallelism": "8",
        "spark.locality.wait": "1s",
    }


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("spark.default.paralelism", "did you mean spark.default.parallelism?"),
        ("spark.driver.maxResultsSize", "did you mean spark.driver.maxResultSize?"),
        ("spark.connect.authenticate.token", "cannot be chosen for a session"),
        ("spark.ui.enabled", "cannot be chosen for a session"),
        ("spark.jars", "cannot be chosen for a session"),
        ("spark.driver.extraJavaOptions", "cannot be chosen for a session"),
        ("spark.sql.warehouse.dir", "cannot be chosen for a session"),
        ("spark.sql.extensions", "cannot be chosen for a session"),
        ("sql.ansi", "cannot be chosen for a session"),
    ],
)
def test_other_settings_are_refused_with_a_hint(key: str, hint: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_conf({key: "1"})
    assert hint in str(caught.value)


@pytest.mark.feature("J08")
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("spark.default.parallelism", "many", "takes a whole number, got 'many'"),
        ("spark.memory.fraction", "0.6x", "takes a number, got '0.6x'"),
        ("spark.speculation", "yes", "takes true or false, got 'yes'"),
        ("spark.driver.maxResultSize", "2 gigabytes", "takes a size such as 512m or 2g"),
        ("spark.locality.wait", "soon", "takes a time such as 30s"),
        ("spark.sql.session.timeZone", "UTC\nspark.jars=x", "takes one line of text"),
        ("spark.sql.shuffle.partitions", 1.5, "takes a whole number, got '1.5'"),
        ("spark.sql.x", ["a"], "takes text, a number or true/false"),
        ("spark.sql.x", "a" * 5000, "takes one line of text"),
        ("spark.executor.memory", "4g", "is given by --executor-memory"),
        ("spark.executor.instances", 4, "is given by --executors"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_conf({key: value})
    assert f"The Spark setting {key} {expected}" in str(caught.value)


@pytest.mark.parametrize("value", ["2g", "512MB", "1024", "-1"])
def test_sizes_are_written_as_spark_writes_them(value: str) -> None:
    assert check_conf({"spark.sql.autoBroadcastJoinThreshold": value}) == {"spark.sql.autoBroadcastJoinThreshold": value}


@pytest.mark.feature("N23")
def test_a_gang_has_the_executors_that_were_asked_for_and_no_others() -> None:
    size = SparkSize(executors=4, executor_cores=2, executor_heap=4096 * MIB)
    spec = SparkSpec(1, 2048 * MIB, {"spark.dynamicAllocation.enabled": "true"}, size=size)
    conf = server_conf(spec, "token", Path("/pod"), Master("10.1.2.3", 29500, "hidden"), "10.1.2.3")
    assert {key: conf[key] for key in ("spark.master", "spark.executor.instances", "spark.executor.cores", "spark.cores.max")} == {
        "spark.master": "spark://10.1.2.3:29500",
        "spark.executor.instances": "4",
        "spark.executor.cores": "2",
        "spark.cores.max": "8",
    }
    assert (conf["spark.executor.memory"], conf["spark.sql.shuffle.partitions"]) == ("4096m", "32")
    assert (conf["spark.dynamicAllocation.enabled"], conf["spark.authenticate.secret"]) == ("false", "hidden")
    assert (conf["spark.network.crypto.enabled"], conf["spark.connect.grpc.binding.address"]) == ("true", "10.1.2.3")
    assert Master("127.0.0.1", 1, "hidden").authentication()["spark.network.crypto.enabled"] == "false"
    assert "hidden" not in repr(Master("127.0.0.1", 1, "hidden"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": 0}, "at least 1, got 0"),
        ({"cores": True}, "at least 1, got True"),
        ({"cores": 1.0}, "at least 1, got 1.0"),
        ({"memory_bytes": 1000}, "at least 1073741824 bytes of memory"),
        ({"idle_s": 0}, "idle_s is a number of seconds above zero, or null"),
        ({"conf": []}, "conf is an object of Spark settings"),
        ({"executors": 2}, "executors, executor_cores and executor_heap are whole numbers"),
        ({"executors": "2"}, "executors, executor_cores and executor_heap are whole numbers"),
        ({"gpu": 1}, "specified by cores and memory_bytes"),
    ],
)
def test_a_wrong_specification_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_spec(json.dumps({"cores": 2, "memory_bytes": 2048 * MIB} | change))
    assert message in str(caught.value)


def test_a_specification_is_read_whole() -> None:
    body = {"cores": 2, "memory_bytes": 2048 * MIB, "conf": {"spark.sql.a": 1}, "idle_s": 1.5, "ui": True}
    assert parse_spec(json.dumps(body)) == SparkSpec(2, 2048 * MIB, {"spark.sql.a": "1"}, 1.5, True)


@pytest.mark.parametrize(("memory", "heap"), [(1024, 640), (2048, 1536), (16384, 12288)])
def test_the_heap_leaves_room_for_the_rest_of_the_process(memory: int, heap: int) -> None:
    assert heap_bytes(memory * MIB) == heap * MIB


def test_a_pod_with_an_address_of_its_own_has_fixed_ports_and_its_pages_ask_for_a_token() -> None:
    conf = server_conf(replace(SPEC, ui=True), "0123456789abcdef", Path("/pod"), host="10.1.2.3")
    assert (conf["spark.connect.grpc.binding.address"], conf["spark.connect.grpc.binding.port"]) == ("10.1.2.3", "15002")
    assert (conf["spark.ui.port"], conf["spark.ui.filters"]) == ("4040", "org.apache.spark.ui.JWSFilter")
    assert conf["spark.driver.host"] == "127.0.0.1", "no other pod takes part"
    here = server_conf(replace(SPEC, ui=True), "0123456789abcdef", Path("/pod"))
    assert (here["spark.connect.grpc.binding.port"], here["spark.ui.port"]) == ("0", "0")
    assert "spark.ui.filters" not in here


def test_the_owner_cannot_override_fixed_settings() -> None:
    wishes = {"spark.sql.shuffle.partitions": "3", "spark.ui.enabled": "true", "spark.connect.grpc.binding.address": "0.0.0.0"}
    conf = server_conf(SparkSpec(4, 4096 * MIB, wishes), "secret", Path("/pod"))
    assert conf["spark.sql.shuffle.partitions"] == "3"
    assert conf["spark.ui.enabled"] == "false"
    assert conf["spark.connect.grpc.binding.address"] == "127.0.0.1"
    assert conf["spark.connect.authenticate.token"] == "secret"
    assert conf["spark.authenticate"] == "true"
    assert conf["spark.sql.warehouse.dir"] == "/pod/warehouse"


def test_partitions_follow_the_cores_unless_chosen() -> None:
    assert server_conf(SPEC, "secret", Path("/pod"))["spark.sql.shuffle.partitions"] == "16"
