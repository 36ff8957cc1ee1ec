"""`docs/guides/spark.md`: its manifest and its commands run as they stand, on a node of four cores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.guides.shell import GUIDES, blocks, output_of
from tests.user_machine import made_machine

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]
FOUR_CORES = "clusters: [{name: here, kind: local, nodes: [{name: a, cpus: 4, memory: 16Gi}]}]\n"
DAILY = """
import sys
from helpers import day
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
print("rows of", day(sys.argv[1]), spark.range(0, 1000, 1, 4).filter("id % 2 = 0").count())
"""


@pytest.mark.feature("J08", "N23")
def test_the_commands_of_the_guide_start_a_session_with_executors_and_run_an_application(tmp_path: Path) -> None:
    guide = (GUIDES / "spark.md").read_text()
    (manifest,) = re.findall(r"^```yaml\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    with made_machine(tmp_path) as machine:
        (machine.home / "four-cores.yaml").write_text(FOUR_CORES)
        assert machine.run("up", "--config", str(machine.home / "four-cores.yaml")).code == 0
        (machine.home / "daily.yaml").write_text(manifest)
        (machine.home / "daily.py").write_text(DAILY)
        (machine.home / "helpers.py").write_text("def day(text):\n    return text.replace('-', '/')\n")

        shown = output_of(machine, blocks(guide))

    assert re.search(r"^wide +\w+ +Running +yes +1 +\S+ +2 x 1 cores, 512m ", shown, re.MULTILINE), shown
    assert "wide: stopped" in shown
    assert shown.count("rows of 2026/11/22 500") == 2, shown
