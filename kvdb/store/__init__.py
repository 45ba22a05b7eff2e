"""The replicated state machine: committed commands in, records out."""
