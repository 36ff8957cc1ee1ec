"""The service loop: events are handled and committed, then instructions are performed; only `loop` commits.

Belongs here: what the loop itself needs: turns, cycles, the performer of instructions, the watcher of clusters, reconciliation,
launch plans, heartbeats, leases of notebook servers, retention, reload, service time. Does not belong here: requests (`usecases`).
"""
