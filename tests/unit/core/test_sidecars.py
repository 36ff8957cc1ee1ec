"""Side-cars of the site: what the registry says, what a job may set of it, and what it is charged for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import builders as b
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.kinds.definition import definition_of
from tuttilab.scheduler.core.placement.fit import charge_of
from tuttilab.scheduler.core.placement.shapes import shape_key
from tuttilab.scheduler.core.sidecars import SideCarOffer
from tuttilab.scheduler.domain.errors import BadInput, NeverFits
from tuttilab.scheduler.domain.model import Cluster, Job
from tuttilab.scheduler.domain.requests import SideCarRequest
from tuttilab.scheduler.domain.resources import Resources

PROXY: dict[str, Any] = {
    "name": "proxy",
    "image": "registry.example/proxy:1",
    "cpus": "50m",
    "memory": "32Mi",
    "command": ["proxy", "--level", "$(level)", "--rate=$(rate)", "$$(literal)"],
    "env": {"MODE": "$(mode)"},
    "port": 8080,
    "params": {
        "level": {"type": "integer", "default": 1, "minimum": 0, "maximum": 9},
        "mode": {"enum": ["fast", "safe"]},
        "rate": {"type": "number", "default": 0.5},
        "zone": {"pattern": "[a-z]+-[0-9]", "default": "eu-1"},
        "log": {"type": "boolean", "default": False},
    },
}


def offers(*sidecars: dict[str, Any]) -> tuple[SideCarOffer, ...]:
    return parse_config({"sidecars": list(sidecars)}, Path("/state"), "t.yaml").sidecars


def built(*asked: SideCarRequest, kind: str = "kubernetes", workers: int = 1, **given: Any) -> Job:
    known = {"k": Cluster("k", kind)}
    without = frozenset({"k"}) if kind == "local" else frozenset()
    return b.job(
        Site({"main": b.queue()}, known, "main", sidecars=offers(PROXY), without_images=without),
        sidecars=asked,
        workers=workers,
        **given,
    )


@pytest.mark.feature("C08")
@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "sidecars[0].params.mode: side-car 'proxy' needs it, and it has no default; give it a value."),
        ({"mode": "slow"}, "sidecars[0].params.mode: 'slow' was given; expected string, one of fast, safe."),
        ({"mode": "fast", "level": 10}, "sidecars[0].params.level: 10 was given; expected integer, at least 0, at most 9."),
        ({"mode": "fast", "level": "many"}, "sidecars[0].params.level: 'many' was given; expected integer, at least 0, at most 9."),
        ({"mode": "fast", "level": True}, "sidecars[0].params.level: True was given; expected integer"),
        ({"mode": "fast", "level": 1.5}, "sidecars[0].params.level: 1.5 was given; expected integer"),
        ({"mode": "fast", "rate": "nan"}, "sidecars[0].params.rate: 'nan' was given; expected number."),
        (
            {"mode": "fast", "zone": "eu-1; rm"},
            "sidecars[0].params.zone: 'eu-1; rm' was given; expected string, like [a-z]+-[0-9].",
        ),
        ({"mode": "fast", "zone": "a\nb-1"}, "sidecars[0].params.zone: 'a\\nb-1' was given; expected a line of up to 1000"),
        ({"mode": "fast", "log": 1}, "sidecars[0].params.log: 1 was given; expected boolean."),
        ({"mode": "fast", "levels": 3}, "sidecars[0].params.levels: side-car 'proxy' has no such parameter; did you mean 'level'?"),
    ],
)
def test_a_parameter_that_the_registry_does_not_have_so_is_refused_with_its_path(params: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        built(SideCarRequest(name="proxy", params=params))

    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["prox"], r"sidecars\[0\].name: there is no side-car 'prox'; did you mean 'proxy'\?"),
        (["metrics"], r"sidecars\[0\].name: there is no side-car 'metrics'; expected proxy."),
        (["proxy", "proxy"], r"sidecars\[1\].name: 'proxy' stands there twice"),
    ],
)
def test_a_side_car_that_is_not_offered_is_refused(asked: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        built(*(SideCarRequest(name=name, params={"mode": "fast"}) for name in asked))


@pytest.mark.feature("C08")
def test_a_job_has_what_it_set_and_the_defaults_of_the_rest_and_is_charged_for_it() -> None:
    made = built(SideCarRequest(name="proxy", params={"mode": "safe", "level": "3", "log": "true"}), workers=2, image="i")
    cluster = Cluster("k", "kubernetes", sidecar_cost=Resources.parse({"cpu": "10m"}), master_cost=Resources.parse({"cpu": "100m"}))

    (one,) = made.work.sidecars
    assert one.params == {"level": "3", "mode": "safe", "rate": "0.5", "zone": "eu-1", "log": "true"}
    charge = charge_of(made, cluster)
    assert (charge["cpu"], charge["memory"]) == (2 * (1000 + 10 + 50) + 100, 2 * (2**30 + 32 * 2**20))
    assert shape_key(made) != shape_key(b.job(workers=2, image="i"))
    again = definition_of(made).sidecars
    assert built(*again, workers=2, image="i").work.sidecars == made.work.sidecars


def test_processes_of_a_machine_have_no_side_cars() -> None:
    with pytest.raises(NeverFits, match="sidecars: pods of k are processes of the machine and have none; leave them out"):
        built(SideCarRequest(name="proxy", params={"mode": "safe"}), kind="local")
    with pytest.raises(BadInput, match="sidecars: they come beside the one that sidecar: false leaves out"):
        built(SideCarRequest(name="proxy", params={"mode": "safe"}), sidecar=False)


@pytest.mark.feature("C08")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Proxy"}, "sidecars[0].name: 'Proxy' is not a name"),
        ({"image": "no image"}, "sidecars[0].image: 'no image' is not an image"),
        ({"cpus": 0}, "sidecars[0].cpus: 0 is none at all"),
        ({"port": 80}, "sidecars[0].port: 80 cannot be used; expected 1024 to 65535"),
        ({"port": 15990}, "sidecars[0].port: 15990 cannot be used"),
        (
            {"command": ["x", "$(levle)"]},
            "sidecars[0].command[1]: $(levle) names no parameter; expected one of params (level, mode",
        ),
        ({"env": {"A": "$(B)"}}, "sidecars[0].env.A: $(B) names no parameter"),
        ({"env": {"level": "1"}}, "sidecars[0].env.level: it is a parameter too"),
        ({"env": {"TUTTILAB_RANK": "1"}}, "sidecars[0].env: 'TUTTILAB_RANK' is no variable's name"),
        ({"params": {"a-b": {}}}, "sidecars[0].params: 'a-b' is no variable's name"),
        (
            {"params": {"a": {"type": "object"}}},
            "sidecars[0].params.a.type: 'object' is not known; expected one of string, integer",
        ),
        ({"params": {"a": {"type": "integer", "default": "x"}}}, "sidecars[0].params.a.default: 'x' was given; expected integer"),
        (
            {"params": {"a": {"enum": ["x"], "default": "y"}}},
            "sidecars[0].params.a.default: 'y' was given; expected string, one of x",
        ),
        ({"params": {"a": {"minimum": 1}}}, "sidecars[0].params.a.minimum: it goes with integer and number"),
        ({"params": {"a": {"pattern": "("}}}, "sidecars[0].params.a.pattern: '(' is no regular expression"),
        ({"resources": {"cpu": 1}}, "sidecars[0].resources.cpu: use the side-car's own key 'cpus'"),
        ({"privileged": True}, "unknown key sidecars[0].privileged"),
    ],
)
def test_a_mistake_in_the_registry_is_refused_with_its_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        offers({**PROXY, "command": [], "env": {}, **change})

    assert said in str(refused.value)


def test_two_side_cars_of_one_name_or_port_are_refused() -> None:
    with pytest.raises(BadInput, match=r"sidecars\[1\].name: 'proxy' stands there twice"):
        offers(PROXY, PROXY)
    with pytest.raises(BadInput, match=r"sidecars\[1\].port: 8080 is that of 'proxy'"):
        offers(PROXY, {**PROXY, "name": "other"})
