"""Between the thread that receives and the disk: a bounded queue, and the thread that writes.

What does not fit is dropped, counted and told at once; nothing waits for the disk but the queue.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping

from rosbags.interfaces import Qos

from apt_recorder.bag import Bag, BagError

_FLUSH_S = 0.5


class Sink:
    """Writes a bag in a thread of its own."""

    def __init__(self, bag: Bag, *, capacity_bytes: int, report: Callable[[str], None]) -> None:
        """
        Args:
            capacity_bytes: of messages that wait to be written.
            report: told in words, from either thread, when messages begin to be dropped and when writing ends.
        """
        self.bag = bag
        self._capacity = capacity_bytes
        self._report = report
        self._waiting: deque[tuple[str, int, bytes]] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._disk = threading.Lock()
        self._ending = False
        self._full = False
        self.failure: BagError | None = None
        """Why nothing is written any more."""
        self.written: Counter[str] = Counter()
        """Messages by topic."""
        self.dropped: Counter[str] = Counter()
        """Messages by topic that came while the queue was full, or after the disk was."""
        self._thread = threading.Thread(target=self._run, name='bag', daemon=True)
        self._thread.start()

    @property
    def backlog_bytes(self) -> int:
        """What waits to be written."""
        return self._bytes

    def announce(self, topic: str, kind: str, offered: list[Qos]) -> None:
        """See :meth:`Bag.add_topic`; before the first message of a topic."""
        with self._disk:
            try:
                self.bag.add_topic(topic, kind, offered)
            except BagError as error:
                self._give_up(error)

    def keep(self, topic: str, data: bytes, *, only_last: bool) -> None:
        """See :meth:`Bag.keep`."""
        with self._disk:
            self.bag.keep(topic, data, only_last=only_last)

    def put(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """Queue a message, or drop it if the queue is full."""
        with self._wake:
            if self.failure is None and self._bytes + len(data) <= self._capacity:
                self._waiting.append((topic, stamp_ns, data))
                self._bytes += len(data)
                self._wake.notify()
                self._full = False
                return
            self.dropped[topic] += 1
            first, self._full = not self._full, True
        if first and self.failure is None:
            self._report(f'the disk is too slow: {self._capacity / 2**20:.0f} MiB wait to be written, messages '
                         'are dropped')

    def close(self, notes: Callable[[], Mapping[str, str]]) -> None:
        """Write what waits, then finish the bag.

        Args:
            notes: asked when all is written; go into the bag's description.
        """
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()
        with self._disk:
            try:
                self.bag.close(notes())
            except BagError as error:
                self._give_up(error)

    def _run(self) -> None:
        while not (self._ending and not self._waiting):
            with self._wake:
                if not self._waiting and not self._ending:
                    self._wake.wait(_FLUSH_S)
                batch, self._waiting = self._waiting, deque()
            try:
                self._write(batch)
            except BagError as error:
                self._give_up(error)
                return

    def _write(self, batch: deque[tuple[str, int, bytes]]) -> None:
        while batch:
            topic, stamp_ns, data = batch[0]
            with self._disk:
                self.bag.write(topic, stamp_ns, data)
                self.bag.flush_if_due(_FLUSH_S)
            batch.popleft()
            self.written[topic] += 1
            with self._wake:
                self._bytes -= len(data)
        with self._disk:
            self.bag.flush_if_due(_FLUSH_S)

    def _give_up(self, error: BagError) -> None:
        with self._wake:
            first, self.failure = self.failure is None, error
            for topic, _, _ in self._waiting:
                self.dropped[topic] += 1
            self._waiting.clear()
            self._bytes = 0
        if first:
            self._report(str(error))
