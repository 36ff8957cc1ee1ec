"""The proxy as an operator starts it: TLS, wrong settings, and its end."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pyspark.sql.connect.proto import base_pb2 as messages
from pyspark.sql.connect.proto import base_pb2_grpc as services

from tests.integration.spark_proxy.conftest import Sessions, end, started
from tests.ports import free_port
from tuttilab.scheduler.spark.proxy.process import TOKEN_FILE

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "spark proxy of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "proxy.crt", folder / "proxy.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files[1].touch(mode=0o600)
    files[1].write_bytes(pem)
    return files


@pytest.mark.feature("M01")
async def test_with_a_certificate_it_speaks_tls_and_nothing_else(sessions: Sessions, tmp_path: Path) -> None:
    await sessions.session("of-ann")
    file, key = certificate(tmp_path)
    port = free_port()
    token = str(sessions.site.folder / TOKEN_FILE)
    where = ("--url", sessions.site.url, "--token-file", token, "--listen", f"0.0.0.0:{port}")
    process = started(*where, "--certificate", str(file), "--key", str(key))
    try:
        credentials = grpc.ssl_channel_credentials(root_certificates=file.read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            async with asyncio.timeout(120):
                await channel.channel_ready()
            stub = services.SparkConnectServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            answer = await stub.Config(messages.ConfigRequest(session_id="s"), metadata=[("authorization", "Bearer of-ann")])
        assert answer.session_id == "s"
        for target, how in (("127.0.0.1", None), ("127.0.0.1", grpc.ssl_channel_credentials())):
            address = f"{target}:{port}"
            other = grpc.aio.secure_channel(address, how) if how else grpc.aio.insecure_channel(address)
            async with other:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2):
                        await other.channel_ready()
        assert "BEGIN CERTIFICATE" in await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    finally:
        end(process)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0:0"), "tokens would go to it in clear text; give --certificate and --key, or listen at 127.0.0.1."),
        (("--listen", "nowhere"), "--listen: 'nowhere' is no address; expected HOST:PORT such as 127.0.0.1:15002."),
        (("--url", "ftp://x"), "--url: 'ftp://x' is no address of a control plane; expected one such as http://127.0.0.1:8080."),
        (
            ("--token-file", "/nowhere"),
            "The token of the Spark proxy cannot be read from /nowhere",
        ),
        (("--certificate", "/nowhere"), "--certificate and --key go together; give both."),
        (("--certificate", "/nowhere", "--key", "/nowhere"), "/nowhere cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_setting_ends_it_with_a_sentence(tmp_path: Path, options: Sequence[str], said: str) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    process = started("--url", "http://127.0.0.1:1", "--token-file", str(token), "--listen", "127.0.0.1:0", *options)
    try:
        _, stderr = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode in (1, 2)
    assert said in stderr.decode()
    assert "Traceback" not in stderr.decode()


async def test_it_ends_at_once_on_sigterm_although_calls_are_under_way(sessions: Sessions) -> None:
    _, connect = await sessions.session("of-ann")
    stub, metadata = sessions.stub("of-ann")
    call = stub.ExecutePlan(messages.ExecutePlanRequest(), metadata=metadata)
    async for _ in call:
        break
    sessions.proxy.terminate()
    assert await asyncio.to_thread(sessions.proxy.wait, 60) == 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # which clients try again
    async with asyncio.timeout(60):
        await connect.cancelled.wait()
