"""A new user's machine, and kernels on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import Kernel
from tests.user_machine import UserMachine, made_machine


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMachine]:
    """An empty home, and no configuration, so the machine itself is the one node."""
    with made_machine(tmp_path_factory.mktemp("first")) as machine:
        programs = str(Path(sys.executable).parent)
        machine.environ["PATH"] = f"{programs}{os.pathsep}{machine.environ['PATH']}"
        machine.environ["VIRTUAL_ENV"] = str(Path(programs).parent)
        machine.environ["IPYTHONDIR"] = str(machine.home / ".ipython")
        yield machine
        machine.run("down", "--now", timeout_s=120)


@pytest.fixture
def kernel(home: UserMachine) -> Iterator[Kernel]:
    made = Kernel(home.environ, "first.ipynb", cwd=home.home)
    yield made
    made.close()
