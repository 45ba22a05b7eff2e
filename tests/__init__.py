"""The tests of kvdb, one package for each of its rooms."""
