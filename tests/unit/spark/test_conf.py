"""Settings of a session: those that its owner may choose, and the fixed ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark.conf import MIB, SparkSpec, check_conf, heap_bytes, parse_spec, server_conf

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": 0}, "at least 1, got 0"),
        ({"cores": True}, "at least 1, got True"),
        ({"cores": 1.0}, "at least 1, got 1.0"),
        ({"memory_bytes": 1000}, "at least 1073741824 bytes of memory"),
        ({"idle_s": 0}, "idle_s is a number of seconds above zero, or null"),
        ({"conf": []}, "conf is an object of Spark settings"),
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
