"""Video files of one camera: frames in, and any one frame out again.

A frame is found by its time since the first one, so that gaps in a recording stay gaps.
Keyframes stand close together: a frame costs at most :data:`KEYFRAME_GAP` decodes.
Only this module imports PyAV, and only when it is used.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError

KEYFRAME_GAP = 8
_TICKS = 90_000
"""Per second, of the time stamps in our files."""
# Of x264's macroblock tree, some three files in a thousand had other bytes than the rest (x264 in PyAV 18.1, 32x32 px).
_QUALITY = {'crf': '16', 'preset': 'veryfast', 'x264-params': 'bframes=0:scenecut=0:no-mbtree=1'}
TOLERANCE_S = 0.01
"""A frame may be this far off the time that is asked for."""


class VideoError(UserError, ValueError):
    """A video that cannot be written or read; the message says why."""


class VideoWriter:
    """Writes H.264 in MP4; the same frames give the same bytes."""

    def __init__(self, path: Path, *, rate_hz: float, height: int, width: int) -> None:
        """Open ``path``; the nominal ``rate_hz`` is for players.

        Raises:
            VideoError: PyAV is missing, lacks the encoder, or the size is odd.
        """
        if height % 2 or width % 2:
            raise VideoError(f'a video needs even sides, got {width}x{height}: store raw or jpeg')
        av = _pyav()
        # Without the flag the file carries the name and version of the library.
        self._container = av.open(str(path), 'w', format='mp4', options={'fflags': '+bitexact'})
        try:
            self._stream = self._container.add_stream('libx264', rate=Fraction(rate_hz).limit_denominator(1000))
        except (ValueError, av.FFmpegError) as error:
            self._container.close()
            raise VideoError(f'this PyAV cannot encode H.264 ({error}); store raw or jpeg') from error
        stream: Any = self._stream
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.codec_context.gop_size = KEYFRAME_GAP
        # Slices of one frame depend on the number of threads.
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.options = dict(_QUALITY)

    def add(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append (H, W, 3), later than the frame before [s]."""
        frame = _pyav().VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24')
        frame.pts, frame.time_base = round(since_start_s * _TICKS), Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def abandon(self) -> None:
        """Let go of the file, which is then worth nothing."""
        try:
            self._container.close()
        except _pyav().FFmpegError:
            pass


def read_video_frame(path: Path, since_start_s: float) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, red first, of the frame shown at that time [s].

    Raises:
        VideoError: absent, not a video, or without a frame at that time.
    """
    av = _pyav()
    if not path.exists():
        raise VideoError(f'video {path} does not exist')
    try:
        with av.open(str(path)) as container:
            found = next((found for found in _frames_from(container, since_start_s)
                          if found[0] >= since_start_s - TOLERANCE_S), None)
            if found is None:
                raise VideoError(f'video {path} ends before {since_start_s:.3f} s')
            time_s, frame = found
            if time_s > since_start_s + TOLERANCE_S:
                raise VideoError(f'video {path} has no frame at {since_start_s:.3f} s; '
                                 f'the next is at {time_s:.3f} s')
            return np.asarray(frame.to_ndarray(format='rgb24'), np.uint8)
    except av.FFmpegError as error:
        raise VideoError(f'video {path} cannot be decoded at {since_start_s:.3f} s: {error}') from error


def _frames_from(container: Any, since_start_s: float) -> Iterator[tuple[float, Any]]:
    """Frames and their times since the first, from the keyframe before the time that is asked for."""
    if not container.streams.video:
        raise VideoError(f'{container.name} has no video stream')
    stream = container.streams.video[0]
    stream.thread_count = 1
    start = stream.start_time or 0
    wanted = start + round((since_start_s + TOLERANCE_S) / stream.time_base)
    container.seek(wanted, stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.pts is not None:
            yield float((frame.pts - start) * stream.time_base), frame


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError('videos need PyAV: pip install av, or store raw or jpeg') from error
    return av
