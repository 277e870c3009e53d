"""JPEG files to pixels and back, red first on the outside.

Knows one image at a time; where its bytes lie is known to ``write`` and ``read``.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError

_HEAD, _END = b'\xff\xd8', b'\xff\xd9'
_TAIL = 64
"""An encoder may pad behind the end mark; this much is searched [bytes]."""


class ImageError(UserError, ValueError):
    """An image file that cannot be decoded; the message says why."""


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(H, W, 3), red first, as the bytes of an ordinary JPEG file."""
    done, data = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError(f'OpenCV cannot encode an image of {rgb.shape} {rgb.dtype} as JPEG')
    return np.asarray(data, np.uint8).ravel()


def decode_jpeg(data: NDArray[np.uint8], *, swapped: bool) -> NDArray[np.uint8]:
    """The inverse of :func:`encode_jpeg`: (H, W, 3), red first.

    Args:
        data: bytes of a JPEG file.
        swapped: red and blue were exchanged before it was encoded.

    Raises:
        ImageError: not a JPEG file, truncated or corrupt.
    """
    head, tail = data[:2].tobytes(), data[-_TAIL:].tobytes()
    if head != _HEAD:
        raise ImageError(f'its {len(data)} bytes are not a JPEG file: they begin with {head.hex() or "nothing"}')
    # libjpeg fills what is missing with grey and says so on stderr only.
    if _END not in tail:
        raise ImageError(f'its {len(data)} bytes are a truncated JPEG file: there is no end mark')
    # Straight to red first where OpenCV can (4.11 on): a pass over the image less.
    red_first = None if swapped else getattr(cv2, 'IMREAD_COLOR_RGB', None)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR if red_first is None else red_first)
    if image is None:
        raise ImageError(f'its {len(data)} bytes are a corrupt JPEG file')
    if not swapped and red_first is None:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)
