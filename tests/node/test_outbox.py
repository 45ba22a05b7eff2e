"""What is sent to other members at once, a little later, and not at all."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.node.outbox import EAGER_SECONDS, LATE_SECONDS, Outbox
from kvdb.raft.messages import Entry, Message, MessageType


def news(commit: int, index: int = 9, term: int = 2, to: int = 2) -> Message:
    """An append that only tells how much is committed."""
    return Message(MessageType.APP, to, 1, term, index=index, commit=commit)


def append(commit: int, index: int = 9, term: int = 2) -> Message:
    message = news(commit, index, term)
    message.entries = [Entry(term, index + 1)]
    return message


HEARTBEAT = Message(MessageType.HEARTBEAT, 2, 1, 2)


class OutboxTests(SynchronousTestCase):
    """L{Outbox}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[int, list[Message]]] = []
        self.outbox = Outbox(self.clock, self)

    def send(self, to: int, messages: Sequence[Message]) -> None:
        self.sent.append((to, list(messages)))

    def send_now(self, message: Message) -> bool:
        self.sent.append((message.to, [message]))
        return True

    def test_news_waits_and_is_sent_if_nothing_else_tells_it(self) -> None:
        late = news(5)
        self.outbox.send(2, [late])
        self.assertEqual(self.sent, [])
        self.clock.advance(LATE_SECONDS)
        self.assertEqual(self.sent, [(2, [late])])
        self.clock.advance(1)
        self.assertEqual(len(self.sent), 1)

    def test_the_next_append_tells_it_as_well(self) -> None:
        self.outbox.send(2, [news(5)])
        following = append(5)
        self.outbox.send(2, [following])
        self.clock.advance(1)
        self.assertEqual(self.sent, [(2, [following])])

    def test_newer_news_takes_the_place_of_older(self) -> None:
        newer = news(6)
        self.outbox.send(2, [news(5)])
        self.outbox.send(2, [newer])
        self.clock.advance(1)
        self.assertEqual(self.sent, [(2, [newer])])

    def test_what_tells_less_does_not_take_its_place_and_order_is_kept(self) -> None:
        for other in (HEARTBEAT, append(4), append(5, index=8), append(5, term=3)):
            self.sent.clear()
            late = news(5)
            self.outbox.send(2, [late])
            self.outbox.send(2, [other])
            self.assertEqual(self.sent, [(2, [late, other])])

    def test_each_member_has_its_own(self) -> None:
        self.outbox.send(2, [news(5)])
        self.outbox.send(3, [append(5)])
        self.clock.advance(1)
        self.assertEqual([to for to, _ in self.sent], [3, 2])

    def test_a_member_with_callers_is_told_at_once_for_a_while(self) -> None:
        self.outbox.has_callers(2)
        self.outbox.send(2, [news(5)])
        self.assertEqual(len(self.sent), 1)
        self.clock.advance(EAGER_SECONDS)
        self.outbox.send(2, [news(6)])
        self.assertEqual(len(self.sent), 1)

    def test_nothing_is_sent_any_more_once_it_is_closed(self) -> None:
        self.outbox.send(2, [news(5)])
        self.outbox.close()
        self.clock.advance(1)
        self.assertEqual((self.sent, self.clock.getDelayedCalls()), ([], []))
