"""Video and storyboard of a demonstration.

The video is a mosaic: the overview camera large, with the planned positions of each arm projected into it, the other
cameras stacked at its side. The storyboard is one image with a row per instruction, from its first frame to its last.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apt_demos.demo.demo_recorder import OVERVIEW
from apt_demos.demo.demo_runner import InstructionResult
from apt_demos.demo.recording import VideoFrame
from apt_policy.core.projection import project
from apt_sim.images import FONT, decode_rgb, plain_letters, write_video

RgbImage = NDArray[np.uint8]

# Height of the overview image, of the other images and of the text bar in the video [px].
_HEIGHT = 480
_SMALL_HEIGHT = 160
_BAR = 56
_PLAN_COLOURS = ((255, 140, 0), (0, 160, 255), (160, 255, 0), (255, 0, 160))

STORYBOARD_FRAMES = 4
"""Number of frames in a row of the storyboard: the first, the last, and others evenly between."""
# Height of a frame and of the text bar in the storyboard, and distance between frames [px].
_TILE_HEIGHT = 320
_STORYBOARD_BAR = 40
_SEAM = 8
_WHITE, _GREEN, _YELLOW = (255, 255, 255), (120, 220, 120), (240, 200, 90)


def write_demo_video(frames: Iterable[VideoFrame], path: Path, *, overview: str, intrinsics: NDArray[np.float64],
                     world_from_camera: NDArray[np.float64], rate_hz: float) -> None:
    """Encode ``frames`` as H.264.

    Args:
        frames: frames in order.
        path: file to write.
        overview: camera shown large; plans are drawn into its image.
        intrinsics: (3, 3) pinhole matrix of its images [px].
        world_from_camera: (4, 4) pose of its optical frame.
        rate_hz: frame rate [Hz].
    """
    images = (compose_frame(frame, overview, intrinsics, world_from_camera) for frame in frames)
    write_video(images, path, rate_hz=rate_hz)


def compose_frame(frame: VideoFrame, overview: str, intrinsics: NDArray[np.float64],
                  world_from_camera: NDArray[np.float64]) -> RgbImage:
    """Compose one RGB image of the video, 536 px high; the overview's aspect ratio gives its width.

    Args:
        frame: images, plans and text.
        overview: camera shown large.
        intrinsics: (3, 3) pinhole matrix of its images [px].
        world_from_camera: (4, 4) pose of its optical frame.
    """
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


def _size(image: RgbImage, height: int) -> tuple[int, int]:
    """Return width and height for a height; both are even, which the encoder requires."""
    return 2 * round(height * image.shape[1] / image.shape[0] / 2), height


def _draw_plans(image: RgbImage, plans: Mapping[str, NDArray[np.float64]],
                intrinsics: NDArray[np.float64], world_from_camera: NDArray[np.float64],
                scale: float) -> None:
    for colour, (name, points) in zip(_PLAN_COLOURS, plans.items(), strict=False):
        pixels = scale * project(points, intrinsics, world_from_camera)
        pixels = pixels[np.isfinite(pixels).all(axis=-1)]
        # cv2 overflows far outside the image; plans are clipped at three image sizes.
        dots = np.clip(pixels, -2 * image.shape[1], 3 * image.shape[1]).round().astype(np.int32)
        cv2.polylines(image, [dots.reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
        for dot in dots[::4]:
            cv2.circle(image, tuple(map(int, dot)), 3, colour, -1, cv2.LINE_AA)
        if len(dots):
            cv2.putText(image, name, tuple(map(int, dots[-1] + 6)), FONT, 0.45, colour, 1, cv2.LINE_AA)


def _write_bar(canvas: RgbImage, frame: VideoFrame) -> None:
    baseline = _HEIGHT + 23
    prompt = f'"{plain_letters(frame.prompt)[:80]}"'
    cv2.putText(canvas, prompt, (10, baseline), FONT, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    state = f'holding: {frame.holding}' if frame.holding else 'following the plan'
    line = f't = {frame.stamp_ns / 1e9:6.2f} s   {state}'
    cv2.putText(canvas, line, (10, baseline + 22), FONT, 0.45, (170, 170, 170), 1, cv2.LINE_AA)


def write_storyboard(results: Sequence[InstructionResult], path: Path) -> None:
    """Write the storyboard; instructions without frames are left out.

    Args:
        results: results of the instructions.
        path: file to write; its name determines the format.

    Raises:
        OSError: the file cannot be written, or there are no frames at all.
    """
    seen = [_row(result) for result in results if result.recording.frames]
    if not seen:
        raise OSError(f'cannot write {path}: the overview camera published no images')
    image = np.concatenate(seen)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f'cannot write {path}')


def _row(result: InstructionResult) -> RgbImage:
    frames = result.recording.frames
    moments = [frames[round(index)] for index in np.linspace(0, len(frames) - 1, STORYBOARD_FRAMES)]
    tiles = [_tile(decode_rgb(moment.jpegs[OVERVIEW])) for moment in moments]
    # Without a seam, an arm at the edge seems to reach into the next frame.
    shown = np.concatenate([tiles[0], *(cv2.copyMakeBorder(tile, 0, 0, _SEAM, 0, cv2.BORDER_CONSTANT)
                                        for tile in tiles[1:])], axis=1)
    bar = np.zeros((_STORYBOARD_BAR, shown.shape[1], 3), np.uint8)
    cv2.putText(bar, f'"{plain_letters(result.instruction.prompt)[:80]}"', (10, 27), FONT, 0.65, _WHITE,
                1, cv2.LINE_AA)
    colour = _GREEN if result.done else _YELLOW
    (width, _), _ = cv2.getTextSize(result.outcome, FONT, 0.6, 1)
    cv2.putText(bar, result.outcome, (shown.shape[1] - width - 10, 27), FONT, 0.6, colour, 1, cv2.LINE_AA)
    return np.concatenate([bar, shown])


def _tile(image: RgbImage) -> RgbImage:
    height, width = image.shape[:2]
    tile: Any = cv2.resize(image, (round(_TILE_HEIGHT * width / height), _TILE_HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(tile, np.uint8)
