"""Views of the REST API for a job's page: what the job was given and gave, and what its pods used over time.

Apart from `wire.JobView`, because lists of jobs have none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SentView:
    """What the code bundle of a captured cell holds. Sizes in bytes; texts and lists are cut to what a page can show."""

    cell: str
    """The source, with a first line for that of the magic."""
    cell_name: str
    functions: Mapping[str, str] = field(default_factory=dict)
    """The lines of the functions that came along, by the name of their cell or file."""
    is_cut: bool = False
    """Whether the cell or the functions have more lines than these."""
    names: Mapping[str, int] = field(default_factory=dict)
    """Captured notebook variables and their sizes, the largest first."""
    files: Mapping[str, int] = field(default_factory=dict)
    more: int = 0
    """How many further names and files there are."""
    size: int = 0
    """Of the whole bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputView:
    """A kept output of one rank. ``size`` None: its bytes are not here."""

    rank: int
    name: str
    artifact: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailsView:
    """What was asked for beyond `wire.JobView`, what was sent along, and what the newest attempt has kept.

    ``env``: the names of the variables that were set, without their values, which may be secrets.
    """

    image: str | None = None
    workdir: str | None = None
    framework: str = ""
    retries: int = 0
    env: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    sent: SentView | None = None
    outputs: tuple[OutputView, ...] = ()
    more_outputs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownView:
    """An output that a cell showed. ``picture``: base64 of type ``kind``. ``others``: MIME types that are left out here."""

    text: str
    kind: str = ""
    picture: str = ""
    others: tuple[str, ...] = ()
    is_value: bool = False
    """Whether it is the value of the cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownListView:
    """What one rank showed so far, without what came earlier than the newest few. ``more``: how many these are.

    ``size``: of all that was written about it. A request that knows this size gets nothing else.
    """

    rank: int
    size: int = 0
    shown: tuple[ShownView, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUsageView:
    """What one pod used. Lists of equal length: seconds since ``started_at``, cores and bytes of memory.

    ``asked_cpus`` and ``asked_memory``: what the job asked for each pod of this role. ``cpu_s``: CPU seconds in all.
    """

    pod: str
    rank: int
    role: str
    node: str
    started_at: float
    seconds: tuple[float, ...]
    cpus: tuple[float, ...]
    memory: tuple[int, ...]
    cpu_s: float
    peak_memory: int
    asked_cpus: float
    asked_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageView:
    """The pods of one attempt, by rank, without those of which nothing is known. ``total``: how many ranks the attempt has."""

    attempt: int
    total: int
    pods: tuple[PodUsageView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplaysView:
    """What a cell displayed so far on one rank: JSON records, a text each. Read on from ``next``."""

    lines: tuple[str, ...]
    next: int
