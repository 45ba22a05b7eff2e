"""What may be gone after a loss of power is not used."""

from __future__ import annotations

import random

import pytest
from twisted.internet.task import Clock

from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage.unsynced import PowerWasLost, Unsynced


def disk() -> SimulatedFileSystem:
    filesystem = SimulatedFileSystem(Clock(), random.Random(1))
    filesystem.make_directory("/data/log")
    filesystem.sync_directory("/data/log")
    return filesystem


def test_a_mark_of_this_boot_is_no_trouble() -> None:
    mark = Unsynced(disk(), "/data/log", "this boot")
    mark.check()
    mark.begin()
    mark.check()


def test_a_mark_of_another_boot_refuses_the_directory() -> None:
    filesystem = disk()
    Unsynced(filesystem, "/data/log", "that boot").begin()
    filesystem.crash()
    with pytest.raises(PowerWasLost, match=r"/data/log/unsynced.*under a new id"):
        Unsynced(filesystem, "/data/log", "this boot").check()


def test_a_mark_that_was_given_up_refuses_the_directory_in_any_boot() -> None:
    filesystem = disk()
    mark = Unsynced(filesystem, "/data/log", "this boot")
    mark.begin()
    filesystem.space = 0
    filesystem.sync_fails = True
    mark.give_up()
    with pytest.raises(PowerWasLost, match="its disk failed"):
        mark.check()
    filesystem.crash()
    with pytest.raises(PowerWasLost, match="its disk failed"):
        Unsynced(filesystem, "/data/log", "the next boot").check()


def test_nothing_is_given_up_where_nothing_was_acknowledged_early() -> None:
    mark = Unsynced(disk(), "/data/log", "this boot")
    mark.give_up()
    mark.check()


def test_once_all_is_synced_any_boot_will_do() -> None:
    filesystem = disk()
    mark = Unsynced(filesystem, "/data/log", "that boot")
    mark.begin()
    mark.end()
    filesystem.crash()
    Unsynced(filesystem, "/data/log", "this boot").check()
    mark.end()
