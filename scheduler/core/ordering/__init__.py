"""Who is served next: the queue tree, guaranteed shares, overtaking accounts, protection, and run-time estimates.

Belongs here: rules that compare queues or gangs without looking at a node. Does not belong here: where a pod goes (`placement`),
or the order of one cycle's candidates, which needs both (`core.candidates`).
"""
