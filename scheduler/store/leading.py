"""Who leads: the epoch in `meta` is the truth, the row `leader` a hint at where to find the leader and whether it lives.

No clock of another machine is read: a follower sees whether the beat goes on, and measures with its own clock for how long not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, case, func, select, update

from tuttilab.scheduler import __version__
from tuttilab.scheduler.errors import EnvironmentProblem, StaleEpoch
from tuttilab.scheduler.model import LIVE
from tuttilab.scheduler.store import statements
from tuttilab.scheduler.store.tables import ATTEMPTS, LEADER, META


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who wants to lead: the address it answers at, and a digest of what all replicas must have in common.

    ``after`` is the epoch that it saw end; when another one was quicker it does not take over. None takes over in any case.
    ``folder``: the state folder of one that has no replicas: it leads a SQLite file alone, as long as it lives. Its epoch will be
    higher than ``above``, the newest that its clusters know: they take orders from a new database in the place of a lost one.
    """

    url: str = ""
    key_digest: str = ""
    after: int | None = None
    folder: Path | None = None
    above: int = 0


@dataclass(frozen=True, slots=True)
class Leader:
    """The newest leader as its row shows it. An empty ``url`` means that it has gone or is not ready yet."""

    epoch: int
    beat: int
    url: str


def stale(epoch: int, leads: int) -> StaleEpoch:
    return StaleEpoch(f"epoch {epoch} was given, and {leads} leads; this process has to stop.")


def check_epoch(connection: Connection, epoch: int) -> None:
    """First in each transaction that changes something. On Postgres no take-over ends before this transaction does."""
    leads = int(connection.execute(statements.EPOCH).scalar_one())
    if leads != epoch:
        raise stale(epoch, leads)


def take_over(connection: Connection, candidate: Candidate, before: str = "") -> int:
    """The new epoch. Raises StaleEpoch when another candidate was quicker, EnvironmentProblem for another site's key.

    ``before`` tells people who led last.
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
        raise EnvironmentProblem(
            "The replicas of this database derive their tokens from another key than this process, or have a local cluster, "
            "whose pods only one state folder knows; expected the same auth.key_file on each of them, and no local cluster."
        )
    is_live = ATTEMPTS.c.phase.in_([phase.value for phase in LIVE])
    # Without pods that go on, another folder may well have the database from now on.
    if connection.execute(select(func.count()).select_from(ATTEMPTS).where(is_live)).scalar_one():
        raise EnvironmentProblem(
            f"This database has live jobs whose pods only another state folder knows ({before}), and {candidate.folder} would run "
            "them a second time; set TUTTILAB_STATE_DIR to that folder, or run `tuttilab down --now` there first. If it is gone "
            "for good, `tuttilab scheduler backup` and `restore --force` hand the jobs over."
        )


def beat(connection: Connection, epoch: int, url: str) -> None:
    """The leader lives, and answers at ``url``. Raises StaleEpoch."""
    beaten = update(LEADER).where(LEADER.c.epoch == epoch).values(beat=LEADER.c.beat + 1, url=url).returning(LEADER.c.beat)
    if connection.execute(beaten).scalar() is None:
        raise stale(epoch, int(connection.execute(select(META.c.epoch)).scalar_one()))


def forget_site(connection: Connection) -> None:
    """Whoever opens the database next has what its rows say, and nothing else is known of those who led."""
    connection.execute(update(LEADER).values(beat=-1, url="", key_digest=""))


def release(connection: Connection, epoch: int) -> None:
    """The leader goes of its own will: the others need not wait for its lease to run out."""
    connection.execute(update(LEADER).where(LEADER.c.epoch == epoch).values(beat=-1, url=""))


def leader(connection: Connection) -> Leader:
    row = connection.execute(select(LEADER.c.epoch, LEADER.c.beat, LEADER.c.url)).one()
    return Leader(row.epoch, row.beat, row.url)


def raise_epoch(connection: Connection, above: int) -> None:
    """After this no leader of before can commit."""
    higher = func.coalesce(select(func.max(META.c.epoch)).scalar_subquery(), 0)
    top = max(int(connection.execute(select(higher)).scalar_one()), above) + 1
    connection.execute(update(META).values(epoch=top))
    connection.execute(update(LEADER).values(epoch=top, beat=-1, url=""))
