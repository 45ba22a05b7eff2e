"""
Tools for backups, and for data directories that nobody uses.

::

    files       the disk, as it is here: without a reactor; or without changing it
    directory   a stopped member's data, to be read; a new one, whole or not at all
    archive     what is in a backup
    restore     a backup made into the members of another cluster
    recover     what one member has made into another cluster
    fsck        what is wrong with a data directory
    dump        what is in one
    disk        whether a disk is fast enough
    command     all of them from a command line

Rules: nothing here needs a reactor or a cluster; what is read is never changed;
what is made bears its name once it is whole and durable; contents are shown when
asked for, and else only how much there is.
"""
