"""Which variables go with a job, and which stay."""

import os
import sys
from pathlib import Path

import pytest

from tuttilab.scheduler.client.environment import is_local, submitters_environment
from tuttilab.scheduler.domain.errors import TooLarge
from tuttilab.scheduler.domain.wire import ClusterView

# fmt: off
SECRETS = [
    "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "DB_PASSWORD", "PGPASSWORD", "OPENAI_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS", "MY_PASS", "sshpass_PW", "APIKEY", "SESSION_COOKIE", "SIGNING_KEYS", "token", "Secret_name",
    "AZURE_STORAGE_CONNECTION_STRING", "SENTRY_DSN",
]
STAY = [
    "TUTTILAB_URL", "TUTTILAB_RANK", "CUDA_VISIBLE_DEVICES", "RANK", "OMP_NUM_THREADS",
    "SLURM_JOB_ID", "PWD", "OLDPWD", "SHLVL", "_",
    "TERM", "LS_COLORS", "DISPLAY",
    "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "JPY_PARENT_PID", "JUPYTERHUB_USER",
    "BASH_FUNC_x%%", "SPARK_CONNECT_MODE_ENABLED",
]
TRAVEL = [
    "PYTHONPATH", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "JAVA_HOME",
    "HF_HOME", "MY_SETTING", "http_proxy", "LC_ALL", "XDG_CACHE_HOME",
]
# fmt: on


def cluster(name: str, kind: str) -> ClusterView:
    return ClusterView(name=name, kind=kind, nodes=1, is_reachable=True, unreachable_since=None, allocatable={}, used={})


def test_what_a_program_needs_travels_and_secrets_are_named() -> None:
    given = dict.fromkeys([*SECRETS, *STAY, *TRAVEL], "value")

    found = submitters_environment(given)

    assert {name: value for name, value in found.values.items() if name != "PATH"} == dict.fromkeys(sorted(TRAVEL), "value")
    assert sorted(found.secrets) == sorted(SECRETS)


def test_a_password_in_a_url_is_a_secret_whatever_its_name() -> None:
    found = submitters_environment({"DATABASE": "postgresql+psycopg://me:s3cret@db/x", "https_proxy": "http://proxy:3128"})

    assert found.secrets == ("DATABASE",)
    assert found.values["https_proxy"] == "http://proxy:3128"


def test_the_backend_of_a_notebook_stays_and_a_chosen_one_travels() -> None:
    assert "MPLBACKEND" not in submitters_environment({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}).values
    assert submitters_environment({"MPLBACKEND": "agg"}).values["MPLBACKEND"] == "agg"


def test_programs_of_this_interpreter_are_found_first_but_after_those_of_an_activated_environment(tmp_path: Path) -> None:
    own = os.path.dirname(sys.executable)
    other = tmp_path / "other"

    assert submitters_environment({"PATH": "/usr/bin"}).values["PATH"] == f"{own}:/usr/bin"
    assert submitters_environment({"PATH": f"/usr/bin:{own}"}).values["PATH"] == f"/usr/bin:{own}"
    active = {"VIRTUAL_ENV": str(other), "PATH": f"{other}/bin:/usr/bin"}
    assert submitters_environment(active).values["PATH"] == f"{other}/bin:/usr/bin:{own}"


def test_bytes_that_are_no_text_stay() -> None:
    assert "ODD" not in submitters_environment({"ODD": b"\xff".decode(errors="surrogateescape")}).values


def test_a_huge_environment_is_refused_naming_the_largest_variable() -> None:
    with pytest.raises(TooLarge, match=r"The environment has \d+ KiB in \d+ variables.*the largest are BIG \(98 KiB\)"):
        submitters_environment({"BIG": "x" * 100_000, "small": "y"})


def test_an_environment_goes_only_where_all_possible_clusters_are_local() -> None:
    both = [cluster("here", "local"), cluster("there", "kubernetes")]

    assert is_local(both, "here")
    assert not is_local(both, "there")
    assert not is_local(both)
    assert not is_local([])
    assert is_local(both[:1])


def test_a_dry_run_names_variables_and_never_shows_a_value() -> None:
    text = str(submitters_environment({"TZ": "Asia/Shanghai", "MY_TOKEN": "hunter2"}))

    assert text.startswith("environment: 2 variables of the submitter's go along: PATH, TZ")
    assert text.endswith("left out as they look like secrets: MY_TOKEN (--env gives one)")
    assert "hunter2" not in text
    assert "Shanghai" not in text
