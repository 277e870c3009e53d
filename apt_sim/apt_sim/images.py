"""RGB images: decode, letters of OpenCV's font, and encoding as a video."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

FONT = cv2.FONT_HERSHEY_SIMPLEX


def decode_rgb(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to an RGB image (H, W, 3)."""
    rgb: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(rgb, np.uint8)


def plain_letters(text: str) -> str:
    """Replace non-ASCII letters by question marks, because :data:`FONT` has ASCII only."""
    return text.encode('ascii', 'replace').decode()


def write_video(images: Iterable[NDArray[np.uint8]], path: Path, *, rate_hz: float) -> None:
    """Encode images as H.264.

    Args:
        images: (H, W, 3) RGB, all of the same even size.
        path: file to write; its name determines the container.
        rate_hz: frame rate [Hz].
    """
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=Fraction(rate_hz).limit_denominator(1000))
        stream.pix_fmt = 'yuv420p'
        for number, image in enumerate(images):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
