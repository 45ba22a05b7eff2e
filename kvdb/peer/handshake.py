"""
Who is there: the first frame each way, and the reasons to hang up.

The side that dialled sends a L{Hello}; the other answers with its own, or with
a L{Refusal}.  The side that dialled may refuse the answer likewise.  Body of
HELLO (big-endian)::

     0  8  magic, "kvdbpeer"
     8  2  lowest protocol version spoken
    10  2  highest protocol version spoken
    12  8  cluster id; 0 from a node that is joining and has not learned it
    20  8  sender's node id
    28  8  sender's instance id: the random id of its data directory
    36  8  node id that the sender wants to reach
    44  1  purpose: 1 messages, 2 a snapshot
    45  2  length of the URL
    47  n  sender's peer URL, ASCII
        8  number of starts of the sender's data directory, with this one
        1  number of ids that follow
       8m  the ids of its newest starts, newest last
           (what follows is ignored: room for later versions)

The starts are there where the highest version is 3 or later.

Body of REFUSE: code (2 bytes), length of the text (2 bytes), text in UTF-8.

Rules:

* These two layouts, and the frame's, never change; versions are agreed on with
  them.
* Cluster ids are compared first: node ids mean nothing between clusters.
* A refusal names its remedy.  It is a fact about the configuration; a network
  that fails is never a refusal.
* A data directory that does not remember the newest start that was met of it is an
  older copy of itself, and is refused (L{kvdb.storage.starts}).

Nothing here does I/O.  Which members exist and which were removed, the node
knows; it is asked through L{PeerPolicy} and may answer with L{admit}.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from attrs import frozen

from kvdb.peer.addresses import MAX_URL_BYTES, parse_peer_url
from kvdb.peer.framing import ProtocolError
from kvdb.raft.messages import APPLY_THREAD, NO_NODE
from kvdb.storage.starts import (
    NO_INSTANCE,
    PeerStart,
    Starts,
    decode_starts,
    encode_starts,
)

MAGIC: Final = b"kvdbpeer"

MIN_VERSION: Final = 1
MAX_VERSION: Final = 3
"""The protocol versions that this release speaks."""

STARTS_VERSION: Final = 3
"""The first in which a HELLO tells the starts of its sender's data directory."""

REPORT_VERSION: Final = 2
"""The first in which members report of themselves."""

JUDGED_VERSION: Final = 3
"""The first in which membership entries say what they were judged on, and the hashes
in reports leave out why something was refused."""

NO_CLUSTER: Final = 0
"""The cluster id of a joining node that has not learned its cluster's."""

MAX_REFUSAL_BYTES: Final = 1024
"""The longest text of a refusal; the rest is cut off."""

NOT_A_PEER_TEXT: Final = (
    b"This is the port on which the members of a kvdb cluster talk to each"
    b" other. Clients use this node's HTTP port (its --port option).\n"
)

NOT_A_PEER_RESPONSE: Final = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: close\r\n"
    b"\r\n%b" % (len(NOT_A_PEER_TEXT), NOT_A_PEER_TEXT)
)
"""What somebody's curl is told."""

_HELLO: Final = struct.Struct(">8sHHQQQQBH")
_REFUSAL: Final = struct.Struct(">HH")


class Purpose(enum.IntEnum):
    """What a connection is for; the numbers are those on the wire."""

    MESSAGES = 1
    SNAPSHOT = 2


class RefusalCode(enum.IntEnum):
    """Why a peer is refused; the numbers are those on the wire."""

    OTHER = 0
    """A reason of a later version: only its text is known here."""
    WRONG_CLUSTER = 1
    UNKNOWN_MEMBER = 2
    REMOVED_MEMBER = 3
    WRONG_INSTANCE = 4
    WRONG_TARGET = 5
    UNSUPPORTED_VERSION = 6
    WRONG_CERTIFICATE = 7
    ROLLED_BACK = 8


@frozen(slots=True)
class Refusal:
    """
    Why a peer is refused.

    @ivar text: the reason and the remedy, for people.
    """

    code: RefusalCode
    text: str


@frozen(slots=True)
class Identity:
    """
    What a node says of itself.

    @ivar cluster_id: L{NO_CLUSTER} while it is joining.
    @ivar url: where its peers reach it.
    @ivar starts: those of its data directory; none from a release that does not
        tell them.
    """

    node_id: int
    instance_id: int
    cluster_id: int
    url: str
    starts: Starts = Starts()


