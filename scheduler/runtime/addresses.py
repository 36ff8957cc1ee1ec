"""Addresses as they are written in options and in `tuttilab.yaml`."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from tuttilab.scheduler.domain.errors import BadInput


def address_of(text: str, option: str) -> tuple[str, int]:
    """Host and port. Raises BadInput."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise BadInput(f"{option}: {text[:100]!r} is no address; expected HOST:PORT such as 127.0.0.1:15002.")
    return host, int(port)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_address(address: str) -> tuple[str, int, bool]:
    """Host, port, and whether there is TLS. Raises BadInput."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme not in ("grpc", "grpcs") or parts.path or parts.query or parts.username:
        raise BadInput(
            f"spark.proxy: {address[:100]!r} is no address; expected own, direct, or one such as grpcs://spark.example:15002."
        )
    if parts.scheme == "grpc" and not is_loopback(host):
        raise BadInput(f"spark.proxy: tokens would go to {host} in clear text; expected grpcs://.")
    return host, port, parts.scheme == "grpcs"
