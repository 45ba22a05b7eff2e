"""
The tree of services: every part is made here, and nothing else is done.

::

    Kvdb                 starts its children in order, stops them in reverse
      Security           certificates, keys, the access file
      LogService         the data directory's lock, the Raft log
      StoreService       the engine, in step with the log
      NodeService        the pump, and the members' connections
      HTTPService        the clients' port

Nothing is opened before C{startService}: twistd forks between making the tree
and starting it, and a lock taken before would be lost.  So what can be known to
be wrong before (ports, directories, another node's data) is looked at in
L{makeService}, while whoever typed the command is still there to read it.
"""

from __future__ import annotations

import gc
import hashlib
import random
import sys
import time
from collections.abc import Generator
from itertools import chain
from typing import Any, Final, cast

from attrs import evolve
from twisted.application.service import MultiService, Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    inlineCallbacks,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from kvdb import logs
from kvdb.host import Host, RealHost
from kvdb.interfaces import NodeStatus
from kvdb.metrics import Metrics
from kvdb.node.node import Node
from kvdb.node.replica import Replica, open_replica
from kvdb.notify import READY, STOPPING, Telling, is_managed, watchdog_seconds
from kvdb.options import Options, ignored_variables
from kvdb.peer.addresses import parse_peer_url, tcp_dial, url_of
from kvdb.peer.handshake import Identity as PeerIdentity
from kvdb.peer.peers import Peers
from kvdb.preflight import Refused, allow_open_files, check
from kvdb.reloading import Unusable
from kvdb.rest.site import RestSettings, Site, make_site
from kvdb.security import Security, is_unspecified
from kvdb.settings import Settings
from kvdb.storage.filesystem import DirectoryInUse, DiskFull, SyncFailed
from kvdb.storage.instance import InstanceFile, PartsDiffer
from kvdb.storage.journal import start_again
from kvdb.storage.log import Identity, Log, UnknownFormat
from kvdb.storage.segment import CorruptLog
from kvdb.storage.unsynced import LOST, REMEDY, PowerWasLost, Unsynced
from kvdb.store.commands import Member
from kvdb.store.engine import EngineError
from kvdb.store.rocks import current_engine
from kvdb.store.store import Store
from kvdb.store.store import UnknownFormat as UnknownStoreFormat

__all__ = ["Options", "makeService"]

log = Logger(namespace="kvdb.service")

STOP_SECONDS: Final = 10.0
"""How long one service may take to stop."""

SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter from another that waits for it:
a sync that is done must not wait for the reactor's turn to end."""

COLLECT_AFTER: Final = (10_000, 20, 50)
"""When the garbage collector runs: objects made and not freed, and how many
rounds over young ones before it looks at older ones."""

FATAL: Final = (
    CorruptLog,
    DirectoryInUse,
    DiskFull,
    EngineError,
    PartsDiffer,
    PowerWasLost,
    Refused,
    SyncFailed,
    UnknownFormat,
    UnknownStoreFormat,
    Unusable,
)
"""What may be wrong at a start, and says itself what to do."""


def cluster_id_of(cluster: dict[int, str]) -> int:
    """The id of a new cluster: the same on each of its first members."""
    text = ",".join(f"{node}={cluster[node]}" for node in sorted(cluster))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") | 1


