"""The recorder as a ROS node: hears every stream of the contract as raw bytes and passes them on.

Nothing is decoded but the few words that say where episodes begin. What is missing, what an episode is and
how a bag is written are decided elsewhere.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from std_msgs.msg import String

from apt_policy.core import topics
from apt_policy.core.stream_spec import CAMERA_KINDS, FIXED_STREAMS, PROMPT_KINDS, StreamKind, StreamSpec
from apt_policy.core.topics import EpisodeMark
from apt_policy.ros.qos import advertise, message_class, profile
from apt_recorder import cdr
from apt_recorder.marks import Marker
from apt_recorder.quality import offered
from apt_recorder.sink import Sink
from apt_recorder.watch import Publisher, StreamWatch, complaints

_LOOK_ROUND_S = 0.5
# Messages that may wait in the middleware; pictures are large.
_QUEUE, _QUEUE_OF_CAMERA = 100, 30


class Recorder(Node):
    """The node ``apt_record``."""

    def __init__(self, specs: Sequence[StreamSpec], *, marker: Marker, min_rate: float,
                 unstamped: Sequence[str], report: Callable[[str], None]) -> None:
        """Subscribe to every stream.

        Args:
            marker: keeps the episode; marks that it answers with are published here.
            min_rate, unstamped: see :class:`StreamWatch`; ``unstamped`` names cameras and arms.
            report: told in words what goes wrong.
        """
        super().__init__('apt_record')
        self.marker = marker
        self._report = report
        self._sink: Sink | None = None
        self._stopped = False
        self._passing = threading.Lock()
        self._clock_ns = 0
        self._latched: dict[str, list[bytes]] = {}
        self._dead: set[str] = set()
        self._words = {StreamKind.PROMPT: self._on_prompt, StreamKind.ACTIVE_PROMPT: self._on_prompt,
                       StreamKind.EPISODE_MARK: self._on_mark, StreamKind.CLOCK: self._on_clock}
        self._marks = advertise(self, FIXED_STREAMS[StreamKind.EPISODE_MARK])
        self._streams = [_Stream(self, spec, StreamWatch(
            spec, min_rate=min_rate, check_age=spec.name not in unstamped)) for spec in specs]
        self.create_timer(_LOOK_ROUND_S, self._look_round)

    @property
    def watches(self) -> list[StreamWatch]:
        """One per stream."""
        return [stream.watch for stream in self._streams]

    def now_ns(self) -> int:
        """The clock of the recording: simulated where there is one, else the system's."""
        return self._clock_ns or time.time_ns()

    @property
    def simulated(self) -> bool:
        """Whether there is a simulated clock."""
        return self._clock_ns > 0

    def watch_ns(self, watch: StreamWatch) -> int:
        """The clock that a stream's rate is measured on; the clock's own cannot be itself."""
        return time.monotonic_ns() if watch.spec.kind is StreamKind.CLOCK else self.now_ns()

    def complaints(self) -> list[str]:
        """Everything that forbids a recording now."""
        return [line for watch in self.watches for line in complaints([watch], self.watch_ns(watch))]

    def start(self, sink: Sink) -> None:
        """From now on everything goes to ``sink``, what was latched first."""
        with self._passing:
            for topic, kept in self._latched.items():
                stream = next(s for s in self._streams if s.topic == topic)
                stream.announce(sink)
                for data in kept:
                    sink.put(topic, self.now_ns(), data)
                    sink.keep(topic, data, only_last=stream.only_last)
            for stream in self._streams:
                stream.watch.restart()
                # Heard from now on only: who waits for a recorder takes it for the sign to begin.
                stream.open()
            self._sink = sink

    def stop(self) -> None:
        """What comes from now on is neither counted nor recorded."""
        with self._passing:
            self._stopped, self._sink = True, None

    def mark(self, marks: Sequence[EpisodeMark]) -> None:
        """Publish episode marks; they are recorded as everybody hears them."""
        for mark in marks:
            self._marks.publish(String(data=mark.value))

    def take(self, stream: '_Stream', raw: bytes, sequence: int | None) -> None:
        """A message of a stream came; ``sequence`` is its publisher's number of it, if known."""
        if hear := self._words.get(stream.spec.kind):
            hear(raw)
        now_ns = self.now_ns()
        latched = stream.latched or stream.only_last
        with self._passing:
            if self._stopped:
                return
            stream.watch.take(raw, self.watch_ns(stream.watch), sequence)
            if latched:
                self._remember(stream, raw)
            if self._sink is None:
                return
            stream.announce(self._sink)
            self._sink.put(stream.topic, now_ns, raw)
            if latched:
                self._sink.keep(stream.topic, raw, only_last=stream.only_last)

    def _remember(self, stream: '_Stream', raw: bytes) -> None:
        kept = [] if stream.only_last else self._latched.setdefault(stream.topic, [])
        if raw not in kept:
            self._latched[stream.topic] = [*kept, raw]

    def _on_clock(self, raw: bytes) -> None:
        self._clock_ns = cdr.leading_stamp_ns(raw) or self._clock_ns

    def _on_prompt(self, raw: bytes) -> None:
        text = cdr.string(raw)
        if text is not None and self._sink is not None:
            self.mark(self.marker.prompt(text))

    def _on_mark(self, raw: bytes) -> None:
        if wrong := self.marker.heard(cdr.string(raw) or ''):
            self._report(f'{topics.EPISODE}: {wrong}')

    def _look_round(self) -> None:
        """Fit subscriptions to publishers, and notice streams that died or came back."""
        for stream in self._streams:
            stream.adapt()
            watch, label = stream.watch, stream.spec.label
            died = watch.died(self.watch_ns(watch))
            if self._sink is None or died == (label in self._dead):
                continue
            if died:
                self._dead.add(label)
                self._event('died', stream)
                self._report(f'{label} has died: {stream.topic} is silent for '
                             f'{watch.silent_s(self.watch_ns(watch)):.1f} s')
            else:
                self._dead.discard(label)
                self._event('returned', stream)
                self._report(f'{label} is back')

    def _event(self, what: str, stream: '_Stream') -> None:
        """Note it in the bag, where and when it happened."""
        sink = self._sink
        if sink is None:
            return
        topic = str(self.resolve_topic_name(EVENTS))
        sink.announce(topic, 'std_msgs/msg/String', [])
        text = f'{what} {stream.spec.label} {stream.topic}'
        sink.put(topic, self.now_ns(), cdr.encoded_string(text))