@frozen(slots=True)
class Hello:
    """The first frame from either side: C{identity} is its sender's."""

    identity: Identity
    target: int
    purpose: Purpose
    min_version: int = MIN_VERSION
    max_version: int = MAX_VERSION


class PeerPolicy(Protocol):
    """Who decides whom this node talks to."""

    def judge(self, hello: Hello) -> Refusal | None:
        """
        Whether the peer that sent C{hello} is refused; None lets it in.

        Asked at every handshake, on both sides, and of every open connection
        again whenever the membership changes.
        """


def encode_hello(hello: Hello) -> bytes:
    """@raise ValueError: the sender's URL is too long."""
    identity = hello.identity
    url = identity.url.encode("ascii")
    if len(url) > MAX_URL_BYTES:
        raise ValueError(f"a peer URL is at most {MAX_URL_BYTES} bytes long")
    fixed = _HELLO.pack(
        MAGIC,
        hello.min_version,
        hello.max_version,
        identity.cluster_id,
        identity.node_id,
        identity.instance_id,
        hello.target,
        hello.purpose,
        len(url),
    )
    starts = encode_starts(identity.starts)
    return fixed + url + (starts if hello.max_version >= STARTS_VERSION else b"")


def decode_hello(body: bytes) -> Hello:
    """@raise ProtocolError: no peer sends that."""
    if not body.startswith(MAGIC):
        raise ProtocolError("a HELLO without the magic of kvdb peers")
    if len(body) < _HELLO.size:
        raise ProtocolError(f"a HELLO of {len(body)} bytes")
    _, low, high, cluster, node, instance, target, purpose, length = _HELLO.unpack_from(
        body
    )
    if low > high:
        raise ProtocolError(f"a HELLO with versions {low} to {high}")
    if not NO_NODE < node < APPLY_THREAD:
        raise ProtocolError(f"a HELLO from node {node}, which no member can be")
    if purpose not in (Purpose.MESSAGES, Purpose.SNAPSHOT):
        raise ProtocolError(f"a HELLO of unknown purpose {purpose}")
    encoded = body[_HELLO.size : _HELLO.size + length]
    try:
        url = encoded.decode("ascii")
        parse_peer_url(url)
    except ValueError as error:
        raise ProtocolError(f"a HELLO with a bad URL: {error}") from None
    if len(encoded) < length:
        raise ProtocolError("a HELLO with a cut URL")
    starts = Starts()
    if high >= STARTS_VERSION:
        try:
            starts = decode_starts(body[_HELLO.size + length :])
        except (struct.error, ValueError) as error:
            raise ProtocolError(f"a HELLO with bad starts: {error}") from None
    identity = Identity(node, instance, cluster, url, starts)
    return Hello(identity, target, Purpose(purpose), low, high)


def encode_refusal(refusal: Refusal) -> bytes:
    """The body of a REFUSE frame."""
    text = refusal.text.encode()[:MAX_REFUSAL_BYTES]
    return _REFUSAL.pack(refusal.code, len(text)) + text


def decode_refusal(body: bytes) -> Refusal:
    """@raise ProtocolError: it is cut short or too long."""
    if len(body) < _REFUSAL.size:
        raise ProtocolError(f"a REFUSE of {len(body)} bytes")
    number, length = _REFUSAL.unpack_from(body)
    text = body[_REFUSAL.size :][:length]
    if len(text) < length or length > MAX_REFUSAL_BYTES:
        raise ProtocolError(f"a REFUSE with a text of {length} bytes")
    known = number in RefusalCode._value2member_map_
    code = RefusalCode(number) if known else RefusalCode.OTHER
    return Refusal(code, text.decode("utf-8", "replace"))


def negotiate(mine: Hello, theirs: Hello) -> int | None:
    """The highest version that both sides speak, or None."""
    version = min(mine.max_version, theirs.max_version)
    low = max(mine.min_version, theirs.min_version)
    return version if version >= low else None


