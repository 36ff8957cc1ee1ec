"""How many files this process may open: connections, databases, files of pods."""

from __future__ import annotations

import resource
from typing import Final

MOST_FILES: Final = 65_536


def raise_file_limit() -> None:
    """Let this process open as many files as the machine allows it, `MOST_FILES` at most. Shells allow 1,024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
