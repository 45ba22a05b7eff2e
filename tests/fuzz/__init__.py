"""
Decoders of bytes from outside, given bytes that nobody meant.

C{targets} is what is tried, C{seeds} the valid bytes it begins with, C{corpus}
the bytes that once took a way of their own through the code.  C{python -m
tests.fuzz} looks for more of them; the tests go through those that are kept.
"""
