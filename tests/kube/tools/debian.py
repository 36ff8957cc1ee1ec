"""Install what nodes that run containers need, on Debian and as root; elsewhere say what is missing.

`python -m tests.kube.tools.debian`; what could not be installed is no failure, the tests that need it say so too. The package
containerd would start a service of the machine's own; the tests start theirs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iptables", "busybox-static", "iproute2")
PROGRAMS = ("containerd", "ctr", "runc", "iptables", "busybox", "ip", "nsenter", "unshare", "setpriv")
PLUGIN = Path("/usr/lib/cni/bridge")
POLICY = Path("/usr/sbin/policy-rc.d")
LOCK_LIMIT_S = 300
REMEDY = f"apt-get install {' '.join(PACKAGES)}"


def missing() -> list[str]:
    """Programs that are not there."""
    names = [name for name in PROGRAMS if shutil.which(name) is None]
    return names if PLUGIN.exists() else [*names, str(PLUGIN)]


def has_all() -> bool:
    return not missing()


def install() -> bool:
    if has_all():
        return True
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"Missing for nodes that run containers: {', '.join(missing())}. Remedy, as root: {REMEDY}")
        return False
    print(f"Installing what nodes that run containers need: {' '.join(PACKAGES)}", flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    options = ("-q", "-y", "--no-install-recommends", "-o", f"DPkg::Lock::Timeout={LOCK_LIMIT_S}")
    with _no_services(), tempfile.TemporaryFile() as log:
        for command in (("update", "-q"), ("install", *options, *PACKAGES)):
            if subprocess.run(["apt-get", *command], env=environment, stdout=log, stderr=log).returncode != 0:
                log.seek(0)
                print(b"".join(log.readlines()[-5:]).decode(errors="replace"))
                print(f"They could not be installed; the tests that need them are left out. By hand: {REMEDY}")
                return False
    return has_all()


@contextmanager
def _no_services() -> Iterator[None]:
    """While packages are installed no service is started: Debian asks this script, and 101 means no."""
    if POLICY.exists():
        yield  # the machine has a policy of its own
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


if __name__ == "__main__":
    install()
