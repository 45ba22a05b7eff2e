"""TLS: files in, connections that are private out."""