EVENTS = 'apt/record_events'
"""std_msgs/String, in bags only: ``died`` or ``returned``, the stream's name, its topic."""


class _Stream:
    """One subscription, made anew when its publishers turn out to be of another quality."""

    def __init__(self, recorder: Recorder, spec: StreamSpec, watch: StreamWatch) -> None:
        self.spec, self.watch = spec, watch
        self.topic = str(recorder.resolve_topic_name(spec.topic))
        self._recorder = recorder
        self._kind = message_class(spec.type_name)
        self._announced = False
        self._subscription: Subscription | None = None
        self._quality: QoSProfile | None = None
        self._is_open = spec.kind is not StreamKind.EPISODE_MARK
        if self._is_open:
            self._subscribe(_adapted([], spec))

    @property
    def latched(self) -> bool:
        """Whether its messages are kept for those who come late."""
        return self._quality is not None and self._quality.durability is DurabilityPolicy.TRANSIENT_LOCAL

    @property
    def only_last(self) -> bool:
        """Whether what was said before it is void."""
        return self.spec.kind in PROMPT_KINDS

    def announce(self, sink: Sink) -> None:
        """Tell the bag of the topic, with the quality that its publishers offer."""
        if not self._announced:
            self._announced = True
            ends = self._recorder.get_publishers_info_by_topic(self.topic)
            sink.announce(self.topic, self.spec.type_name, [offered(end.qos_profile) for end in ends])

    def open(self) -> None:
        """Begin to hear a stream that was left alone until the recording began."""
        if not self._is_open:
            self._is_open = True
            self.adapt()

    def adapt(self) -> None:
        """Look who publishes, and hear all of them."""
        if not self._is_open:
            return
        ends = self._recorder.get_publishers_info_by_topic(self.topic)
        self.watch.publishers = tuple(Publisher(
            node=f'{end.node_namespace.rstrip("/")}/{end.node_name}', kind=end.topic_type) for end in ends)
        wanted = _adapted(ends, self.spec)
        before = self._quality
        if before is None or (wanted.reliability, wanted.durability) != (before.reliability, before.durability):
            self._subscribe(wanted)

    def _subscribe(self, quality: QoSProfile) -> None:
        if self._subscription is not None:
            self._recorder.destroy_subscription(self._subscription)
        self._quality = quality
        # Humble's rclpy tells nothing about a message but its bytes.
        hear: Any = self._hear if hasattr(Subscription, 'CallbackType') else self._hear_bytes
        self._subscription = self._recorder.create_subscription(
            self._kind, self.topic, hear, quality, raw=True)

    def _hear(self, raw: bytes, info: dict[str, Any]) -> None:
        self._recorder.take(self, raw, info.get('publication_sequence_number'))

    def _hear_bytes(self, raw: bytes) -> None:
        self._recorder.take(self, raw, None)


def _adapted(ends: Sequence[TopicEndpointInfo], spec: StreamSpec) -> QoSProfile:
    """The quality that hears all publishers, and as much of each as they offer together."""
    quality = profile(spec.role)
    quality.depth = max(quality.depth, _QUEUE_OF_CAMERA if spec.kind in CAMERA_KINDS else _QUEUE)
    if ends:
        profiles = [end.qos_profile for end in ends]
        reliable = all(one.reliability is ReliabilityPolicy.RELIABLE for one in profiles)
        latched = all(one.durability is DurabilityPolicy.TRANSIENT_LOCAL for one in profiles)
        quality.reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        quality.durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return quality
