"""From a DAG manifest and the values of its variables to a `Run` whose jobs are built and checked: all of it, or an error."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tuttilab.scheduler.core import dag
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.errors import BadInput, TuttiError
from tuttilab.scheduler.model import Job, Run, RunNode, When
from tuttilab.scheduler.requests import DagRequest, JobRequest, NodeRequest, PodRequest, VariableRequest, Who
from tuttilab.scheduler.resources import parse_memory
from tuttilab.scheduler.wire import parse, to_data

RUN_LABEL: Final = "dag-run"
NODE_LABEL: Final = "dag-node"
MOST_NODES: Final = 500
QUERY: Final = ("-m", "tuttilab.scheduler.spark.query")

Value = str | int | float | bool

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


def check(request: DagRequest) -> list[str]:
    """The node names in an order that respects the edges. Raises BadInput naming the node that is wrong."""
    if not _NAME.fullmatch(request.name):
        raise BadInput(f"name: {request.name[:40]!r} is not a DAG's name; expected letters, digits, '-', '_' and '.'.")
    if not 1 <= len(request.nodes) <= MOST_NODES:
        raise BadInput(f"nodes: {len(request.nodes)} nodes; expected 1 to {MOST_NODES}.")
    for node in request.nodes:
        if not _NAME.fullmatch(node.name):
            raise BadInput(f"nodes: {node.name[:40]!r} is not a node's name; expected letters, digits, '-', '_' and '.'.")
        if (node.job is None) == (node.spark_sql is None):
            raise BadInput(f"node {node.name!r}: expected exactly one of the keys job and spark_sql.")
        if (node.spark_sql is None) != (node.save is None):
            raise BadInput(f"node {node.name!r}: spark_sql and save go together: the query and the file its result goes to.")
        if node.when not in list(When):
            raise BadInput(f"node {node.name!r}: when: {node.when!r} is not known; expected {' or '.join(When)}.")
    return dag.check_graph([node.name for node in request.nodes], {node.name: node.after for node in request.nodes})


def values_of(request: DagRequest, given: Mapping[str, Value]) -> dict[str, Value]:
    """The variables of a run: defaults, overridden by what is given, each of its declared type."""
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


def fill(data: Any, values: Mapping[str, Value], where: str) -> Any:
    """``${name}`` replaced everywhere below ``data`` (decoded JSON, hence Any). Raises BadInput for an unknown name."""
    if isinstance(data, dict):
        return {key: fill(value, values, f"{where}.{key}") for key, value in data.items()}
    if isinstance(data, list):
        return [fill(value, values, f"{where}[{index}]") for index, value in enumerate(data)]
    if not isinstance(data, str):
        return data
    for name in _VARIABLE.findall(data):
        if name not in values:
            raise BadInput(f"{where}: there is no variable {name!r}; {_near(name, values)}")
    whole = _VARIABLE.fullmatch(data)
    if whole:
        return values[whole[1]]
    return _VARIABLE.sub(lambda match: str(values[match[1]]), data)


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
) -> Run:
    """The run with every node's job built; orders count up from ``order`` along the graph. Errors name the node."""
    names = check(request)
    values = values_of(request, given)
    nodes = {node.name: node for node in request.nodes}
    built: dict[str, RunNode] = {}
    for offset, name in enumerate(names):
        node = parse(NodeRequest, fill(to_data(nodes[name]), values, f"node {name!r}"), f"node {name!r}")
        submit = _submit_of(node, request, run_id)
        job = _named(node.name, build, submit, who, site, job_id=new_id(), order=order + offset, now=now)
        built[name] = RunNode(name, job, node.after, When(node.when), node.ignore_fail)
    shown = {name: str(value) for name, value in values.items()}
    return Run(run_id, request.name, who.name, tuple(built[node.name] for node in request.nodes), now, shown)


def _named(node: str, run: Callable[..., Job], *args: object, **kwargs: object) -> Job:
    """The call's answer, with the node's name in front of its error."""
    try:
        return run(*args, **kwargs)
    except TuttiError as error:
        raise type(error)(f"node {node!r}: {error}") from error


def _submit_of(node: NodeRequest, request: DagRequest, run_id: str) -> JobRequest:
    labels = {RUN_LABEL: run_id, NODE_LABEL: node.name}
    if node.job is not None:
        return replace(
            node.job,
            name=node.job.name if node.job.name != "job" else node.name,
            queue=node.job.queue or request.queue,
            workdir=node.job.workdir or request.workdir,
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


def retry_jobs(run: Run, new_id: Callable[[], str], order: int, now: float) -> dict[str, Job]:
    """Fresh jobs for the nodes that a retry starts over."""
    names = dag.to_retry(run)
    old = [node for node in run.nodes if node.name in names]
    return {
        node.name: replace(node.job, id=new_id(), order=order + offset, submitted_at=now, retry_of=node.job.id)
        for offset, node in enumerate(old)
    }
