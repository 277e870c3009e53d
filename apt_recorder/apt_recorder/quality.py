"""The quality of service of a publisher, as a bag notes it beside the topic."""

from typing import Any

from rclpy.qos import QoSProfile
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime


def offered(quality: QoSProfile) -> Qos:
    """A profile in the words of ``rosbags``."""
    return Qos(
        QosHistory(int(quality.history)), quality.depth, QosReliability(int(quality.reliability)),
        QosDurability(int(quality.durability)), _time(quality.deadline), _time(quality.lifespan),
        QosLiveliness(int(quality.liveliness)), _time(quality.liveliness_lease_duration),
        quality.avoid_ros_namespace_conventions)


def _time(duration: Any) -> QosTime:
    seconds, nanoseconds = divmod(int(duration.nanoseconds), 1_000_000_000)
    return QosTime(seconds, nanoseconds)
