"""What twistd finds: C{twistd kvdb}."""

from twisted.application.service import ServiceMaker

kvdb = ServiceMaker("kvdb", "kvdb.service", "A replicated key-value store.", "kvdb")
