"""The demonstration as a film: all cameras, the prompt and the plan of each arm drawn in.

Frames become a mosaic: the overview camera large, with planned positions projected
into it through its calibration, the others stacked at its side.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_demos.demo.recording import Frame
from apt_policy.core.projection import project
from apt_sim.pictures import FONT, decode_rgb, plain_letters
from apt_sim.video import write_video

Picture = NDArray[np.uint8]

_HEIGHT = 480
_SMALL_HEIGHT = 160
_BAR = 56
_PLAN_COLOURS = ((255, 140, 0), (0, 160, 255), (160, 255, 0), (255, 0, 160))


def write_film(frames: Iterable[Frame], path: Path, *, overview: str, intrinsics: NDArray[np.float64],
               world_from_camera: NDArray[np.float64], rate_hz: float) -> None:
    """Encode ``frames`` as H.264.

    Args:
        overview: camera shown large; plans are drawn into it.
        intrinsics: (3, 3) of its images [px].
        world_from_camera: (4, 4) optical frame.
        rate_hz: frames a second.
    """
    write_video((compose(frame, overview, intrinsics, world_from_camera) for frame in frames), path, rate_hz=rate_hz)


def compose(frame: Frame, overview: str, intrinsics: NDArray[np.float64],
            world_from_camera: NDArray[np.float64]) -> Picture:
    """One RGB picture of the film, 536 px high; as wide as the overview's shape makes it."""
    images = {name: decode_rgb(jpeg) for name, jpeg in frame.jpegs.items()}
    image = images.pop(overview)
    big: Any = cv2.resize(image, _size(image, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    _draw_plans(big, frame.plans, intrinsics, world_from_camera, big.shape[0] / image.shape[0])
    side = _size(image, _SMALL_HEIGHT)
    canvas = np.zeros((_HEIGHT + _BAR, big.shape[1] + side[0], 3), np.uint8)
    canvas[:_HEIGHT, :big.shape[1]] = big
    for row, (name, other) in enumerate(images.items()):
        top = row * _SMALL_HEIGHT
        if top + _SMALL_HEIGHT <= _HEIGHT:
            small = cv2.resize(other, side, interpolation=cv2.INTER_AREA)
            cv2.putText(small, name, (6, 14), FONT, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
            canvas[top:top + _SMALL_HEIGHT, big.shape[1]:] = small
    _write_bar(canvas, frame)
    return canvas


def _size(image: Picture, height: int) -> tuple[int, int]:
    """Width and height at this height; both even, as encoders want them."""
    return 2 * round(height * image.shape[1] / image.shape[0] / 2), height


def _draw_plans(image: Picture, plans: Mapping[str, NDArray[np.float64]],
                intrinsics: NDArray[np.float64], world_from_camera: NDArray[np.float64],
                scale: float) -> None:
    for colour, (name, points) in zip(_PLAN_COLOURS, plans.items(), strict=False):
        pixels = scale * project(points, intrinsics, world_from_camera)
        pixels = pixels[np.isfinite(pixels).all(axis=-1)]
        # Far outside the image cv2 overflows; a plan that leaves it is cut at three image sizes.
        dots = np.clip(pixels, -2 * image.shape[1], 3 * image.shape[1]).round().astype(np.int32)
        cv2.polylines(image, [dots.reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
        for dot in dots[::4]:
            cv2.circle(image, tuple(map(int, dot)), 3, colour, -1, cv2.LINE_AA)
        if len(dots):
            cv2.putText(image, name, tuple(map(int, dots[-1] + 6)), FONT, 0.45, colour, 1, cv2.LINE_AA)


def _write_bar(canvas: Picture, frame: Frame) -> None:
    baseline = _HEIGHT + 23
    prompt = f'"{plain_letters(frame.prompt)[:80]}"'
    cv2.putText(canvas, prompt, (10, baseline), FONT, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    state = f'holding: {frame.holding}' if frame.holding else 'following the plan'
    line = f't = {frame.stamp_ns / 1e9:6.2f} s   {state}'
    cv2.putText(canvas, line, (10, baseline + 22), FONT, 0.45, (170, 170, 170), 1, cv2.LINE_AA)
