"""
The tools from a command line.

::

    backups    C{snapshot verify}, C{snapshot restore}
    recovery   C{recover}
    contents   C{fsck}, C{dump}
    disks      C{check disk}
    say        answers and notes, progress, and what goes wrong as one line
    options    what several of them are told
    main       all of them as C{python -m kvdb.offline}

Each is a Click command that does its work at once and returns its exit status, so
that any tree of commands can take it in.
"""
