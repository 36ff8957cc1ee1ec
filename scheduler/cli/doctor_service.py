"""`tuttilab doctor`, the part that asks: the control plane of this process, and a hub about its service.

Who is asked to do what depends on the role: a user of a hub cannot start its control plane, a hub's admin can.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tuttilab.scheduler import __version__
from tuttilab.scheduler.domain.errors import Forbidden, TuttiError, Unauthenticated

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.config.model import AuthConfig
    from tuttilab.scheduler.domain.wire import IdentityView

TIMEOUT_S: Final = 5.0
LARGEST_SKEW_S: Final = 5.0
OLDEST_HUB: Final = (6, 1)
SERVICE_SCOPES: Final = ("list:users", "read:users:name", "read:servers")
"""What the control plane's own token needs at the hub, as the guide gives it."""


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Only some features are affected."""
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    what: str
    detail: str
    remedy: str = ""


def check_service(what: str, url: str, token: str, remedy: str, *, is_on_hub: bool = False) -> Iterator[Finding]:
    """The control plane at ``url``: who the caller is to it, its version and clock, its clusters, the caller's queues."""
    from tuttilab.scheduler.client import Client

    try:
        client = Client(url, token, timeout_s=TIMEOUT_S)
    except TuttiError as error:
        yield Finding(Level.BROKEN, what, str(error), remedy)
        return
    try:
        me = client.me()
    except (Unauthenticated, Forbidden) as error:
        yield Finding(Level.BROKEN, what, str(error), _remedy_of_token(error) if is_on_hub else remedy)
    except TuttiError as error:
        yield Finding(Level.BROKEN, what, str(error), "Tell the hub's admin; jobs that run go on." if is_on_hub else remedy)
    else:
        role = "admin" if me.admin else "user"
        groups = f", groups {', '.join(me.groups)}" if me.groups else ""
        yield Finding(Level.OK, what, f"{url} answers {me.name} ({role}{groups}), version {me.version}")
        yield from _version(me, is_on_hub)
        yield from _clock("clock", f"{url.rstrip('/')}/healthz")
        yield from _site(client, me)
    finally:
        client.close()


def _remedy_of_token(error: TuttiError) -> str:
    if isinstance(error, Forbidden):
        return (
            "Stop your server on the hub's page and start it again. If that does not help, tell the hub's admin: the role `user` "
            "needs the scope access:services!service=NAME."
        )
    return "Stop your server on the hub's page and start it again: it gets another token."


def _version(me: IdentityView, is_on_hub: bool) -> Iterator[Finding]:
    if me.version == __version__:
        return
    remedy = f"Install tuttilab {me.version} here."
    if is_on_hub:
        remedy = f"Choose an image with tuttilab {me.version} when you start your server, or ask the hub's admin for one."
    yield Finding(Level.NOTE, "versions", f"the control plane has tuttilab {me.version}, this is {__version__}", remedy)


def _clock(what: str, url: str) -> Iterator[Finding]:
    """Compares with the Date of an answer, which is exact to a second."""
    from tuttilab.scheduler.runtime.http_library import httpx

    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
        there = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError):
        return
    ahead_s = time.time() - there
    if abs(ahead_s) <= LARGEST_SKEW_S:
        yield Finding(Level.OK, what, "as there")
        return
    where = "ahead of" if ahead_s > 0 else "behind"
    detail = f"{abs(ahead_s):.0f} s {where} that of {url}, so that expected starts and crons are off"
    yield Finding(Level.NOTE, what, detail, "Have both machines set their clocks (NTP).")


