"""A control plane of the test's own in a temporary state directory, and kernels that use it. All are ended by their ids."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tuttilab.scheduler.client import Client
from tuttilab.scheduler.runtime import discovery

SMALL = "--memory 256Mi"


@dataclass
class ControlPlane:
    """Started by whoever uses it first."""

    environ: dict[str, str]

    @property
    def state_dir(self) -> Path:
        return Path(self.environ["TUTTILAB_STATE_DIR"])

    def start(self) -> discovery.Runtime:
        return discovery.ensure_started(self.environ)

    def client(self) -> Client:
        runtime = self.start()
        return Client(runtime.url, runtime.token)

    def kill(self) -> None:
        """SIGKILL, as an accident does it. Its jobs go on."""
        runtime = discovery.read_runtime(self.state_dir)
        if runtime is not None:
            os.kill(runtime.pid, signal.SIGKILL)
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(runtime.pid).wait(150)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    state = tmp_path_factory.mktemp("state")
    plane = ControlPlane({**os.environ, "TUTTILAB_STATE_DIR": str(state)})
    plane.start()
    yield plane
    client = plane.client()
    live = [client.cancel(view.id) for view in client.jobs().jobs]
    for view in live:
        client.wait(view.id, timeout_s=150)
    client.close()
    runtime = discovery.read_runtime(state)
    assert runtime is not None
    os.kill(runtime.pid, signal.SIGTERM)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(runtime.pid).wait(150)


@dataclass
class Ran:
    """What one cell execution sent to the front end."""

    status: str = ""
    ename: str = ""
    traceback: list[str] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    updates: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    """With the time at which the kernel sent each of them."""
    value: str | None = None
    html: str = ""
    """Of the value."""
    seconds: float = 0.0
    number: int = 0
    """In the prompt."""

    @property
    def error(self) -> str:
        return "\n".join(self.traceback)

    @property
    def last_text(self) -> str:
        """What the last display shows after its last update."""
        shown = self.updates[-1][1] if self.updates else self.displays[-1]
        return str(shown["text/plain"])

    @property
    def text(self) -> str:
        return "\n".join(str(data["text/plain"]) for data in [*self.displays, *(data for _, data in self.updates)])


class Kernel:
    """One real ipykernel with the magics loaded."""

    def __init__(self, environ: dict[str, str], notebook: str, cwd: Path | None = None) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**environ, "JPY_SESSION_NAME": notebook}, **({"cwd": str(cwd)} if cwd else {}))
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=150)
        assert self.run("%load_ext tuttilab.magics").status == "ok"

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)  # type: ignore[union-attr]  # the local provisioner has one

    def send(self, code: str) -> str:
        return str(self.client.execute(code))

    def run(self, code: str, timeout: float = 150.0) -> Ran:
        return self.gather(self.send(code), timeout)

    def gather(self, message_id: str, timeout: float = 150.0, until: Callable[[Ran], bool] | None = None) -> Ran:
        """Everything up to the end of the execution, or to where ``until`` says that it is enough."""
        ran = Ran()
        began = time.monotonic()
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, timeout - (time.monotonic() - began)))
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "execute_input":
                    ran.number = content["execution_count"]
                case "stream" if content["name"] == "stderr":
                    ran.stderr += content["text"]
                case "stream":
                    ran.stdout += content["text"]
                case "display_data":
                    ran.displays.append(content["data"])
                case "update_display_data":
                    ran.updates.append((message["header"]["date"].timestamp(), content["data"]))
                case "execute_result":
                    ran.value, ran.html = content["data"]["text/plain"], content["data"].get("text/html", "")
                case "error":
                    ran.status, ran.ename, ran.traceback = "error", content["ename"], content["traceback"]
                case "status" if content["execution_state"] == "idle":
                    ran.status = ran.status or "ok"
                    ran.seconds = time.monotonic() - began
                    return ran
            if until is not None and until(ran):
                ran.seconds = time.monotonic() - began
                return ran

    def value(self, expression: str, timeout: float = 150.0) -> str:
        ran = self.run(expression, timeout)
        assert ran.status == "ok", ran.error
        return ran.value or ""

    def stop_button(self) -> None:
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        """SIGKILL, and the body taken away, as the notebook server does it."""
        os.kill(self.pid, signal.SIGKILL)
        self.manager.provisioner.process.wait(150)  # type: ignore[union-attr]  # as above

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def new_kernel(control: ControlPlane, tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """Starts kernels of one notebook in a profile of the test's own."""
    made: list[Kernel] = []
    environ = {**control.environ, "IPYTHONDIR": str(tmp_path / "ipython")}

    def start(notebook: str = f"{tmp_path.name}.ipynb") -> Kernel:
        made.append(Kernel(environ, notebook))
        return made[-1]

    yield start
    for kernel in made:
        kernel.close()


@pytest.fixture(scope="module")
def kernel(control: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests of a file that do it no harm."""
    made = Kernel({**control.environ, "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}, "shared.ipynb")
    yield made
    made.close()
