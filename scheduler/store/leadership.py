"""Leadership: the epoch in `meta` is authoritative; the row in `leader` says where the leader answers and whether it is alive.

Clocks of other machines are never compared: a follower sees whether the beat counter advances and measures the silence with its
own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, case, func, select, update

from tuttilab.scheduler import __version__
from tuttilab.scheduler.domain.errors import EnvironmentProblem, StaleEpoch
from tuttilab.scheduler.domain.model import LIVE
from tuttilab.scheduler.store import statements
from tuttilab.scheduler.store.tables import ATTEMPTS, LEADER, META


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that wants to lead: the URL it answers at, and a digest of the key that all replicas must share.

    ``after`` is the epoch that it saw end: it does not take over when another candidate was faster. None: no such condition.
    ``folder``: the state folder of a process without replicas, which leads a SQLite file alone for as long as it lives. Its epoch
    will be higher than ``above``, the newest epoch that its clusters know: so they accept a new database that replaces a lost one.
    """

    url: str = ""
    key_digest: str = ""
    after: int | None = None
    folder: Path | None = None
    above: int = 0


@dataclass(frozen=True, slots=True)
class Leader:
    """The newest leader as its row shows it. An empty ``url`` means that it has released leadership or is not ready yet."""

    epoch: int
    beat: int
    url: str
    key_digest: str = ""


def of_another_site() -> EnvironmentProblem:
    """For a process that could never take this database over from those that share it."""
    return EnvironmentProblem(
        "The replicas of this database derive their tokens from another key than this process, or are not meant to be several "
        "(store.alone, a local cluster, whose pods only one state folder knows); expected the same auth.key_file on each of them, "
        "and no local cluster."
    )


def stale(epoch: int, leads: int) -> StaleEpoch:
    return StaleEpoch(f"epoch {epoch} was given, and {leads} leads; this process has to stop.")


def check_epoch(connection: Connection, epoch: int) -> None:
    """Raises StaleEpoch unless ``epoch`` leads. First in each writing transaction; on Postgres a take-over waits for its end."""
    leads = int(connection.execute(statements.EPOCH).scalar_one())
    if leads != epoch:
        raise stale(epoch, leads)


def take_over(connection: Connection, candidate: Candidate, before: str = "") -> int:
    """Take over leadership; return the new epoch.

    Raises StaleEpoch when another candidate was faster, EnvironmentProblem for the key of another site. ``before`` describes the
    last leader, for error messages.
    """
    known = connection.execute(select(LEADER.c.key_digest)).scalar_one()
    if candidate.key_digest and known and known != candidate.key_digest:
        _refuse_another(connection, candidate, before)
    last = case((META.c.epoch < candidate.above, candidate.above), else_=META.c.epoch)
    taken = update(META).values(epoch=last + 1, product=__version__).returning(META.c.epoch)
    if candidate.after is not None:
        taken = taken.where(META.c.epoch == candidate.after)
    epoch = connection.execute(taken).scalar()
    if epoch is None:
        raise stale(candidate.after or 0, int(connection.execute(select(META.c.epoch)).scalar_one()))
    values = {"epoch": epoch, "beat": 0, "url": "", "key_digest": candidate.key_digest or known}
    connection.execute(update(LEADER).values(values))
    return int(epoch)


def _refuse_another(connection: Connection, candidate: Candidate, before: str) -> None:
    if candidate.folder is None:
        raise of_another_site()
    is_live = ATTEMPTS.c.phase.in_([phase.value for phase in LIVE])
    # Without live pods another state folder may take the database over.
    if connection.execute(select(func.count()).select_from(ATTEMPTS).where(is_live)).scalar_one():
        raise EnvironmentProblem(
            f"This database has live jobs whose pods only another state folder knows ({before}), and {candidate.folder} would run "
            "them a second time; set TUTTILAB_STATE_DIR to that folder, or run `tuttilab down --now` there first. If it is gone "
            "for good, `tuttilab scheduler backup` and `restore --force` hand the jobs over."
        )


def beat(connection: Connection, epoch: int, url: str) -> None:
    """Record that the leader is alive and answers at ``url``. Raises StaleEpoch."""
    beaten = update(LEADER).where(LEADER.c.epoch == epoch).values(beat=LEADER.c.beat + 1, url=url).returning(LEADER.c.beat)
    if connection.execute(beaten).scalar() is None:
        raise stale(epoch, int(connection.execute(select(META.c.epoch)).scalar_one()))


def reset_leader(connection: Connection) -> None:
    """Clear what is known about the last leader: the next process may open the database whatever its key or folder."""
    connection.execute(update(LEADER).values(beat=-1, url="", key_digest=""))


def release(connection: Connection, epoch: int) -> None:
    """Release leadership, so that other replicas need not wait for the lease to expire."""
    connection.execute(update(LEADER).where(LEADER.c.epoch == epoch).values(beat=-1, url=""))


def leader(connection: Connection) -> Leader:
    row = connection.execute(select(LEADER.c.epoch, LEADER.c.beat, LEADER.c.url, LEADER.c.key_digest)).one()
    return Leader(row.epoch, row.beat, row.url, row.key_digest)


def raise_epoch(connection: Connection, above: int) -> None:
    """Raise the epoch above ``above`` and above the current one: no former leader can commit any more."""
    higher = func.coalesce(select(func.max(META.c.epoch)).scalar_subquery(), 0)
    top = max(int(connection.execute(select(higher)).scalar_one()), above) + 1
    connection.execute(update(META).values(epoch=top))
    connection.execute(update(LEADER).values(epoch=top, beat=-1, url=""))
