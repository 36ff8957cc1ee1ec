"""Certificates of a test cluster: one authority, and what it signs, as PEM files in a folder."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS = 3650
SERVICE_ACCOUNTS = "sa"
"""The key pair that signs tokens of service accounts: sa.key, sa.pub."""


class Authority:
    """Makes the authority itself (ca.crt, ca.key) and the service accounts' key pair at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self._write("ca", self._key, self._certificate(self._name, self._key.public_key(), is_authority=True))
        signer = ec.generate_private_key(ec.SECP256R1())
        self._write(SERVICE_ACCOUNTS, signer)
        public = signer.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{SERVICE_ACCOUNTS}.pub").write_bytes(public)

    def issue(self, stem: str, user: str, groups: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        """STEM.crt and STEM.key, for a client called ``user`` in ``groups`` and for a server under the names ``hosts``."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        self._write(stem, key, self._certificate(x509.Name(names), key.public_key(), hosts=hosts))

    def _certificate(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, is_authority: bool = False, hosts: Iterable[str] = ()
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(is_authority), critical=True)
        )
        if not is_authority:
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        names = [_host(host) for host in hosts]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, stem: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate | None = None) -> None:
        path = self.folder / f"{stem}.key"
        path.touch(0o600)
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        if certificate is not None:
            (self.folder / f"{stem}.crt").write_bytes(certificate.public_bytes(encoding))


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not is_authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
