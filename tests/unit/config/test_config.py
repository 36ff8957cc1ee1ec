"""What tuttilab.yaml means, and what it is refused for."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tuttilab.scheduler.clusters.local.owners import OwnersSettings
from tuttilab.scheduler.config.load import default_config, parse_config, with_environment, with_hub
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Node, Queue, Taint
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.domain.strict_yaml import documents

STATE = Path("/state")
HUB: Mapping[str, Any] = {"kind": "hub", "url": "https://hub.example/hub/api"}

EXAMPLE: Mapping[str, Any] = {
    "store": {"url": "sqlite:///state.db"},
    "artifacts": {"url": "file:///var/lib/tuttilab/artifacts"},
    "auth": {"kind": "local"},
    "listen": {"host": "127.0.0.1", "port": 0},
    "clusters": [
        {
            "name": "here",
            "kind": "local",
            "nodes": [
                {
                    "name": "a",
                    "cpus": 8,
                    "memory": "16Gi",
                    "resources": {"nvidia.com/gpu": 4},
                    "labels": {"gpu-model": "a100"},
                },
                {"name": "b", "cpus": 64, "memory": "64Gi"},
            ],
        }
    ],
    "queues": [
        {"name": "root", "max": {"cpu": 72, "memory": "80Gi", "nvidia.com/gpu": 4}},
        {
            "name": "research",
            "parent": "root",
            "weight": 2,
            "guaranteed": {"nvidia.com/gpu": 2},
            "max": {"nvidia.com/gpu": 4},
            "groups": ["research"],
            "can_borrow": False,
            "overtaking_s": 600,
        },
    ],
    "defaults": {"queue": "research", "timeout": "24h"},
}


def parsed(**changes: Any) -> Config:
    return parse_config({**EXAMPLE, **changes}, STATE, "t.yaml")


def test_example_of_the_documentation_is_read_into_model_types() -> None:
    config = parsed()

    assert config.clusters[0].nodes == (
        Node("a", "here", Resources.parse({"cpu": 8, "memory": "16Gi", "nvidia.com/gpu": 4}), {"gpu-model": "a100"}),
        Node("b", "here", Resources.parse({"cpu": 64, "memory": "64Gi"})),
    )
    assert config.queues[1] == Queue(
        name="research",
        parent="root",
        weight=2,
        guaranteed=Resources.parse({"nvidia.com/gpu": 2}),
        max=Resources.parse({"nvidia.com/gpu": 4}),
        groups=("research",),
        can_borrow=False,
        overtaking_s=600.0,
    )
    assert (config.defaults.queue, config.defaults.timeout_s) == ("research", 86400.0)


def test_a_node_may_have_taints_as_kubectl_writes_them() -> None:
    node = {
        "name": "n",
        "cpus": 1,
        "memory": "1Gi",
        "taints": ["dedicated=ml:NoExecute", "gpu.example/only", "spot:PreferNoSchedule"],
    }
    config = parsed(clusters=[{"name": "here", "kind": "fake", "nodes": [node]}], queues=[{"name": "all"}], defaults={})
    (cluster,) = config.clusters
    assert cluster.nodes is not None
    assert cluster.nodes[0].taints == (
        Taint("dedicated", "ml", "NoExecute"),
        Taint("gpu.example/only"),
        Taint("spot", "", "PreferNoSchedule"),
    )


def nested(line: str) -> str:
    """Eleven lines, each of which stands for the one before nine times."""
    return "\n".join(
        ["a: &a {x0: 1, x1: 2}", *(line.format(name=b, nine=", ".join([f"*{a}"] * 9)) for a, b in pairwise("abcdefghijkl"))]
    )


NESTED_ALIASES = nested("{name}: &{name} [{nine}]")
NESTED_MERGES = nested("{name}: &{name} {{<<: [{nine}]}}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queues:\n- weight: 1" + "0" * 400, "t.yaml, line 2: '1000000000000000000000000000000000000000…' is too large a number"),
        ("queues:\n- weight: 1" + "0" * 5000, "t.yaml, line 2: '1000000000000000000000000000000000000000…' is too large or not"),
        ("limits:\n\n  barrier_s: .nan", "t.yaml, line 3: '.nan' is no finite number; mend the YAML there."),
        ("limits: {barrier_s: 1.0e+999}", "t.yaml, line 1: '1.0e+999' is no finite number; mend the YAML there."),
        ("limits: {barrier_s: !!int x}", "t.yaml, line 1: 'x' is too large or not of its type; mend the YAML there."),
        ("limits: {barrier_s: !!timestamp 5}", "t.yaml, line 1: '5' is too large or not of its type; mend the YAML there."),
        ("queues: " + "[" * 3000, "t.yaml: it is nested too deeply to be read; expected a few levels."),
        ("queues: \x07", "t.yaml: it is not YAML"),
        ("{[a]: 1}", "t.yaml, line 1: found unhashable key"),
        ("limits: &a\n  barrier_s: *a", "t.yaml, line 1: it contains itself by an alias; mend the YAML there."),
        (NESTED_ALIASES, "t.yaml, line 6: aliases repeat this until there are more than 4194304 characters of it"),
        (NESTED_MERGES, "t.yaml, line 6: aliases repeat this until there are more than 4194304 characters of it"),
        ("a: &a " + "x" * 10**6 + "\nb: [" + "*a, " * 100 + "]", "t.yaml, line 1: aliases repeat this until there are more"),
    ],
)
def test_what_is_no_value_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BadInput) as refusal:
        documents(text, "t.yaml")
    assert str(refusal.value).startswith(says)


def test_aliases_that_stand_for_little_are_taken() -> None:
    text = "a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}"
    assert documents(text, "t.yaml") == [{"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}], "c": {"x": 1, "y": 2}}]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert documents("\ufeffqueues: []", "t.yaml") == [{"queues": []}]


def test_a_variable_with_an_endless_number_is_refused_with_its_key() -> None:
    with pytest.raises(BadInput, match=r"t.yaml: limits.barrier_s: input should be a valid integer \(given: '9{80}…'\)"):
        parse_config(with_environment({}, {"TUTTILAB_LIMITS_BARRIER_S": "9" * 5000}), STATE, "t.yaml")


def test_a_queue_may_be_held_to_clusters_that_are_there() -> None:
    held = {"name": "a", "clusters": ["here"]}
    assert parsed(queues=[held], defaults={}).queues[0].clusters == ("here",)
    with pytest.raises(BadInput, match=r"queues\[0\]\.clusters\[1\]: there is no cluster 'there'; expected one of here"):
        parsed(queues=[held | {"clusters": ["here", "there"]}], defaults={})


def test_built_in_configuration_is_this_machine_with_one_queue_without_limit() -> None:
    config = default_config(STATE)

    assert config.store.url == "sqlite:////state/state.db"
    assert config.artifacts_dir == STATE / "artifacts"
    assert [(c.name, c.kind, c.nodes) for c in config.clusters] == [("here", "local", None)]
    assert config.queues == (Queue("root"), Queue("default", parent="root"))
    assert config.defaults.queue == "default"
    assert (config.limits.bundle_bytes, config.limits.idle_stop_s) == (200 * 2**20, 1800.0)


def test_relative_paths_lie_in_the_state_folder_and_absolute_ones_stay() -> None:
    relative = parsed(store={"url": "sqlite:///a/b.db"}, artifacts={"url": "mine"})
    absolute = parsed(store={"url": "sqlite:////var/b.db"})

    assert (relative.store.url, relative.artifacts_dir) == ("sqlite:////state/a/b.db", STATE / "mine")
    assert absolute.store.url == "sqlite:////var/b.db"
    assert absolute.artifacts_dir == Path("/var/lib/tuttilab/artifacts")


def test_default_queue_is_the_only_one_that_takes_jobs() -> None:
    assert parsed(defaults={}).defaults.queue == "research"


def test_spark_settings_become_text_as_spark_writes_it() -> None:
    config = parsed(defaults={"spark_conf": {"spark.a": True, "spark.b": 2, "spark.c": "x"}})

    assert config.defaults.spark_conf == {"spark.a": "true", "spark.b": "2", "spark.c": "x"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lisen": {}}, "t.yaml: unknown key lisen; did you mean 'listen'?"),
        ({"listen": {"prt": 1}}, "t.yaml: unknown key listen.prt; did you mean 'port'?"),
        (
            {"clusters": [{"name": "a", "kind": "local", "nodes": [{"name": "n", "cpus": 1, "memory": "4Gi", "gpus": 1}]}]},
            "t.yaml: unknown key clusters[0].nodes[0].gpus; GPUs are written as `resources: {nvidia.com/gpu: 1}` here.",
        ),
        (
            {"queues": [{"name": "root", "gpu": 1}]},
            "t.yaml: unknown key queues[0].gpu; GPUs are written as "
            "`guaranteed: {nvidia.com/gpu: 1}` or `max: {nvidia.com/gpu: 1}` here.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "nodes": [{"name": "n", "cpus": 1, "memory": "4"}]}]},
            "t.yaml: clusters[0].nodes[0].memory: '4' is 4 bytes; expected a unit, as in 512Mi or 8Gi.",
        ),
        (
            {"queues": [{"name": "root", "max": {"memory": 64}}]},
            "t.yaml: queues[0].max.memory: 64 is 64 bytes; expected a unit, as in 512Mi or 8Gi.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "nodes": [{"name": "n", "cpus": 1, "memory": 1, "lables": {}}]}]},
            "t.yaml: unknown key clusters[0].nodes[0].lables; did you mean 'labels'?",
        ),
        ({"listen": {"port": True}}, "t.yaml: listen.port: input should be a valid integer (given: True)."),
        ({"listen": {"port": 70000}}, "t.yaml: listen.port: 70000 is out of range; expected 0 (any free port) to 65535."),
        (
            {"listen": {"host": "0.0.0.0"}},
            "t.yaml: listen.host: '0.0.0.0' can be reached from other machines, and auth.kind local is one token for one user; "
            "expected 127.0.0.1.",
        ),
        (
            {"listen": {"host": "example.org"}},
            "t.yaml: listen.host: 'example.org' can be reached from other machines, and auth.kind local is one token for one user; "
            "expected 127.0.0.1.",
        ),
        ({"auth": {"kind": "ldap", "url": "x"}}, "t.yaml: auth.kind: 'ldap' is not known; expected hub or local."),
        ({"auth": {"kind": "local", "url": "x"}}, "t.yaml: auth.url: it goes with kind hub; expected no such key with kind local."),
        (
            {"auth": {"kind": "hub", "url": "hub:8081"}},
            "t.yaml: auth.url: 'hub:8081' is not the API of a hub; expected one such as https://hub.example/hub/api.",
        ),
        (
            {"auth": HUB, "clusters": [{"name": "a", "kind": "local"}]},
            "t.yaml: clusters[0].kind: local runs the pods of all the hub's users as one user, open to each other; "
            "expected run_as: owner beside it (for a control plane that root runs), another kind, or auth.unsafe_shared_user: true "
            "for a test.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "run_as": "root"}]},
            "t.yaml: clusters[0].run_as: 'root' is not known; expected service or owner.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "accounts": {"ann": "etl"}}]},
            "t.yaml: clusters[0].accounts: it goes with run_as: owner; expected no such key without it.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "run_as": "owner"}]},
            "t.yaml: clusters[0].run_as: pods of others find the control plane by its port alone; expected a fixed listen.port.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "fake", "run_as": "owner", "nodes": []}], "listen": {"port": 9321}},
            "t.yaml: clusters[0].run_as: it goes with kind local; expected no such key with kind fake.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "run_as": "owner", "least_uid": 0}], "listen": {"port": 9321}},
            "t.yaml: clusters[0].least_uid: 0 lets jobs run as root; expected 1 or more, such as 1000.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "run_as": "owner", "python": "python3"}], "listen": {"port": 9321}},
            "t.yaml: clusters[0].python: 'python3' is no absolute path; expected one such as /usr/bin/python3.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "run_as": "owner", "accounts": {"ann": ""}}], "listen": {"port": 9321}},
            "t.yaml: clusters[0].accounts: 'ann': '' has an empty name; expected OWNER: ACCOUNT.",
        ),
        (
            {"auth": {**HUB, "unsafe_shared_user": True}, "listen": {"host": "0.0.0.0"}},
            "t.yaml: listen.host: '0.0.0.0' can be reached from other machines, and there is no TLS here; "
            "expected 127.0.0.1, with a proxy in front of it and its name in listen.names.",
        ),
        (
            {"listen": {"names": ["tuttilab.example"]}},
            "t.yaml: listen.names: it goes with auth.kind hub; expected no such key with kind local.",
        ),
        (
            {"clusters": [{"name": "k", "kind": "yarn", "context": "c"}]},
            "t.yaml: clusters[0].kind: 'yarn' is not known; expected fake or kubernetes or local.",
        ),
        (
            {"clusters": []},
            "t.yaml: clusters: an empty list runs nothing; leave the key out for this machine, or list one.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "fake"}]},
            "t.yaml: clusters[0].nodes: a fake cluster has no machine to look at; expected a list of nodes.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local"}, {"name": "a", "kind": "local"}]},
            "t.yaml: clusters[1].name: 'a' stands there twice; expected each name once.",
        ),
        (
            {"clusters": [{"name": "../a", "kind": "local"}]},
            "t.yaml: clusters[0].name: '../a' is not a name; expected up to 63 lower-case letters, digits, '-' and '.'.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "local", "nodes": [{"name": "n", "cpus": 1, "memory": "5Q"}]}]},
            "t.yaml: clusters[0].nodes[0].memory: '5Q' has the unknown unit 'Q'; expected bytes such as 512Mi, 8Gi or 16G.",
        ),
        (
            {"queues": [{"name": "a"}, {"name": "b"}], "defaults": {}},
            "t.yaml: defaults.queue: it is missing and there are several queues; expected one of a, b.",
        ),
        ({"defaults": {"queue": "root"}}, "t.yaml: defaults.queue: 'root' only holds other queues; expected research."),
        ({"defaults": {"queue": "resaerch"}}, "t.yaml: defaults.queue: 'resaerch' is not there; expected research."),
        (
            {"store": {"url": "oracle://me:secret@db/tutti"}},
            "t.yaml: store.url: 'oracle://…@db/tutti' is no database that is known; "
            "expected sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE.",
        ),
        (
            {"artifacts": {"url": "s3://bucket"}},
            "t.yaml: artifacts.url: 's3://bucket' is not a folder of this machine; expected a path or file:///FOLDER.",
        ),
        (
            {"limits": {"keep_jobs": 30}},
            "t.yaml: limits.keep_jobs: 30 has no unit; expected one such as 30d for days, or 30h for hours.",
        ),
        (
            {"limits": {"keep_journal": "7"}},
            "t.yaml: limits.keep_journal: 7 has no unit; expected one such as 7d for days, or 7h for hours.",
        ),
        (
            {"queues": [{"name": "a", "groups": []}]},
            "t.yaml: queues[0].groups: an empty list is none of them; leave the key out for everybody, or name one.",
        ),
        (
            {"queues": [{"name": "a", "groups": ["x", ""]}]},
            "t.yaml: queues[0].groups: an empty name is none of them; leave the key out for everybody, or name one.",
        ),
        (
            {"queues": [{"name": "a", "clusters": []}]},
            "t.yaml: queues[0].clusters: an empty list is none of them; leave the key out for all clusters, or name one.",
        ),
        ({"limits": {"back_off_s": 0}}, "t.yaml: limits.back_off_s: 0 is not a time; expected seconds above 0, up to ten years."),
        ({"limits": {"user_live_jobs": 0}}, "t.yaml: limits.user_live_jobs: 0 was given; expected 1 to 1000000."),
        ({"limits": {"user_writes_per_s": 0.5}}, "t.yaml: limits.user_writes_per_s: 0.5 was given; expected 1 to 1000000."),
        ({"limits": {"barrier_s": float("nan")}}, "t.yaml: limits.barrier_s: it is no finite number; expected one that is."),
        (
            {"limits": {"barrier_s": 1e300}},
            "t.yaml: limits.barrier_s: 1e+300 is not a time; expected seconds above 0, up to ten years.",
        ),
        (
            {"queues": [{"name": "a", "overtaking": float("inf")}]},
            "t.yaml: queues[0].overtaking: it is no finite number; expected one that is.",
        ),
        (
            {"queues": [{"name": "a", "weight": 10**7}]},
            "t.yaml: queues[0].weight: 10000000 is out of range; expected 1 to 1000000.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "fake", "nodes": [{"name": "n", "cpus": 0, "memory": "1Gi"}]}]},
            "t.yaml: clusters[0].nodes[0].cpus: 0 is none at all; expected more than 0.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "fake", "nodes": [{"name": "n", "cpus": 1, "memory": "1Gi", "taints": ["a b"]}]}]},
            "t.yaml: clusters[0].nodes[0].taints[0]: 'a b' is no taint; expected key=value:EFFECT, "
            "the effect one of NoSchedule, PreferNoSchedule, NoExecute.",
        ),
        (
            {"clusters": [{"name": "a", "kind": "fake", "nodes": [{"name": n, "cpus": 1, "memory": "4096Pi"} for n in "xy"]}]},
            "t.yaml: clusters: the nodes together have 9223372036854775808 memory; the largest amount is 4611686018427387904.",
        ),
        ({"limits": {"idle_stop_s": 0}}, "t.yaml: limits.idle_stop_s: 0 is not a time; expected seconds above 0, up to ten years."),
        (
            {"defaults": {"timeout": "soon"}},
            "t.yaml: defaults.timeout: 'soon' is not a duration; expected one such as 90s, 10m, 1h30m or 2d, up to ten years.",
        ),
    ],
)
def test_refusal_names_file_path_and_remedy(changes: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parsed(**changes)

    assert str(refusal.value) == sentence


def test_queue_tree_that_is_no_tree_is_refused() -> None:
    loop = [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}]

    with pytest.raises(BadInput, match=r"^t\.yaml: queue 'a': its parents form a loop"):
        parsed(queues=loop)


def test_variables_override_the_file() -> None:
    environ = {"TUTTILAB_LISTEN_PORT": "8123", "TUTTILAB_DEFAULTS_TIMEOUT": "10m", "TUTTILAB_LIMITS_BARRIER_S": "1.5"}

    config = parse_config(with_environment(EXAMPLE, environ), STATE, "t.yaml")

    assert (config.listen.port, config.listen.host) == (8123, "127.0.0.1")
    assert (config.defaults.timeout_s, config.defaults.queue) == (600.0, "research")
    assert config.limits.barrier_s == 1.5


def test_variables_of_clients_and_jobs_override_nothing() -> None:
    environ = {"TUTTILAB_URL": "http://x", "TUTTILAB_STATE_DIR": "/s", "TUTTILAB_JOB_ID": "1", "PATH": "/bin"}

    assert with_environment(EXAMPLE, environ) == EXAMPLE


def test_misspelt_variable_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput) as refusal:
        with_environment({}, {"TUTTILAB_LISTEN_PROT": "1"})

    assert str(refusal.value) == "The variable TUTTILAB_LISTEN_PROT overrides nothing; expected TUTTILAB_LISTEN_PORT."


def test_hub_of_a_site_is_read() -> None:
    fake = {"name": "k", "kind": "fake", "nodes": [{"name": "a", "cpus": 1, "memory": "1Gi"}]}
    config = parsed(
        auth={**HUB, "admin_groups": ["admins"], "viewer_groups": ["auditors"]},
        clusters=[fake],
        listen={"names": ["tuttilab.hub"]},
        queues=[{"name": "all"}],
        defaults={},
    )

    assert (config.auth.kind, config.auth.url, config.auth.service) == ("hub", "https://hub.example/hub/api", "tuttilab")
    assert (config.auth.admin_groups, config.auth.viewer_groups) == (("admins",), ("auditors",))


def test_a_group_has_one_role() -> None:
    fake = {"name": "k", "kind": "fake", "nodes": [{"name": "a", "cpus": 1, "memory": "1Gi"}]}
    with pytest.raises(
        BadInput, match=r"auth.viewer_groups: 'b' is one of auth.admin_groups too; expected one role for each group."
    ):
        parsed(auth={**HUB, "admin_groups": ["a", "b"], "viewer_groups": ["b"]}, clusters=[fake])


POSTGRES: Mapping[str, Any] = {"url": "postgresql+psycopg://u@h/d"}


def test_on_postgres_a_cluster_that_only_one_control_plane_knows_is_refused_unless_there_is_only_one() -> None:
    with pytest.raises(BadInput) as refusal:
        parsed(store=POSTGRES)

    assert str(refusal.value) == (
        "t.yaml: clusters[0].kind: local does not go with several control planes on Postgres: its pods are known to one state "
        "folder, so no other could take over; expected another kind, or store.alone: true where there is only one."
    )
    assert parsed(store={**POSTGRES, "alone": True}).store.alone is True


def test_hub_users_go_with_postgres() -> None:
    fake = {**EXAMPLE["clusters"][0], "kind": "fake"}
    config = parsed(store=POSTGRES, auth=HUB, clusters=[fake])

    assert (config.auth.kind, config.store.url) == ("hub", POSTGRES["url"])


def test_hub_that_started_the_service_says_where_it_is() -> None:
    told = {"JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api", "JUPYTERHUB_SERVICE_NAME": "gangs"}

    assert with_hub({"auth": {"kind": "hub"}}, told)["auth"] == {
        "kind": "hub",
        "url": "http://127.0.0.1:8081/hub/api",
        "service": "gangs",
    }
    assert with_hub({"auth": dict(HUB)}, told)["auth"] == {**HUB, "service": "gangs"}
    # A control plane that a user starts in a server of the hub is the user's own.
    assert with_hub({}, told) == {}


@pytest.mark.feature("O08")
@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb+mariadbconnector"])
def test_mysql_is_not_supported_and_said_so(scheme: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parsed(store={"url": f"{scheme}://me:secret@db/tutti"})

    assert f"'{scheme}://…@db/tutti' is of MySQL, which is not supported; expected sqlite:///FILE or" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "site.md").read_text(encoding="utf-8")
    assert "MySQL and MariaDB are not supported" in guide


def test_a_hub_with_a_local_cluster_needs_no_unsafe_user_where_pods_run_as_their_owners() -> None:
    cluster = {"name": "a", "kind": "local", "run_as": "owner", "folder": "pods", "accounts": {"ann": "etl"}, "least_uid": 500}

    config = parsed(auth=HUB, listen={"port": 9321}, clusters=[cluster])

    assert not config.auth.unsafe_shared_user
    assert config.clusters[0].owners == OwnersSettings(STATE / "pods", "tuttilab", {"ann": "etl"}, 500)
