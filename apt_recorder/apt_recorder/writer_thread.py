"""Writer thread of a bag, behind a bounded queue.

Messages that do not fit into the queue are dropped, counted and reported at once; the receiving thread never waits for
the disk.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping

from rosbags.interfaces import Qos

from apt_recorder.bag_writer import BagError, BagWriter

# A crash loses at most the messages of this time, or of _FLUSH_BYTES in bag_writer.
_FLUSH_S = 0.5


class WriterThread:
    """Thread that writes a bag."""

    def __init__(self, bag: BagWriter, *, capacity_bytes: int, report: Callable[[str], None]) -> None:
        """Start the thread.

        Args:
            bag: bag to write to.
            capacity_bytes: size of the queue [B].
            report: called from either thread with an error message when messages are dropped or writing fails.
        """
        self.bag = bag
        self._capacity = capacity_bytes
        self._report = report
        self._waiting: deque[tuple[str, int, bytes]] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._disk = threading.Lock()
        self._ending = False
        self._full = False
        self.failure: BagError | None = None
        """Error that ended writing, if any."""
        self.written: Counter[str] = Counter()
        """Number of written messages by topic."""
        self.dropped: Counter[str] = Counter()
        """Number of dropped messages by topic: the queue or the disk was full."""
        self._thread = threading.Thread(target=self._run, name='bag', daemon=True)
        self._thread.start()

    def add_topic(self, topic: str, type_name: str, offered: list[Qos]) -> None:
        """Add a topic to the bag, before its first message; see :meth:`BagWriter.add_topic`."""
        with self._disk:
            try:
                self.bag.add_topic(topic, type_name, offered)
            except BagError as error:
                self._fail(error)

    def latch_message(self, topic: str, data: bytes, *, only_last: bool) -> None:
        """Repeat a latched message in later files; see :meth:`BagWriter.latch_message`."""
        with self._disk:
            self.bag.latch_message(topic, data, only_last=only_last)

    def enqueue(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """Queue a message, or drop it if the queue is full.

        Args:
            topic: full name, which was added before.
            stamp_ns: receive time [ns].
            data: serialized message (CDR).
        """
        with self._wake:
            if self.failure is None and self._queued_bytes + len(data) <= self._capacity:
                self._waiting.append((topic, stamp_ns, data))
                self._queued_bytes += len(data)
                self._wake.notify()
                self._full = False
                return
            self.dropped[topic] += 1
            first, self._full = not self._full, True
        if first and self.failure is None:
            self._report(f'the disk is too slow: {self._capacity / 2**20:.0f} MiB wait to be written; messages '
                         'are dropped')

    def close(self, notes: Callable[[], Mapping[str, str]]) -> None:
        """Write the queued messages, then finish the bag.

        Args:
            notes: returns ``custom_data`` of ``metadata.yaml``; called after the last message.
        """
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()
        with self._disk:
            try:
                self.bag.close(notes())
            except BagError as error:
                self._fail(error)

    def _run(self) -> None:
        while not (self._ending and not self._waiting):
            with self._wake:
                if not self._waiting and not self._ending:
                    self._wake.wait(_FLUSH_S)
                batch, self._waiting = self._waiting, deque()
            try:
                self._write(batch)
            except BagError as error:
                self._fail(error)
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
                self._queued_bytes -= len(data)
        with self._disk:
            self.bag.flush_if_due(_FLUSH_S)

    def _fail(self, error: BagError) -> None:
        with self._wake:
            first, self.failure = self.failure is None, error
            for topic, _, _ in self._waiting:
                self.dropped[topic] += 1
            self._waiting.clear()
            self._queued_bytes = 0
        if first:
            self._report(str(error))
