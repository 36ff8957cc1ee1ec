"""`make demo`: runs `tour.ipynb` headless in a real kernel against its own control plane, and prints each step with its time.

Everything it makes lies in `examples/.demo/`; when it ends, nothing of it runs any more. Exit code 0: the tour did what it says.
`make demo CLUSTER=kube` runs the gang of `containers.ipynb` on the cluster of `make kube-up`, which stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
SITE = HERE / "tuttilab.yaml"
TOUR = HERE / "tour.ipynb"
CONTAINERS = HERE / "containers.ipynb"
GRAPH = HERE / "nightly.yaml"
LIMIT_S = 600
JOBS = {"train": 2, "evaluate": 1, "features": 1, "report": 1}
"""Of the tour, with their members."""


class Tour(NotebookClient):
    """Prints a line when a step begins and one when it is done, with what the step showed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = ""
        self.began = 0.0

    # Any: cells are dictionaries whose keys nbformat makes attributes.
    async def async_execute_cell(self, cell: Any, cell_index: int, *args: Any, **kwargs: Any) -> Any:
        if cell.cell_type == "markdown":
            headings = [line for line in cell.source.splitlines() if line.startswith("#")]
            if headings:
                self.title = headings[0].lstrip("# ")
                print(f"\n{self.title}", flush=True)
            return cell
        self.began = time.monotonic()
        result = await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        first = cell.source.splitlines()[0]
        print(f"  {time.monotonic() - self.began:6.1f} s  {first[:100]}", flush=True)
        for line in shown(cell):
            print(f"            {line}", flush=True)
        return result


def shown(cell: Any, most: int = 12) -> list[str]:
    """The plain text a cell's outputs hold, without carriage-return rewrites, at most ``most`` lines."""
    text = ""
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            text += output.text
        elif output.output_type in ("execute_result", "display_data") and "image/png" not in output.data:
            text += output.data.get("text/plain", "") + "\n"
    lines = [line.rsplit("\r", 1)[-1].rstrip()[:120] for line in text.splitlines() if line.strip()]
    return lines if len(lines) <= most else [*lines[: most - 1], f"… {len(lines) - most + 1} more lines"]


def tuttilab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tuttilab.scheduler.cli", *arguments], text=True, capture_output=True, check=False)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--keep", action="store_true", help="leave the control plane and its files as they are at the end")
    options.add_argument("--cluster", choices=("local", "kube"), default="local", help="where the gang runs")
    chosen = options.parse_args()
    work = HERE / ".demo"
    shutil.rmtree(work / "workspace", ignore_errors=True)
    work.mkdir(exist_ok=True)
    os.environ.pop("TUTTILAB_URL", None)
    return on_kube(work) if chosen.cluster == "kube" else on_this_machine(work, keep=chosen.keep)


def on_this_machine(work: Path, *, keep: bool) -> int:
    shutil.copy(GRAPH, work)
    os.environ["TUTTILAB_STATE_DIR"] = str(work / "state")
    tuttilab("down", "--now")
    shutil.rmtree(work / "state", ignore_errors=True)

    began = time.monotonic()
    print("Starting the control plane (four virtual nodes of two cores and one pretend GPU each)", flush=True)
    started = tuttilab("up", "--config", str(SITE))
    if started.returncode != 0:
        print(f"The control plane did not start: {started.stderr.strip() or started.stdout.strip()}")
        print("Remedy: `.venv/bin/tuttilab doctor` looks for the cause.")
        return 1
    print(f"  {time.monotonic() - began:6.1f} s  tuttilab up")
    try:
        code = run(TOUR, work, JOBS, f"`.venv/bin/tuttilab doctor`; the log is {work / 'state' / 'control.log'}", began)
    finally:
        if not keep:
            tuttilab("down", "--now")
    if code == 0:
        print("Next: `make lab` opens JupyterLab; run examples/tour.ipynb there cell by cell.")
    return code


def on_kube(work: Path) -> int:
    """On the cluster of `make kube-up`, which is started if it does not run, and stays."""
    sys.path.insert(0, str(HERE.parent))
    from tests.kube import lab_image, up

    began = time.monotonic()
    try:
        places = up.running_or_started(wait_s=0.0)
        print(f"  {time.monotonic() - began:6.1f} s  a Kubernetes with two nodes and a hub", flush=True)
        up.load_image(lab_image.demo())
    except (RuntimeError, TimeoutError) as problem:
        print(f"There is no cluster to show it on. {problem}", file=sys.stderr)
        return 1
    print(f"  {time.monotonic() - began:6.1f} s  the image {lab_image.DEMO} on its nodes", flush=True)
    os.environ["TUTTILAB_STATE_DIR"] = places["state folder"]
    before = {job["id"] for job in jobs()}
    code = run(CONTAINERS, work, {"train": 2}, f"the log of the control plane is {places['log']}", began, before)
    command = f"export TUTTILAB_STATE_DIR={places['state folder']}; {HERE.parent / '.venv/bin/tuttilab'} jobs --all"
    print(f"\nIts jobs:       {command}\n{up.looking(places)}\n\n{up.login(places)}")
    return code


def run(path: Path, work: Path, expected: Mapping[str, int], remedy: str, began: float, before: Collection[str] = ()) -> int:
    """The notebook in a real kernel, and whether the control plane then has the jobs that it is to have made."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    # Sockets in a folder of their own: nobody else on this machine can speak to the kernel, and their paths must be short.
    sockets = tempfile.mkdtemp(prefix="tuttilab-")
    kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
    tour = Tour(notebook, km=kernel, timeout=LIMIT_S, resources={"metadata": {"path": str(work)}})
    executed = work / f"{path.stem}-executed.ipynb"
    try:
        tour.execute()
        code = 0
    except CellExecutionError as error:
        print(f"\nThe tour stopped at a cell:\n{error}")
        print(f"Remedy: {remedy}.")
        code = 1
    except KeyboardInterrupt:
        print("\nStopped; ending what runs.")
        code = 130
    finally:
        if kernel.has_kernel:
            kernel.shutdown_kernel(now=True)
        shutil.rmtree(sockets, ignore_errors=True)
        nbformat.write(notebook, executed)  # type: ignore[no-untyped-call]  # as above
    if code == 0:
        code = check([job for job in jobs() if job["id"] not in before], expected)
    took = f"{'Done' if code == 0 else 'Failed'} in {time.monotonic() - began:.1f} s"
    print(f"\n{took}; the executed notebook is {executed}.")
    return code


def jobs() -> list[Any]:
    """All that the control plane has."""
    found = json.loads(tuttilab("jobs", "--all", "--json").stdout)
    return list(found["jobs"] if isinstance(found, dict) else found)


def check(made: Sequence[Any], expected: Mapping[str, int]) -> int:
    """Each job of the notebook ended in success exactly once, with as many workers as ``expected`` says for its name."""
    found = {job["name"]: job for job in made}
    for name, members in expected.items():
        job = found.get(name)
        succeeded = [attempt for attempt in (job or {}).get("attempts", []) if attempt["phase"] == "Succeeded"]
        workers = [pod for pod in succeeded[0]["pods"] if pod["role"] == "worker"] if len(succeeded) == 1 else []
        if job is None or job["phase"] != "Succeeded" or len(workers) != members:
            print(f"Job {name!r} did not succeed exactly once with {members} workers: {job}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
