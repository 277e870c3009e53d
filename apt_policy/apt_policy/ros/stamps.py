"""Conversion between ROS time messages and integer nanoseconds."""

from builtin_interfaces.msg import Duration, Time

NS_PER_S = 1_000_000_000


def to_time(stamp_ns: int) -> Time:
    """Convert a stamp [ns] to a message; the inverse of :func:`from_time`."""
    sec, nanosec = divmod(int(stamp_ns), NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def from_time(stamp: Time) -> int:
    """Convert a message to a stamp [ns]."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def to_duration(duration_ns: int) -> Duration:
    """Convert a duration [ns] to a message; the inverse of :func:`from_duration`."""
    sec, nanosec = divmod(int(duration_ns), NS_PER_S)
    return Duration(sec=sec, nanosec=nanosec)


def from_duration(duration: Duration) -> int:
    """Convert a message to a duration [ns]."""
    return int(duration.sec) * NS_PER_S + int(duration.nanosec)
