"""Helpers for drawing text on RGB images."""

from typing import Any

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
