"""Attempts record the total resources of their cluster at admission. Live attempts get the last known total."""

import json
from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

LIVE = ("Admitted", "Launching", "Running", "Stopping")


def upgrade() -> None:
    attempts = sa.table("attempts", sa.column("job_id"), sa.column("number"), sa.column("phase"), sa.column("body"))
    totals = {name: _total(cluster) for name, cluster in _clusters().items()}
    for row in op.get_bind().execute(sa.select(attempts).where(attempts.c.phase.in_(LIVE))).all():
        body = json.loads(row.body)
        body["cluster_total"] = totals.get(body["cluster"], {"amounts": []})
        is_it = (attempts.c.job_id == row.job_id) & (attempts.c.number == row.number)
        op.execute(attempts.update().where(is_it).values(body=json.dumps(body, separators=(",", ":"), ensure_ascii=False)))


def _clusters() -> Mapping[str, Mapping[str, object]]:
    """From the checkpoint, or from a later journal line."""
    kept = sa.table("checkpoint_rows", sa.column("kind"), sa.column("key"), sa.column("body"))
    journal = sa.table("journal", sa.column("seq"), sa.column("kind"), sa.column("key"), sa.column("body"))
    last = sa.select(sa.func.max(journal.c.seq)).where(journal.c.kind == "ClusterObserved").group_by(journal.c.key)
    connection = op.get_bind()
    found = connection.execute(sa.select(kept.c.key, kept.c.body).where(kept.c.kind == "cluster")).all()
    clusters = {key: json.loads(body) for key, body in found}
    lines = connection.execute(sa.select(journal.c.key, journal.c.body).where(journal.c.seq.in_(last))).all()
    return clusters | {key: json.loads(body)["cluster"] for key, body in lines}


def _total(cluster: Mapping[str, object]) -> Mapping[str, object]:
    """Sum over the ready nodes."""
    amounts: dict[str, int] = {}
    nodes = cluster["nodes"]
    assert isinstance(nodes, list)
    for node in nodes:
        for key, amount in node["allocatable"]["amounts"] if node["is_ready"] else ():
            amounts[key] = amounts.get(key, 0) + amount
    return {"amounts": [[key, amount] for key, amount in sorted(amounts.items()) if amount]}
