"""The few fields of serialized messages that a recorder must know, read without decoding the rest.

A message on the wire is four bytes of encapsulation, then its fields aligned by their size. Only what begins
a message can be found that way: a header's stamp, a string, a clock.
"""

import struct

_LITTLE_ENDIAN = 1
_NS = 1_000_000_000


def leading_stamp_ns(raw: bytes) -> int | None:
    """The stamp [ns] of a message that begins with a header, or is a clock; None if it is too short."""
    if len(raw) < 12:
        return None
    seconds, nanoseconds = struct.unpack_from(f'{_order(raw)}iI', raw, 4)
    return int(seconds) * _NS + int(nanoseconds)


def string(raw: bytes) -> str | None:
    """The text of a std_msgs/String; None if it is cut short."""
    if len(raw) < 8:
        return None
    length, = struct.unpack_from(f'{_order(raw)}I', raw, 4)
    if len(raw) < 8 + length:
        return None
    return raw[8:8 + length].rstrip(b'\0').decode(errors='replace')


def encoded_string(text: str) -> bytes:
    """A std_msgs/String with ``text``; the inverse of :func:`string`."""
    data = text.encode() + b'\0'
    return b'\x00\x01\x00\x00' + struct.pack('<I', len(data)) + data


def _order(raw: bytes) -> str:
    return '<' if raw[1] == _LITTLE_ENDIAN else '>'
