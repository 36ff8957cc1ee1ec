"""The way from a pod's program to its Java, when Java ends: an error for who asked, and nothing else in the session's log."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from py4j.protocol import ERROR, Py4JError  # type: ignore[import-untyped]

from tuttilab.scheduler.spark.gateway import start_java
from tuttilab.scheduler.spark.java import find_java


@pytest.mark.tier("spark")
def test_a_call_to_a_java_that_has_ended_raises_and_writes_no_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process, gateway = start_java(find_java(os.environ, tmp_path), 2**28, tmp_path, os.environ)
    assert gateway.jvm.java.lang.System.nanoTime()  # so that there is a connection
    process.kill()
    process.wait(60)

    # As when an object of Java is given up.
    assert gateway._gateway_client.send_command("m\nd\no0\ne\n", retry=False) == ERROR
    with pytest.raises(Py4JError):
        gateway.jvm.java.lang.System.nanoTime()
    logging.getLogger().warning("of somebody else")

    assert [record.getMessage() for record in caplog.records] == ["of somebody else"]
