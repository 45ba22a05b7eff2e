"""One Raft group, driven: data moved between consensus, log, store and peers."""
