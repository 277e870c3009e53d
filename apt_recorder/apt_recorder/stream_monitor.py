"""Rate, age, losses and problems of each stream, from arrival times and raw bytes.

Publishers are passed in as plain values; nothing here depends on a ROS node.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apt_policy.core.cdr import decode_leading_stamp_ns
from apt_policy.core.stream_spec import Need, StreamKind, StreamSpec
from apt_policy.core.streams import JUMP_NS, Stream

_NS = 1_000_000_000
# A stream has stopped when it is silent for this multiple of its longest regular gap: a busy machine delays messages.
_STOPPED_AGES = 4.0
_MIN_SILENCE_S = 1.0
# Kinds of messages that begin with a stamp.
_STAMPED = (StreamKind.IMAGE, StreamKind.JOINT_STATE)


@dataclass(frozen=True, kw_only=True)
class PublisherInfo:
    """Node and message type of a publisher."""

    node: str
    """Full name of the node."""
    type_name: str
    """Message type, such as ``sensor_msgs/msg/Image``."""


class StreamMonitor:
    """State of one stream."""

    def __init__(self, spec: StreamSpec, *, min_rate: float, check_age: bool) -> None:
        """Start without messages.

        Args:
            spec: the stream.
            min_rate: fraction of the contract's rate below which the stream is too slow.
            check_age: True if the stamps of the messages are valid.
        """
        self.spec = spec
        self._min_rate = min_rate
        self._check_age = check_age and spec.kind in _STAMPED
        self._need = spec.need.recorder
        # Twice the period: a slow stream is not silent between two messages.
        self._longest_gap_s = max(spec.max_age_s, 2.0 / spec.rate_hz) if spec.rate_hz else spec.max_age_s
        self._arrivals: Stream[None] = Stream(1)
        self._last_ns: int | None = None
        self._age_s = 0.0
        self._unstamped = False
        self._sequence: int | None = None
        self.received = 0
        self.bytes = 0
        self.lost = 0
        """Number of messages lost in transport, by the sequence numbers of the publisher."""
        self.publishers: tuple[PublisherInfo, ...] = ()

    def record_arrival(self, raw: bytes, now_ns: int, sequence: int | None) -> None:
        """Update rate, age and losses for a message.

        Args:
            raw: serialized message (CDR).
            now_ns: receive time on the clock of the recording [ns].
            sequence: sequence number of the publisher; None if the middleware does not report it.
        """
        self.received += 1
        self.bytes += len(raw)
        newest_ns = self._arrivals.newest_ns
        # Messages within one tick of a simulated clock count separately.
        same_tick = newest_ns is not None and 0 <= newest_ns - now_ns < JUMP_NS
        self._arrivals.push(newest_ns + 1 if same_tick and newest_ns is not None else now_ns, None)
        self._last_ns = now_ns
        if self._check_age and (stamp_ns := decode_leading_stamp_ns(raw)) is not None:
            self._unstamped = stamp_ns == 0
            self._age_s = (now_ns - stamp_ns) / _NS
        self._count_lost(sequence)

    def reset_counts(self) -> None:
        """Reset the counts, at the beginning of a recording."""
        self.received = self.bytes = self.lost = 0

    def rate_hz(self, now_ns: int) -> float:
        """Return the present rate [Hz]."""
        return self._arrivals.rate_hz(now_ns)

    def silence_s(self, now_ns: int) -> float:
        """Return the time since the last message [s]; infinite before the first."""
        return (now_ns - self._last_ns) / _NS if self._last_ns is not None else float('inf')

    def has_stopped(self, now_ns: int) -> bool:
        """Return whether a stream that had messages has stopped."""
        return (self._need in (Need.STEADY, Need.ONCE_BEGUN) and self._last_ns is not None
                and self.silence_s(now_ns) > max(_MIN_SILENCE_S, _STOPPED_AGES * self._longest_gap_s))

    def problem(self, now_ns: int) -> str:
        """Return why the stream must not be recorded as it is, and what to do; empty if it is fine."""
        if wrong := [p for p in self.publishers if p.type_name != self.spec.type_name]:
            return (f'{wrong[0].node} publishes {self.spec.topic} as {wrong[0].type_name}, expected '
                    f'{self.spec.type_name} by the contract: change one of them')
        if self._need is Need.OPTIONAL or (self._need is Need.ONCE_BEGUN and self._last_ns is None):
            return ''
        if self._last_ns is None:
            return self._silence_problem()
        if self._need is Need.ONCE:
            return ''
        if self.silence_s(now_ns) > max(self._longest_gap_s, _MIN_SILENCE_S):
            return f'no message on {self.spec.topic} for {self.silence_s(now_ns):.1f} s'
        rate_hz, wanted_hz = self.rate_hz(now_ns), self._min_rate * self.spec.rate_hz
        if rate_hz < wanted_hz:
            return (f'{self.spec.topic} has {rate_hz:.1f} Hz, expected {self.spec.rate_hz:g} Hz by the contract: check '
                    'the driver, change the contract, or set a lower --min-rate')
        return self._age_problem()

    def _silence_problem(self) -> str:
        if not self.publishers:
            return f'{self.spec.topic} has no publisher'
        names = ', '.join(sorted({publisher.node for publisher in self.publishers}))
        return f'no message received on {self.spec.topic}, which {names} publishes'

    def _age_problem(self) -> str:
        if self._unstamped:
            return (f'messages on {self.spec.topic} have no stamp: fix the driver, or accept them with '
                    f'--stamp-on-receipt {self._name}')
        if self._check_age and abs(self._age_s) > self._longest_gap_s:
            return (f'messages on {self.spec.topic} are {self._age_s:.2f} s old on arrival, expected at most '
                    f'{self._longest_gap_s:g} s: synchronise the clocks, or ignore the stamps with --stamp-on-receipt '
                    f'{self._name}')
        return ''

    @property
    def _name(self) -> str:
        return self.spec.name or self.spec.label

    def _count_lost(self, sequence: int | None) -> None:
        # Each publisher counts for itself.
        if sequence is None or len(self.publishers) > 1:
            self._sequence = None
            return
        if self._sequence is not None and sequence > self._sequence:
            self.lost += sequence - self._sequence - 1
        self._sequence = sequence


def find_problems(monitors: Sequence[StreamMonitor], now_ns: int) -> list[str]:
    """Return the problems of the streams, each with the label of its stream."""
    return [f'{monitor.spec.label}: {problem}' for monitor in monitors if (problem := monitor.problem(now_ns))]
