"""A hub for a test: the real JupyterHub with its real proxy, and the control plane as its service, each a process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests import warm
from tests.e2e.hub.guide import HUB_API, blocks
from tests.ports import free_ports
from tests.user_machine import UserMachine, eventually, made_machine
from tests.warm import AnyProcess
from tools.hub_proxy import command as proxy_command

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BIN = Path(sys.executable).parent
PASSWORD = "only for tests"
PAUSE_S = 0.2
"""Before each look at a user's servers: the hub, which is asked again and again, needs the machine to start them."""
SERVICE_TOKEN = "5e1f" * 16
GROUPS = {"research": ["ann", "amy", "eva"], "quant": ["bob", "eva"], "admins": ["root"]}

PROFILES = """
kind: Profile
name: cpu
groups: [research, quant]
memory: 1Gi
---
kind: Profile
name: gpu
title: One GPU
groups: [research, quant]
memory: 1Gi
gpus: 1
env: {SITE: shown}
---
kind: Profile
name: gpu-pair
groups: [research]
memory: 1Gi
gpus: 2
"""


@dataclass
class Browser:
    """A user's session with the hub: cookies, and the token against forged requests that every change must carry."""

    http: httpx.Client
    name: str
    password: str = PASSWORD

    def login(self) -> httpx.Response:
        self.http.get("/hub/login")
        return self.post("/hub/login", {"username": self.name, "password": self.password})

    def post(self, path: str, form: Mapping[str, str]) -> httpx.Response:
        return self.http.post(path, data={**form, "_xsrf": self.xsrf("/hub/")})

    def xsrf(self, path: str) -> str:
        found = [cookie.value for cookie in self.http.cookies.jar if cookie.name == "_xsrf" and cookie.path == path]
        return found[0] or ""

    def api(self, method: str, path: str, body: object = None) -> httpx.Response:
        return self.http.request(method, f"/hub/api{path}", json=body, headers={"X-XSRFToken": self.xsrf("/hub/")})

    def spawn(self, **options: str) -> httpx.Response:
        """Ask for the server, and wait until the hub has it or has given up."""
        asked = self.api("POST", f"/users/{self.name}/server", options)
        if asked.is_success:
            # On a busy machine the hub answers before the server does.
            eventually(lambda: not self.pending(), 90)
        return asked

    def model(self) -> Any:
        time.sleep(PAUSE_S)
        return self.api("GET", f"/users/{self.name}").json()

    def pending(self) -> bool:
        return any(server["pending"] for server in self.model()["servers"].values())

    def has_server(self) -> bool:
        return any(server["ready"] for server in self.model()["servers"].values())

    def stop(self) -> None:
        self.api("DELETE", f"/users/{self.name}/server")
        eventually(lambda: not self.model()["servers"])

    def token(self, scopes: Sequence[str] = ()) -> str:
        made = self.api("POST", f"/users/{self.name}/tokens", {"note": "test", **({"scopes": list(scopes)} if scopes else {})})
        assert made.status_code == 201, made.text
        return str(made.json()["token"])

    def revoke(self, token_id: str) -> None:
        assert self.api("DELETE", f"/users/{self.name}/tokens/{token_id}").status_code == 204

    def token_id(self, note: str = "test") -> str:
        tokens = self.api("GET", f"/users/{self.name}/tokens").json()["api_tokens"]
        return str(next(token["id"] for token in tokens if token["note"] == note))


