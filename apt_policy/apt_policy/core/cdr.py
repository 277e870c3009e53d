"""Leading fields of serialized messages (CDR), decoded without the rest of the message.

A serialized message has four bytes of encapsulation, then its fields aligned by their size. Only fields at the
beginning have a known offset: the stamp of a header, a string, a clock.
"""

import struct

_LITTLE_ENDIAN = 1
_NS = 1_000_000_000


def decode_leading_stamp_ns(raw: bytes | memoryview, *, skip: int = 0) -> int | None:
    """Return the stamp [ns] of a message that begins with a header or is a Clock; None if it is too short.

    Args:
        raw: serialized message.
        skip: bytes between encapsulation and stamp [B].
    """
    if len(raw) < 12 + skip:
        return None
    seconds, nanoseconds = struct.unpack_from(f'{_order(raw)}iI', raw, 4 + skip)
    return int(seconds) * _NS + int(nanoseconds)


def decode_string(raw: bytes) -> str | None:
    """Return the text of a serialized std_msgs/String; None if it is truncated."""
    if len(raw) < 8:
        return None
    length, = struct.unpack_from(f'{_order(raw)}I', raw, 4)
    if len(raw) < 8 + length:
        return None
    return raw[8:8 + length].rstrip(b'\0').decode(errors='replace')


def encode_string(text: str) -> bytes:
    """Serialize a std_msgs/String with ``text``; the inverse of :func:`decode_string`."""
    data = text.encode() + b'\0'
    return b'\x00\x01\x00\x00' + struct.pack('<I', len(data)) + data


def _order(raw: bytes | memoryview) -> str:
    return '<' if raw[1] & _LITTLE_ENDIAN else '>'
