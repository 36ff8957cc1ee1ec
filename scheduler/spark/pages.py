"""Who may see Spark's own pages where they are served on a network: whoever has a token that is signed with the session's key.

Spark's filter (org.apache.spark.ui.JWSFilter) asks for a JSON Web Token in the Authorization header. Pure.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Final

FILTER: Final = "org.apache.spark.ui.JWSFilter"


def settings(token: str) -> dict[str, str]:
    """Of the server, for its pages. ``token``: of the session."""
    return {"spark.ui.filters": FILTER, f"spark.{FILTER}.param.secretKey": _text(_key(token))}


def bearer(token: str) -> str:
    """What the filter takes."""
    head, body = (_text(json.dumps(part, separators=(",", ":")).encode()) for part in ({"alg": "HS256"}, {"sub": "pages"}))
    return f"{head}.{body}.{_text(hmac.digest(_key(token), f'{head}.{body}'.encode(), 'sha256'))}"


def _key(token: str) -> bytes:
    """Of its own, so that a page's request does not carry what opens the session."""
    return hmac.digest(token.encode(), b"spark-pages", "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
