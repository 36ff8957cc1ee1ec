"""`tuttilab submit`: submits the jobs of a manifest, a notebook, or a command with options for its size."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.completing import CLUSTER, JOB, QUEUE
from tuttilab.scheduler.domain.errors import BadInput, TuttiError
from tuttilab.scheduler.domain.resources import parse_count, parse_cpu, parse_duration, parse_memory
from tuttilab.scheduler.domain.titles import visible

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.client.environment import Environment
    from tuttilab.scheduler.domain.requests import JobRequest
    from tuttilab.scheduler.domain.wire import DryRunView

COMMAND = "tuttilab.command"
_OPTIONS = {"inputs": "in", "outputs": "out", "mounts": "mount", "sidecars": "sidecar"}
"""Options by the names of their values, where these differ."""


class CommandAfterDashes(click.Command):
    """Takes everything after the first ``--`` as the job's command, before click parses it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "FILE.yaml | NOTEBOOK.ipynb | -- COMMAND..."]


def _complete_files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Left to the shell, which knows files best."""
    return [CompletionItem(incomplete, type="file")]


def _parameters(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """The callback of ``-p``. Any: a parameter is what JSON can hold."""
    from tuttilab.scheduler.client.notebooks import parameter

    try:
        return dict(parameter(value) for value in values)
    except ValueError as error:
        raise click.UsageError(f"--parameter: {values[-1][:80]!r} was given; expected {error}.") from error


def _additions(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...]:
    """The callback of ``--mount`` and ``--sidecar``: their requests."""
    from tuttilab.scheduler.client import additions

    read = additions.read_mount if parameter.name == "mounts" else additions.read_sidecar
    found = []
    for value in values:
        try:
            found.append(read(value))
        except ValueError as error:
            raise click.UsageError(f"{parameter.opts[0]}: {value[:80]!r} was given; expected {error}.") from error
    return tuple(found)


@click.command(cls=CommandAfterDashes)
@click.argument("file", required=False, shell_complete=_complete_files)
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="What people call it.  [default: the program's name]")
@click.option("--cpus", metavar="CORES", help="Per pod: 2, 0.5 or 1500m.  [default: 1]")
@click.option("--memory", metavar="BYTES", help="Per pod: 512Mi, 8Gi.  [default: 1Gi]")
@click.option("--gpus", metavar="N", help="Per pod, whole ones.  [default: 0]")
@click.option("--gpu-type", metavar="MODEL", help="Only nodes with this GPU model.")
@click.option("--workers", metavar="N", help="Pods that start together or not at all.  [default: 1]")
@click.option("--min-workers", metavar="N", help="With how many it can start and go on; more as there is room.")
@click.option("--queue", type=QUEUE, help="Queue to wait in.")
@click.option("--group", help="Group it is charged to.")
@click.option("--run-as", metavar="NAME", help="A proxy user of your groups, instead of you.")
@click.option("--priority", type=int, help="Higher goes first.")
@click.option("--image", help="Container image, where the cluster has containers.")
@click.option(
    "--mount", "mounts", multiple=True, metavar="VOLUME:PATH", callback=_additions, help="Volume that the site lists; repeat it."
)
@click.option(
    "--sidecar", "sidecars", multiple=True, metavar="NAME[:K=V,...]", callback=_additions, help="Side-car of the site; repeat it."
)
@click.option("--env", "-e", multiple=True, metavar="K=V", callback=console.pairs("--env"), help="Variable of the job; repeat it.")
@click.option("--no-env", is_flag=True, help="Nothing of this shell's environment, only what --env says.")
@click.option(
    "--parameter", "-p", "parameters", multiple=True, metavar="K=V", callback=_parameters, help="Of a notebook; repeat it."
)
@click.option("--in", "inputs", multiple=True, metavar="PATH", help="Must exist before the job starts; repeat it.")
@click.option(
    "--out",
    "outputs",
    multiple=True,
    metavar="NAME=PATH",
    callback=console.pairs("--out"),
    help="Kept, below RESULT_DIR; repeat it.",
)
@click.option("--timeout", metavar="TIME", help="End it after 90s, 10m, 2h, 1d.")
@click.option("--grace", metavar="TIME", help="Time between SIGTERM and SIGKILL.  [default: 30s]")
@click.option("--retries", metavar="N", help="Attempts after the first that fails.  [default: 0]")
@click.option("--after", multiple=True, metavar="JOB", type=JOB, help="Start when this job has succeeded; repeat it.")
@click.option("--cluster", type=CLUSTER, help="Only this cluster.")
@click.option("--framework", metavar="NAME", help="torch, tensorflow, xgboost or none: which variables the pods get.")
@click.option(
    "--spark",
    multiple=True,
    metavar="K=V",
    help="As a Spark application: executors=4,executor-memory=2g; py-files, jars, archives, class, conf; repeat it.",
)
@click.option("--label", multiple=True, metavar="K=V", callback=console.pairs("--label"), help="Label; repeat it.")
@click.option("--wait", is_flag=True, help="Follow its log and exit with its exit code.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen now.")
@console.json_option
@click.pass_context
def submit(
    context: click.Context,
    /,
    file: str | None,
    rest: tuple[str, ...],
    wait: bool,
    dry_run: bool,
    no_env: bool,
    parameters: dict[str, Any],
    as_json: bool,
    **options: Any,
) -> int:
    """Submit a job and print its id.

    Either FILE.yaml with documents of `kind: Job`, or a notebook with its parameters, or a command after --, which runs in the
    current directory:

        tuttilab submit --name train --gpus 1 --workers 2 -- python train.py --epochs 3

        tuttilab submit report.ipynb -p day=2026-11-22 --wait
    """
    if wait and as_json:
        raise click.UsageError("--wait prints the log and --json prints JSON: give one of them.")
    bundle: bytes | None = None
    if file is not None and file.endswith(".ipynb") and COMMAND not in context.meta:
        bundle, request = _notebook_request(file, rest, parameters, options)
        requests = [request]
    elif parameters:
        raise BadInput("--parameter: only a notebook takes it, as in `tuttilab submit report.ipynb -p day=2026-11-22`.")
    else:
        requests = _requests(file, rest, context.meta.get(COMMAND), options)
    client = console.connected_client()
    if any(one.spark is not None for one in requests):
        from tuttilab.scheduler.client.application_files import with_files

        folder = Path.cwd() if file is None else Path(file).absolute().parent
        clusters = client.clusters()
        requests = [with_files(one, clusters, folder, None if dry_run else client.put_artifact) for one in requests]
    environments = _environments(client, requests, no_env)
    # By id, so that a repeated request means the same jobs.
    ids = {text: client.job(text).id for text in dict.fromkeys(text for one in requests for text in one.after)}
    requests = [
        replace(one, inherited=found.values, after=tuple(ids[text] for text in one.after))
        for one, found in zip(requests, environments, strict=True)
    ]
    if dry_run:
        answers = [client.dry_run(request) for request in requests]
        if as_json:
            console.put_json(answers if len(answers) > 1 else answers[0])
        else:
            for answer, environment in zip(answers, environments, strict=True):
                _show_dry_run(answer)
                console.put(str(environment))
        return 3 if any(answer.verdict == "refused" for answer in answers) else 0
    if bundle is not None:
        client.put_artifact(bundle)
    jobs = [client.submit(requests[0])] if len(requests) == 1 else client.submit_many(requests)
    if as_json:
        console.put_json(jobs if len(jobs) > 1 else jobs[0])
        return 0
    for job in jobs:
        console.put(job.id)
    if not wait:
        if bundle is not None:
            short = console.short(jobs[0].id)
            console.note(
                f"`tuttilab logs {short} -f` follows it, `tuttilab job {short} --download .` fetches the executed notebook."
            )
        return 0
    from tuttilab.scheduler.cli.follow import follow_to_exit_code

    codes = [follow_to_exit_code(client, job.id) for job in jobs]
    if bundle is not None:
        _save_executed(client, jobs[0].id)
    return next((code for code in codes if code), 0)


def _environments(client: Client, requests: list[JobRequest], no_env: bool) -> list[Environment]:
    from tuttilab.scheduler.client.environment import NONE, environment_for

    if no_env:
        return [NONE] * len(requests)
    clusters = client.clusters()
    return [environment_for(request, clusters) for request in requests]


def _notebook_request(
    file: str, rest: tuple[str, ...], parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[bytes, JobRequest]:
    """The bundle and the request of a notebook. Any: values of options in their own types."""
    from tuttilab.scheduler.client.notebooks import notebook_job

    if rest:
        raise BadInput(f"{' '.join(rest)!r} stands after the notebook; expected its parameters as `-p NAME=VALUE`.")
    # The folder is the notebook's, and the command is made with the bundle; what the options say is read as for a command.
    base = request_of(("notebook",), {**options, "name": options.get("name") or "job"}, os.getcwd())
    return notebook_job(Path(file), parameters, replace(base, workdir=None))


def _save_executed(client: Client, job_id: str) -> None:
    """Put the executed notebook beside the user, and say how to open it."""
    from tuttilab.scheduler.client.notebooks import save_executed

    try:
        saved = save_executed(client, client.job(job_id), Path.cwd())
    except TuttiError as error:
        console.note(str(error))
        return
    shown = saved.relative_to(Path.cwd())
    console.note(f"The executed notebook is {shown}; `jupyter lab {shlex.quote(str(shown))}` opens it.")


# Any: click passes every option by name, in the option's own type.
def _requests(
    file: str | None, rest: tuple[str, ...], command: tuple[str, ...] | None, options: dict[str, Any]
) -> list[JobRequest]:
    from tuttilab.scheduler.client import manifests
    from tuttilab.scheduler.domain.requests import JobRequest

    given = sorted(f"--{_OPTIONS.get(key, key).replace('_', '-')}" for key, value in options.items() if value not in (None, (), {}))
    if command is not None:
        if file is not None:
            raise BadInput(f"Both the file {file!r} and a command were given; expected one of them.")
        return [request_of(command, options, os.getcwd())]
    if file is None:
        raise BadInput(
            "Nothing to submit was given; expected `tuttilab submit FILE.yaml`, `tuttilab submit NOTEBOOK.ipynb` or "
            "`tuttilab submit [OPTIONS] -- COMMAND`."
        )
    if rest or not (file.endswith((".yaml", ".yml")) or Path(file).exists()):
        words = " ".join([file, *rest])
        raise BadInput(f"{file!r} is not a manifest; a command goes after two dashes: `tuttilab submit [OPTIONS] -- {words}`.")
    if given:
        raise BadInput(
            f"{', '.join(given)}: a manifest says this itself; expected options of this kind only with a command after --."
        )
    return manifests.read(Path(file), JobRequest)


def request_of(command: tuple[str, ...], options: dict[str, Any], workdir: str) -> JobRequest:
    """The request of `submit [OPTIONS] -- COMMAND`. Raises BadInput that names the option as it was typed."""
    from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, OutputRequest, PodRequest

    if options.get("spark"):
        return spark_request(command, options, workdir)
    if not command or not command[0]:
        raise BadInput("The command after -- is empty; expected a program and its arguments, such as `-- python train.py`.")
    check: dict[str, Callable[[object, str], float]] = {
        "cpus": parse_cpu,
        "memory": parse_memory,
        "gpus": parse_count,
        "workers": parse_count,
        "min_workers": parse_count,
        "retries": parse_count,
        "timeout": parse_duration,
        "grace": parse_duration,
    }
    # The service checks these values too, but its errors name the keys of a request and not these options.
    parsed = {
        key: parse(options[key], f"--{key.replace('_', '-')}") for key, parse in check.items() if options.get(key) is not None
    }
    if parsed.get("workers", 1) < 1:
        raise BadInput(f"--workers: {options['workers']!r} starts nothing; expected 1 or more.")
    given = {key: options[key] for key in ("cpus", "memory", "gpus", "gpu_type") if options.get(key) is not None}
    pod = PodRequest(count=int(parsed.get("workers", 1)), min_count=_as_int(parsed.get("min_workers")), **given)
    plain = ("group", "queue", "priority", "image", "timeout", "grace", "cluster", "framework", "run_as")
    return JobRequest(
        name=options.get("name") or visible(Path(command[0]).name) or "job",
        pods=(pod,),
        command=command,
        workdir=workdir,
        env=dict(options.get("env") or {}),
        labels=dict(options.get("label") or {}),
        inputs=tuple(InputRequest(path=os.path.join(workdir, path)) for path in options.get("inputs") or ()),
        outputs=tuple(OutputRequest(name=name, path=path) for name, path in (options.get("outputs") or {}).items()),
        after=tuple(options.get("after") or ()),
        mounts=options.get("mounts") or (),
        sidecars=options.get("sidecars") or (),
        retries=int(parsed.get("retries", 0)),
        **{key: options[key] for key in plain if options.get(key) is not None},
    )


def spark_request(command: tuple[str, ...], options: dict[str, Any], workdir: str) -> JobRequest:
    """The request of `submit --spark … -- MAIN ARGUMENTS`. Raises BadInput that names the option as it was typed."""
    from tuttilab.scheduler.client.additions import read_spark
    from tuttilab.scheduler.client.manifests import with_interpreter
    from tuttilab.scheduler.domain.requests import JobRequest

    if not command:
        raise BadInput("The command after -- is empty; expected a Python file or a jar and its arguments, such as `-- job.py 10`.")
    sizes = [key for key in ("cpus", "memory", "gpus", "gpu_type", "workers", "min_workers", "framework") if options.get(key)]
    if sizes:
        named = ", ".join(f"--{key.replace('_', '-')}" for key in sizes)
        raise BadInput(f"{named}: a Spark application has its size in --spark executors=4,executor-memory=2g,driver-memory=2g.")
    try:
        spark = read_spark(options["spark"], command[0])
    except ValueError as error:
        raise BadInput(f"--spark: {' '.join(options['spark'])[:80]!r} was given; expected {error}.") from error
    plain = {**options, "spark": (), "name": options.get("name") or visible(Path(command[0]).stem) or "job"}
    base = request_of(command, plain, workdir)
    return with_interpreter(
        replace(base, kind="spark-batch", pods=JobRequest().pods, command=(), spark=replace(spark, args=tuple(command[1:])))
    )


def _as_int(value: float | None) -> int | None:
    return None if value is None else int(value)


def _show_dry_run(answer: DryRunView) -> None:
    console.put(f"{answer.verdict}: {console.at_prompt(answer.sentence.removeprefix('would wait: '))}")
    if answer.charge:
        console.put("charge: " + ", ".join(f"{key} {amount}" for key, amount in answer.charge.items()))
    for member, node in answer.placements.items():
        console.put(f"{member} -> {node}")


COMMANDS = (submit,)
