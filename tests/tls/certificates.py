"""Certificates made while tests run: nothing secret is kept."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@define
class Pair:
    """A certificate and its key, in files."""

    cert: str
    key: str

    def take(self, other: Pair) -> None:
        """Have another's contents, as when an operator puts new files there."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key)):
            fresh = Path(mine + ".new")
            fresh.write_bytes(Path(theirs).read_bytes())
            os.replace(fresh, mine)


@define
class Authority:
    """A CA with a directory of its own."""

    directory: Path
    name: str = "test CA"
    key: ec.EllipticCurvePrivateKey = field(
        factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    made: int = 0
    above: Authority | None = None
    certificate: x509.Certificate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        name = _name(self.name)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name if self.above is None else self.above.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 10 * DAY)
            .not_valid_after(NOW + 100 * DAY)
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign((self.above or self).key, hashes.SHA256())
        )
        Path(self.path).write_bytes(
            self.certificate.public_bytes(serialization.Encoding.PEM)
        )

    @property
    def subject(self) -> x509.Name:
        """Its name in certificates."""
        return self.certificate.subject

    def delegate(self, directory: Path, name: str) -> Authority:
        """A CA whose certificate this one signs."""
        return Authority(directory, name, above=self)

    @property
    def path(self) -> str:
        """Its own certificate."""
        return str(self.directory / "ca.pem")

    def issue(
        self,
        *hosts: str,
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = 50 * DAY,
        usages: tuple[x509.ObjectIdentifier, ...] = (SERVER, CLIENT),
    ) -> Pair:
        """A certificate for C{hosts}, names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name("kvdb test"))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + begins)
            .not_valid_after(NOW + ends)
            .add_extension(x509.ExtendedKeyUsage(usages), False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        self.made += 1
        pair = Pair(
            str(self.directory / f"{self.made}.pem"),
            str(self.directory / f"{self.made}.key"),
        )
        Path(pair.cert).write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
        )
        Path(pair.key).write_bytes(_pem_key(key))
        return pair
