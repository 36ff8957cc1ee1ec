"""Addresses of a Spark proxy, in options and in `tuttilab.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.runtime.addresses import address_of, proxy_address
from tuttilab.scheduler.spark.proxy.process import OwnProxy, SiteProxy, proxy_of
from tuttilab.scheduler.spark.proxy.server import Settings, run


def test_addresses_are_host_and_port() -> None:
    assert address_of("127.0.0.1:0", "--listen") == ("127.0.0.1", 0)
    assert address_of("[::1]:15002", "--listen") == ("::1", 15002)
    for text in ("", "15002", ":1", "host:", "host:x", "host:70000", "host:-1"):
        with pytest.raises(BadInput, match=r"--listen: .* is no address; expected HOST:PORT"):
            address_of(text, "--listen")


def test_a_proxy_on_another_machine_has_tls() -> None:
    assert proxy_address("grpcs://spark.example:15002") == ("spark.example", 15002, True)
    assert proxy_address("grpc://127.0.0.1:15002") == ("127.0.0.1", 15002, False)
    with pytest.raises(BadInput, match=r"in clear text; expected grpcs://\."):
        proxy_address("grpc://spark.example:15002")
    for text in (
        "spark.example:15002",
        "https://spark.example:1",
        "grpcs://spark.example",
        "grpcs://a:1/x",
        "grpcs://u@a:1",
        "x" * 999,
    ):
        with pytest.raises(BadInput, match=r"spark\.proxy: .* is no address"):
            proxy_address(text)


def test_the_configuration_names_the_proxy(tmp_path: Path) -> None:
    assert parse_config({}, tmp_path, "f").spark.proxy == "own"
    assert parse_config({"spark": {"proxy": "direct"}}, tmp_path, "f").spark.proxy == "direct"
    with pytest.raises(BadInput, match=r"f: spark\.proxy: 'mine' is no address; expected own, direct, or one such as"):
        parse_config({"spark": {"proxy": "mine"}}, tmp_path, "f")
    with pytest.raises(BadInput, match=r"spark.*proxi"):
        parse_config({"spark": {"proxi": "own"}}, tmp_path, "f")


def test_who_gets_which_proxy(tmp_path: Path) -> None:
    assert isinstance(proxy_of("own", tmp_path, "http://127.0.0.1:1", "t"), OwnProxy)
    assert proxy_of("direct", tmp_path, "http://127.0.0.1:1", "t") is None
    # One on loopback would be of no use to kernels on other machines.
    assert proxy_of("own", tmp_path, "http://10.0.0.5:1", "t") is None
    assert isinstance(proxy_of("grpcs://spark.example:15002", tmp_path, "http://10.0.0.5:1", "t"), SiteProxy)
    assert ((tmp_path / "spark-proxy-token").read_text(), (tmp_path / "spark-proxy-token").stat().st_mode & 0o777) == ("t", 0o600)


def test_it_does_not_take_tokens_in_clear_text_from_a_network(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    settings = {"url": "http://127.0.0.1:1", "token_file": token}
    with pytest.raises(BadInput, match="tokens would go to it in clear text; give --certificate and --key"):
        run(Settings(listen="0.0.0.0:0", **settings))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="--certificate and --key go together"):
        run(Settings(certificate=token, **settings))  # type: ignore[arg-type]
