"""Ports at which the Spark drivers of notebook servers are reached from outside, as YARN's client mode needs.

Each live server has its own, out of the range that the site names; they are free again when the server's job has ended. The job's
label says which: the ports are in the database with the job, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from tuttilab.scheduler.domain.errors import AboveMax, BadInput
from tuttilab.scheduler.domain.model import Job

LABEL: Final = "notebook-driver-ports"
MOST: Final = 8
"""Of one server: driver, block manager and web page of two sessions, and two more."""
SMALLEST: Final = 1024
LARGEST: Final = 65535


def range_of(text: str, where: str) -> range:
    """The ports of ``30100-30299``; none of an empty text. Raises BadInput."""
    if not text:
        return range(0)
    first, dash, last = text.partition("-")
    is_range = bool(dash) and all(part.isascii() and part.isdigit() and len(part) < 6 for part in (first, last))
    if not is_range or not SMALLEST <= int(first) <= int(last) <= LARGEST:
        raise BadInput(f"{where}: {text[:40]!r} is no range of ports ({SMALLEST}-{LARGEST}); expected one such as 30100-30299.")
    return range(int(first), int(last) + 1)


def ports_of(job: Job) -> tuple[int, ...]:
    return tuple(int(port) for port in job.labels.get(LABEL, "").split(",") if port)


def label_of(ports: Collection[int]) -> dict[str, str]:
    return {LABEL: ",".join(map(str, ports))} if ports else {}


def check(count: int, of_site: range) -> None:
    """Raises BadInput for a profile that asks for more ports than there can be."""
    if not 0 <= count <= MOST:
        raise BadInput(f"driver_ports: {count} given; expected 0 to {MOST} for one server.")
    if count and not of_site:
        raise BadInput(
            "driver_ports: the site has none; an admin names their range in tuttilab.yaml, as driver_ports: 30100-30299."
        )
    if count > len(of_site):
        raise BadInput(f"driver_ports: {count} given, and the site has {len(of_site)} ({_title(of_site)}).")


def chosen(count: int, of_site: range, taken: Collection[int], order: int) -> tuple[int, ...]:
    """``count`` free ports for the job with this number. Raises AboveMax when there are fewer.

    The search goes on from job to job, so that a port that was freed a moment ago is not used again at once.
    """
    start = order * count % max(len(of_site), 1)
    turned = [*of_site[start:], *of_site[:start]]
    found = [port for port in turned if port not in taken][:count]
    if len(found) < count:
        raise AboveMax(
            f"driver_ports: {count} asked, and {len(found)} of the site's {len(of_site)} ({_title(of_site)}) are free: others "
            "have them until they stop; take a profile without driver ports, or try again later."
        )
    return tuple(sorted(found))


def _title(ports: range) -> str:
    return f"{ports[0]}-{ports[-1]}" if ports else "no range"
