"""Listeners of /tf and /tf_static: tf2_ros if installed, else the suite's own buffer.

Both implement ``core.transforms.TransformSource`` and pass the same tests. A look-up never
waits: it returns a transform or raises an error with the reason.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from apt_policy.core.decode import decode_transform
from apt_policy.core.geometry import pose_from_quaternion
from apt_policy.core.stream_spec import FIXED_STREAMS, StreamKind
from apt_policy.core.transforms import (
    ExtrapolationError,
    StampedTransform,
    TransformBuffer,
    TransformError,
    TransformRefusedError,
    TransformSource,
    UnconnectedError,
    UnknownFrameError,
)
from apt_policy.ros.qos import subscribe, subscription_events

_STREAMS = FIXED_STREAMS[StreamKind.TRANSFORMS], FIXED_STREAMS[StreamKind.STATIC_TRANSFORMS]
TOPICS = tuple(stream.topic for stream in _STREAMS)

ReportProblem = Callable[[str, str], None]


class TransformListener(TransformSource, Protocol):
    """Transform source that subscribes to a node's topics."""

    def close(self) -> None:
        """Remove the subscriptions."""


class BufferListener:
    """Listener that fills ``core.transforms.TransformBuffer`` from two subscriptions."""

    def __init__(self, node: Node, report: ReportProblem) -> None:
        """Subscribe with ``node``; ``report`` is called with the topic and a sentence per refused transform."""
        self._node = node
        self._report = report
        self._buffer = TransformBuffer()
        self.lookup = self._buffer.lookup
        self.latest_common_ns = self._buffer.latest_common_ns
        self.clear = self._buffer.clear
        stores = self._buffer.set_transform, self._buffer.set_static_transform
        self._subscriptions = [
            subscribe(node, stream, partial(self._insert, stream.topic, store),
                      events=subscription_events(stream.topic, report))
            for stream, store in zip(_STREAMS, stores, strict=True)]

    def close(self) -> None:
        """Remove the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _insert(self, topic: str, store: Callable[[StampedTransform], None], message: TFMessage) -> None:
        for transform in message.transforms:
            try:
                store(decode_transform(transform))
            except TransformRefusedError as error:
                self._report(topic, f'{topic}: {error}')


class Tf2Listener:
    """Buffer and listener of tf2_ros."""

    def __init__(self, node: Node, report: ReportProblem) -> None:
        """Subscribe with ``node``; tf2 itself logs refused transforms, so ``report`` is not used."""
        del report
        import tf2_ros
        self._tf2: Any = tf2_ros
        self._buffer: Any = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return ``target_from_source`` (4, 4) at ``stamp_ns`` or LATEST; raises TransformError."""
        from rclpy.time import Time
        found = self._query(self._buffer.lookup_transform_core, target, source, Time(nanoseconds=stamp_ns))
        link = decode_transform(found)
        return pose_from_quaternion(link.translation, link.quaternion_xyzw)

    def latest_common_ns(self, target: str, source: str) -> int:
        """Return the newest common instant of the path [ns], 0 if it is static; raises TransformError."""
        return int(self._query(self._buffer.get_latest_common_time, target, source).nanoseconds)

    def clear(self) -> None:
        """Drop all but static frames."""
        self._buffer.clear()

    def close(self) -> None:
        """Remove the subscriptions."""
        self._listener.unregister()

    def _query(self, question: Callable[..., Any], target: str, source: str, *more: Any) -> Any:
        kinds: dict[type[Exception], type[TransformError]] = {
            self._tf2.LookupException: UnknownFrameError,
            self._tf2.ConnectivityException: UnconnectedError,
            self._tf2.ExtrapolationException: ExtrapolationError}
        try:
            return question(target, source, *more)
        except self._tf2.TransformException as error:
            kind = next((own for theirs, own in kinds.items() if isinstance(error, theirs)), TransformError)
            raise kind(f'transform {target} <- {source}: {error}') from error


def available_listeners() -> dict[str, Callable[[Node, ReportProblem], TransformListener]]:
    """Return the installed implementations by name, the preferred one first."""
    feeds: dict[str, Callable[[Node, ReportProblem], TransformListener]] = {}
    if importlib.util.find_spec('tf2_ros') is not None:
        feeds['tf2_ros'] = Tf2Listener
    feeds['own'] = BufferListener
    return feeds


def create_transform_listener(node: Node, report: ReportProblem) -> TransformListener:
    """Create the preferred implementation."""
    return next(iter(available_listeners().values()))(node, report)
