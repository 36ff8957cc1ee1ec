"""Process-level utilities: process identity, crash points, garbage collection, discovery of the control plane.

Belongs here: facts about processes and the state folder. Does not belong here: anything that knows jobs.
"""
