"""
C{kvdbctl}: the command.  See docs/kvdbctl.md.

::

    main      arguments in, exit status out; errors as one line
    options   what stands before or behind any command: endpoints, credentials
    session   what a command is given: a client, and where to write
    tree      which commands there are, those of other rooms too
    keys, cluster, snapshots, bench, completion    the commands

A command is a Click function that reads its arguments and returns a job: a
coroutine function that is given a L{Session}.  So arguments are checked before
any reactor is there, and jobs are run in tests without one.
"""
