"""ROS node that subscribes to every stream of the contract as raw bytes and passes them to a writer thread.

Only prompts, episode marks and the clock are decoded.
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

from apt_policy.core import cdr, topics
from apt_policy.core.stream_spec import CAMERA_KINDS, FIXED_STREAMS, PROMPT_KINDS, StreamKind, StreamSpec
from apt_policy.core.topics import EpisodeMark
from apt_policy.ros.qos import advertise, message_class, profile
from apt_recorder.episode_marker import EpisodeMarker
from apt_recorder.qos import to_rosbags_qos
from apt_recorder.stream_monitor import PublisherInfo, StreamMonitor, find_problems
from apt_recorder.writer_thread import WriterThread

_CHECK_PERIOD_S = 0.5
# Depth of the subscriptions; images take much memory.
_DEPTH, _CAMERA_DEPTH = 100, 30


class Recorder(Node):
    """Node ``apt_record``."""

    def __init__(self, specs: Sequence[StreamSpec], *, marker: EpisodeMarker, min_rate: float,
                 unstamped: Sequence[str], report: Callable[[str], None]) -> None:
        """Subscribe to every stream.

        Args:
            specs: streams to record.
            marker: decides the episode marks that this node publishes.
            min_rate: fraction of the contract's rate below which a stream is too slow.
            unstamped: cameras and arms whose stamps are ignored.
            report: called with an error message when a stream fails.
        """
        super().__init__('apt_record')
        self.marker = marker
        self._report = report
        self._writer: WriterThread | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._clock_ns = 0
        self._latched: dict[str, list[bytes]] = {}
        self._stopped_labels: set[str] = set()
        self._handlers = {StreamKind.PROMPT: self._on_prompt, StreamKind.ACTIVE_PROMPT: self._on_prompt,
                       StreamKind.EPISODE_MARK: self._on_mark, StreamKind.CLOCK: self._on_clock}
        self._marks = advertise(self, FIXED_STREAMS[StreamKind.EPISODE_MARK])
        self._streams = [_Stream(self, spec, StreamMonitor(
            spec, min_rate=min_rate, check_age=spec.name not in unstamped)) for spec in specs]
        self.create_timer(_CHECK_PERIOD_S, self._check_streams)

    @property
    def monitors(self) -> list[StreamMonitor]:
        """State of each stream."""
        return [stream.monitor for stream in self._streams]

    def now_ns(self) -> int:
        """Return the time of the recording [ns]: simulated if there is a simulated clock, else system time."""
        return self._clock_ns or time.time_ns()

    @property
    def has_simulated_time(self) -> bool:
        """True if a simulated clock was received."""
        return self._clock_ns > 0

    def monitor_ns(self, monitor: StreamMonitor) -> int:
        """Return the time on which the rate of a stream is measured [ns]; the clock itself is measured in wall time."""
        return time.monotonic_ns() if monitor.spec.kind is StreamKind.CLOCK else self.now_ns()

    def stream_problems(self) -> list[str]:
        """Return the problems of all streams; a recording must not start while there are any."""
        return [line for monitor in self.monitors for line in find_problems([monitor], self.monitor_ns(monitor))]

    def start(self, writer: WriterThread) -> None:
        """Record all messages with ``writer``, latched ones first."""
        with self._lock:
            for topic, latched in self._latched.items():
                stream = next(s for s in self._streams if s.topic == topic)
                stream.add_to(writer)
                for data in latched:
                    writer.enqueue(topic, self.now_ns(), data)
                    writer.latch_message(topic, data, only_last=stream.only_last)
            for stream in self._streams:
                stream.monitor.reset_counts()
                # Only now: other nodes take the subscription to episode marks as the sign that recording began.
                stream.activate()
            self._writer = writer

    def stop(self) -> None:
        """Neither count nor record further messages."""
        with self._lock:
            self._stopped, self._writer = True, None

    def publish_marks(self, marks: Sequence[EpisodeMark]) -> None:
        """Publish episode marks. They are recorded when this node receives them."""
        for mark in marks:
            self._marks.publish(String(data=mark.value))

    def record_message(self, stream: '_Stream', raw: bytes, sequence: int | None) -> None:
        """Record a message.

        Args:
            stream: its stream.
            raw: serialized message (CDR).
            sequence: sequence number of the publisher; None if unknown.
        """
        if handle := self._handlers.get(stream.spec.kind):
            handle(raw)
        now_ns = self.now_ns()
        latched = stream.latched or stream.only_last
        with self._lock:
            if self._stopped:
                return
            stream.monitor.record_arrival(raw, self.monitor_ns(stream.monitor), sequence)
            if latched:
                self._latch(stream, raw)
            if self._writer is None:
                return
            stream.add_to(self._writer)
            self._writer.enqueue(stream.topic, now_ns, raw)
            if latched:
                self._writer.latch_message(stream.topic, raw, only_last=stream.only_last)

    def _latch(self, stream: '_Stream', raw: bytes) -> None:
        latched = [] if stream.only_last else self._latched.setdefault(stream.topic, [])
        if raw not in latched:
            self._latched[stream.topic] = [*latched, raw]

    def _on_clock(self, raw: bytes) -> None:
        self._clock_ns = cdr.decode_leading_stamp_ns(raw) or self._clock_ns

    def _on_prompt(self, raw: bytes) -> None:
        text = cdr.decode_string(raw)
        if text is not None and self._writer is not None:
            self.publish_marks(self.marker.on_prompt(text))

    def _on_mark(self, raw: bytes) -> None:
        if problem := self.marker.on_mark(cdr.decode_string(raw) or ''):
            self._report(f'{topics.EPISODE}: {problem}')

    def _check_streams(self) -> None:
        """Adapt subscriptions to the publishers, and report streams that stopped or returned."""
        for stream in self._streams:
            stream.adapt()
            monitor, label = stream.monitor, stream.spec.label
            stopped = monitor.has_stopped(self.monitor_ns(monitor))
            if self._writer is None or stopped == (label in self._stopped_labels):
                continue
            if stopped:
                self._stopped_labels.add(label)
                self._record_event('died', stream)
                self._report(f'{label} has stopped: no message on {stream.topic} for '
                             f'{monitor.silence_s(self.monitor_ns(monitor)):.1f} s')
            else:
                self._stopped_labels.discard(label)
                self._record_event('returned', stream)
                self._report(f'{label} has returned')

    def _record_event(self, event: str, stream: '_Stream') -> None:
        """Write an event of a stream to the bag."""
        writer = self._writer
        if writer is None:
            return
        topic = str(self.resolve_topic_name(EVENTS))
        writer.add_topic(topic, 'std_msgs/msg/String', [])
        text = f'{event} {stream.spec.label} {stream.topic}'
        writer.enqueue(topic, self.now_ns(), cdr.encode_string(text))


EVENTS = 'apt/record_events'
"""Topic of std_msgs/String, in bags only: ``died`` or ``returned``, the label of the stream and its topic."""


class _Stream:
    """Subscription of one stream, replaced when the quality of service of its publishers changes."""

    def __init__(self, recorder: Recorder, spec: StreamSpec, monitor: StreamMonitor) -> None:
        self.spec, self.monitor = spec, monitor
        self.topic = str(recorder.resolve_topic_name(spec.topic))
        self._recorder = recorder
        self._message_class = message_class(spec.type_name)
        self._is_added = False
        self._subscription: Subscription | None = None
        self._qos: QoSProfile | None = None
        self._is_active = spec.kind is not StreamKind.EPISODE_MARK
        if self._is_active:
            self._subscribe(_matching_qos([], spec))

    @property
    def latched(self) -> bool:
        """True if all publishers are latched (transient local)."""
        return self._qos is not None and self._qos.durability is DurabilityPolicy.TRANSIENT_LOCAL

    @property
    def only_last(self) -> bool:
        """True if each message replaces the ones before."""
        return self.spec.kind in PROMPT_KINDS

    def add_to(self, writer: WriterThread) -> None:
        """Add the topic to the bag, with the quality of service of its publishers."""
        if not self._is_added:
            self._is_added = True
            ends = self._recorder.get_publishers_info_by_topic(self.topic)
            writer.add_topic(self.topic, self.spec.type_name, [to_rosbags_qos(end.qos_profile) for end in ends])

    def activate(self) -> None:
        """Subscribe to a stream that is ignored before the recording."""
        if not self._is_active:
            self._is_active = True
            self.adapt()

    def adapt(self) -> None:
        """Update the publishers, and subscribe so that all of them match."""
        if not self._is_active:
            return
        ends = self._recorder.get_publishers_info_by_topic(self.topic)
        self.monitor.publishers = tuple(PublisherInfo(
            node=f'{end.node_namespace.rstrip("/")}/{end.node_name}', type_name=end.topic_type) for end in ends)
        qos = _matching_qos(ends, self.spec)
        before = self._qos
        if before is None or (qos.reliability, qos.durability) != (before.reliability, before.durability):
            self._subscribe(qos)

    def _subscribe(self, qos: QoSProfile) -> None:
        if self._subscription is not None:
            self._recorder.destroy_subscription(self._subscription)
        self._qos = qos
        # Humble's rclpy passes no message info to callbacks.
        callback: Any = self._on_message if hasattr(Subscription, 'CallbackType') else self._on_bytes
        self._subscription = self._recorder.create_subscription(
            self._message_class, self.topic, callback, qos, raw=True)

    def _on_message(self, raw: bytes, info: dict[str, Any]) -> None:
        self._recorder.record_message(self, raw, info.get('publication_sequence_number'))

    def _on_bytes(self, raw: bytes) -> None:
        self._recorder.record_message(self, raw, None)


def _matching_qos(ends: Sequence[TopicEndpointInfo], spec: StreamSpec) -> QoSProfile:
    """Return the strictest quality of service that matches all publishers."""
    qos = profile(spec.role)
    qos.depth = max(qos.depth, _CAMERA_DEPTH if spec.kind in CAMERA_KINDS else _DEPTH)
    if ends:
        profiles = [end.qos_profile for end in ends]
        reliable = all(one.reliability is ReliabilityPolicy.RELIABLE for one in profiles)
        latched = all(one.durability is DurabilityPolicy.TRANSIENT_LOCAL for one in profiles)
        qos.reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return qos
