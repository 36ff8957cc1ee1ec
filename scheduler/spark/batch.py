"""The main process of the pods of a Spark application: `python -m tuttilab.scheduler.spark.batch`.

The driver's pod holds the gang's Spark master and runs the application by Spark's own submit program once every executor's worker
has registered; its exit code is the application's. In the other pods it is an executor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError  # type: ignore[import-untyped]

from tuttilab.scheduler.core.kinds.spark_batch import MASTER_HEAP
from tuttilab.scheduler.core.kinds.spark_size import EXECUTOR, MIB, SECRET, SparkSize
from tuttilab.scheduler.core.placement.work_places import SPARK_APPLICATION as APPLICATION
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark import executor, pod, standalone
from tuttilab.scheduler.spark.conf import Master, check_conf, executor_conf, parse_size
from tuttilab.scheduler.spark.gateway import ServerFailed, start_java, wait_for
from tuttilab.scheduler.spark.java import Java, find_java
from tuttilab.scheduler.spark.pod import log, read_secret, required
from tuttilab.scheduler.spark.process import java_command, java_environment


def main(environ: Mapping[str, str] = os.environ) -> int:
    """The application's exit code; 143 after a stop, 1 when Spark failed, 2 for a wrong specification."""
    os.umask(0o077)
    return pod.main(lambda: _run(environ))


def _run(environ: Mapping[str, str]) -> int:
    spec = _parse(required(environ, APPLICATION))
    size = parse_size(spec)
    master = None
    # Of the pod, while the application is in the job's folder.
    own = Path(required(environ, "RESULT_DIR")) / ".spark"
    own.mkdir(mode=0o700, exist_ok=True)
    if size.executors:
        master = standalone.master_of(environ, read_secret(Path(required(environ, "TUTTILAB_SECRETS_DIR")) / SECRET, "secret"))
        if environ.get("TUTTILAB_ROLE") == EXECUTOR:
            executor.run(environ, size, master, own, is_batch=True)
    java = find_java(environ, own)
    for note in java.notes:
        log(note)
    holder = None if master is None else _hold_master(java, master, size, own, environ)
    application: subprocess.Popen[bytes] | None = None
    try:
        application = _submit(java, spec, size, master, own, environ)
        return application.wait()
    finally:
        pod.ignore_signals()
        for process in (application, holder):
            if process is not None:
                pod.stop_java(process, pod.STOP_GRACE_S)


def _hold_master(java: Java, master: Master, size: SparkSize, own: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The process of the gang's master, once all workers are registered."""
    began = time.monotonic()
    process, gateway = start_java(java, MASTER_HEAP, own, environ, host=master.host, is_batch=True)
    try:
        endpoint = standalone.start_master(gateway, master)
        wait_for(lambda: standalone.count_workers(gateway, endpoint), size.executors, "executors", process)
    except Py4JError as error:
        process.kill()
        raise ServerFailed("The Spark master did not start; see the lines above.") from error
    except BaseException:
        process.kill()
        raise
    log(f"{size.executors} executors registered after {time.monotonic() - began:.1f} s")
    return process


def _submit(
    java: Java, spec: Mapping[str, Any], size: SparkSize, master: Master | None, own: Path, environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start Spark's submit program. Settings, of which one is the secret, are in a file that only the owner may read."""
    asked = spec["application"]
    heap = int(spec["driver_heap"])
    conf = {
        **check_conf(asked["conf"]),
        "spark.app.name": environ.get("TUTTILAB_JOB_ID", "tuttilab"),
        "spark.submit.deployMode": "client",
        "spark.driver.memory": f"{heap // MIB}m",
        "spark.driver.cores": str(spec["cores"]),
        "spark.driver.host": "127.0.0.1" if master is None else master.host,
        "spark.driver.bindAddress": "127.0.0.1" if master is None else master.host,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(own / "warehouse"),
        **(
            {"spark.master": f"local[{spec['cores']}]", "spark.authenticate": "true"}
            if master is None
            else executor_conf(size, master)
        ),
    }
    file = own / "application.properties"
    file.touch(0o600)
    file.write_text("".join(f"{key} {_escaped(value)}\n" for key, value in conf.items()))
    arguments = ["--properties-file", str(file)]
    for option, key in (("--py-files", "py_files"), ("--jars", "jars"), ("--archives", "archives")):
        if asked[key]:
            arguments += [option, ",".join(_path(text, environ) for text in asked[key])]
    if asked["main_class"] is not None:
        arguments += ["--class", asked["main_class"]]
    arguments += [_path(asked["main"], environ), *asked["args"]]
    command = [*java_command(java, heap, own, is_batch=True), "org.apache.spark.deploy.SparkSubmit", *arguments]
    return subprocess.Popen(command, env=java_environment(java, own, environ, conf["spark.driver.host"]), stdin=subprocess.DEVNULL)


def _path(text: str, environ: Mapping[str, str]) -> str:
    """With the variables of the pod's folders filled in. Raises BadInput for a file that is not there."""
    found = text
    for name in ("TUTTILAB_CODE_DIR", "DATA_DIR"):
        found = found.replace(f"$({name})", environ.get(name, ""))
    if not Path(found.partition("#")[0]).is_file():
        raise BadInput(f"There is no file {found.partition('#')[0]} in {Path.cwd()}.")
    return found


def _escaped(value: str) -> str:
    """As java.util.Properties reads it."""
    return "".join(f"\\u{ord(letter):04x}" if ord(letter) < 32 or ord(letter) > 126 else letter for letter in value).replace(
        "\\u000a", "\\n"
    )


def _parse(text: str) -> dict[str, Any]:
    spec = json.loads(text)
    if not isinstance(spec, dict) or not {"application", "driver_heap", "cores"} <= spec.keys():
        raise BadInput(f"A Spark application is specified by application, driver_heap and cores: {text[:200]}")
    return spec


if __name__ == "__main__":
    sys.exit(main())
