"""Builds a `Run` from a DAG request and the values of its variables, with all jobs built and checked."""

from __future__ import annotations

import difflib
import posixpath
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from tuttilab.scheduler.core import dag
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.domain.errors import BadInput, TuttiError
from tuttilab.scheduler.domain.model import Job, Run, RunNode, When
from tuttilab.scheduler.domain.requests import (
    MOST_NODES,
    DagRequest,
    JobRequest,
    NodeRequest,
    PodRequest,
    VariableRequest,
    Who,
)
from tuttilab.scheduler.domain.resources import parse_memory
from tuttilab.scheduler.domain.wire import parse, to_data
from tuttilab.scheduler.spark.conf import check_conf
from tuttilab.scheduler.usecases.artifacts import ReadableArtifacts, needed_by

T = TypeVar("T")

RUN_LABEL: Final = "dag-run"
NODE_LABEL: Final = "dag-node"
QUERY: Final = ("-m", "tuttilab.scheduler.spark.query")

Value = str | int | float | bool

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_MARK = re.compile(r"\$\$\{|" + _VARIABLE.pattern)
"""A variable, or ``$${``, which stands for ``${``: the shell's own variables are written so."""
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


def check_dag(request: DagRequest) -> list[str]:
    """Check the request; return the node names in topological order. Raises BadInput naming the wrong node."""
    if not _NAME.fullmatch(request.name):
        raise BadInput(f"name: {request.name[:40]!r} is not a DAG's name; expected letters, digits, '-', '_' and '.'.")
    if not 1 <= len(request.nodes) <= MOST_NODES:
        raise BadInput(f"nodes: {len(request.nodes)} nodes; expected 1 to {MOST_NODES}.")
    for node in request.nodes:
        if not _NAME.fullmatch(node.name):
            raise BadInput(f"nodes: {node.name[:40]!r} is not a node's name; expected letters, digits, '-', '_' and '.'.")
        if node.notebook is not None or node.parameters:
            raise BadInput(f"node {node.name!r}: notebook: whoever sends a DAG makes a job of it first, as `tuttilab dag` does.")
        if (node.job is None) == (node.spark_sql is None):
            raise BadInput(f"node {node.name!r}: expected exactly one of the keys job, spark_sql and notebook.")
        if (node.spark_sql is None) != (node.save is None):
            raise BadInput(f"node {node.name!r}: spark_sql and save go together: the query and the file its result goes to.")
        if node.when not in list(When):
            raise BadInput(f"node {node.name!r}: when: {node.when!r} is not known; expected {' or '.join(When)}.")
    return dag.check_graph([node.name for node in request.nodes], {node.name: node.after for node in request.nodes})


def variable_values(request: DagRequest, given: Mapping[str, Value]) -> dict[str, Value]:
    """The variables of a run: defaults overridden by the given values, each of its declared type."""
    for name in given:
        if name not in request.variables:
            raise BadInput(f"variables: there is no {name!r}; {_near(name, request.variables)}")
    values: dict[str, Value] = {}
    for name, variable in request.variables.items():
        value = given.get(name, variable.default)
        if value is None:
            raise BadInput(f"variables: {name!r} has no default; give it a value, such as `-v {name}=…`.")
        values[name] = _typed(name, variable, value)
    return values


def _typed(name: str, variable: VariableRequest, value: Value) -> Value:
    if variable.type not in _TYPES:
        raise BadInput(f"variables.{name}.type: {variable.type!r} is not known; expected one of {', '.join(_TYPES)}.")
    kinds = _TYPES[variable.type]
    if isinstance(value, kinds) and not (isinstance(value, bool) and variable.type != "boolean"):
        return value
    convert: Mapping[str, Callable[[str], Value]] = {"integer": int, "number": float, "boolean": _boolean}
    if isinstance(value, str) and variable.type in convert:
        try:
            return convert[variable.type](value)
        except ValueError:
            pass
    raise BadInput(f"variables.{name}: {value!r} is not {'an' if variable.type == 'integer' else 'a'} {variable.type}.")


