"""The source of truth: rows and the journal in a relational database.

Belongs here: committing events with the rows they change, loading the live rows, reading the journal for `/changes`, idempotency
keys, artifact metadata. Does not belong here: what an event means (`core`) or performing anything (`service`).
"""
