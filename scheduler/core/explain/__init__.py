"""Why each gang waits, in one sentence and as data, and when it will probably start.

Belongs here: sentences and forecasts made from the causes and the working set of a cycle.
Does not belong here: anything that changes a decision.
"""
