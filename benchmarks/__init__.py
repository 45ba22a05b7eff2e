"""
How fast kvdb is, what it costs, and how that compares.

::

    python -m benchmarks                        all suites, all systems here
    python -m benchmarks --quick                whether all of it works
    python -m benchmarks --suites puts,reads --systems kvdb,etcd-http

======================  =========================================================
L{systems}              what is measured: clusters, and what bounds them
L{load}, L{latency}     what is asked of them; how long answers took
L{wrk}, L{goload}       who asks: closed loops over HTTP; gRPC, and open loops
L{fill}, L{attempts}    keys put in before; single writes, to see who serves
L{rounds}               one measurement; rounds, medians and ratios
L{throughput}           the suites puts, reads and mix
L{open_loop}            the suite open
L{availability}, L{footprint}, L{recovery}   the suite costs
L{scale}                the suite scale
L{report}, L{plot}      tables, JSON, Markdown; curves
======================  =========================================================

Rules:

* One system's processes run at a time, and only on 127.0.0.1.
* A measurement with any error is invalid, and is shown as such.
* Everything started is ended by its own id, whatever happens.
"""
