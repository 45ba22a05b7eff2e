"""Consensus, pure: inputs in, L{Ready<kvdb.raft.messages.Ready>} out."""
