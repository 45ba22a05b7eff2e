"""The simulator and what it goes by."""
