"""Files that are read, read again, and of no use."""

from __future__ import annotations

import errno
import ssl
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from twisted.internet.task import Clock

from kvdb.reloading import (
    MAX_FILE_BYTES,
    RELOAD_SECONDS,
    RealFiles,
    Reloaded,
    ReloadService,
    Unusable,
    read_file,
)
from kvdb.tls.files import Material, day, load
from kvdb.tls.settings import TLSFiles
from tests.tls.certificates import DAY, NOW, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def named(pair: Pair, ca: str | None = None, prefix: str = "") -> TLSFiles:
    return TLSFiles(
        prefix=prefix, cert=pair.cert, key=pair.key, ca=ca, client_cert_auth=False
    )


def test_what_is_read(authority: Authority) -> None:
    pair = authority.issue("a", ends=9 * DAY)
    found = load(RealFiles(), named(pair, authority.path))
    assert found.expires == pytest.approx((NOW + 9 * DAY).timestamp(), abs=1)
    assert day(found.expires) == f"{NOW + 9 * DAY:%Y-%m-%d %H:%M} UTC"
    alone = load(RealFiles(), named(authority.issue("a", ends=200 * DAY)))
    assert alone.expires > found.expires


def test_what_is_of_no_use(authority: Authority, tmp_path: Path) -> None:
    """One line, which names the option and the file."""
    good, other = authority.issue("a"), authority.issue("b")
    junk, locked = tmp_path / "junk", tmp_path / "locked"
    junk.write_bytes(b"-----BEGIN NOTHING-----\n")
    key = serialization.load_pem_private_key(Path(good.key).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    missing = str(tmp_path / "missing")
    for cert, key_path, ca, reason in (
        (missing, good.key, None, "--peer-cert-file: "),
        (missing, good.key, None, "cannot be read (No such file or directory)"),
        (str(tmp_path), good.key, None, "cannot be read (Is a directory)"),
        (str(junk), good.key, None, "holds no certificate in PEM form"),
        (good.key, good.key, None, "holds no certificate in PEM form"),
        (good.cert, missing, None, "--peer-key-file: "),
        (good.cert, str(junk), None, "holds no private key in PEM form"),
        (good.cert, good.cert, None, "holds no private key in PEM form"),
        (good.cert, str(locked), None, "without a passphrase"),
        (good.cert, other.key, None, "is not the key of the certificate in"),
        (good.cert, good.key, str(junk), "--peer-trusted-ca-file: "),
    ):
        with pytest.raises(Unusable) as caught:
            load(RealFiles(), named(Pair(cert, key_path), ca, "peer-"))
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(MAX_FILE_BYTES))
    assert len(read_file(RealFiles(), str(path), "--x")) == MAX_FILE_BYTES
    path.write_bytes(bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(Unusable, match="is longer than"):
        read_file(RealFiles(), str(path), "--x")


class Files:
    """In memory."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.stamps: dict[str, int] = {}

    def put(self, path: str, data: bytes) -> None:
        self.held[path] = data
        self.stamps[path] = self.stamps.get(path, 0) + 1

    def stamp(self, path: str) -> object:
        if path not in self.held:
            raise OSError(errno.ENOENT, "not there")
        return self.stamps[path]

    def read(self, path: str) -> bytes:
        if path not in self.held:
            raise OSError(errno.ENOENT, "not there")
        return self.held[path]


class Number:
    """A file with a number in it, read again."""

    def __init__(self) -> None:
        self.files = Files()
        self.files.put("n", b"1")
        self.reads = 0
        self.told: list[int] = []
        self.reloaded: Reloaded[Any] = Reloaded(
            "the number", ["n"], self.files, self._load
        )
        self.reloaded.changed = self.told.append
        self.clock = Clock()
        self.service = ReloadService(self.clock, [self.reloaded])

    def _load(self) -> int:
        self.reads += 1
        data = read_file(self.files, "n", "--number")
        if not data.isdigit():
            raise Unusable(f"--number: {data!r} is none")
        return int(data)


@pytest.mark.logs_errors
def test_a_file_is_read_again_when_it_changes() -> None:
    number = Number()
    number.service.startService()
    number.clock.pump([RELOAD_SECONDS] * 3)
    assert number.reads == 1
    for data, value, told, problem in (
        (b"2", 2, [2], ""),
        (b"x", 2, [2], "--number: b'x' is none; what was read before stays in force"),
        (b"3", 3, [2, 3], ""),
    ):
        number.files.put("n", data)
        number.clock.advance(RELOAD_SECONDS)
        assert (number.reloaded.value, number.told) == (value, told)
        assert number.reloaded.problem == problem
    reads = number.reads
    number.clock.pump([RELOAD_SECONDS] * 3)
    assert number.reads == reads
    # One that vanishes, and comes back.
    del number.files.held["n"]
    number.clock.advance(RELOAD_SECONDS)
    assert "--number: n cannot be read" in number.reloaded.problem
    assert number.reloaded.value == 3
    number.files.put("n", b"4")
    number.clock.advance(RELOAD_SECONDS)
    assert (number.reloaded.value, number.reloaded.problem) == (4, "")
    # Somebody says so.
    reads = number.reads
    number.service.read_all()
    assert number.reads == reads + 1
    number.service.stopService()
    number.service.read_all()
    assert number.reads == reads + 1
    assert not number.clock.getDelayedCalls()


@pytest.mark.logs_errors
def test_a_key_that_comes_after_its_certificate(authority: Authority) -> None:
    """Between the two, the old pair stays in force."""
    old, new = authority.issue("a"), authority.issue("b")
    files = RealFiles()
    reloaded: Reloaded[Material] = Reloaded(
        "TLS", named(old).paths, files, partial(load, files, named(old))
    )
    before = reloaded.value
    Path(old.cert).write_bytes(Path(new.cert).read_bytes())
    reloaded.check()
    assert reloaded.value is before
    assert "is not the key" in reloaded.problem
    Path(old.key).write_bytes(Path(new.key).read_bytes())
    reloaded.check()
    assert reloaded.value is not before
    assert reloaded.problem == ""


SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "certificates.sh"


def test_the_script_of_the_manual(tmp_path: Path) -> None:
    """scripts/certificates.sh makes what docs/security.md says."""
    subprocess.run(
        ["sh", str(SCRIPT), str(tmp_path), "127.0.0.1", "db2.example.org"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    for name in ("127.0.0.1", "db2.example.org"):
        pair = Pair(str(tmp_path / f"{name}.crt"), str(tmp_path / f"{name}.key"))
        load(RealFiles(), named(pair, str(tmp_path / "ca.crt")))
        assert Path(pair.key).stat().st_mode & 0o077 == 0
    held = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    assert held.cert_store_stats()["x509_ca"] == 1
    # Once more: the CA stays, so that what it signed is still of use.
    before = (tmp_path / "ca.crt").read_bytes()
    subprocess.run(
        ["sh", str(SCRIPT), str(tmp_path), "db3.example.org"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (tmp_path / "ca.crt").read_bytes() == before
    assert (tmp_path / "db3.example.org.crt").exists()
