"""Conversion of image messages to arrays by ``cv_bridge``, or by ``rosbags.image`` where there is no ROS distribution.

Neither library checks its input well, so callers do that first (``decode``). Messages are read by attribute.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[Any]

BYTES_PER_PIXEL = {
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'mono16': 2, 'rgb16': 6, 'bgr16': 6,
    'yuv422': 2, 'uyvy': 2, 'yuv422_yuy2': 2, 'yuyv': 2,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
    'bayer_rggb16': 2, 'bayer_bggr16': 2, 'bayer_gbrg16': 2, 'bayer_grbg16': 2,
}
"""Supported encodings of sensor_msgs/Image, with their bytes per pixel."""


@dataclass(frozen=True, kw_only=True)
class PixelReader:
    """Image functions of one library."""

    to_rgb: Callable[[Any], AnyArray]
    """From sensor_msgs/Image of any supported encoding to (H, W, 3) uint8 RGB."""
    decompress: Callable[[Any], AnyArray]
    """From sensor_msgs/CompressedImage to (H, W) or (H, W, 3) BGR."""


@dataclass(frozen=True, kw_only=True)
class PackedImage:
    """Image with the fields of sensor_msgs/Image whose rows have no padding."""

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: int
    data: AnyArray


@cache
def pixel_readers() -> Mapping[str, PixelReader]:
    """Return the readers of all installed image libraries by library name, the preferred one first.

    Raises:
        ImportError: no image library is installed.
    """
    readers: dict[str, PixelReader] = {}
    for name, build in (('cv_bridge', _cv_bridge_reader), ('rosbags.image', _rosbags_reader)):
        try:
            readers[name] = build(import_module(name))
        # A cv_bridge built for another numpy fails with an AttributeError.
        except (ImportError, AttributeError):
            continue
    if not readers:
        raise ImportError('no image library: install rosbags-image[opencv-headless], or source a '
                          'ROS distribution that has cv_bridge')
    return readers


def _cv_bridge_reader(library: Any) -> PixelReader:
    bridge = library.CvBridge()
    return PixelReader(to_rgb=lambda message: bridge.imgmsg_to_cv2(message, 'rgb8'),
                       decompress=bridge.compressed_imgmsg_to_cv2)


def _rosbags_reader(library: Any) -> PixelReader:
    return PixelReader(to_rgb=lambda message: library.message_to_cvimage(_packed(message), 'rgb8'),
                       decompress=library.message_to_cvimage)


def _packed(message: Any) -> Any:
    """Return ``message``, or a copy without row padding, which rosbags does not support."""
    row = len(message.data) // message.height
    used = message.width * BYTES_PER_PIXEL[message.encoding]
    if row == used:
        return message
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, row)
    return PackedImage(encoding=message.encoding, height=message.height, width=message.width, step=used,
                        is_bigendian=message.is_bigendian, data=np.ascontiguousarray(rows[:, :used]))
