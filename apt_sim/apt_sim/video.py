"""Pictures to an H.264 file; what is in them is not known here."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(pictures: Iterable[NDArray[np.uint8]], path: Path, *, rate_hz: float) -> None:
    """Encode (H, W, 3) RGB pictures of one even size.

    Args:
        rate_hz: pictures a second.
    """
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=Fraction(rate_hz).limit_denominator(1000))
        stream.pix_fmt = 'yuv420p'
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())
