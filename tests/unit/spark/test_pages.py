"""The token for Spark's pages: what its filter checks."""

import base64
import hmac
import json

from tuttilab.scheduler.spark.pages import bearer, settings


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_token_is_signed_with_the_key_that_the_server_is_given() -> None:
    conf = settings("0123456789abcdef")
    key = decoded(conf["spark.org.apache.spark.ui.JWSFilter.param.secretKey"])
    head, body, signature = bearer("0123456789abcdef").split(".")
    assert len(key) * 8 >= 256, "the filter refuses a shorter one"
    assert json.loads(decoded(head)) == {"alg": "HS256"}
    assert json.loads(decoded(body)) == {"sub": "pages"}
    assert decoded(signature) == hmac.digest(key, f"{head}.{body}".encode(), "sha256")


def test_of_the_sessions_own_token_nothing_is_in_it() -> None:
    token = "0123456789abcdef0123456789abcdef"
    assert token not in str(settings(token))
    assert bearer(token) != bearer(token[::-1])
