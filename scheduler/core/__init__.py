"""Pure decisions: no clock, no randomness, no logging, no I/O, no await.

Belongs here: functions from a snapshot to a decision and from an event to a new state. Times are arguments.
Does not belong here: anything that reads a clock, opens a file or a socket, or depends on a database.
"""
