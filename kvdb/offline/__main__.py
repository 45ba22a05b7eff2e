"""C{python -m kvdb.offline}: see L{kvdb.offline.command}."""

from kvdb.offline.command.main import main

main()
