"""Writer of video files of one camera, and reader of single frames.

A frame is found by its time since the first one, so that gaps in a recording stay gaps. Keyframes are close together:
reading a frame decodes at most :data:`KEYFRAME_GAP` frames. Only this module imports PyAV, and only when it is used.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.errors import UserError

KEYFRAME_GAP = 8
"""Number of frames from one keyframe to the next."""
_TICKS = 90_000
"""Time stamps per second in the files of the suite, as usual in MPEG."""
# With x264's macroblock tree, about three files in a thousand differed in their bytes (x264 in PyAV 18.1, 32x32 px).
_QUALITY = {'crf': '16', 'preset': 'veryfast', 'x264-params': 'bframes=0:scenecut=0:no-mbtree=1'}
TOLERANCE_S = 0.01
"""Largest deviation of a frame from the requested time [s]."""


class VideoError(UserError, ValueError):
    """Error of a video that cannot be written or read."""


class CameraVideoWriter:
    """Writer of H.264 in MP4; the same frames give the same bytes."""

    def __init__(self, path: Path, *, rate_hz: float, height: int, width: int) -> None:
        """Open a file.

        Args:
            path: file to write.
            rate_hz: nominal rate for players [Hz].
            height: height of the images [px], even.
            width: width of the images [px], even.

        Raises:
            VideoError: PyAV or its encoder is missing, or a side is odd.
        """
        if height % 2 or width % 2:
            raise VideoError(f'cannot encode {width}x{height} px, expected even sides: use storage raw or jpeg')
        av = _pyav()
        # Without the flag the file contains the name and version of the library.
        self._container = av.open(str(path), 'w', format='mp4', options={'fflags': '+bitexact'})
        try:
            self._stream = self._container.add_stream('libx264', rate=Fraction(rate_hz).limit_denominator(1000))
        except (ValueError, av.FFmpegError) as error:
            self._container.close()
            raise VideoError(f'PyAV cannot encode H.264 ({error}): use storage raw or jpeg') from error
        stream: Any = self._stream
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.codec_context.gop_size = KEYFRAME_GAP
        # The slices of a frame, and so the bytes, depend on the number of threads.
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.options = dict(_QUALITY)

    def append_frame(self, rgb: NDArray[np.uint8], since_start_s: float) -> None:
        """Append an image.

        Args:
            rgb: (H, W, 3) uint8.
            since_start_s: time since the first frame [s], later than that of the frame before.
        """
        frame = _pyav().VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24')
        frame.pts, frame.time_base = round(since_start_s * _TICKS), Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def discard(self) -> None:
        """Close the file without finishing it."""
        try:
            self._container.close()
        except _pyav().FFmpegError:
            pass


def read_video_frame(path: Path, since_start_s: float) -> NDArray[np.uint8]:
    """Return the frame at a time since the first frame [s], as (H, W, 3) uint8 RGB.

    Raises:
        VideoError: the file is missing, no video, or has no frame at that time.
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
    """Yield times since the first frame [s] and frames, from the keyframe before the requested time on."""
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
        raise VideoError('videos need PyAV: pip install av, or use storage raw or jpeg') from error
    return av
