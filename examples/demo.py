"""`make demo`: runs `tour.ipynb` headless in a real kernel against its own control plane, and prints each step with its time.

Everything it makes lies in `examples/.demo/`; when it ends, nothing of it runs any more. Exit code 0: the tour did what it says.
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
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
SITE = HERE / "tuttilab.yaml"
TOUR = HERE / "tour.ipynb"
GRAPH = HERE / "nightly.yaml"
LIMIT_S = 600


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
    keep = options.parse_args().keep
    work = HERE / ".demo"
    shutil.rmtree(work / "workspace", ignore_errors=True)
    work.mkdir(exist_ok=True)
    shutil.copy(GRAPH, work)
    os.environ["TUTTILAB_STATE_DIR"] = str(work / "state")
    os.environ.pop("TUTTILAB_URL", None)
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
    notebook = nbformat.read(TOUR, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    # Sockets in a folder of their own: nobody else on this machine can speak to the kernel, and their paths must be short.
    sockets = tempfile.mkdtemp(prefix="tuttilab-")
    kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
    tour = Tour(notebook, km=kernel, timeout=LIMIT_S, resources={"metadata": {"path": str(work)}})
    try:
        tour.execute()
        code = 0
    except CellExecutionError as error:
        print(f"\nThe tour stopped at a cell:\n{error}")
        print(f"Remedy: `.venv/bin/tuttilab doctor`; the log is {work / 'state' / 'control.log'}.")
        code = 1
    except KeyboardInterrupt:
        print("\nStopped; ending what runs.")
        code = 130
    finally:
        if kernel.has_kernel:
            kernel.shutdown_kernel(now=True)
        shutil.rmtree(sockets, ignore_errors=True)
        nbformat.write(notebook, work / "tour-executed.ipynb")  # type: ignore[no-untyped-call]  # as above
        jobs = tuttilab("jobs", "--all", "--json")
        if not keep:
            tuttilab("down", "--now")
    if code == 0:
        code = check(jobs.stdout)
    took = f"{'Done' if code == 0 else 'Failed'} in {time.monotonic() - began:.1f} s"
    print(f"\n{took}; the executed notebook is {work / 'tour-executed.ipynb'}.")
    if code == 0:
        print("Next: `make lab` opens JupyterLab; run examples/tour.ipynb there cell by cell.")
    return code


def check(listing: str) -> int:
    """The jobs of the tour as the control plane has them: each ended in success exactly once, the gang with both its workers."""
    found = json.loads(listing)
    jobs = {job["name"]: job for job in (found["jobs"] if isinstance(found, dict) else found)}
    for name, members in (("train", 2), ("evaluate", 1), ("features", 1), ("report", 1)):
        job = jobs.get(name)
        succeeded = [attempt for attempt in (job or {}).get("attempts", []) if attempt["phase"] == "Succeeded"]
        workers = [pod for pod in succeeded[0]["pods"] if pod["role"] == "worker"] if len(succeeded) == 1 else []
        if job is None or job["phase"] != "Succeeded" or len(workers) != members:
            print(f"Job {name!r} did not succeed exactly once with {members} workers: {job}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
