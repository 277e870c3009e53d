"""The pictures of a LeRobot video, in one pass from first to last.

Knows nothing of datasets: a file, and the times at which frames are wanted. Only this module of
the converter imports PyAV, and only when it is used.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_training.convert.lerobot.files import LerobotError

_RATE_TOLERANCE = 0.02


def read_frames(path: Path, times_s: Sequence[float], fps: float) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) uint8, red first: for every time the frame nearest to it.

    Args:
        path: any file that PyAV can decode, AV1 included.
        times_s: increasing, on the video's own clock [s].
        fps: of the dataset [Hz]; a frame is off by half a period at most.

    Raises:
        LerobotError: missing, damaged, too short, or of another rate.
    """
    av = _pyav()
    if not path.exists():
        raise LerobotError(f'{path} is missing; copy the videos/ folder too (git lfs pull, or download the '
                                'dataset whole)')
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise LerobotError(f'{path} holds no video stream; copy it again')
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            _check_rate(path, stream.average_rate, fps)
            yield from _nearest(path, _decoded(container, stream, times_s[0] - 0.5 / fps), times_s, 0.5 / fps)
    except av.FFmpegError as error:
        raise LerobotError(f'{path} cannot be decoded: {error}; copy it again, or install a PyAV that knows its '
                                'codec') from error


def _decoded(container: Any, stream: Any, from_s: float) -> Iterator[tuple[float, Any]]:
    """Times and frames from the keyframe before ``from_s`` on."""
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
            has = 'ends before' if current is None else f'has its next frame at {current[0]:.3f} s, not at'
            raise LerobotError(f'{path} {has} {wanted_s:.3f} s; it does not belong to these rows, or was cut off: '
                                    'copy it again')
        yield np.asarray(near[1].to_ndarray(format='rgb24'), np.uint8)


def _check_rate(path: Path, rate: Any, fps: float) -> None:
    if rate is not None and abs(float(rate) / fps - 1.0) > _RATE_TOLERANCE:
        raise LerobotError(f'{path} runs at {float(rate):g} frames/s, meta/info.json says fps {fps:g}; one of '
                                'them is wrong: encode the video at the rate of the dataset, or correct info.json')


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise LerobotError('reading LeRobot videos needs PyAV: pip install av') from error
    return av
