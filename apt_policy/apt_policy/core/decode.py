"""Decoding of ROS messages: images, camera intrinsics, joint positions, transforms, stamps.

Messages are read by attribute, so messages of ``rclpy`` and of ``rosbags`` both work;
neither is imported. Invalid messages raise :class:`DecodeError`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.pixels import BYTES_PER_PIXEL, PackedImage, PixelReader, pixel_readers
from apt_policy.core.transforms import StampedTransform

Rgb = NDArray[np.uint8]

_JPEG, _PNG = b'\xff\xd8', b'\x89PNG'
# Cameras may append padding to a JPEG; its end marker stands this close to the end [bytes].
_TAIL = 256
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class ReducedImage(NamedTuple):
    """Image that was downscaled while it was decoded."""

    rgb: Rgb
    """(H, W, 3)."""
    factor: int
    """Ratio of the message's rows (and columns) to those of ``rgb``."""


class DecodeError(ValueError):
    """Error of a message that cannot be used; the message gives the value and what was expected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraModel:
    """Pinhole model of a camera's images."""

    intrinsics: NDArray[np.float64]
    """(3, 3) [px], pixel centres at +0.5."""
    width: int
    height: int


def stamp_to_ns(stamp: Any) -> int:
    """Convert builtin_interfaces/Time to nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def decode_image(message: Any, reader: PixelReader | None = None) -> Rgb:
    """Decode sensor_msgs/Image or CompressedImage to (H, W, 3) uint8 RGB.

    An rgb8 image is returned as a view of the message; all others are copied once.

    Args:
        message: either type; CompressedImage has a field ``format``.
        reader: image library; None uses the best one installed.

    Raises:
        DecodeError: unknown encoding, wrong amount of data, truncated or corrupt file.
    """
    if reader is None:
        reader = next(iter(pixel_readers().values()))
    return _decompress(message, reader) if hasattr(message, 'format') else _raw(message, reader)


def decode_image_reduced(message: Any, halvings: int) -> ReducedImage:
    """Decode an image; a JPEG is halved up to ``halvings`` times while it is decoded.

    A JPEG decoder halves in the frequency domain at a fraction of the cost of decoding all pixels and
    averaging; the result equals that average up to rounding. Other images keep their size.

    Raises:
        DecodeError: see :func:`decode_image`.
    """
    factor = 2 ** min(halvings, 3)
    if factor == 1 or not hasattr(message, 'format'):
        return ReducedImage(decode_image(message), 1)
    data = np.frombuffer(message.data, np.uint8)
    if bytes(data[:2]) != _JPEG or message.format.startswith('bayer'):
        return ReducedImage(decode_image(message), 1)
    _check_compressed(message)
    pixels = cv2.imdecode(data, _REDUCED[factor])
    if pixels is None:
        raise DecodeError(f'jpeg image of {len(data)} bytes cannot be read: it is corrupt')
    return ReducedImage(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8), factor)


def decode_camera_info(message: Any) -> CameraModel:
    """Decode sensor_msgs/CameraInfo, with binning and region of interest applied.

    In ROS the centre of the first pixel is at 0, in the suite at 0.5, so that resizing and cropping
    are exact.

    Raises:
        DecodeError: the camera is not calibrated (K zero), K is not a pinhole matrix, or the image has no pixels.
    """
    matrix = np.asarray(message.k, np.float64).reshape(3, 3).copy()
    usable = np.isfinite(matrix).all() and min(matrix[0, 0], matrix[1, 1], matrix[2, 2]) > 0
    if not usable:
        raise DecodeError(f'camera info has K {matrix.ravel().tolist()}; expected fx, fy > 0: '
                          'calibrate the camera or load its calibration in the driver')
    roi = message.roi
    matrix[:2, 2] += (0.5 - roi.x_offset, 0.5 - roi.y_offset)
    binning = np.maximum((message.binning_x, message.binning_y), 1)
    matrix[:2] /= binning[:, None]
    width = int(roi.width or message.width) // int(binning[0])
    height = int(roi.height or message.height) // int(binning[1])
    if min(width, height) < 1:
        raise DecodeError(f'camera info describes an image of {width}x{height} pixels, expected its size: set width '
                          'and height in the driver')
    return CameraModel(intrinsics=matrix, width=width, height=height)


def decode_joint_positions(message: Any, joints: Sequence[str]) -> dict[str, float]:
    """Decode the positions of ``joints`` from sensor_msgs/JointState, in any order of the message.

    Returns:
        Position by joint name [rad or m].

    Raises:
        DecodeError: a joint is missing or its position is not finite; the message names it.
    """
    names = list(message.name)
    if len(names) != len(message.position):
        raise DecodeError(f'joint state has {len(names)} names and {len(message.position)} positions')
    positions: dict[str, float] = {}
    for joint in joints:
        if joint not in names:
            raise DecodeError(f'joint state lacks {joint!r}; it has {", ".join(names) or "no joints"}')
        positions[joint] = float(message.position[names.index(joint)])
        if not math.isfinite(positions[joint]):
            raise DecodeError(f'joint {joint!r} has position {positions[joint]}, expected a number')
    return positions


def decode_transform(message: Any) -> StampedTransform:
    """Decode geometry_msgs/TransformStamped without checks, which the transform buffer makes."""
    offset, turn = message.transform.translation, message.transform.rotation
    return StampedTransform(
        parent=message.header.frame_id, child=message.child_frame_id,
        stamp_ns=stamp_to_ns(message.header.stamp), translation=(offset.x, offset.y, offset.z),
        quaternion_xyzw=(turn.x, turn.y, turn.z, turn.w))


def _raw(message: Any, reader: PixelReader) -> Rgb:
    encoding, height, width, step = message.encoding, message.height, message.width, message.step
    if encoding not in BYTES_PER_PIXEL:
        raise DecodeError(f'image encoding {encoding!r} is not supported; supported are '
                          f'{", ".join(BYTES_PER_PIXEL)}')
    row, got = width * BYTES_PER_PIXEL[encoding], len(message.data)
    if height <= 0 or width <= 0 or step < row:
        raise DecodeError(f'{encoding} image is {width}x{height} with step {step}; '
                          f'a row needs {row} bytes, and both sides at least one pixel')
    if got != height * step:
        raise DecodeError(f'{encoding} image of {width}x{height} has {got} bytes; '
                          f'height * step is {height} * {step} = {height * step}')
    if encoding == 'rgb8':
        return np.ndarray((height, width, 3), np.uint8, memoryview(message.data), strides=(step, 3, 1))
    return _guarded(reader.to_rgb, message, f'{encoding} image of {width}x{height}')


def _check_compressed(message: Any) -> str:
    """Return ``jpeg`` or ``png``; raise DecodeError for other, truncated or colour-ambiguous files."""
    data = memoryview(message.data)
    head, tail = bytes(data[:4]), bytes(data[-_TAIL:])
    if head.startswith(_JPEG):
        kind, complete = 'jpeg', b'\xff\xd9' in tail
    elif head == _PNG:
        kind, complete = 'png', b'IEND' in tail
    else:
        raise DecodeError(f'compressed image with format {message.format!r} starts with '
                          f'{head.hex() or "nothing"}; supported are jpeg and png')
    if not complete:
        raise DecodeError(f'{kind} image of {len(data)} bytes is truncated: its end marker is missing')
    if 'compressed rgb' in message.format.partition(';')[2]:
        raise DecodeError(f'compressed image has format {message.format!r}, which does not define whether red '
                          "and blue are swapped; expected 'jpeg', 'png' or '...; jpeg compressed bgr8'")
    return kind


def _decompress(message: Any, reader: PixelReader) -> Rgb:
    kind = _check_compressed(message)
    source, _, stored = message.format.partition(';')
    pixels = _guarded(reader.decompress, message, f'{kind} image of {len(message.data)} bytes')
    if pixels.ndim == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    if source in BYTES_PER_PIXEL and source.startswith('bayer') and 'mono' not in stored:
        # image_transport stores a Bayer image as a gray file and names the encoding in the format.
        return _raw(_as_image(source, pixels), reader)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)


def _as_image(encoding: str, pixels: Rgb) -> PackedImage:
    height, width = pixels.shape
    return PackedImage(encoding=encoding, height=height, width=width, step=width, is_bigendian=0,
                       data=pixels.reshape(-1))


def _guarded(read: Callable[[Any], Rgb], message: Any, what: str) -> Rgb:
    try:
        pixels = read(message)
    # Image libraries raise exceptions of any class, assertions included.
    except Exception as error:
        raise DecodeError(f'{what} cannot be read: {type(error).__name__} {error}'.rstrip()) from error
    # Under python -O the assertion is removed and None is returned.
    if pixels is None:
        raise DecodeError(f'{what} cannot be read: it is corrupt')
    return pixels
