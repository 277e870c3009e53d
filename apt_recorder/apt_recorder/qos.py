"""Quality of service of a publisher, in the form that a bag stores."""

from typing import Any

from rclpy.qos import QoSProfile
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime


def to_rosbags_qos(qos: QoSProfile) -> Qos:
    """Convert a profile of ``rclpy`` to one of ``rosbags``."""
    return Qos(
        QosHistory(int(qos.history)), qos.depth, QosReliability(int(qos.reliability)),
        QosDurability(int(qos.durability)), _time(qos.deadline), _time(qos.lifespan),
        QosLiveliness(int(qos.liveliness)), _time(qos.liveliness_lease_duration),
        qos.avoid_ros_namespace_conventions)


def _time(duration: Any) -> QosTime:
    seconds, nanoseconds = divmod(int(duration.nanoseconds), 1_000_000_000)
    return QosTime(seconds, nanoseconds)
