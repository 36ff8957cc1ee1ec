"""What each event changes: one function per event, called by `State.handle`.

Each takes the rows, the event and the time and returns instructions. A late, repeated or unknown event changes nothing.
Belongs here: the life of jobs, attempts, pods and runs. Does not belong here: which gang starts where (`core.cycle`), and how
rows are stored and indexed (`core.rows.rows`).
"""
