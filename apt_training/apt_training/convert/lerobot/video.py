"""Reader of frames from a LeRobot video, in one pass.

Only this module of the converter imports PyAV, and only when it is used.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_training.convert.lerobot.files import LerobotError

# Relative deviation of the rate of a video from fps, above which the two do not belong together.
_RATE_TOLERANCE = 0.02


def read_frames(path: Path, times_s: Sequence[float], fps: float) -> Iterator[NDArray[np.uint8]]:
    """Yield the nearest frame for each time, as (H, W, 3) uint8 RGB.

    Args:
        path: video that PyAV can decode, AV1 included.
        times_s: increasing times on the clock of the video [s].
        fps: rate of the dataset [Hz]; a frame deviates by at most half a period.

    Raises:
        LerobotError: the video is missing, damaged, too short, or has another rate.
    """
    av = _pyav()
    if not path.exists():
        raise LerobotError(f'{path} is missing: copy the videos/ folder too (git lfs pull, or download the '
                               'whole dataset)')
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise LerobotError(f'{path} has no video stream: copy it again')
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            _check_rate(path, stream.average_rate, fps)
            yield from _nearest(path, _decoded(container, stream, times_s[0] - 0.5 / fps), times_s, 0.5 / fps)
    except av.FFmpegError as error:
        raise LerobotError(f'{path} cannot be decoded ({error}): copy it again, or install a PyAV with its '
                           'codec') from error


def _decoded(container: Any, stream: Any, from_s: float) -> Iterator[tuple[float, Any]]:
    """Yield times [s] and frames from the keyframe before ``from_s`` on."""
    container.seek(max(0, int(from_s / stream.time_base)), stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.pts is not None:
            yield float(frame.pts * stream.time_base), frame


def _nearest(path: Path, frames: Iterator[tuple[float, Any]], times_s: Sequence[float],
             tolerance_s: float) -> Iterator[NDArray[np.uint8]]:
    last: tuple[float, Any] | None = None
    current = next(frames, None)
    for wanted_s in times_s:
        while current is not None and current[0] < wanted_s:
            last, current = current, next(frames, None)
        near = min((one for one in (last, current) if one is not None), key=lambda one: abs(one[0] - wanted_s),
                   default=None)
        # Frame times are rounded to the container's clock.
        if near is None or abs(near[0] - wanted_s) > tolerance_s + 1e-3:
            found = 'ends before' if current is None else f'has its next frame at {current[0]:.3f} s, not at'
            raise LerobotError(f'{path} {found} {wanted_s:.3f} s: it belongs to other rows or is truncated; copy it '
                               'again')
        yield np.asarray(near[1].to_ndarray(format='rgb24'), np.uint8)


def _check_rate(path: Path, rate: Any, fps: float) -> None:
    if rate is not None and abs(float(rate) / fps - 1.0) > _RATE_TOLERANCE:
        raise LerobotError(f'{path} has {float(rate):g} frames/s, expected the fps {fps:g} of meta/info.json: encode '
                           'the video at the rate of the dataset, or correct info.json')


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise LerobotError('LeRobot videos need PyAV: pip install av') from error
    return av
