"""
What a node keeps others out with: TLS for clients, TLS among members, and the
access file; and what it says where it keeps nobody out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from zope.interface import implementer

from kvdb.access.guard import Guard
from kvdb.access.rules import Access, parse_access
from kvdb.complaints import Complaints
from kvdb.host import Host
from kvdb.peer.addresses import Dial, is_secured, parse_peer_url, url_of
from kvdb.peer.certificates import Vouch, anybody, by_certificate
from kvdb.peer.framing import FrameType, encode_frame
from kvdb.peer.handshake import (
    NOT_A_PEER_RESPONSE,
    Refusal,
    RefusalCode,
    encode_refusal,
)
from kvdb.reloading import Files, Reloaded, ReloadService, Unusable, read_file
from kvdb.rest.problems import Problem
from kvdb.rest.site import Site, plain_response
from kvdb.settings import Settings
from kvdb.store.urls import read_url
from kvdb.tls.settings import TLSFiles

log = Logger(namespace="kvdb.security")

EXPIRY_SECONDS: Final = 14 * 86400
"""How long before a certificate expires it is warned of."""


def load_tls(files: Files, named: TLSFiles) -> Any:
    """
    L{kvdb.tls.files.load}, where OpenSSL is installed.

    @raise Unusable: with the reason.
    """
    try:
        from kvdb.tls.files import load
    except ImportError as error:
        raise Unusable(
            f"--{named.prefix}cert-file: TLS needs packages that are not installed"
            f" ({error}): pip install 'kvdb[tls]'"
        ) from None
    return load(files, named)


def load_access(files: Files, path: str) -> Access:
    """@raise Unusable: with the reason."""
    data = read_file(files, path, "--access-file")
    try:
        return parse_access(data)
    except ValueError as error:
        raise Unusable(f"--access-file: {path}: {error}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches C{host}."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unspecified(host: str) -> bool:
    """Whether to listen at C{host} is to listen at all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


