"""The messages between sidecar, master and control plane, as plain JSON.

A report (POST ``/api/v1/pods/report?job_id=…&attempt=1&epoch=3``, ``Authorization: Bearer <the pod's token>``) carries the whole
state each time; what the token is checked by is in its address too, so that no body is read before that::

    {
        "job_id": "…",
        "attempt": 1,
        "epoch": 3,
        "seq": 7,
        "members": [
            {"pod": "…", "rank": 0, "uid": "…", "phase": "Running", "exit_code": null, "reason": "", "endpoints": {}, "outputs": {}}
        ],
    }

from the sidecar of a single pod (one member) to the control plane, from a member to its master (one member), and from the master
to the control plane (all members that have reported). ``seq`` rises with every report of one sender; an older one changes nothing.
The control plane answers ``{"stop": null | {"grace_s": 30, "why": "Cancelled"}}``. The master answers a report, and a
GET of ``/api/v1/pods/orders?known=N`` once its orders differ from version N, with ``{"version": 2, "open": true, "stop": …}``.

A token is ``SIGNATURE.RANK.POD``: it names its pod, signed with the key of the attempt. The control plane derives the key and
gives it to the master, so both authenticate every pod by its token alone, also pods that join later. No other pod has the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PENDING = "Pending"
READY = "Ready"
RUNNING = "Running"
ENDED = "Ended"
PHASES = (PENDING, READY, RUNNING, ENDED)

REPORT_PATH = "/api/v1/pods/report"
ORDERS_PATH = "/api/v1/pods/orders"
CLAIM = ("job_id", "attempt", "epoch")
"""Keys of a report that its address repeats."""
LARGEST_BODY = 2**20
MOST_NAMES = 256
"""Endpoints or outputs of a pod."""
MOST_OUTPUT_BYTES = 16 * 2**30
"""All outputs of a pod together, unless the configuration says otherwise."""
MOST_UNPACKED_BYTES = 2 * 2**30
"""What a code bundle may unpack to, unless the configuration says otherwise."""

COMPLETED = "Completed"
ERROR = "Error"
OOM_KILLED = "OOMKilled"
STOPPED = "Stopped"
LEASE_LOST = "LeaseLost"
"""The pod stopped itself because it lost its master."""
NEVER_STARTED = "NeverStarted"
INPUT_MISSING = "InputMissing"
WORKDIR_MISSING = "WorkdirMissing"
OUTPUT_MISSING = "OutputMissing"
OUTPUT_LOST = "OutputLost"
LOST = "Lost"


class Member(NamedTuple):
    """A pod as its sidecar sees it."""

    pod: str
    rank: int
    uid: str
    phase: str = PENDING
    exit_code: int | None = None
    reason: str = ""
    endpoints: Mapping[str, str] = {}
    outputs: Mapping[str, str] = {}
    """Kept outputs: name to artifact id."""


class Sender(NamedTuple):
    """The pod that a token identifies."""

    rank: int
    pod: str


class Stop(NamedTuple):
    grace_s: float
    why: str


class Orders(NamedTuple):
    """What the members are to do. ``version`` rises with every change."""

    version: int = 0
    is_open: bool = False
    stop: Stop | None = None


def pod_token(key: str, rank: int, pod: str) -> str:
    """The token of one pod; ``key`` is the key of the attempt."""
    who = f"{rank}.{pod}"
    return f"{_signature(key, who)}.{who}"


def sender_of(token: str, key: str) -> Sender | None:
    """The pod of a token; None for one that was not signed with ``key``."""
    import hmac

    signature, _, who = token.partition(".")
    # As bytes: compare_digest accepts only ASCII text, and a wrong token may hold anything.
    if not hmac.compare_digest(_signature(key, who).encode(), signature.encode()):
        return None
    rank, _, pod = who.partition(".")
    return Sender(int(rank), pod)


def _signature(key: str, who: str) -> str:
    import hmac  # imported here: a pod of a single job starts without it

    return hmac.digest(key.encode(), who.encode(), "sha256").hex()


def report(plan: Mapping[str, Any], members: list[Member]) -> dict[str, Any]:
    """The body of a report without its ``seq``, which the sender counts."""
    return {
        "job_id": plan["job_id"],
        "attempt": plan["attempt"],
        "epoch": plan["epoch"],
        "members": [member._asdict() for member in members],
    }


def read_member(body: object) -> Member:
    """Reads a member from a report. Raises ValueError for anything else."""
    if not isinstance(body, dict) or set(body) != set(Member._fields):
        raise ValueError(f"{body!r:.200} is no member: expected the keys {', '.join(Member._fields)}.")
    member = Member(**body)
    code = member.exit_code
    if member.phase not in PHASES or not isinstance(member.rank, int) or not (code is None or isinstance(code, int)):
        raise ValueError(f"{body!r:.200} is no member: phase, rank or exit_code is none that a pod has.")
    if not all(isinstance(text, str) for text in (member.pod, member.uid, member.reason)):
        raise ValueError(f"{body!r:.200} is no member: pod, uid and reason are text.")
    return member._replace(endpoints=read_names(member.endpoints), outputs=read_names(member.outputs))


def read_names(body: object) -> dict[str, str]:
    """Names and their values, such as ``{"connect": "127.0.0.1:15002"}``; raises ValueError for anything else."""
    if not isinstance(body, dict) or len(body) > MOST_NAMES:
        raise ValueError(f"{body!r:.200}: expected an object of at most {MOST_NAMES} names.")
    for name, value in body.items():
        if not isinstance(name, str) or not isinstance(value, str) or len(name) + len(value) > 1024:
            raise ValueError(f"{name!r:.200}: expected a name and a text, 1024 characters together.")
    return dict(body)


def read_stop(reply: Mapping[str, Any]) -> Stop | None:
    """The order to stop in a reply, None when there is none; raises ValueError when it cannot be read."""
    stop = reply.get("stop")
    if stop is None:
        return None
    try:
        return Stop(max(0.0, float(stop["grace_s"])), str(stop.get("why", "")))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{stop!r:.200}: expected grace_s and why.") from error


def read_orders(reply: Mapping[str, Any]) -> Orders:
    return Orders(int(reply.get("version", 0)), reply.get("open") is True, read_stop(reply))


def show_orders(orders: Orders) -> dict[str, Any]:
    stop = None if orders.stop is None else orders.stop._asdict()
    return {"version": orders.version, "open": orders.is_open, "stop": stop}
