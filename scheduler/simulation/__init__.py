"""The simulator: runs a trace on virtual clusters and a virtual clock under a policy, with the scheduler's own core.

Belongs here: traces (read, write, generate), the clock, simulated clusters, policies, results, replay of journals. Does not
belong here: decisions about what starts where (`core.cycle`); a policy is a set of `core.rules.Rules` and a source of durations.
"""

from tuttilab.scheduler.simulation.engine import JobOutcome, Outcome, Simulation
from tuttilab.scheduler.simulation.family import Recipe, is_recipe, read_recipe
from tuttilab.scheduler.simulation.files import known_policy, read_events, read_policy, read_site
from tuttilab.scheduler.simulation.generate import generate, shuffle_names
from tuttilab.scheduler.simulation.plot import html_page
from tuttilab.scheduler.simulation.policies import POLICIES, Policy
from tuttilab.scheduler.simulation.replay import Decisions, Replayed, replay, replay_store
from tuttilab.scheduler.simulation.report import Figures, figures, run_lines, table, unfinished_lines
from tuttilab.scheduler.simulation.story import Story, Watch, story
from tuttilab.scheduler.simulation.story_page import story_section
from tuttilab.scheduler.simulation.story_text import lines as story_lines
from tuttilab.scheduler.simulation.trace import TraceJob, read_trace, trace_lines

__all__ = [
    "POLICIES",
    "Decisions",
    "Figures",
    "Outcome",
    "Policy",
    "JobOutcome",
    "Recipe",
    "Replayed",
    "Simulation",
    "Story",
    "TraceJob",
    "Watch",
    "figures",
    "generate",
    "unfinished_lines",
    "html_page",
    "is_recipe",
    "known_policy",
    "read_events",
    "read_policy",
    "read_recipe",
    "read_site",
    "read_trace",
    "replay",
    "replay_store",
    "run_lines",
    "shuffle_names",
    "story",
    "story_lines",
    "story_section",
    "table",
    "trace_lines",
]
