"""The process of the control plane: starts, leads or follows, serves the API, and ends.

Belongs here: putting the parts together, signals, the readiness pipe, the log file.
Does not belong here: anything a test needs without a process.
"""
