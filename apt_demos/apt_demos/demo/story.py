"""The demonstration as one picture: a row for each instruction, from the scene as it was to what became of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_demos.demo.director import Part
from apt_demos.demo.watch import OVERVIEW
from apt_sim.pictures import FONT, decode_rgb, plain_letters

Picture = NDArray[np.uint8]

MOMENTS = 4
"""Of a row: the first and the last, and others evenly between."""
_SIDE = 320
_BAR = 40
_SEAM = 8
_WHITE, _GREEN, _YELLOW = (255, 255, 255), (120, 220, 120), (240, 200, 90)


def write_story(parts: Sequence[Part], path: Path) -> None:
    """Save it; the format by the name of ``path``. Parts of which nothing was seen are left out.

    Raises:
        OSError: it cannot be written, or nothing was seen at all.
    """
    seen = [_row(part) for part in parts if part.recording.frames]
    if not seen:
        raise OSError(f'{path}: the overview camera has shown nothing')
    picture = np.concatenate(seen)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f'{path} cannot be written')


def _row(part: Part) -> Picture:
    frames = part.recording.frames
    moments = [frames[round(index)] for index in np.linspace(0, len(frames) - 1, MOMENTS)]
    tiles = [_tile(decode_rgb(moment.jpegs[OVERVIEW])) for moment in moments]
    # An arm at the edge would seem to reach into the next moment.
    shown = np.concatenate([tiles[0], *(cv2.copyMakeBorder(tile, 0, 0, _SEAM, 0, cv2.BORDER_CONSTANT)
                                        for tile in tiles[1:])], axis=1)
    bar = np.zeros((_BAR, shown.shape[1], 3), np.uint8)
    cv2.putText(bar, f'"{plain_letters(part.errand.prompt)[:80]}"', (10, 27), FONT, 0.65, _WHITE, 1, cv2.LINE_AA)
    colour = _GREEN if part.done else _YELLOW
    (width, _), _ = cv2.getTextSize(part.outcome, FONT, 0.6, 1)
    cv2.putText(bar, part.outcome, (shown.shape[1] - width - 10, 27), FONT, 0.6, colour, 1, cv2.LINE_AA)
    return np.concatenate([bar, shown])


def _tile(image: Picture) -> Picture:
    height, width = image.shape[:2]
    tile: Any = cv2.resize(image, (round(_SIDE * width / height), _SIDE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(tile, np.uint8)
