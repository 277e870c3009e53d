"""What every drawing on RGB pictures needs."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FONT = cv2.FONT_HERSHEY_SIMPLEX


def decode_rgb(jpeg: bytes) -> NDArray[np.uint8]:
    """(H, W, 3), red first."""
    rgb: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(rgb, np.uint8)


def plain_letters(text: str) -> str:
    """For :data:`FONT`, which knows ASCII only; other letters become question marks."""
    return text.encode('ascii', 'replace').decode()
