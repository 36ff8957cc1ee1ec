"""What a viewer may ask for: everything that changes nothing. Decided here for all routes, before any of them is reached."""

from __future__ import annotations

import re
from typing import Final

from tuttilab.scheduler.domain.errors import Forbidden
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.identity.rate import READS

_UPLOAD: Final = re.compile(r"/artifacts/[^/]+/upload$")
"""A read whose answer is a permission to write."""
_OWN_SERVER: Final = re.compile(r"/notebooks/[^/]+/active$")
"""Sent by the viewer's own server, which the hub has started."""


def check_role(who: Who, method: str, path: str) -> None:
    """Raises Forbidden for a viewer who would change something."""
    changes = _UPLOAD.search(path) if method in READS else not _OWN_SERVER.search(path)
    if who.is_viewer and changes:
        raise Forbidden(
            f"{who.name} may read and change nothing, as all groups of this user ({', '.join(who.groups)}) are in "
            "auth.viewer_groups; ask an admin of the hub for another group."
        )
