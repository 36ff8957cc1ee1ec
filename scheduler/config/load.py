"""Reads `tuttilab.yaml` and `TUTTILAB_...` variables into a checked `Config`.

Unknown keys are refused with their path and the nearest known key, amounts and durations are parsed, the queue tree is checked, and
relative paths are made absolute below the state folder, so that nothing depends on the folder in which the service was started.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from tuttilab.scheduler.config import kubernetes, owners
from tuttilab.scheduler.config.file import SECTIONS, ConfigFile, LimitsFile, NodeFile, QueueFile
from tuttilab.scheduler.config.model import (
    POSTGRES,
    ArtifactsConfig,
    AuthConfig,
    ClusterConfig,
    Config,
    Defaults,
    Limits,
    ListenConfig,
    SparkConfig,
)
from tuttilab.scheduler.config.proxy_users import proxy_users_of
from tuttilab.scheduler.config.resources import check_resources
from tuttilab.scheduler.config.sidecars import sidecars_of
from tuttilab.scheduler.config.storages import storages_of
from tuttilab.scheduler.config.tune import tune_of, with_policy
from tuttilab.scheduler.core.kinds.driver_ports import range_of
from tuttilab.scheduler.core.ordering.queues import check_tree, leaves
from tuttilab.scheduler.core.placement.taints import taint_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Node, Queue
from tuttilab.scheduler.domain.requests import Amount
from tuttilab.scheduler.domain.resources import (
    CPU,
    MAX_AMOUNT,
    MEMORY,
    Resources,
    parse_bytes,
    parse_cpu,
    parse_duration,
    parse_memory,
    short_name,
)
from tuttilab.scheduler.domain.strict_yaml import documents
from tuttilab.scheduler.domain.wire import parse
from tuttilab.scheduler.runtime.addresses import proxy_address

AUTH_KINDS: Final = ("hub", "local")
CLUSTER_KINDS: Final = ("fake", "kubernetes", "local")
LARGEST_WEIGHT: Final = 1_000_000
LONGEST_S: Final = 10 * 366 * 86400
MOST_OF_A_USER: Final = 1_000_000

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?")


def default_config(state_dir: Path) -> Config:
    """SQLite in the state folder, this machine as the one cluster, one queue without a limit."""
    return parse_config({}, state_dir, "the built-in configuration")


def load_config(path: Path | None, state_dir: Path, environ: Mapping[str, str]) -> Config:
    """From a file, or the built-in one, overridden by variables. Raises BadInput with file, path and remedy."""
    what = str(path) if path else "the built-in configuration"
    return parse_config(with_hub(with_environment(read_file(path) if path else {}, environ), environ), state_dir, what)


def read_file(path: Path) -> Mapping[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"The configuration {path} cannot be read ({why}); give the path of a tuttilab.yaml.") from error
    found = documents(text, str(path))
    if len(found) > 1 or not all(isinstance(document, dict) for document in found):
        raise BadInput(
            f"{path}: expected one mapping with keys such as clusters and queues; see `tuttilab scheduler check --help`."
        )
    return {str(key): value for document in found if isinstance(document, dict) for key, value in document.items()}


def with_environment(data: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """The file's data overridden by TUTTILAB_<SECTION>_<KEY> variables. Raises BadInput for an unknown key."""
    result = dict(data)
    for name, text in sorted(environ.items()):
        section, _, key = name.removeprefix("TUTTILAB_").lower().partition("_")
        if not name.startswith("TUTTILAB_") or section not in SECTIONS or not key:
            continue
        types = {item.name: str(item.type) for item in fields(SECTIONS[section]) if not str(item.type).startswith("Mapping")}
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.5) or list(types)
            expected = " or ".join(f"TUTTILAB_{section}_{known}".upper() for known in near)
            raise BadInput(f"The variable {name} overrides nothing; expected {expected}.")
        is_number = "int" in types[key] and re.fullmatch(r"\d{1,18}(\.\d{1,9})?", text)
        value = (float(text) if "." in text else int(text)) if is_number else text
        there = result.get(section)
        result[section] = {**(there if isinstance(there, dict) else {}), key: value}
    return result


