"""
What a node is told when it is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from kvdb.node.settings import NodeSettings
from kvdb.rest.site import MAX_CONNECTIONS
from kvdb.tls.settings import TLSFiles


@frozen(slots=True, kw_only=True)
class Settings:
    """
    @ivar cluster: the peer URL of each member, by id; read only when the node
        starts without data.
    @ivar join: the cluster is there already, and this node is new to it.
    @ivar data_dir: absolute.
    @ivar host: where clients are listened for.
    @ivar port: likewise; 0 for any.
    @ivar tls: for clients; None for plain HTTP.
    @ivar peer_tls: for members whose URL is https.
    @ivar access_file: absolute; None where everybody may do everything.
    @ivar max_connections: of clients, as was asked for.
    @ivar room_for_connections: what the limit of open files leaves for them; None
        where nobody has looked.
    """

    node_id: int
    cluster: Mapping[int, str]
    join: bool
    data_dir: str
    host: str
    port: int
    max_key_bytes: int
    max_value_bytes: int
    node: NodeSettings
    tls: TLSFiles | None = None
    peer_tls: TLSFiles | None = None
    access_file: str | None = None
    max_connections: int = MAX_CONNECTIONS
    room_for_connections: int | None = None

    @property
    def connections(self) -> int:
        """How many clients may be connected at a time."""
        if self.room_for_connections is None:
            return self.max_connections
        return min(self.max_connections, self.room_for_connections)

    def warnings(self) -> Iterator[str]:
        """What is not as was asked for."""
        if self.connections < self.max_connections:
            yield (
                f"{self.connections} connections of clients are allowed at a time, and"
                f" not {self.max_connections} (--max-connections): raise the limit of"
                " open files (ulimit -Hn, LimitNOFILE), or ask for fewer"
            )

    @property
    def peer_url(self) -> str:
        """Where this node's peers reach it."""
        return self.cluster[self.node_id]
