"""What the hubs of all tests are configured with, beside the guides' snippets: addresses, files, people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def configure(c: Any, given: Mapping[str, Any]) -> None:
    """``c``: JupyterHub's configuration. ``given``: what differs from one run to the next (`HubSite.given`)."""
    c.JupyterHub.bind_url = given["url"]
    c.JupyterHub.db_url = f"sqlite:///{given['folder']}/hub.sqlite"
    c.JupyterHub.cookie_secret_file = f"{given['folder']}/cookie_secret"
    c.ConfigurableHTTPProxy.command = given["proxy_command"]
    c.ConfigurableHTTPProxy.api_url = given["proxy_url"]
    c.ConfigurableHTTPProxy.pid_file = f"{given['folder']}/proxy.pid"

    c.JupyterHub.authenticator_class = "dummy"
    c.DummyAuthenticator.password = given["password"]
    c.Authenticator.allow_all = True
    c.JupyterHub.load_groups = {name: {"users": users} for name, users in given["groups"].items()}
