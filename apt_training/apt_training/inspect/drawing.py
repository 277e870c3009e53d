"""Drawing functions for episodes: strips of frames, points projected into images, figures.

Matplotlib is used without a display and without its global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from apt_policy.core.atomic import atomic_file
from apt_policy.core.projection import project
from apt_training.episodes.episode import CameraFrame
from apt_training.episodes.read import Episode

Picture = NDArray[np.uint8]

_PALETTE = ('#1f77b4', '#d95f02', '#2ca02c', '#9467bd')


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """Return a colour for each arm, the same in every figure."""
    return {name: _PALETTE[index % len(_PALETTE)] for index, name in enumerate(arms)}


def new_figure(width_in: float, height_in: float, *, apart_in: float = 0.05, arranged: bool = True) -> Figure:
    """Create an empty figure without pyplot.

    Args:
        width_in: width [inch].
        height_in: height [inch].
        apart_in: half of the space between rows [inch].
        arranged: True to make room for labels, which takes seconds for a hundred plots.
    """
    layout = ConstrainedLayoutEngine(h_pad=apart_in, hspace=0.0) if arranged else None
    figure = Figure(figsize=(width_in, height_in), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Any) -> None:
    """Set small tick labels, and remove the frame above and on the right."""
    axes.tick_params(labelsize=8)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a PNG atomically; the same figure gives the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as fresh:
        figure.savefig(fresh, dpi=dpi, format='png', metadata={'Software': None})


def evenly_spaced(frames: int, count: int) -> list[int]:
    """Return at most ``count`` evenly spaced frames, the first and the last included."""
    return sorted(set(np.linspace(0, frames - 1, min(count, frames)).round().astype(int).tolist()))


def overview_camera(episode: Episode) -> str:
    """Return the first fixed camera, else the first camera."""
    names = episode.facts.cameras
    for name in names:
        if np.ptp(episode.camera(name).world_from_camera, axis=0).max() < 1e-3:
            return name
    return names[0]


def draw_strip(episode: Episode, camera: str, frames: Sequence[int], height: int, *, gap: int = 3) -> Picture:
    """Draw frames side by side, with rings at the projected end-effectors.

    Args:
        episode: the episode.
        camera: name of the camera.
        frames: indices of frames.
        height: height of the strip [px].
        gap: white space between frames [px].

    Returns:
        (height, W, 3) uint8 RGB.

    Raises:
        EpisodeError: an image cannot be read.
    """
    colours = arm_colours(episode.facts.arms)
    images = []
    for index in frames:
        view = episode.view(camera, index)
        poses = dict(zip(colours.values(), episode.world_from_ee[index], strict=True))
        images.append(_draw_frame(view, poses, height))
    blank = np.full((height, gap, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, blank)][:-1], axis=1)


def project_into_view(view: CameraFrame, point: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the pixel (u, v) of a point (3,) in the world [m]; None if it is outside the image."""
    u, v = project(point, view.intrinsics, view.world_from_camera)
    height, width = view.rgb.shape[:2]
    return (float(u), float(v)) if 0 <= u < width and 0 <= v < height else None


def _draw_frame(view: CameraFrame, poses: Mapping[str, NDArray[np.float64]], height: int) -> Picture:
    """Return a frame without letterbox, scaled, with a ring per end-effector in its colour."""
    top, bottom, left, right = _visible_area(view)
    scale = height / (bottom - top)
    width = max(1, round((right - left) * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.ascontiguousarray(cv2.resize(view.rgb[top:bottom, left:right], (width, height), interpolation=method),
                                   dtype=np.uint8)
    for colour, pose in poses.items():
        pixel = project_into_view(view, pose[:3, 3])
        if pixel is not None:
            centre = (round((pixel[0] - left) * scale), round((pixel[1] - top) * scale))
            radius = max(3, height // 28)
            cv2.circle(picture, centre, radius, (255, 255, 255), 3, cv2.LINE_AA)
            cv2.circle(picture, centre, radius, tuple(int(255 * part) for part in to_rgb(colour)), 2, cv2.LINE_AA)
    return picture


def _visible_area(view: CameraFrame) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the image without letterbox [px]."""
    height, width = view.rgb.shape[:2]
    if view.mask is None or not view.mask.any():
        return 0, height, 0, width
    rows, columns = np.flatnonzero(view.mask.any(axis=1)), np.flatnonzero(view.mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
