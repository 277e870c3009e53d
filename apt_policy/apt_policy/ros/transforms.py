"""Where frames stand, as /tf and /tf_static say: tf2_ros where ROS has it, else the suite's own buffer.

Both stand behind ``core.transforms.TransformSource`` and pass the same tests. Nothing here
waits: a transform is there or the look-up says why not.
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
    """A source of transforms that listens to a node's topics."""

    def close(self) -> None:
        """Stop listening."""


class BufferListener:
    """``core.transforms.TransformBuffer``, fed by two subscriptions."""

    def __init__(self, node: Node, report: ReportProblem) -> None:
        """Listen through ``node``; ``report`` is given the topic and a sentence per refused transform."""
        self._node = node
        self._report = report
        self._buffer = TransformBuffer()
        self.lookup = self._buffer.lookup
        self.latest_common_ns = self._buffer.latest_common_ns
        self.clear = self._buffer.clear
        stores = self._buffer.set_transform, self._buffer.set_static_transform
        self._subscriptions = [
            subscribe(node, stream, partial(self._take, stream.topic, store),
                      events=subscription_events(stream.topic, report))
            for stream, store in zip(_STREAMS, stores, strict=True)]

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _take(self, topic: str, store: Callable[[StampedTransform], None], message: TFMessage) -> None:
        for transform in message.transforms:
            try:
                store(decode_transform(transform))
            except TransformRefusedError as error:
                self._report(topic, f'{topic}: {error}')


class Tf2Listener:
    """The buffer and listener of tf2_ros."""

    def __init__(self, node: Node, report: ReportProblem) -> None:
        """Listen through ``node``; tf2 itself logs what it refuses."""
        del report
        import tf2_ros
        self._tf2: Any = tf2_ros
        self._buffer: Any = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """``target_from_source`` (4, 4) at ``stamp_ns`` or LATEST; raises TransformError."""
        from rclpy.time import Time
        found = self._asked(self._buffer.lookup_transform_core, target, source, Time(nanoseconds=stamp_ns))
        link = decode_transform(found)
        return pose_from_quaternion(link.translation, link.quaternion_xyzw)

    def latest_common_ns(self, target: str, source: str) -> int:
        """Newest instant known along the whole path, 0 if all of it is static; raises TransformError."""
        return int(self._asked(self._buffer.get_latest_common_time, target, source).nanoseconds)

    def clear(self) -> None:
        """Forget everything but static frames."""
        self._buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()

    def _asked(self, question: Callable[..., Any], target: str, source: str, *more: Any) -> Any:
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
    """Every implementation that this machine can run, the preferred one first."""
    feeds: dict[str, Callable[[Node, ReportProblem], TransformListener]] = {}
    if importlib.util.find_spec('tf2_ros') is not None:
        feeds['tf2_ros'] = Tf2Listener
    feeds['own'] = BufferListener
    return feeds


def create_transform_listener(node: Node, report: ReportProblem) -> TransformListener:
    """The best implementation present."""
    return next(iter(available_listeners().values()))(node, report)
