"""kvdb: a key-value store replicated by Raft, on Twisted."""

__version__ = "0.1.0"
