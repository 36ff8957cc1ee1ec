"""Where a session's own pages are: through the user's Jupyter server where one runs this kernel, else at the session itself."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

MIME: Final = "application/vnd.tuttilab.pages+json"
"""JupyterLab makes a link of it (`labextension/src/tables/pagesRenderer.ts`): it knows the address at which the browser has it."""
VERSION: Final = 1


@dataclass(frozen=True)
class Pages:
    """The pages of one session. `own`: HOST:PORT of the session itself; `server`: of the Jupyter server, None without one."""

    session: str
    own: str
    server: str | None

    @property
    def address(self) -> str:
        return f"http://{self.own}/" if self.server is None else f"{self.server}tuttilab/spark/{self.session}/ui"

    def __repr__(self) -> str:
        """What one opens, and whose browser can."""
        if self.server is None:
            return (
                f"{self.address} has the pages of session {self.session}, for a browser on the machine or in the network of the "
                "session: no Jupyter server runs this kernel, through which others would reach them."
            )
        if not urlsplit(self.address).scheme:
            return f"Pages of session {self.session}: {self.address}, below the address at which you reach the hub."
        return f"Pages of session {self.session}: {self.address}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # Any: texts, JSON
        if self.server is None:
            return {"text/plain": repr(self)}
        name = html.escape(self.session)
        link = f'<a href="{html.escape(self.address)}" target="_blank" rel="noopener">Pages of session {name}</a>'
        return {MIME: {"version": VERSION, "session": self.session}, "text/html": link, "text/plain": repr(self)}


def server_address(environ: Mapping[str, str] = os.environ, parent: int | None = None) -> str | None:
    """The address of the Jupyter server that runs this kernel, ending in `/`; None without one.

    On a hub without a public address only its path is known. `parent`: the process that started the kernel.
    """
    prefix = environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix and environ.get("JPY_PARENT_PID"):
        public = environ.get("JUPYTERHUB_PUBLIC_URL", "")
        return public if urlsplit(public).scheme in ("http", "https") and public.endswith("/") else prefix
    try:
        from jupyter_core.paths import jupyter_runtime_dir  # comes with the kernel; IPython alone has none
    except ImportError:
        return None
    for pid in dict.fromkeys((environ.get("JPY_PARENT_PID", ""), str(os.getppid() if parent is None else parent))):
        if pid.isdecimal() and (url := _url_of(Path(jupyter_runtime_dir()) / f"jpserver-{pid}.json", int(pid))):
            return url
    return None


def _url_of(file: Path, pid: int) -> str | None:
    """As the server wrote it when it started; a file of a server that was killed has the number of another process."""
    try:
        said = json.loads(file.read_bytes())
        Path(f"/proc/{pid}").stat()
    except (OSError, ValueError):
        return None
    url = said.get("url") if isinstance(said, dict) and said.get("pid") == pid else None
    return url if isinstance(url, str) and urlsplit(url).scheme in ("http", "https") and url.endswith("/") else None
