"""
Proof that the proof works: small, plausible bugs, each of which must be found.

    python -m tests.mutants               all, two at a time
    python -m tests.mutants --only NAME   one

A mutant is the product with one piece of text replaced by another
(L{tests.mutants.catalogue}).  The simulator is tried first, beginning with the
seed that is on record; where a bug is none of its business, the tests named in
the catalogue are.  One that nothing finds fails the run.
"""