def _boolean(text: str) -> bool:
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _near(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"the variables are {', '.join(known) or 'none'}."


def substitute_variables(data: Any, values: Mapping[str, Value], where: str) -> Any:
    """``data`` (decoded JSON, hence Any) with every ``${name}`` replaced, and ``${`` for ``$${``.

    Raises BadInput for an unknown name.
    """
    if isinstance(data, dict):
        return {key: substitute_variables(value, values, f"{where}.{key}") for key, value in data.items()}
    if isinstance(data, list):
        return [substitute_variables(value, values, f"{where}[{index}]") for index, value in enumerate(data)]
    if not isinstance(data, str):
        return data
    for match in _MARK.finditer(data):
        name = match[1]
        if name is not None and name not in values:
            raise BadInput(
                f"{where}: there is no variable {name!r}; {_near(name, values)} For a variable of the shell write $${{{name}}}."
            )
    whole = _VARIABLE.fullmatch(data)
    if whole:
        return values[whole[1]]
    return _MARK.sub(lambda match: "${" if match[1] is None else str(values[match[1]]), data)


def build_run(
    request: DagRequest,
    given: Mapping[str, Value],
    who: Who,
    site: Site,
    *,
    run_id: str,
    new_id: Callable[[], str],
    order: int,
    now: float,
    artifacts: ReadableArtifacts,
    inherited: Mapping[str, str] | None = None,
) -> Run:
    """The run with the job of every node. Orders of jobs count from ``order`` in topological order. Errors name the node.

    ``artifacts``: those that the submitter may read. ``inherited``: the submitter's environment.
    """
    names = check_dag(request)
    values = variable_values(request, given)
    nodes = {node.name: node for node in request.nodes}
    built: dict[str, RunNode] = {}
    for offset, name in enumerate(names):
        node = parse(NodeRequest, substitute_variables(to_data(nodes[name]), values, f"node {name!r}"), f"node {name!r}")
        submit = _job_request(node, request, run_id, inherited or {})
        if submit.spark is not None:
            with_node_name(node.name, check_conf, submit.spark.conf)
        job = with_node_name(node.name, build, submit, who, site, job_id=new_id(), order=order + offset, now=now)
        with_node_name(node.name, artifacts.check, job.work)
        built[name] = RunNode(name, job, node.after, When(node.when), node.ignore_fail)
    shown = {name: str(value) for name, value in values.items()}
    return Run(run_id, request.name, who.name, tuple(built[node.name] for node in request.nodes), now, shown)


def artifacts_of(request: DagRequest, given: Mapping[str, Value]) -> set[str]:
    """The artifacts that the run's jobs are given, variables replaced. Raises BadInput as `build_run` does."""
    values = variable_values(request, given)
    texts = [one for node in request.nodes if node.job is not None for one in needed_by([node.job])]
    return {str(substitute_variables(text, values, "artifact")) for text in texts}


def with_node_name(node: str, run: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Call ``run``; prefix its error with the name of the node."""
    try:
        return run(*args, **kwargs)
    except TuttiError as error:
        raise type(error)(f"node {node!r}: {error}") from error


def _job_request(node: NodeRequest, request: DagRequest, run_id: str, inherited: Mapping[str, str]) -> JobRequest:
    labels = {RUN_LABEL: run_id, NODE_LABEL: node.name}
    if node.job is not None:
        return replace(
            node.job,
            name=node.job.name if node.job.name != "job" else node.name,
            queue=node.job.queue or request.queue,
            workdir=_folder(node.job, request.workdir),
            inherited=node.job.inherited or ({} if node.job.needs_containers else inherited),
            labels={**node.job.labels, **labels},
        )
    memory = parse_memory(node.memory, f"node {node.name!r}: memory")
    return JobRequest(
        name=node.name,
        queue=request.queue,
        workdir=request.workdir,
        pods=(PodRequest(role="worker", cpus=node.cpus, memory=node.memory),),
        command=(sys.executable, *QUERY, "--save", node.save or "", "--memory-bytes", str(memory)),
        env={"TUTTILAB_SPARK_SQL": node.spark_sql or ""},
        labels=labels,
    )


def _folder(job: JobRequest, default: str | None) -> str | None:
    """The node's folder, relative to the DAG's. ``$(…)`` is expanded in the pod, and ``""`` is a private folder."""
    if job.workdir is None:
        return None if job.needs_containers else default
    if not job.workdir or job.workdir.startswith("$(") or not default:
        return job.workdir
    return posixpath.join(default, job.workdir)


def retry_jobs(run: Run, new_id: Callable[[], str], order: int, now: float) -> dict[str, Job]:
    """New jobs for the nodes that a retry runs again, by node name."""
    names = dag.to_retry(run)
    old = [node for node in run.nodes if node.name in names]
    return {
        node.name: replace(node.job, id=new_id(), order=order + offset, submitted_at=now, retry_of=node.job.id)
        for offset, node in enumerate(old)
    }
