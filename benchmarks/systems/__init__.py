"""
What is measured: one module for each, all with one face, L{base.System}.

B{Only the clusters keep data.}  The others bound what one could hope for: a
server on Twisted that does nothing, and a disk that does nothing but sync.
"""

from __future__ import annotations

from typing import Final

from benchmarks.systems.bare import BareProtocol, BareSite
from benchmarks.systems.base import System
from benchmarks.systems.disk import Fdatasync
from benchmarks.systems.etcd import EtcdGrpc, EtcdHttp
from benchmarks.systems.kvdb import Kvdb
from benchmarks.systems.pysyncobj import PySyncObj

SYSTEMS: Final[dict[str, type[System]]] = {
    kind.name: kind
    for kind in (
        Kvdb,
        EtcdHttp,
        EtcdGrpc,
        PySyncObj,
        BareProtocol,
        BareSite,
        Fdatasync,
    )
}
"""By name, in the order in which they are measured."""
