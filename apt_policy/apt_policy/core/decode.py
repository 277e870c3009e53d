"""From messages to numbers: images, camera intrinsics, joint positions, transforms, stamps.

Messages are read by attribute, so those of ``rclpy`` and those of ``rosbags`` both do;
neither is imported. Whatever cannot be trusted is refused with a :class:`DecodeError`.
Nothing here knows which camera or arm a message belongs to: callers name it.
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
    """An image that was made smaller while it was decoded."""

    rgb: Rgb
    """(H, W, 3)."""
    factor: int
    """The message's image has this many times as many rows, and columns."""


class DecodeError(ValueError):
    """A message that cannot be used: says what was got and what was expected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraModel:
    """The pinhole model of the images that a camera delivers."""

    intrinsics: NDArray[np.float64]
    """(3, 3) [px], pixel centres at +0.5."""
    width: int
    height: int


def stamp_to_ns(stamp: Any) -> int:
    """builtin_interfaces/Time as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_from_ns(stamp_ns: int) -> tuple[int, int]:
    """The inverse of :func:`stamp_to_ns`: ``sec`` and ``nanosec``."""
    return divmod(int(stamp_ns), 1_000_000_000)


def decode_image(message: Any, reader: PixelReader | None = None) -> Rgb:
    """sensor_msgs/Image or CompressedImage as (H, W, 3) uint8, red first.

    An rgb8 image comes back as a view of the message, everything else costs one copy.

    Args:
        message: either type, told apart by the field ``format``.
        reader: the library to use; None takes the best one present.

    Raises:
        DecodeError: unknown encoding, wrong amount of data, truncated or corrupt file.
    """
    if reader is None:
        reader = next(iter(pixel_readers().values()))
    return _decompress(message, reader) if hasattr(message, 'format') else _raw(message, reader)


def decode_image_reduced(message: Any, halvings: int) -> ReducedImage:
    """As :func:`decode_image`, but a JPEG is halved up to ``halvings`` times on the way.

    A JPEG decoder does that in the frequency domain at a fraction of the cost of decoding all and
    averaging; what comes out is that average but for rounding. Other images stay as they are.

    Raises:
        DecodeError: as :func:`decode_image`.
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
    """sensor_msgs/CameraInfo, with binning and region of interest applied.

    ROS counts from the centre of the first pixel, the suite from its corner (centres at +0.5),
    where resizing and cropping are exact.

    Raises:
        DecodeError: the camera is not calibrated (K zero), K is no pinhole matrix, or the image has no pixels.
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
    """sensor_msgs/JointState positions of ``joints``, in whatever order the message has them.

    Raises:
        DecodeError: naming the joint that is missing or whose position is not finite.
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
    """geometry_msgs/TransformStamped, unchecked: the buffer that takes it checks."""
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
    """``jpeg`` or ``png``; refuses what is neither, not whole, or leaves open what its colours mean."""
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
        raise DecodeError(f'compressed image has format {message.format!r}, which leaves open whether red '
                          "and blue are swapped; expected 'jpeg', 'png' or '...; jpeg compressed bgr8'")
    return kind


def _decompress(message: Any, reader: PixelReader) -> Rgb:
    kind = _check_compressed(message)
    source, _, stored = message.format.partition(';')
    pixels = _guarded(reader.decompress, message, f'{kind} image of {len(message.data)} bytes')
    if pixels.ndim == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    if source in BYTES_PER_PIXEL and source.startswith('bayer') and 'mono' not in stored:
        # image_transport keeps a raw sensor mosaic in a gray file and says so in the format.
        return _raw(_as_image(source, pixels), reader)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)


def _as_image(encoding: str, pixels: Rgb) -> PackedImage:
    height, width = pixels.shape
    return PackedImage(encoding=encoding, height=height, width=width, step=width, is_bigendian=0,
                       data=pixels.reshape(-1))


def _guarded(read: Callable[[Any], Rgb], message: Any, what: str) -> Rgb:
    try:
        pixels = read(message)
    # Image libraries raise whatever they like, assertions included.
    except Exception as error:
        raise DecodeError(f'{what} cannot be read: {type(error).__name__} {error}'.rstrip()) from error
    # Under python -O the assertion is gone and nothing comes back.
    if pixels is None:
        raise DecodeError(f'{what} cannot be read: it is corrupt')
    return pixels
