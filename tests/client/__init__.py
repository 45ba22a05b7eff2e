"""The client library and kvdbctl."""
