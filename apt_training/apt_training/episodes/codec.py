"""JPEG encoding and decoding of RGB images."""

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError

# Markers at the beginning and the end of JPEG files (ITU-T T.81).
_HEAD, _END = b'\xff\xd8', b'\xff\xd9'
_TAIL = 64
"""Size of the end of a file in which the end marker is searched [B]: encoders may add padding."""


class ImageError(UserError, ValueError):
    """Error of an image that cannot be encoded or decoded."""


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Encode an RGB image (H, W, 3) as a JPEG file.

    Args:
        rgb: (H, W, 3) uint8.
        quality: 1 to 100.

    Returns:
        (N,) bytes of the file.

    Raises:
        ImageError: OpenCV cannot encode it.
    """
    done, data = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError(f'OpenCV cannot encode an image of {rgb.shape} {rgb.dtype} as JPEG')
    return np.asarray(data, np.uint8).ravel()


def decode_jpeg(data: NDArray[np.uint8], *, swapped: bool) -> NDArray[np.uint8]:
    """Decode a JPEG file; the inverse of :func:`encode_jpeg`.

    Args:
        data: (N,) bytes of the file.
        swapped: True if red and blue were exchanged before encoding.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the data are no JPEG file, truncated or corrupt.
    """
    head, tail = data[:2].tobytes(), data[-_TAIL:].tobytes()
    if head != _HEAD:
        raise ImageError(f'its {len(data)} bytes are not a JPEG file: they begin with {head.hex() or "nothing"}')
    # libjpeg fills missing pixels with grey and reports it on stderr only.
    if _END not in tail:
        raise ImageError(f'its {len(data)} bytes are a truncated JPEG file: the end marker is missing')
    # OpenCV 4.11 and later decode to RGB without another pass over the image.
    rgb_flag = None if swapped else getattr(cv2, 'IMREAD_COLOR_RGB', None)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR if rgb_flag is None else rgb_flag)
    if image is None:
        raise ImageError(f'its {len(data)} bytes are a corrupt JPEG file')
    if not swapped and rgb_flag is None:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)
