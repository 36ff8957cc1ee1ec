"""Clusters x workload x policy on a virtual clock: the names that other code and notebooks use; the parts are in `simulation`."""

from tuttilab.scheduler.simulation.engine import Outcome, Ran, Simulation
from tuttilab.scheduler.simulation.files import policy_named, read_events, read_policy, read_site
from tuttilab.scheduler.simulation.generate import generate, shuffle_names
from tuttilab.scheduler.simulation.plot import page
from tuttilab.scheduler.simulation.policies import POLICIES, Policy
from tuttilab.scheduler.simulation.replay import Decisions, Replayed, replay, replay_store
from tuttilab.scheduler.simulation.report import Figures, figures, left_over, run_lines, table
from tuttilab.scheduler.simulation.trace import TraceJob, read_trace, trace_lines

__all__ = [
    "POLICIES",
    "Decisions",
    "Figures",
    "Outcome",
    "Policy",
    "Ran",
    "Replayed",
    "Simulation",
    "TraceJob",
    "figures",
    "generate",
    "left_over",
    "page",
    "policy_named",
    "read_events",
    "read_policy",
    "read_site",
    "read_trace",
    "replay",
    "replay_store",
    "run_lines",
    "shuffle_names",
    "table",
    "trace_lines",
]