class LogService(Service):
    """The Raft log, and who the node is."""

    log: Log | None = None
    _unsynced: Unsynced | None = None

    def __init__(self, host: Host, settings: Settings) -> None:
        self._host = host
        self._settings = settings

    def startService(self) -> None:
        """Open it; the first time, make it this node's."""
        super().startService()
        settings, host = self._settings, self._host
        directory = f"{settings.data_dir}/log"
        self._unsynced = Unsynced(host.filesystem, directory, host.boot_id())
        self._unsynced.check()
        self.log = Log.open(
            host.filesystem,
            directory,
            host.reactor,
            settings.node.segment_bytes,
            settings.node.recent_bytes,
            self._sync_failed,
        )
        # It has synced whatever an earlier process wrote.
        self._unsynced.end()
        if settings.node.sync_interval:
            self._acknowledge_early(self._unsynced)
        if self.log.repaired is not None:
            log.info(
                "what a crash left unfinished at the end of the log was erased: {what}",
                what=self.log.repaired,
            )
        if self.log.identity is None:
            self._check_no_store()
            cluster_id = 0 if settings.join else cluster_id_of(dict(settings.cluster))
            # Not drawn from the node's own source: two directories must differ
            # even where everything else is the same.
            instance_id = int.from_bytes(host.entropy(8), "big") >> 1 | 1
            self.log.set_identity(Identity(cluster_id, settings.node_id, instance_id))
        identity = self.log.identity
        assert identity is not None, "an identity was just recorded"
        if identity.node_id != settings.node_id:
            raise Refused(
                f"{settings.data_dir} holds the data of member {identity.node_id}, not"
                f" of member {settings.node_id}: give another --id or --data-dir"
            )
        self._count_start(self.log, identity)

    def _count_start(self, opened: Log, identity: Identity) -> None:
        """Record this start before any peer hears of it."""
        start_id = int.from_bytes(self._host.entropy(8), "big")
        try:
            opened.set_identity(
                evolve(identity, starts=identity.starts.begin(start_id))
            )
        except DiskFull as error:
            # Peers then meet the start before this one, which they know.
            log.warn("this start could not be recorded: {error}", error=error)

    def _check_no_store(self) -> None:
        """@raise PartsDiffer: there is a store, and its log is not here."""
        store = f"{self._settings.data_dir}/store"
        filesystem = self._host.filesystem
        instance = InstanceFile(filesystem, store).read()
        if instance is not None or current_engine(filesystem, store) is not None:
            raise PartsDiffer(
                f"there is a store in {store}, and no log in"
                f" {self._settings.data_dir}/log: the log that belongs to the store is"
                " missing"
            )

    def _acknowledge_early(self, unsynced: Unsynced) -> None:
        if not unsynced.boot_id:
            raise Refused(
                "--sync-interval: this machine does not tell one boot from another,"
                " so that a loss of power would go unnoticed: leave it out"
            )
        unsynced.begin()
        log.warn(
            "writes are acknowledged up to {ms:.0f} ms before this member's disk has"
            " them (--sync-interval)",
            ms=1000 * self._settings.node.sync_interval,
        )

    def _sync_failed(self, error: SyncFailed) -> SyncFailed:
        assert self._unsynced is not None, "a log is opened behind its mark"
        if not self._unsynced.is_set():
            return start_again(error)
        self._unsynced.give_up()
        return SyncFailed(f"{error}: {LOST}.  What to do: {REMEDY}")

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Close it; from now on nothing is acknowledged that is not synced."""
        super().stopService()
        if self.log is None:
            return
        try:
            if self._settings.node.sync_interval and self._unsynced is not None:
                # Also what is being synced now, for only one is told of a failure.
                yield self.log.sync()
                self._unsynced.end()
        except SyncFailed as error:
            log.error("{error}", error=error)
        except CancelledError:
            log.warn(
                "the disk under {path} did not sync before the stop: until this member"
                " was started again a loss of power costs its data",
                path=self.log.directory,
            )
        finally:
            self.log.close()
            self.log = None


class StoreService(Service):
    """The store, in step with the log."""

    replica: Replica | None = None

    def __init__(self, host: Host, settings: Settings, log_service: LogService) -> None:
        self._host = host
        self._settings = settings
        self._log_service = log_service

    def startService(self) -> None:
        """Open it; the first time, begin a cluster or wait to join one."""
        super().startService()
        log_ = self._log_service.log
        assert log_ is not None, "the log is opened before the store"
        identity = log_.identity
        assert identity is not None, "the log knows whose it is"
        directory = f"{self._settings.data_dir}/store"
        instance = InstanceFile(self._host.filesystem, directory)
        instance.check(identity.instance_id, log_.directory)
        store = Store.open(self._host.engines(directory))
        cluster = dict(self._settings.cluster)
        is_empty = store.applied_index == 0 and log_.last_index() == 0
        # A joiner may know its cluster and hold nothing of it yet: only who
        # began as a founder, of this very cluster, begins it.
        if is_empty and identity.cluster_id == cluster_id_of(cluster):
            members = [Member(node, cluster[node]) for node in sorted(cluster)]
            store.bootstrap(identity.cluster_id, members)
        try:
            self.replica = open_replica(log_, store)
        except PartsDiffer:
            store.close()
            raise
        instance.write(identity.instance_id)
        known = {member.id: member.url for member in store.members.values()}
        if not is_empty and known and not self._settings.join and known != cluster:
            log.info(
                "{directory} holds a cluster of members {members}: --cluster is not"
                " read any more",
                directory=self._settings.data_dir,
                members=", ".join(f"{node}={known[node]}" for node in sorted(known)),
            )

    def stopService(self) -> None:
        """Close it; the log has what it did not flush."""
        super().stopService()
        if self.replica is not None:
            self.replica.store.close()
            self.replica = None


class NodeService(Service):
    """The pump and its connections."""

    node: Node | None = None
    peers: Peers | None = None

    def __init__(
        self,
        host: Host,
        settings: Settings,
        security: Security,
        store_service: StoreService,
    ) -> None:
        self._host = host
        self._settings = settings
        self._security = security
        self._store_service = store_service

    def startService(self) -> None:
        """Take part."""
        super().startService()
        replica = self._store_service.replica
        assert replica is not None, "the store is opened before the node"
        own = replica.log.identity
        assert own is not None, "the log knows whose it is"
        member = replica.store.members.get(own.node_id)
        url = member.url if member is not None else self._settings.peer_url
        identity = PeerIdentity(
            own.node_id, own.instance_id, own.cluster_id, url, own.starts
        )
        # Elections and back-off need no secrecy, only that members differ.
        source = random.Random(int.from_bytes(self._host.entropy(16), "big"))
        reactor = self._host.reactor
        try:
            address, port = parse_peer_url(url)
        except ValueError as error:  # an earlier release may have let it in
            raise Refused(
                f"the peer URL of member {own.node_id} in its data: {error}, nor"
                " listened at.  Remove the member, and add it under a new id with"
                " another URL and an empty data directory"
            ) from error
        security = self._security

        def listen(factory: IProtocolFactory) -> IListeningPort:
            try:
                listening = reactor.listenTCP(
                    port, security.for_members(url, factory), interface=address
                )
            except CannotListenError as error:
                # What was typed is tried before; the data may have another one.
                raise Refused(
                    f"{url}, the address of member {own.node_id} in the cluster that"
                    f" its data is of: cannot listen there ({error.socketError}).  If"
                    " it was restored or recovered with a wrong --cluster, do that"
                    " again"
                ) from error
            security.peer_address = listening.getHost().host
            return cast(IListeningPort, listening)

        security.other_urls = lambda: [
            member.url
            for member in replica.store.members.values()
            if member.id != own.node_id
        ]
        node = Node(
            reactor,
            source,
            identity,
            replica,
            self._settings.node,
            self._host.stop,
            self._host.time_of_day,
        )
        node.more_warnings = lambda: chain(
            security.warnings(), self._settings.warnings()
        )
        self.peers = Peers(
            reactor,
            source,
            node,
            listen,
            security.dial(tcp_dial(reactor)),
            vouch=security.vouch(url),
        )
        node.attach(self.peers)
        self.node = node
        self.peers.startService()
        node.start()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Take no part any more."""
        super().stopService()
        if self.node is not None:
            self.node.halt()
        if self.peers is not None:
            yield maybeDeferred(self.peers.stopService)


