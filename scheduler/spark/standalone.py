"""Spark standalone inside a gang: a master in the driver's pod, and in every other pod a worker that takes exactly one executor.

Secrets reach the Java processes over the gateway's loopback connection. A worker puts the secret into the environment of its
executor, from where it would come to every Python function: a script in the place of `java` takes it out and names a file of
arguments instead, which Java itself reads. (Spark reads secrets from files on Kubernetes only.)
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from py4j.java_gateway import JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JError  # type: ignore[import-untyped]

from tuttilab.scheduler.core.kinds.spark_size import EXECUTOR, MIB, SparkSize
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark.conf import Master
from tuttilab.scheduler.spark.gateway import ServerFailed
from tuttilab.scheduler.spark.pod import own_address

WORKER_HEAP: Final = 128 * MIB
NAME_S: Final = 60.0
"""For the driver's name to be resolved."""
_DEPLOY: Final = "org.apache.spark.deploy"
_LAUNCHER: Final = """#!/bin/sh
# Starts the executor: its secret is in a file, not in its environment, and what it writes goes to the pod's log.
unset _SPARK_AUTH_SECRET
exec "{java}" "@{secret}" "-Dlog4j2.configurationFile=file:{log4j}" \\
    "-Djava.io.tmpdir={tmp}" "$@" >"{output}" 2>&1
"""


def master_of(environ: Mapping[str, str], secret: str) -> Master:
    """Where the gang's master listens, from the pod's environment. Raises BadInput, ServerFailed.

    By its address: the driver's pod may not know itself by the name that others have for it.
    """
    host, _, port = environ.get("TUTTILAB_SPARK_MASTER", "").rpartition(":")
    if not host or not port.isdigit():
        raise BadInput("TUTTILAB_SPARK_MASTER is not set: this program is started by the control plane, not by hand.")
    address = _address_of(host) if environ.get("TUTTILAB_ROLE") == EXECUTOR else own_address(environ)
    return Master(address, int(port), secret)


def _address_of(host: str) -> str:
    """The side-car has waited for the name; a cluster's DNS may still not answer at times."""
    until = time.monotonic() + NAME_S
    while True:
        try:
            return socket.gethostbyname(host)
        except OSError as error:
            if time.monotonic() > until:
                raise ServerFailed(f"The driver's pod is not found by its name {host}: {error}.") from error
            time.sleep(0.5)


def start_master(gateway: JavaGateway, master: Master) -> Any:
    """Start the master in the driver's Java; returns what `count_workers` asks. Any: a Java object."""
    conf = _conf(gateway, master)
    started = getattr(gateway.jvm, f"{_DEPLOY}.master.Master").startRpcEnvAndEndpoint(master.host, master.port, 0, conf)
    environment = started._1()
    return environment.setupEndpointRef(environment.address(), "Master")


def count_workers(gateway: JavaGateway, master: Any) -> int:
    """How many workers have registered and live; 0 while the master does not answer."""
    answer = gateway.jvm.java.lang.Class.forName(f"{_DEPLOY}.DeployMessages$MasterStateResponse")
    tag = gateway.jvm.scala.reflect.ClassTag.apply(answer)
    request = getattr(getattr(gateway.jvm, f"{_DEPLOY}.DeployMessages$RequestMasterState$"), "MODULE$")
    try:
        state = master.askSync(request, tag)
    except Py4JError:
        return 0  # it is busy, or its Java has ended, which whoever waits finds out
    return sum("ALIVE" in str(worker.state().toString()) for worker in list(state.workers()))


def start_worker(gateway: JavaGateway, master: Master, host: str, size: SparkSize, directory: Path) -> None:
    """Start a worker of one executor's size in this pod's Java, which joins the master by itself."""
    jvm = gateway.jvm
    urls = gateway.new_array(jvm.java.lang.String, 1)
    urls[0] = master.url
    nothing = jvm.scala.Option.empty()
    getattr(jvm, f"{_DEPLOY}.worker.Worker").startRpcEnvAndEndpoint(
        host, 0, 0, size.executor_cores, size.executor_heap // MIB, urls, str(directory / "executors"), nothing,
        _conf(gateway, master), nothing,
    )  # fmt: skip


def java_home_of_executors(java: Path, directory: Path, master: Master, log4j: Path) -> Path:
    """A Java home whose `java` starts an executor; what it writes comes to this process's standard output."""
    home = directory / "executor-java"
    (home / "bin").mkdir(parents=True, exist_ok=True)
    arguments = directory / "executor-arguments"
    arguments.touch(0o600)
    arguments.write_text(f"-Dspark.authenticate.secret={master.secret}\n")
    output = directory / "executor-output"
    os.mkfifo(output, 0o600)
    # Open for both: it has no end when an executor ends, and another one may follow.
    descriptor = os.open(output, os.O_RDWR)
    threading.Thread(target=_copy, args=(descriptor,), name="executor-output", daemon=True).start()
    script = home / "bin" / "java"
    script.write_text(
        _LAUNCHER.format(java=java, secret=arguments, log4j=log4j, tmp=directory / "tmp", output=output), encoding="utf-8"
    )
    script.chmod(0o700)
    return home


def _copy(descriptor: int) -> None:
    while block := os.read(descriptor, 65536):
        written = 0
        while written < len(block):
            written += os.write(1, block[written:])


def _conf(gateway: JavaGateway, master: Master) -> Any:
    """Settings of a master or a worker. Its pages, which cannot be turned off, are closed: nobody knows the key."""
    conf = gateway.jvm.org.apache.spark.SparkConf(False)
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    for name, value in {
        **master.authentication(),
        "spark.master.rest.enabled": "false",
        "spark.ui.killEnabled": "false",
        "spark.ui.filters": "org.apache.spark.ui.JWSFilter",
        "spark.org.apache.spark.ui.JWSFilter.param.secretKey": key,
        "spark.worker.cleanup.enabled": "false",
    }.items():
        conf.set(name, value)
    return conf
