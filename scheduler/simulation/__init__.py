"""Clusters x workload x policy on a virtual clock, with the scheduler's own core inside: `core.cycle` decides, `core.state` keeps.

Belongs here: traces (read, written, generated), the clock and what a cluster would answer, the policies compared, the results.
Does not belong here: anything that decides what starts where; a policy is a set of `core.rules.Rules` and a source of durations.
"""
