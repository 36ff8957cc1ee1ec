"""How the client connects."""

import ssl

import pytest

from tuttilab.scheduler.client.transport import Transport


@pytest.mark.parametrize(
    ("url", "verified"), [("https://tutti.example", ssl.CERT_REQUIRED), ("http://127.0.0.1:8080", ssl.CERT_NONE)]
)
def test_certificates_are_verified_wherever_there_is_tls(url: str, verified: ssl.VerifyMode) -> None:
    http = Transport(url, "token", timeout_s=1.0)._client()

    context = http._transport._pool._ssl_context  # type: ignore[attr-defined]  # httpx has no public way to it
    assert context.verify_mode == verified