def version_refusal(mine: Hello, theirs: Hello) -> Refusal:
    """What a peer is told that L{negotiate} finds no version for."""
    return Refusal(
        RefusalCode.UNSUPPORTED_VERSION,
        f"member {mine.identity.node_id} speaks peer protocol versions"
        f" {mine.min_version} to {mine.max_version}, member"
        f" {theirs.identity.node_id} {theirs.min_version} to"
        f" {theirs.max_version}: upgrade the older one, by way of a release"
        " that speaks a version of each",
    )


def admit(
    hello: Hello,
    local: Identity,
    instances: Mapping[int, int],
    removed: Collection[int],
    starts: Mapping[int, PeerStart],
) -> Refusal | None:
    """
    The rules by which a node with a known membership lets peers in.

    A node id that is neither a member here nor removed is let in if it knows
    the cluster's id: it was told by a member, so this node is the one that is
    behind, and must hear whoever can catch it up (thesis, section 4.2.1).

    @param instances: the members' instance ids by node id, L{NO_INSTANCE}
        where none is recorded yet.
    @param removed: the node ids that were members once.
    @param starts: the newest starts that this node met, by node id.
    """
    peer = hello.identity
    joining = NO_CLUSTER in (peer.cluster_id, local.cluster_id)
    if not joining and peer.cluster_id != local.cluster_id:
        return _wrong_cluster(peer, local)
    if hello.target != local.node_id:
        return _wrong_target(hello, local)
    if peer.node_id in removed:
        return _removed_member(peer)
    if peer.node_id not in instances:
        return _unknown_member(peer) if peer.cluster_id == NO_CLUSTER else None
    if instances[peer.node_id] not in (NO_INSTANCE, peer.instance_id):
        return _wrong_instance(peer)
    met = starts.get(peer.node_id)
    if (
        met is not None
        and met.instance_id == peer.instance_id
        and peer.starts.count
        and not peer.starts.remembers(met.start)
    ):
        return _rolled_back(peer, local, met)
    return None


def _wrong_cluster(peer: Identity, local: Identity) -> Refusal:
    return Refusal(
        RefusalCode.WRONG_CLUSTER,
        f"this is member {local.node_id} of cluster {local.cluster_id:016x};"
        f" you are member {peer.node_id} of cluster {peer.cluster_id:016x}:"
        " one of the two has a wrong --cluster or a wrong --data-dir",
    )


def _wrong_target(hello: Hello, local: Identity) -> Refusal:
    return Refusal(
        RefusalCode.WRONG_TARGET,
        f"this is member {local.node_id}, not member {hello.target}: two"
        " members have been given the same URL, or one was started with"
        " another's --id",
    )


def _removed_member(peer: Identity) -> Refusal:
    return Refusal(
        RefusalCode.REMOVED_MEMBER,
        f"member {peer.node_id} was removed from the cluster, and its id is"
        f" not given again: to have it back, add it under a new id (POST /ID"
        f" with the body {peer.url}) and start it with that --id, --join and"
        " an empty --data-dir",
    )


def _unknown_member(peer: Identity) -> Refusal:
    return Refusal(
        RefusalCode.UNKNOWN_MEMBER,
        f"member {peer.node_id} is not in the cluster yet: add it (POST"
        f" /{peer.node_id} with the body {peer.url} to any member), and it"
        " will be let in",
    )


def _wrong_instance(peer: Identity) -> Refusal:
    return Refusal(
        RefusalCode.WRONG_INSTANCE,
        f"member {peer.node_id} was known with another data directory; one"
        " that lost its data may have forgotten a vote, so it may not come"
        " back under its old id: start it with the directory it had, or"
        f" remove it (DELETE /{peer.node_id}), add it under a new id (POST"
        f" /ID with the body {peer.url}) and start it with that --id, --join"
        " and an empty --data-dir",
    )


def _rolled_back(peer: Identity, local: Identity, met: PeerStart) -> Refusal:
    return Refusal(
        RefusalCode.ROLLED_BACK,
        f"the data directory of member {peer.node_id} is an older copy of itself:"
        f" member {local.node_id} has met start {met.start.number} of it, which it"
        " does not remember.  It has forgotten what it acknowledged since, votes and"
        " writes, and may not take part: start it with the directory it had, or"
        f" remove it (DELETE /{peer.node_id}), add it under a new id (POST"
        f" /ID with the body {peer.url}) and start it with that --id, --join and"
        " an empty --data-dir",
    )
