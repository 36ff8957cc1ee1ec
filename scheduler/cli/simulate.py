"""`tuttilab simulate`: runs a trace on a virtual cluster, under one policy or several for comparison."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any, Final

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.domain.errors import BadInput

PATH: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class Load(click.FloatRange):
    """A range that refuses NaN, which compares as neither below nor above a bound."""

    # Any: click's own type.
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


LOAD: Final = Load(0.01, 100.0)


class Trace(click.ParamType["Path | str"]):
    """A CSV file, or the name of a generator with values: `recurring:load=0.8,seed=11`."""

    name = "FILE|NAME[:KEY=VALUE,…]"

    # Any: click's own type.
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tuttilab.scheduler.simulation.family import NAMES, is_recipe

        if is_recipe(value):
            return value
        if not Path(value).exists():
            names = ", ".join(NAMES)
            self.fail(f"there is no file {value!r}, and it is no generator; expected a CSV file or one of {names}.", param, ctx)
        return PATH.convert(value, param, ctx)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start} is not UTF-8; expected a text file.") from None


def _check_folder(path: Path | None) -> None:
    """A run may take minutes, so a missing output folder is reported before it."""
    if path is not None and not path.parent.is_dir():
        raise BadInput(f"{path}: the folder {path.parent} does not exist; expected one that does.")


@click.command()
@click.option("--cluster", type=PATH, help="YAML with `nodes` and `queues`; default: nodes of 64 cores and 8 GPUs, one queue.")
@click.option("--nodes", default=8, type=click.IntRange(1, 10_000), show_default=True, help="Nodes of the site without --cluster.")
@click.option(
    "--trace",
    type=Trace(),
    help="CSV with the columns job_id, submit_s, duration_s, gpus, and more that the guide lists; or a generator with its values.",
)
@click.option("--policy", type=PATH, help="YAML with `base` and what it changes: order, keep, protects, preempts, knows_durations.")
@click.option("--events", type=PATH, help="YAML with `events`: clusters lost and back, queues changed, jobs cancelled, by time.")
@click.option(
    "--compare", metavar="NAME,…", help="Policies side by side: fifo, besteffort, easy, easy-predicted, sjf-oracle, ours."
)
@click.option("--jobs", default=5000, type=click.IntRange(1, 1_000_000), show_default=True, help="Size of a generated trace.")
@click.option("--load", default=1.0, type=LOAD, show_default=True, help="Its work over what the site's GPUs can do.")
@click.option("--seed", default=1, show_default=True, help="Its seed.")
@click.option("--shuffled", is_flag=True, help="Shuffle its owners and names, so that history predicts nothing.")
@click.option("--write-trace", type=click.Path(dir_okay=False, path_type=Path), help="Write the trace as CSV and do not run it.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write the table and two drawings as one HTML page.")
@click.option("--write-runs", type=click.Path(dir_okay=False, path_type=Path), help="Write when and where every job ran, as CSV.")
@click.option("--explain", metavar="JOB", help="Tell of this job of the trace why it waited; with --plot also as a picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")
def simulate(
    cluster: Path | None,
    nodes: int,
    trace: Path | str | None,
    policy: Path | None,
    events: Path | None,
    compare: str | None,
    jobs: int,
    load: float,
    seed: int,
    shuffled: bool,
    write_trace: Path | None,
    plot: Path | None,
    write_runs: Path | None,
    explain: str | None,
    as_json: bool,
) -> None:
    """Run a trace through the scheduler on a virtual clock and print waits, completion, use, fairness and preemptions.

    Without --trace one is generated with the marginals of a well-known GPU cluster, as by --trace generated.
    """
    from tuttilab.scheduler import simulation
    from tuttilab.scheduler.runtime.garbage_collection import collect_seldom
    from tuttilab.scheduler.simulation.files import check_trace_fits

    _check_folder(plot)
    _check_folder(write_trace)
    _check_folder(write_runs)
    collect_seldom()
    default = f"nodes: [{{name: gpu, count: {nodes}, cpus: 64, memory: 1Ti, gpus: 8}}]\n"
    clusters, queues = simulation.read_site(_text(cluster) if cluster else default, str(cluster or "default cluster"))
    gpus = [node.allocatable["nvidia.com/gpu"] for one in clusters for node in one.nodes]
    if isinstance(trace, Path):
        lines = simulation.read_trace(_text(trace), str(trace), max(gpus))
        lines = simulation.shuffle_names(lines, seed) if shuffled else lines
    else:
        base = simulation.Recipe(jobs=jobs, load=load, seed=seed, shuffled=shuffled)
        recipe = simulation.read_recipe(trace, base) if trace else base
        lines = recipe.make(sum(gpus), max(gpus))
    if write_trace:
        write_trace.write_text("".join(simulation.trace_lines(lines)), encoding="utf-8", newline="")
        console.put(f"wrote {len(lines)} jobs to {write_trace}")
        return
    check_trace_fits(queues, {line.queue for line in lines})
    extra = simulation.read_events(_text(events), clusters, lines, str(events)) if events else []
    policies = [simulation.known_policy(name.strip()) for name in compare.split(",")] if compare else []
    if policy or not policies:
        policies.append(simulation.read_policy(_text(policy), str(policy)) if policy else simulation.known_policy("ours"))
    if explain is not None and all(line.job_id != explain for line in lines):
        raise BadInput(f"--explain: the trace has no job {explain[:120]!r}; expected the job_id of one.")
    sample_every = max(1, len(lines) // 100)
    watches = [simulation.Watch(explain) if explain is not None else None for _ in policies]
    outcomes = [
        simulation.Simulation(clusters, queues, lines, one, extra, sample_every=sample_every, watch=watch).run()
        for one, watch in zip(policies, watches, strict=True)
    ]
    stories = [simulation.story(watch, outcome) for watch, outcome in zip(watches, outcomes, strict=True) if watch is not None]
    rows = [simulation.figures(outcome) for outcome in outcomes]
    against = next((row for row in rows if row.policy == "easy"), None)
    text = "\n".join([simulation.table(rows, against), *simulation.unfinished_lines(outcomes)])
    if write_runs:
        write_runs.write_text("".join(simulation.run_lines(outcomes)), encoding="utf-8", newline="")
    if plot:
        sections = [
            simulation.story_section(story, outcome, clusters, number)
            for number, (story, outcome) in enumerate(zip(stories, outcomes, strict=False), start=1)
        ]
        plot.write_text(simulation.html_page(outcomes, text, sections), encoding="utf-8")
    if as_json:
        told = [asdict(row) for row in rows]
        for one, story in zip(told, stories, strict=False):
            one["explained"] = asdict(story)
        console.put(json.dumps(told))
        return
    console.put("\n".join([text, *("\n" + "\n".join(simulation.story_lines(story)) for story in stories)]))


COMMANDS: Final = (simulate,)
