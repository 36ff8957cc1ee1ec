"""`tuttilab lab`: JupyterLab in this environment with the magics loaded in its kernels, without changes to the user's home.

Only the kernel's command line loads an extension in every kernel that a Jupyter server starts, and in no other. So a copy of the
kernel spec `python3` with one more argument is written to the state folder, and JUPYTER_PATH makes Jupyter find it first.
`extra_extensions` adds to what the user's own IPython configuration loads; `extensions` would replace it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.discovery import Say

LOAD_MAGICS: Final = "--InteractiveShellApp.extra_extensions=tuttilab.magics"
KERNEL: Final = "python3"
SERVICE_VARIABLES: Final = ("TUTTILAB_URL", "JUPYTERHUB_API_URL")
"""When one of these is set, a service is configured and none is started here."""


def start_lab(environ: Mapping[str, str], *, port: int | None, no_browser: bool, options: Sequence[str], say: Say) -> NoReturn:
    """Replace this process by JupyterLab. Raises EnvironmentProblem when it is not installed or the port is taken."""
    command, environment = prepare_lab(environ, port=port, no_browser=no_browser, options=options, say=say)
    os.execve(command[0], command, environment)  # noqa: S606  our own interpreter, and no shell is wanted


def prepare_lab(
    environ: Mapping[str, str], *, port: int | None, no_browser: bool, options: Sequence[str], say: Say
) -> tuple[list[str], dict[str, str]]:
    """The command and its environment; starts the local control plane when no service is configured."""
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        raise EnvironmentProblem("JupyterLab is not installed in this environment; run `pip install tuttilab[lab]`.")
    if port is not None and _is_taken(port):
        raise EnvironmentProblem(f"Port {port} is taken by another program; give another --port, or none and Jupyter chooses.")
    if not any(environ.get(name) for name in SERVICE_VARIABLES):
        runtime = discovery.ensure_started(environ, say=say)
        say(f"The control plane is at {runtime.url}.")
    state = discovery.state_dir(environ)
    discovery.prepare(state)
    data = state / "jupyter"
    write_kernel_spec(data, say)
    earlier = environ.get("JUPYTER_PATH")
    environment = {**environ, "JUPYTER_PATH": f"{data}{os.pathsep}{earlier}" if earlier else str(data)}
    command = [sys.executable, "-m", "jupyterlab"]
    if port is not None:
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if no_browser:
        command.append("--no-browser")
    if os.geteuid() == 0:
        command.append("--allow-root")
    return [*command, *options], environment


def write_kernel_spec(data: Path, say: Say) -> bool:
    """Write Jupyter's kernel spec with the magics on. False, and nothing written, when that kernel is another environment's."""
    from jupyter_client.kernelspec import KernelSpecManager

    target = data / "kernels" / KERNEL
    shutil.rmtree(target, ignore_errors=True)
    manager = KernelSpecManager()
    # Without the spec that an earlier run wrote.
    manager.kernel_dirs = [folder for folder in manager.kernel_dirs if not Path(folder).is_relative_to(data)]
    spec = manager.get_kernel_spec(KERNEL)
    if not _is_of_this_environment(spec.argv):
        other = f"The kernel {KERNEL} runs {spec.argv[0]}, which is another environment"
        say(f"{other}; run `%load_ext tuttilab.magics` in its notebooks.")
        return False
    target.mkdir(parents=True)
    for name in ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg"):
        logo = Path(spec.resource_dir) / name
        if logo.exists():
            shutil.copyfile(logo, target / name)
    body = {**spec.to_dict(), "argv": [sys.executable, *spec.argv[1:], LOAD_MAGICS]}
    (target / "kernel.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
    return True


def _is_of_this_environment(argv: Sequence[str]) -> bool:
    """Whether the kernel is ipykernel run by this interpreter (Jupyter resolves a bare `python` to its own)."""
    program = argv[0]
    is_ours = program in ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}") or Path(program) == Path(
        sys.executable
    )
    return is_ours and any("ipykernel" in word for word in argv)


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return True
    return False
