"""How each stream is doing: rate, age, losses, and in words what is wrong with it.

Given arrival times and raw bytes; publishers are told to it as plain facts. It knows no node.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apt_policy.core.stream_spec import Need, StreamKind, StreamSpec
from apt_policy.core.streams import JUMP_NS, Stream
from apt_recorder.cdr import leading_stamp_ns

_NS = 1_000_000_000
# A steady stream is given up for dead after this many times its longest age, on a busy machine too.
_PATIENCE = 4.0
_AT_LEAST_S = 1.0
# Their first bytes are the stamp of what they tell.
_STAMPED = (StreamKind.IMAGE, StreamKind.JOINT_STATE)


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Who publishes a topic."""

    node: str
    kind: str
    """Message type."""


class StreamWatch:
    """The state of one stream."""

    def __init__(self, spec: StreamSpec, *, min_rate: float, check_age: bool) -> None:
        """
        Args:
            min_rate: share of the contract's rate below which the stream is too slow.
            check_age: whether the stamps of its messages can be believed.
        """
        self.spec = spec
        self._min_rate = min_rate
        self._check_age = check_age and spec.kind in _STAMPED
        self._need = spec.need.recorder
        # A slow stream is not silent between two messages.
        self._longest_gap_s = max(spec.max_age_s, 2.0 / spec.rate_hz) if spec.rate_hz else spec.max_age_s
        self._arrivals: Stream[None] = Stream(1)
        self._last_ns: int | None = None
        self._age_s = 0.0
        self._unstamped = False
        self._sequence: int | None = None
        self.received = 0
        self.bytes = 0
        self.lost = 0
        """Messages that were sent and never came, by the publisher's own numbers."""
        self.publishers: tuple[Publisher, ...] = ()

    def take(self, raw: bytes, now_ns: int, sequence: int | None) -> None:
        """A message came.

        Args:
            now_ns: on the clock of the recording.
            sequence: the publisher's number of it, if the middleware tells.
        """
        self.received += 1
        self.bytes += len(raw)
        newest_ns = self._arrivals.newest_ns
        # Two that come within one tick of a simulated clock count as two.
        crowded = newest_ns is not None and 0 <= newest_ns - now_ns < JUMP_NS
        self._arrivals.add(newest_ns + 1 if crowded and newest_ns is not None else now_ns, None)
        self._last_ns = now_ns
        if self._check_age and (stamp_ns := leading_stamp_ns(raw)) is not None:
            self._unstamped = stamp_ns == 0
            self._age_s = (now_ns - stamp_ns) / _NS
        self._count_lost(sequence)

    def restart(self) -> None:
        """Count from here: what came before belongs to no recording."""
        self.received = self.bytes = self.lost = 0

    def rate_hz(self, now_ns: int) -> float:
        """Messages per second of late."""
        return self._arrivals.rate_hz(now_ns)

    def silent_s(self, now_ns: int) -> float:
        """Since the last message; infinite before the first."""
        return (now_ns - self._last_ns) / _NS if self._last_ns is not None else float('inf')

    def died(self, now_ns: int) -> bool:
        """Whether a stream that flowed has stopped."""
        return (self._need in (Need.STEADY, Need.ONCE_BEGUN) and self._last_ns is not None
                and self.silent_s(now_ns) > max(_AT_LEAST_S, _PATIENCE * self._longest_gap_s))

    def complaint(self, now_ns: int) -> str:
        """Why a recording of it would be worth nothing, and what to do; empty if it is well."""
        if wrong := [p for p in self.publishers if p.kind != self.spec.type_name]:
            return (f'{wrong[0].node} publishes {self.spec.topic} as {wrong[0].kind}, the contract says '
                    f'{self.spec.type_name}: change one of them')
        if self._need is Need.OPTIONAL or (self._need is Need.ONCE_BEGUN and self._last_ns is None):
            return ''
        if self._last_ns is None:
            return self._silence()
        if self._need is Need.ONCE:
            return ''
        if self.silent_s(now_ns) > max(self._longest_gap_s, _AT_LEAST_S):
            return f'{self.spec.topic} has been silent for {self.silent_s(now_ns):.1f} s'
        rate_hz, wanted_hz = self.rate_hz(now_ns), self._min_rate * self.spec.rate_hz
        if rate_hz < wanted_hz:
            return (f'{self.spec.topic} comes at {rate_hz:.1f} Hz, the contract says {self.spec.rate_hz:g} Hz; '
                    'if that is meant, change the contract or give a lower --min-rate')
        return self._staleness()

    def _silence(self) -> str:
        if not self.publishers:
            return f'nobody publishes {self.spec.topic}'
        names = ', '.join(sorted({publisher.node for publisher in self.publishers}))
        return f'{names} publishes {self.spec.topic}, but nothing arrives'

    def _staleness(self) -> str:
        if self._unstamped:
            return f'messages on {self.spec.topic} carry no stamp; --stamp-on-receipt {self._name} if that is meant'
        if self._check_age and abs(self._age_s) > self._longest_gap_s:
            return (f'messages on {self.spec.topic} are {self._age_s:.2f} s old when they come, the limit is '
                    f'{self._longest_gap_s:g} s; set the clocks, or --stamp-on-receipt {self._name} if its stamps '
                    'are wrong')
        return ''

    @property
    def _name(self) -> str:
        return self.spec.name or self.spec.label

    def _count_lost(self, sequence: int | None) -> None:
        # Numbers of several publishers cannot be told apart.
        if sequence is None or len(self.publishers) > 1:
            self._sequence = None
            return
        if self._sequence is not None and sequence > self._sequence:
            self.lost += sequence - self._sequence - 1
        self._sequence = sequence


def complaints(watches: Sequence[StreamWatch], now_ns: int) -> list[str]:
    """What is wrong with each stream that is not well, by its label."""
    return [f'{watch.spec.label}: {wrong}' for watch in watches if (wrong := watch.complaint(now_ns))]