@dataclass
class HubSite:
    machine: UserMachine
    folder: Path
    patience_s: float = 1.0
    password: str = PASSWORD
    service_token: str = SERVICE_TOKEN
    proxy_token: str = "c0ffee"
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    processes: dict[str, AnyProcess] = field(default_factory=dict)
    sessions: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def hub_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[3]}"

    def start_control(self) -> None:
        config = self.folder / "tuttilab.yaml"
        text = blocks("yaml")[0].replace(HUB_API, f"{self.hub_url}/hub/api").replace("port: 9321", f"port: {self.ports[3]}")
        config.write_text(text)
        self._serve("control", config, {"JUPYTERHUB_API_TOKEN": self.service_token})
        eventually(lambda: self._answers(f"{self.control_url}/readyz"))

    def stop_control(self) -> None:
        self._stop("control")

    def start_hub(self) -> None:
        more = {
            "hub_url": self.hub_url,
            "server_command": [str(BIN / "jupyterhub-singleuser")],
            "jupyter_config": str(self._jupyter_config()),
            "traits": self.traits(),
        }
        self._start_hub(HERE / "jupyterhub_config.py", more, {})

    def _start_hub(self, config: Path, more: Mapping[str, Any], environ: Mapping[str, str], limit_s: float = 150.0) -> None:
        """``more``: for ``config``, beside what every hub is given."""
        given = {
            "url": self.url,
            "proxy_url": f"http://127.0.0.1:{self.ports[2]}",
            "control_url": self.control_url,
            "folder": str(self.folder),
            "proxy_command": self.proxy_command(),
            "password": self.password,
            "groups": GROUPS,
            "patience_s": self.patience_s,
            **more,
        }
        own = {"TEST_HUB": json.dumps(given), "TUTTILAB_HUB_TOKEN": self.service_token, "PYTHONPATH": str(ROOT)}
        arguments = [str(BIN / "jupyterhub"), "-f", str(config)]
        self._start("hub", arguments, {**own, "CONFIGPROXY_AUTH_TOKEN": self.proxy_token, **environ})
        eventually(lambda: self._answers(f"{self.url}/hub/health"), limit_s)

    def proxy_command(self) -> list[str]:
        return proxy_command()

    def traits(self) -> dict[str, Any]:
        """More settings of the spawner."""
        return {}

    def _jupyter_config(self) -> Path:
        """The server extension switched on, by the file that the package installs."""
        folder = self.folder / "jupyter" / "jupyter_server_config.d"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "jupyter_ext" / "etc" / "tuttilab.json", folder)
        return folder.parent

    def hub_is_up(self) -> bool:
        return self.processes["hub"].poll() is None and self._answers(f"{self.url}/hub/health")

    def _start(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        with open(self.folder / f"{name}.out", "ab") as log:
            self.processes[name] = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env={**self.machine.environ, **environ},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def _serve(self, name: str, config: Path, environ: Mapping[str, str]) -> None:
        """A control plane."""
        with open(self.folder / f"{name}.out", "ab") as log:
            self.processes[name] = warm.serve(["--config", str(config)], self.folder, {**self.machine.environ, **environ}, log)

    def _stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(150)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    @staticmethod
    def _answers(url: str) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, trust_env=False, timeout=150).is_success
        return False

    def browser(self, name: str) -> Browser:
        http = httpx.Client(base_url=self.url, trust_env=False, timeout=150, follow_redirects=True)
        self.sessions.append(http)
        browser = Browser(http, name, self.password)
        assert browser.login().is_success
        return browser

    def control(self, method: str, path: str, token: str, body: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.request(method, f"{self.control_url}/api/v1{path}", json=body, headers=headers, trust_env=False, timeout=150)

    def jobs(self, **query: str) -> list[Any]:
        """Everybody's, as the hub may see them."""
        found = self.control("GET", "/jobs?" + "&".join(f"{k}={v}" for k, v in {"owner": "*", **query}.items()), self.service_token)
        assert found.status_code == 200, found.text
        return list(found.json()["jobs"])

    def use(self, queue: str, resource: str = "nvidia.com/gpu") -> int:
        queues = self.control("GET", "/queues", self.service_token).json()
        found = next(one for one in queues if one["name"] == queue)
        return next((int(use["used"]) for use in found["use"] if use["resource"] == resource), 0)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text(errors="replace")

    def servers(self) -> list[int]:
        """Processes of single-user servers. What one has forked has its command line until it runs its own program."""
        found = {process.pid: process for process in self.machine.processes("jupyterhub-singleuser")}
        servers = []
        for pid, process in found.items():
            with suppress(psutil.NoSuchProcess):
                if process.ppid() not in found:
                    servers.append(pid)
        return servers

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        for name in ("hub", "control", *self.processes):
            if name in self.processes:
                self._stop(name)
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int(re.sub(r"\D", "", (self.folder / "proxy.pid").read_text())), signal.SIGKILL)


@contextmanager
def made_hub(folder: Path, *, patience_s: float = 1.0, kind: type[HubSite] = HubSite) -> Iterator[HubSite]:
    """The hub, its service, and the profiles; nothing of it runs afterwards."""
    with made_machine(folder) as machine:
        # What the servers start is found by the state folder in its environment or on its command line.
        site = kind(machine, machine.state, patience_s)
        site.folder.mkdir(mode=0o700)
        try:
            site.start_control()
            profiles = site.folder / "profiles.yaml"
            profiles.write_text(PROFILES)
            said = machine.run("profile", "apply", str(profiles))
            assert said.code == 0, said
            site.start_hub()
            yield site
        finally:
            site.close()
