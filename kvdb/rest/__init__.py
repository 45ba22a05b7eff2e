"""HTTP in, proposals and reads out."""
