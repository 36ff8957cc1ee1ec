"""State in memory: rows and their indexes, usage, phases, invariants; `handlers/` has what each event changes.

Belongs here: everything that changes when an event is handled. Does not belong here: what a cycle decides.
"""