def with_hub(data: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """Add what a hub passes to its services by variables: the URL of its API and the service's name. Keys of the file win."""
    auth = data.get("auth")
    if not isinstance(auth, dict) or auth.get("kind") != "hub":
        return dict(data)
    given = {"url": environ.get("JUPYTERHUB_API_URL"), "service": environ.get("JUPYTERHUB_SERVICE_NAME")}
    return {**data, "auth": {**{key: value for key, value in given.items() if value}, **auth}}


def parse_config(data: Mapping[str, object], state_dir: Path, what: str) -> Config:
    """A checked configuration. Raises BadInput that begins with ``what``."""
    # Each kind has its own keys, so an unknown kind is reported before unknown keys.
    _check_kinds(data, what)
    file = parse(ConfigFile, data, what)
    try:
        queues = with_policy(queues_of(file.queues, [cluster.name for cluster in file.clusters]), file.policy)
        clusters = _clusters(file, state_dir)
        config = Config(
            store=replace(file.store, url=_store_url(file.store.url, state_dir)),
            artifacts=ArtifactsConfig(url=_folder_url(file.artifacts.url, state_dir)),
            auth=_auth(file, state_dir),
            listen=_listen(file.listen, file.auth),
            clusters=clusters,
            queues=queues,
            defaults=Defaults(
                queue=_default_queue(file.defaults.queue, queues),
                timeout_s=None if file.defaults.timeout is None else parse_duration(file.defaults.timeout, "defaults.timeout"),
                spark_conf={key: _spark_value(value) for key, value in file.defaults.spark_conf.items()},
            ),
            limits=_limits(file.limits),
            storages=storages_of(file.storages),
            proxy_users=proxy_users_of(file.proxy_users, clusters),
            driver_ports=range_of(file.driver_ports, "driver_ports"),
            sidecars=sidecars_of(file.sidecars),
            tune=tune_of(file.tune, file.policy),
            spark=_spark(file.spark),
        )
        check_resources(queues, clusters)
        return config
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from error


def _spark(spark: SparkConfig) -> SparkConfig:
    if spark.proxy not in ("own", "direct"):
        proxy_address(spark.proxy)
    return spark


# Any: the file's data before it is checked.
def _check_kinds(data: Mapping[str, Any], what: str) -> None:
    auth, clusters = data.get("auth"), data.get("clusters")
    if isinstance(auth, dict) and isinstance(kind := auth.get("kind"), str) and kind not in AUTH_KINDS:
        raise BadInput(f"{what}: auth.kind: {kind!r} is not known; expected {' or '.join(AUTH_KINDS)}.")
    for index, cluster in enumerate(clusters if isinstance(clusters, list) else []):
        if isinstance(cluster, dict) and isinstance(kind := cluster.get("kind"), str) and kind not in CLUSTER_KINDS:
            raise BadInput(f"{what}: clusters[{index}].kind: {kind!r} is not known; expected {' or '.join(CLUSTER_KINDS)}.")


def _auth(file: ConfigFile, state_dir: Path) -> AuthConfig:
    auth = file.auth
    if auth.key_file is not None:
        auth = replace(auth, key_file=str(state_dir / Path(auth.key_file).expanduser()))
    if auth.kind == "local":
        of_all = ("kind", "key_file")
        given = [item.name for item in fields(AuthConfig) if item.name not in of_all and getattr(auth, item.name) != item.default]
        if given:
            raise BadInput(f"auth.{given[0]}: it goes with kind hub; expected no such key with kind local.")
        return auth
    parts = urlsplit(auth.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"auth.url: {auth.url!r} is not the API of a hub; expected one such as https://hub.example/hub/api.")
    for group in auth.viewer_groups:
        if group in auth.admin_groups:
            raise BadInput(f"auth.viewer_groups: {group!r} is one of auth.admin_groups too; expected one role for each group.")
    for index, cluster in enumerate(file.clusters):
        if cluster.kind == "local" and cluster.run_as != owners.OWNER and not auth.unsafe_shared_user:
            raise BadInput(
                f"clusters[{index}].kind: local runs the pods of all the hub's users as one user, open to each other; "
                f"expected run_as: {owners.OWNER} beside it (for a control plane that root runs), another kind, or "
                "auth.unsafe_shared_user: true for a test."
            )
    return auth


def _clusters(file: ConfigFile, state_dir: Path) -> tuple[ClusterConfig, ...]:
    if not file.clusters:
        raise BadInput("clusters: an empty list runs nothing; leave the key out for this machine, or list one.")
    check_names("clusters", [cluster.name for cluster in file.clusters])
    result = []
    for index, cluster in enumerate(file.clusters):
        settings = kubernetes.settings_of(cluster, f"clusters[{index}]", state_dir)
        of_owners = owners.settings_of(cluster, f"clusters[{index}]", state_dir, file.listen.port)
        if cluster.kind == "local" and file.store.url.startswith(POSTGRES) and not file.store.alone:
            raise BadInput(
                f"clusters[{index}].kind: local does not go with several control planes on Postgres: its pods are known to one "
                "state folder, so no other could take over; expected another kind, or store.alone: true where there is only one."
            )
        if settings is not None and settings.logs is None and file.store.url.startswith(POSTGRES) and not file.store.alone:
            raise BadInput(
                f"clusters[{index}].logs: several control planes on Postgres keep the logs of its pods in one place; expected a "
                "folder that all of them see, or store.alone: true where there is only one."
            )
        path = f"clusters[{index}].nodes"
        if cluster.nodes is None and cluster.kind == "fake":
            raise BadInput(f"{path}: a {cluster.kind} cluster has no machine to look at; expected a list of nodes.")
        if cluster.nodes == ():
            raise BadInput(f"{path}: an empty list runs nothing; leave the key out for what the machine has, or list one node.")
        check_names(path, [node.name for node in cluster.nodes or ()])
        nodes = tuple(_node(node, cluster.name, f"{path}[{at}]") for at, node in enumerate(cluster.nodes or ()))
        result.append(ClusterConfig(cluster.name, cluster.kind, nodes or None, cluster.grows, settings, of_owners))
    check_room((node.allocatable for cluster in result for node in cluster.nodes or ()), "clusters")
    return tuple(result)


def _node(node: NodeFile, cluster: str, path: str) -> Node:
    for key in (CPU, MEMORY):
        if key in node.resources:
            raise BadInput(f"{path}.resources.{key}: use the node's own key {'cpus' if key == CPU else key!r} for this.")
    room = node_room(node.cpus, node.memory, node.resources, path)
    taints = tuple(taint_of(text, f"{path}.taints[{index}]") for index, text in enumerate(node.taints))
    return Node(node.name, cluster, room, dict(node.labels), taints)


def node_room(cpus: Amount, memory: Amount, resources: Mapping[str, Amount], path: str) -> Resources:
    """Allocatable resources of a node. Raises BadInput for a node without CPU or memory: no pod could ever run there."""
    own = {CPU: parse_cpu(cpus, f"{path}.cpus"), MEMORY: parse_memory(memory, f"{path}.memory")}
    for key, given in ((CPU, cpus), (MEMORY, memory)):
        if not own[key]:
            raise BadInput(f"{path}.{'cpus' if key == CPU else key}: {given!r} is none at all; expected more than 0.")
    return Resources.of(own) + Resources.parse(resources, f"{path}.resources")


def check_room(rooms: Iterable[Resources], path: str) -> None:
    """Raises BadInput where all nodes together have more of a resource than can be counted."""
    sums: dict[str, int] = {}
    for room in rooms:
        for key, amount in room:
            sums[key] = sums.get(key, 0) + amount
    for key, amount in sums.items():
        if amount > MAX_AMOUNT:
            raise BadInput(f"{path}: the nodes together have {amount} {short_name(key)}; the largest amount is {MAX_AMOUNT}.")


def queues_of(lines: Sequence[QueueFile], clusters: Sequence[str], path: str = "queues") -> tuple[Queue, ...]:
    """The checked queue tree; ``clusters`` are the names of all clusters. Raises BadInput naming the place."""
    if not lines:
        raise BadInput(f"{path}: an empty list takes no job; leave the key out for one queue without a limit, or list one.")
    check_names(path, [queue.name for queue in lines])
    queues = tuple(
        Queue(
            name=queue.name,
            parent=queue.parent,
            weight=queue.weight,
            priority=queue.priority,
            guaranteed=Resources.parse(queue.guaranteed, f"{path}[{index}].guaranteed"),
            max=Resources.parse_limits(queue.max, f"{path}[{index}].max"),
            groups=queue.groups or (),
            max_jobs=queue.max_jobs,
            max_pods=queue.max_pods,
            clusters=queue.clusters or (),
            can_borrow=queue.can_borrow,
            can_reclaim=queue.can_reclaim,
            stops_busy_notebooks=queue.stops_busy_notebooks,
            overtaking=float(queue.overtaking),
            overtaking_s=float(queue.overtaking_s),
            class_cap_s=float(queue.class_cap_s),
        )
        for index, queue in enumerate(lines)
    )
    for index, queue in enumerate(queues):
        if queue.weight > LARGEST_WEIGHT:
            raise BadInput(f"{path}[{index}].weight: {queue.weight} is out of range; expected 1 to {LARGEST_WEIGHT}.")
        for key, limit in (("max_jobs", queue.max_jobs), ("max_pods", queue.max_pods)):
            if limit is not None and limit < 0:
                raise BadInput(f"{path}[{index}].{key}: {limit} is negative; expected 0 or more, or no such key for no limit.")
        for key, names, all_of_them in (
            ("groups", lines[index].groups, "everybody"),
            ("clusters", lines[index].clusters, "all clusters"),
        ):
            if names is not None and not all(names or [""]):
                problem = "an empty name" if names else "an empty list"
                raise BadInput(
                    f"{path}[{index}].{key}: {problem} is none of them; leave the key out for {all_of_them}, or name one."
                )
        for place, name in enumerate(queue.clusters):
            if name not in clusters:
                raise BadInput(
                    f"{path}[{index}].clusters[{place}]: there is no cluster {name!r}; expected one of {', '.join(clusters)}."
                )
    check_tree(queues)
    return queues


def _default_queue(name: str | None, queues: tuple[Queue, ...]) -> str:
    """The named queue, else `default`, else the only queue that takes jobs."""
    known = [queue.name for queue in leaves({queue.name: queue for queue in queues})]
    if name is None:
        if "default" in known or len(known) == 1:
            return "default" if "default" in known else known[0]
        raise BadInput(f"defaults.queue: it is missing and there are several queues; expected one of {', '.join(known)}.")
    if name not in known:
        why = "only holds other queues" if name in {queue.name for queue in queues} else "is not there"
        raise BadInput(f"defaults.queue: {name!r} {why}; expected {'one of ' if len(known) > 1 else ''}{', '.join(known)}.")
    return name


def check_names(path: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        check_name(f"{path}[{index}].name", name)
        if name in seen:
            raise BadInput(f"{path}[{index}].name: {name!r} stands there twice; expected each name once.")
        seen.add(name)


def check_name(path: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{path}: {name!r} is not a name; expected up to 63 lower-case letters, digits, '-' and '.'.")


def _listen(listen: ListenConfig, auth: AuthConfig) -> ListenConfig:
    if not 0 <= listen.port <= 65535:
        raise BadInput(f"listen.port: {listen.port} is out of range; expected 0 (any free port) to 65535.")
    try:
        is_loopback = listen.host == "localhost" or ipaddress.ip_address(listen.host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        why, how = "auth.kind local is one token for one user", ""
        if auth.kind == "hub":
            why, how = "there is no TLS here", ", with a proxy in front of it and its name in listen.names"
        raise BadInput(f"listen.host: {listen.host!r} can be reached from other machines, and {why}; expected 127.0.0.1{how}.")
    if listen.names and auth.kind == "local":
        raise BadInput("listen.names: it goes with auth.kind hub; expected no such key with kind local.")
    host, _, port = listen.pods.rpartition(":")
    if listen.pods and not (host and port.isdecimal() and 0 < int(port) <= 65535):
        raise BadInput(f"listen.pods: {listen.pods!r} is no address and port; expected one such as 10.0.0.5:8790.")
    return listen


def _store_url(url: str, state_dir: Path) -> str:
    scheme, _, path = url.partition("://")
    if scheme == POSTGRES and path.strip("/"):
        return url
    if scheme != "sqlite" or not path.startswith("/") or path == "/":
        known = "of MySQL, which is not supported" if scheme.startswith(("mysql", "mariadb")) else "no database that is known"
        raise BadInput(
            f"store.url: {_without_password(url)!r} is {known}; expected sqlite:///FILE or {POSTGRES}://USER@HOST/DATABASE."
        )
    return f"sqlite:///{state_dir / path[1:]}"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)


def _folder_url(url: str, state_dir: Path) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost") or not parts.path:
        raise BadInput(f"artifacts.url: {url!r} is not a folder of this machine; expected a path or file:///FOLDER.")
    return (state_dir / unquote(parts.path)).as_uri()


def _limits(limits: LimitsFile) -> Limits:
    for name in ("barrier_s", "idle_stop_s", "back_off_s", "observe_every_s", "lost_after_s", "heartbeat_s", "lease_s", "ticket_s"):
        if not 0 < getattr(limits, name) <= LONGEST_S:
            raise BadInput(f"limits.{name}: {getattr(limits, name)} is not a time; expected seconds above 0, up to ten years.")
    for name in ("user_waiting_jobs", "user_live_jobs", "user_writes_per_s", "user_writes_at_once"):
        if not 1 <= getattr(limits, name) <= MOST_OF_A_USER:
            raise BadInput(f"limits.{name}: {getattr(limits, name)} was given; expected 1 to {MOST_OF_A_USER}.")
    return Limits(
        bundle_bytes=parse_bytes(limits.bundle_bytes, "limits.bundle_bytes"),
        unpacked_bytes=parse_bytes(limits.unpacked_bytes, "limits.unpacked_bytes"),
        output_bytes=parse_bytes(limits.output_bytes, "limits.output_bytes"),
        barrier_s=float(limits.barrier_s),
        idle_stop_s=float(limits.idle_stop_s),
        back_off_s=float(limits.back_off_s),
        observe_every_s=float(limits.observe_every_s),
        lost_after_s=float(limits.lost_after_s),
        keep_jobs_s=_kept_for(limits.keep_jobs, "limits.keep_jobs"),
        keep_journal_s=_kept_for(limits.keep_journal, "limits.keep_journal"),
        heartbeat_s=float(limits.heartbeat_s),
        lease_s=float(limits.lease_s),
        ticket_s=float(limits.ticket_s),
        user_waiting_jobs=limits.user_waiting_jobs,
        user_live_jobs=limits.user_live_jobs,
        user_writes_per_s=float(limits.user_writes_per_s),
        user_writes_at_once=limits.user_writes_at_once,
    )


def _kept_for(given: str | int, field: str) -> float:
    """Seconds. Raises BadInput for a number without a unit: meant as days, it would delete everything after as many seconds."""
    if str(given).strip().isdecimal():
        raise BadInput(f"{field}: {given} has no unit; expected one such as {given}d for days, or {given}h for hours.")
    return parse_duration(given, field)


def _spark_value(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