class HTTPService(Service):
    """The clients' port."""

    site: Site | None = None
    port: IListeningPort | None = None

    def __init__(
        self,
        host: Host,
        settings: Settings,
        security: Security,
        node_service: NodeService,
    ) -> None:
        self._host = host
        self._security = security
        self._reactor = host.reactor
        self._settings = settings
        self._node_service = node_service

    def startService(self) -> None:
        """Listen."""
        super().startService()
        node = self._node_service.node
        assert node is not None, "the node is there before its clients"
        settings = self._settings
        security = self._security
        limits = RestSettings(
            max_key_bytes=settings.max_key_bytes,
            max_value_bytes=settings.max_value_bytes,
            max_connections=settings.connections,
            local_only=security.trusts_its_machine,
        )
        peers = self._node_service.peers
        assert peers is not None, "the node has its connections"
        metrics = Metrics(node, peers)
        self.site = make_site(
            node, self._reactor, limits, metrics.exposition, security.guard
        )
        metrics.site = self.site
        security.when_access_changes = node.begin_watches_anew
        factory = security.for_clients(self.site)
        try:
            self.port = self._host.listen(settings.port, factory, settings.host)
        except CannotListenError as error:
            # It was free when it was tried before the start.
            raise Refused(
                f"--port {settings.port} of --host {settings.host}: cannot listen there"
                f" ({error.socketError}).  ss -ltnp tells who does: stop that, or take"
                " another port"
            ) from error
        address: Any = self.port.getHost()
        security.client_address = address.host
        everywhere = is_unspecified(settings.host)
        # Where all addresses serve, this is one that the other members know.
        host = parse_peer_url(security.peer_url)[0] if everywhere else settings.host
        node.reports.client_url = url_of(security.scheme, host, address.port)
        log.info(
            "member {node} serves clients at {url}{more}",
            node=settings.node_id,
            url=node.reports.client_url,
            port=address.port,
            more=", and at all other addresses of this machine" if everywhere else "",
        )
        for warning in node.more_warnings():
            log.warn("WARNING: {warning}", warning=warning)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Have leadership handed over, finish what was begun, then close."""
        super().stopService()
        node = self._node_service.node
        if node is not None:
            yield node.hand_over()
            node.end_watches()
        if self.port is not None:
            yield maybeDeferred(self.port.stopListening)
        if self.site is not None:
            yield self.site.finish(self._reactor)


class Kvdb(MultiService):
    """
    The whole node.

    @ivar http: tells its port, once started.
    @ivar log_observer: what the application it becomes part of is to log with.
    """

    log_observer: ILogObserver | None = None

    def __init__(self, settings: Settings, host: Host) -> None:
        super().__init__()
        self._host = host
        security = Security(host, settings)
        log_service = LogService(host, settings)
        store_service = StoreService(host, settings, log_service)
        self.node_service = NodeService(host, settings, security, store_service)
        self.http = HTTPService(host, settings, security, self.node_service)
        for name, service in (
            ("security", security),
            ("log", log_service),
            ("store", store_service),
            ("node", self.node_service),
            ("http", self.http),
        ):
            service.setName(name)
            service.setServiceParent(self)
        self._log_service = log_service

    def setServiceParent(self, parent: Any) -> None:
        """Become part of an application, before it begins to log."""
        logs.put_on_application(parent, self.log_observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the children; what is wrong with their data is one line."""
        try:
            Service.startService(self)
            for service in self:
                service.startService()
                if service is self._log_service and self._may_not_serve():
                    return
        except FATAL as error:
            self._host.stop(str(error), 1)
        else:
            self._host.notify(READY)

    def status(self) -> NodeStatus:
        """How the node fares, once it is started."""
        node = self.node_service.node
        assert node is not None, "a node that was not started is asked"
        return node.status()

    def _may_not_serve(self) -> bool:
        opened = self._log_service.log
        identity = None if opened is None else opened.identity
        if identity is None:
            return False
        if identity.diverged:
            raise Refused(
                f"the data of member {identity.node_id} was found to differ from the"
                " other members'.  Remove the member, and add it under a new id, with"
                " an empty data directory"
            )
        if not identity.removed:
            return False
        self._host.stop(
            f"member {identity.node_id} was removed from the cluster.  To have it"
            " back, add it under a new id, with an empty data directory",
            0,
        )
        return True

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop the children from the top down, one after the other."""
        Service.stopService(self)
        self._host.notify(STOPPING)
        for service in reversed(list(self)):
            if service.running:
                stopping = maybeDeferred(service.stopService)
                stopping.addTimeout(STOP_SECONDS, self._host.reactor)
                stopping.addErrback(_note_unclean, service.name)
                yield stopping
        self._host.close()


def _note_unclean(failure: Failure, name: str) -> None:
    if failure.check(*FATAL):
        log.error("{name} did not stop cleanly: {why}", name=name, why=failure.value)
    else:
        log.failure("{name} did not stop cleanly", failure, name=name)


def makeService(options: Options, reactor: Any = None) -> Kvdb:
    """
    See L{IServiceMaker<twisted.application.service.IServiceMaker>}.

    @raise SystemExit: something is wrong; its text is the reason.
    """
    room = None
    if reactor is None:
        # The one place where the process's own reactor is taken, and where what
        # holds for the whole process is set.  Twisted's timers go by the time
        # of day, and would all stand still when that is set back.
        from twisted.internet import reactor

        sys.setswitchinterval(SWITCH_SECONDS)
        # What is there now stays; what comes is mostly freed without the
        # collector, which would look through all of it again and again.
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        reactor.seconds = time.monotonic  # type: ignore[attr-defined]
        room = allow_open_files()
    settings = evolve(options.settings(), room_for_connections=room)
    try:
        check(settings)
    except Refused as error:
        raise SystemExit(f"kvdb: {error}") from None
    host = RealHost(reactor)
    kvdb = Kvdb(settings, host)
    if is_managed():
        telling = Telling(reactor, host.notify, kvdb.status, watchdog_seconds())
        telling.setServiceParent(kvdb)
    kvdb.log_observer = logs.set_up(
        options.parent, options["log-format"], options["log-level"], reactor
    )
    host.log_observer = kvdb.log_observer
    host.logs_json = options["log-format"] == logs.JSON
    for line in ignored_variables():
        log.warn("{line}", line=line)
    return kvdb
