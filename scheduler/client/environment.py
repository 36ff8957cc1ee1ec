"""The submitter's environment: which variables of a shell or a notebook go with its jobs to a ``local`` cluster, and which do not.

As with ``sbatch``, a job sees the environment that it was submitted from: another activated environment, ``PYTHONPATH``, ``TZ``,
what a notebook has set in ``os.environ``. Left out are secrets (by name, or a password in a URL), what belongs to the terminal, to
the login session or to Jupyter, and what the pod sets itself: the lists below. ``--env`` adds any of them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.domain.errors import TooLarge
from tuttilab.scheduler.domain.requests import MOST_ENV_BYTES, JobRequest

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.wire import ClusterView

LOCAL: Final = "local"
"""The kind of a cluster on the submitter's own machine."""

SECRET: Final = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSWORT|CREDENTIAL|COOKIE|PRIVATE|APIKEY|"
    r"(^|_)(PASS|PWD|PW|AUTH|OAUTH|SIG|SIGNATURE|DSN|CONNECTION_STRING|SAS)(_|$)|KEYS?(_|$)"
)
"""Names (in upper case) that look like secrets. PWD alone is the folder, and does not travel either."""
PASSWORD_IN_URL: Final = re.compile(r"://[^/?#@\s]{0,256}:[^/?#@\s]{1,256}@")

STAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "the pod sets it": (
        "TUTTILAB_*",
        *("MODEL_DIR", "DATA_DIR", "RESULT_DIR", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG", "DMLC_*", "SLURM_*"),
    ),
    "the terminal's": (
        *("_", "PWD", "OLDPWD", "SHLVL", "TERM", "TERM_*", "TERMINFO", "COLORTERM", "COLUMNS", "LINES", "LS_COLORS", "LSCOLORS"),
        *("PS[0-9]", "PROMPT*", "RPROMPT", "HIST*", "TMUX*", "STY", "WINDOW*", "VTE_*", "KONSOLE_*", "ITERM_*", "VSCODE_*"),
        *("PAGER", "GIT_PAGER", "LESS*", "CLICOLOR*", "FORCE_COLOR", "MAIL", "BASH_*", "ZSH*", "MAKE*", "MFLAGS"),
    ),
    "the login session's": (
        *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_*", "SSH_*", "GPG_*", "SESSION_MANAGER", "DESKTOP_SESSION"),
        *("XDG_SESSION_*", "XDG_RUNTIME_DIR", "XDG_SEAT*", "XDG_VTNR", "XDG_CURRENT_DESKTOP", "GDM*", "GNOME_*", "KDE_*"),
        *("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "LISTEN_*", "MEMORY_PRESSURE_*", "SYSTEMD_*"),
    ),
    "Jupyter's": ("JPY_*", "JUPYTERHUB_*", "JUPYTER_SERVER_*", "KERNEL_*", "PYDEVD_*"),
    # With it PySpark refuses to start a Spark of the job's own. Spark's client sets it in every notebook that has a session.
    "the notebook's Spark session's": ("SPARK_CONNECT_MODE_ENABLED",),
}
"""Patterns of names that stay behind, by the reason."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_KERNELS_OWN_BACKEND: Final = "module://"
"""MPLBACKEND of a notebook draws into the notebook."""


@dataclass(frozen=True)
class Environment:
    """``values`` travel; ``secrets`` are the names of those that were left out because they look like one."""

    values: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For a dry run: names only, as a value may be nobody else's business."""
        if not self.values:
            return "environment: only what --env says"
        left = f"; left out as they look like secrets: {', '.join(self.secrets)} (--env gives one)" if self.secrets else ""
        return f"environment: {len(self.values)} variables of the submitter's go along: {', '.join(self.values)}{left}"

    def with_first(self, folder: str) -> Environment:
        """Programs of this folder before all others."""
        path = os.pathsep.join([folder, self.values.get("PATH") or os.defpath])
        return Environment({**self.values, "PATH": path}, self.secrets)


NONE: Final = Environment()


def submitters_environment(environ: Mapping[str, str] | None = None) -> Environment:
    """What travels of ``environ`` (the process's own without it). Raises TooLarge naming the largest variables."""
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    secrets: list[str] = []
    for name in sorted(environ):
        value = environ[name]
        if not _NAME.fullmatch(name) or not _is_text(value) or _stays(name, value):
            continue
        if is_secret(name, value):
            secrets.append(name)
        else:
            values[name] = value
    values["PATH"] = _path(values)
    _check_size(values)
    return Environment(dict(sorted(values.items())), tuple(secrets))


def environment_for(request: JobRequest, clusters: Sequence[ClusterView], environ: Mapping[str, str] | None = None) -> Environment:
    """What goes with this job: nothing into an image, and nothing to a cluster that is not `LOCAL`."""
    return submitters_environment(environ) if not request.needs_containers and is_local(clusters, request.cluster) else NONE


def run_environment(clusters: Sequence[ClusterView]) -> Mapping[str, str]:
    """What goes with the nodes of a DAG's run. Raises TooLarge."""
    return submitters_environment().values if is_local(clusters) else {}


def is_local(clusters: Sequence[ClusterView], wanted: str | None = None) -> bool:
    """Whether the job can only come to a cluster on this machine. ``wanted``: the one that it names."""
    possible = [cluster for cluster in clusters if wanted in (None, cluster.name)]
    return bool(possible) and all(cluster.kind == LOCAL for cluster in possible)


def is_secret(name: str, value: str) -> bool:
    """Whether the variable looks like a secret, by its name or by a password in a URL."""
    return bool(SECRET.search(name.upper()) or PASSWORD_IN_URL.search(value))


def _stays(name: str, value: str) -> bool:
    if name == "MPLBACKEND" and value.startswith(_KERNELS_OWN_BACKEND):
        return True
    return any(fnmatchcase(name, pattern) for patterns in STAYS.values() for pattern in patterns)


def _is_text(value: str) -> bool:
    """Bytes that are no UTF-8 come as surrogates, which JSON cannot carry."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _path(values: Mapping[str, str]) -> str:
    """PATH with this interpreter's folder: first, or last where another environment was activated, whose programs come before."""
    own = os.path.dirname(sys.executable)
    path = values.get("PATH") or os.defpath
    folders = path.split(os.pathsep)
    if not own or own in folders:
        return path
    active = [os.path.join(values[name], "bin") for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if values.get(name)]
    return os.pathsep.join([path, own] if any(folder in folders for folder in active) else [own, path])


def _check_size(values: Mapping[str, str]) -> None:
    total = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in values.items())
    if total > MOST_ENV_BYTES:
        largest = sorted(values, key=lambda name: -len(values[name]))[:3]
        shown = ", ".join(f"{name} ({len(values[name].encode()) / 1024:.0f} KiB)" for name in largest)
        raise TooLarge(
            f"The environment has {total / 1024:.0f} KiB in {len(values)} variables, and at most {MOST_ENV_BYTES // 1024} KiB go "
            f"with a job; the largest are {shown}. Unset what the job does not need, or write the data to a file."
        )
