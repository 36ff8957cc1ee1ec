"""Kubeconfigs, with everything they need inside: certificates or a token, no path to another file."""

from __future__ import annotations

import base64
import json
from pathlib import Path


def write(path: Path, server: str, authority: Path, *, certificate: Path | None = None, token: str | None = None) -> Path:
    """``certificate``: its .crt; its .key lies beside it. JSON is YAML too, so every client reads it."""
    user: dict[str, str] = {}
    if certificate is not None:
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(certificate.with_suffix(".key"))}
    if token is not None:
        user = {"token": token}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}],
        "users": [{"name": path.stem, "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": path.stem}}],
    }
    path.touch(0o600)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