@implementer(IStreamClientEndpoint)
class NoWay:
    """To a member that cannot be reached."""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}: it fails."""
        return fail(self._why)


class Security(Service):
    """
    The files, as new as they are, and what is made of them.

    @ivar tls, peer_tls, access: what is read; None without such an option.
    @ivar guard: who checks requests, where there is an access file.
    @ivar client_address, peer_address: where clients and peers are listened for: a
        name until that is known, then what it stands for.
    @ivar other_urls: the other members' peer URLs.
    @ivar when_access_changes: told so, and why: what was allowed before may not
        be any more.
    """

    def __init__(self, host: Host, settings: Settings) -> None:
        self._host = host
        self._settings = settings
        self._complaints = Complaints(host.reactor, log)
        self._reload: ReloadService | None = None
        self.tls: Reloaded[Any] | None = None
        self.peer_tls: Reloaded[Any] | None = None
        self.access: Reloaded[Access] | None = None
        self.guard: Guard | None = None
        self.peer_url = settings.peer_url
        self.client_address = settings.host
        self.peer_address = parse_peer_url(settings.peer_url)[0]
        self.other_urls: Callable[[], Iterable[str]] = lambda: ()
        self.when_access_changes: Callable[[str], None] = lambda why: None

    def startService(self) -> None:
        """
        Read the files.

        @raise Unusable: one is of no use.
        """
        super().startService()
        settings = self._settings
        things: list[Reloaded[Any]] = []
        if settings.tls is not None:
            self.tls = self._reloaded("TLS for clients", settings.tls)
            things.append(self.tls)
        if settings.peer_tls is not None:
            self.peer_tls = self._reloaded("TLS among members", settings.peer_tls)
            things.append(self.peer_tls)
        if settings.access_file is not None:
            files = self._host.files
            load = partial(load_access, files, settings.access_file)
            self.access = Reloaded(
                "the access file", [settings.access_file], files, load
            )
            things.append(self.access)
            host = self._host
            self.guard = Guard(
                self.access.value, host.reactor, host.in_thread, host.entropy
            )
            self.access.changed = self._access_changed
        if things:
            self._reload = ReloadService(self._host.reactor, things)
            self._reload.startService()
            self._host.on_hangup(self._reload.read_all)

    def stopService(self) -> None:
        """Look at them no more."""
        super().stopService()
        if self._reload is not None:
            self._reload.stopService()

    def _access_changed(self, access: Access) -> None:
        assert self.guard is not None, "an access file without a guard"
        self.guard.replace(access)
        self.when_access_changes("the access file has changed")

    def _reloaded(self, what: str, named: TLSFiles) -> Reloaded[Any]:
        files = self._host.files
        return Reloaded(what, named.paths, files, partial(load_tls, files, named))

    # Clients.

    def for_clients(self, site: Site) -> IProtocolFactory:
        """C{site}, over TLS if clients speak it."""
        named = self._settings.tls
        if self.tls is None or named is None:
            return cast(IProtocolFactory, site)
        what = "the clients' port"
        return self._server(
            self.tls, named, site, what, _plain_client, lambda: site.is_full
        )

    @property
    def scheme(self) -> str:
        """Of clients' URLs."""
        return "http" if self.tls is None else "https"

    @property
    def trusts_its_machine(self) -> bool:
        """Whether all that keeps others out is that only this machine reaches the
        clients' port: browsers on it are lent to pages from elsewhere."""
        return (
            self.guard is None and self.tls is None and is_loopback(self._settings.host)
        )

    # Members.

    def for_members(self, url: str, factory: IProtocolFactory) -> IProtocolFactory:
        """
        What listens at this member's own URL.

        @raise Unusable: the URL is https, and there is no certificate.
        """
        self.peer_url = url
        self.peer_address = parse_peer_url(url)[0]
        if not is_secured(url):
            return factory
        peer_tls, named = self._for_https(url)
        return self._server(peer_tls, named, factory, "the peer URL", _plain_peer)

    def dial(self, plain: Dial) -> Dial:
        """Reaches members, over TLS where their URLs say so."""

        def dial(url: str) -> IStreamClientEndpoint:
            inner = plain(url)
            if not is_secured(url):
                return inner
            from kvdb.tls.transport import Dialler, SecuredEndpoint

            try:
                peer_tls, _ = self._for_https(url)
            except Unusable as error:
                return NoWay(error)
            creator = Dialler(peer_tls, parse_peer_url(url)[0])
            return SecuredEndpoint(inner, creator, self._host.reactor)

        return dial

    def vouch(self, url: str) -> Vouch:
        """Whether who has dialled this member is who it says."""
        named = self._settings.peer_tls
        if is_secured(url) and named is not None and named.client_cert_auth:
            return by_certificate
        return anybody

    def _for_https(self, url: str) -> tuple[Reloaded[Any], TLSFiles]:
        named = self._settings.peer_tls
        if self.peer_tls is None or named is None:
            raise Unusable(f"--peer-cert-file: is needed, for {url} is https")
        return self.peer_tls, named

    def _server(
        self,
        material: Reloaded[Any],
        named: TLSFiles,
        factory: Any,
        what: str,
        plain_answer: Callable[[bytes], bytes],
        is_full: Callable[[], bool] = lambda: False,
    ) -> IProtocolFactory:
        from kvdb.tls.transport import Server

        return Server(
            material,
            named.client_cert_auth,
            factory,
            self._host.reactor,
            self._complaints,
            what,
            plain_answer,
            is_full,
        )

    # What people should know.

    def warnings(self) -> Iterator[str]:
        """What lets somebody in, or soon will keep everybody out."""
        yield from self._open_doors()
        now = self._host.time_of_day()
        for prefix, tls in (("", self.tls), ("peer-", self.peer_tls)):
            if tls is None:
                continue
            if tls.problem:
                yield tls.problem
            if tls.value.expires < now + EXPIRY_SECONDS:
                from kvdb.tls.files import day

                yield (
                    f"a certificate in --{prefix}cert-file or"
                    f" --{prefix}trusted-ca-file expires on {day(tls.value.expires)}"
                )
        yield from self._no_address()
        yield from self._wrong_name()
        if self.access is not None and self.access.problem:
            yield self.access.problem

    def _no_address(self) -> Iterator[str]:
        """That the others dial themselves, where they run on other machines."""
        own = parse_peer_url(self.peer_url)[0]
        local = is_loopback(self.peer_address)
        hosts = {url: read_url(url)[1] for url in self.other_urls()}
        elsewhere = [url for url, host in hosts.items() if not is_loopback(host)]
        if local and any(hosts[url] != own for url in elsewhere):
            yield (
                f"members on other machines ({', '.join(elsewhere)}) cannot reach this"
                f" member at {self.peer_url}, its peer URL: it listens at"
                f" {self.peer_address}, which is this machine's alone (a name may be in"
                " /etc/hosts).  Write an address that they reach in --cluster; a member"
                " that runs is removed, and added with that URL under a new id"
            )
        unreachable = [url for url in hosts if url not in elsewhere]
        if not local and unreachable:
            yield (
                f"{', '.join(unreachable)} in the membership is an address of each"
                " machine's own, and this member is not reached at one: members on"
                " different machines do not reach each other there"
            )
        if is_unspecified(own):
            yield (
                f"other machines cannot reach this member at {self.peer_url}, its peer"
                " URL: on each of them that is the machine itself.  Write one of this"
                " machine's own addresses in --cluster; a member that runs is removed,"
                " and added with that URL under a new id"
            )

    def _wrong_name(self) -> Iterator[str]:
        """That the others will not take this member's certificate for its own."""
        if self.peer_tls is None or not is_secured(self.peer_url):
            return
        from kvdb.tls.transport import names_of, valid_for

        certificate = self.peer_tls.value.certificate
        host = parse_peer_url(self.peer_url)[0]
        if not valid_for(certificate, host):
            yield (
                f"--peer-cert-file: the certificate is valid for"
                f" {names_of(certificate)}, and not for {host}: members that dial"
                f" {self.peer_url} refuse it"
            )

    def _open_doors(self) -> Iterator[str]:
        settings = self._settings
        place = urlsplit(url_of("http", settings.host, settings.port)).netloc
        if is_unspecified(settings.host):
            place = f"port {settings.port} at any address of this machine"
        asks = self.access is not None or (
            settings.tls is not None and settings.tls.client_cert_auth
        )
        if not is_loopback(self.client_address):
            if not asks:
                yield (
                    f"whoever reaches {place} may read and change everything: see"
                    " --access-file, or listen on the loopback (--host 127.0.0.1)"
                )
            if self.tls is None:
                secrets = ", secrets too" if self.access is not None else ""
                yield (
                    f"what clients send to {place} can be read on its way"
                    f"{secrets}: see --cert-file"
                )
        if is_loopback(self.peer_address):
            return
        if not is_secured(self.peer_url):
            yield (
                f"whoever reaches {self.peer_url} may take part as a member: see"
                " --peer-cert-file, and write https:// in peer URLs"
            )
        elif settings.peer_tls is not None and not settings.peer_tls.client_cert_auth:
            yield (
                f"whoever reaches {self.peer_url} may take part as a member: see"
                " --peer-client-cert-auth"
            )


def _plain_client(data: bytes) -> bytes:
    return plain_response(
        Problem(
            400,
            "this port speaks TLS, and got plain HTTP",
            "Write https:// in the URL.",
        ).answer()
    )


def _plain_peer(data: bytes) -> bytes:
    if data[:1].isalpha():
        return NOT_A_PEER_RESPONSE
    refusal = Refusal(
        RefusalCode.OTHER,
        "this member speaks TLS with its peers: its URL in the membership must be"
        " https://",
    )
    return encode_frame(FrameType.REFUSE, encode_refusal(refusal))
