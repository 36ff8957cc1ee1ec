"""Pure decisions: no clock, no randomness, no logging, no I/O, no await.

Belongs here: functions from a snapshot to a decision and from an event to a new state. Everything timed is a number handed in.
Does not belong here: anything that reads a clock, opens a file or a socket, or knows that a database exists.
"""
