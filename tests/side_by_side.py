"""Which tests may run in different processes: all, but those that share a slow fixture stay together, and long ones start first.

`pytest -n 4 --dist loadgroup` sends every group to one process. A test that uses a fixture of its file (scope ``module``) or
of its folder (scope ``session``) is in the group of that file or folder, so that the fixture is made once; every other test
is a group of its own. A fixture of `tests/conftest.py` makes no group: each process makes its own, but for the Kubernetes clusters:
their tests stay together wherever they are.
"""

from __future__ import annotations

import pytest

from tests.kube.fixtures import NAMES as CLUSTERS

ALONE = "no_cluster"
"""Of tests that make real clusters of their own: there is one on a machine, so they are where its tests are."""
ROOT = "tests"
DEFAULT_TIMEOUT_S = 120.0
_SHARED = ("session", "package", "module", "class")


def group_of(item: pytest.Item) -> str | None:
    """The file or folder whose fixture the test shares with others; None when it shares none."""
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return None
    for name in CLUSTERS:
        if name in info.name2fixturedefs:
            return name
    if ALONE in info.name2fixturedefs:
        return CLUSTERS[0]
    shared = [d for definitions in info.name2fixturedefs.values() for d in definitions if d.scope in _SHARED]
    ours = [d for d in shared if d.baseid.startswith(ROOT + "/")]
    if not ours:
        return None
    folders = [d.baseid for d in ours if d.scope in ("session", "package")]
    return min(folders, key=len) if folders else item.nodeid.partition("::")[0]


def limit_of(item: pytest.Item) -> float:
    """The time limit of a test in seconds, infinite when it has none: the longest of them are to begin first."""
    mark = item.get_closest_marker("timeout")
    limit = DEFAULT_TIMEOUT_S if mark is None or not mark.args else float(mark.args[0])
    return limit or float("inf")


def name_of(nodeid: str) -> str:
    """The name by which pytest runs the test: with groups, xdist puts `@group` behind it."""
    name, mark, group = nodeid.rpartition("@")
    return name if mark and (group in CLUSTERS or group.startswith(ROOT + "/")) else nodeid


def arrange(items: list[pytest.Item]) -> None:
    """Mark the groups, and put those with the highest time limit first; order within a group is kept."""
    groups = {item.nodeid: group_of(item) for item in items}
    longest: dict[str, float] = {}
    for item in items:
        key = groups[item.nodeid] or item.nodeid
        longest[key] = max(longest.get(key, 0.0), limit_of(item))
        if groups[item.nodeid] is not None:
            item.add_marker(pytest.mark.xdist_group(groups[item.nodeid]))
    items.sort(key=lambda item: -longest[groups[item.nodeid] or item.nodeid])
    for item in items:
        group = groups[item.nodeid]
        if group in CLUSTERS and hasattr(item, "_id"):
            # xdist 3.8 puts the group where pytest 9.2 does not read it, so that groups are no more than an order there. Of the
            # machine's one cluster with nodes they have to hold.
            item._id = type(item._id).parse(f"{item.nodeid}@{group}")
