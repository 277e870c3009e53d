"""Encoding of RGB images as an H.264 file."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


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