def _site(client: Client, me: IdentityView) -> Iterator[Finding]:
    try:
        clusters = client.clusters()
        queues = [queue.name for queue in client.quota() if queue.mine]
    except TuttiError as error:
        yield Finding(Level.BROKEN, "clusters", str(error), "See the log of the control plane.")
        return
    for cluster in clusters:
        name = f"cluster {cluster.name}"
        if not cluster.is_reachable:
            remedy = "See the log of the control plane." if me.admin else "What runs there goes on; tell an admin if it lasts."
            yield Finding(Level.BROKEN, name, "the control plane does not reach it", remedy)
        elif not cluster.nodes:
            remedy = "Check its nodes in tuttilab.yaml." if me.admin else "Tell an admin."
            yield Finding(Level.BROKEN, name, "has no node, so nothing starts there", remedy)
        else:
            yield Finding(Level.OK, name, f"{cluster.kind}, {cluster.nodes} node{'s' if cluster.nodes > 1 else ''}")
    if queues:
        yield Finding(Level.OK, "queues", ", ".join(queues))
    else:
        yield Finding(Level.BROKEN, "queues", "none takes your jobs", "Ask an admin for a group that has one.")


def check_hub(auth: AuthConfig, environ: Mapping[str, str]) -> Iterator[Finding]:
    """For whoever runs the control plane of a hub: whether the hub answers, is new enough, and gives its service what it needs."""
    from tuttilab.scheduler.identity.auth import hub_settings

    try:
        hub = hub_settings(auth, environ)
    except TuttiError as error:
        remedy = "Run doctor with the variables that the control plane has."
        yield Finding(Level.NOTE, "hub", f"{auth.url} is not asked: {error}", remedy)
        return
    about, why_not = _of_hub(hub.url, "/", hub.token)
    if why_not:
        yield Finding(Level.BROKEN, "hub", f"{hub.url}: {why_not}", "Check auth.url in tuttilab.yaml, and that the hub runs.")
        return
    text = str(about.get("version", "?"))
    is_old = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal()) < OLDEST_HUB
    remedy = "Upgrade JupyterHub to 6.1 or newer." if is_old else ""
    yield Finding(Level.BROKEN if is_old else Level.OK, "hub", f"{hub.url}, JupyterHub {text}", remedy)
    yield from _clock("clock of the hub", f"{hub.url}/")
    mine, why_not = _of_hub(hub.url, "/user", hub.token)
    if why_not:
        remedy = f"Give the service {hub.service!r} of jupyterhub_config.py the same api_token that the control plane has."
        yield Finding(Level.BROKEN, "hub's token", why_not, remedy)
        return
    if mine.get("kind") != "service" or mine.get("name") != hub.service:
        detail = f"it is of the {mine.get('kind')} {mine.get('name')!r}; expected the service {hub.service!r} (auth.service)"
        remedy = "Use the api_token of that service in jupyterhub_config.py."
        yield Finding(Level.BROKEN, "hub's token", detail, remedy)
        return
    # The hub writes narrower scopes as read:servers!user=…; only the whole scope sees everybody's.
    missing = [scope for scope in SERVICE_SCOPES if scope not in mine.get("scopes", [])]
    if missing:
        remedy = f"Add them to the role of services: [{hub.service}] in c.JupyterHub.load_roles."
        yield Finding(Level.BROKEN, "hub's scopes", f"the service {hub.service!r} lacks {', '.join(missing)}", remedy)
    else:
        yield Finding(Level.OK, "hub's token", f"service {hub.service!r} with {', '.join(SERVICE_SCOPES)}")


# Any: JSON of another program.
def _of_hub(url: str, path: str, token: str) -> tuple[dict[str, Any], str]:
    """The hub's answer, or why there is none."""
    from tuttilab.scheduler.runtime.http_library import httpx

    try:
        headers = {"Authorization": f"token {token}"}
        answer = httpx.get(f"{url}{path}", headers=headers, timeout=TIMEOUT_S, trust_env=False)
        body = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError) as error:
        return {}, f"it does not answer as a hub does ({type(error).__name__})"
    if not answer.is_success:
        return {}, f"it answers {answer.status_code}"
    return (body, "") if isinstance(body, dict) else ({}, "it does not answer as a hub does")


def hub_of(config: Path | None, state: Path, environ: Mapping[str, str]) -> AuthConfig | None:
    """The hub of that configuration; None for one without a hub. Raises BadInput."""
    from tuttilab.scheduler.config.load import load_config

    auth = load_config(config, state, environ).auth if config is not None else None
    return auth if auth is not None and auth.kind == "hub" else None
