"""Video and plot of a recording."""

import av
import cv2
import numpy as np
import pytest

from apt_demos.demo.media import compose_frame, write_demo_video
from apt_demos.demo.recording import VideoFrame

INTRINSICS = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
IDENTITY = np.eye(4)


def frame(colour=(200, 40, 10), plans=None):
    image = np.full((240, 320, 3), colour, np.uint8)
    jpeg = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    return VideoFrame(stamp_ns=0, jpegs={'high': jpeg, 'low': jpeg}, plans=plans or {}, prompt='pick', holding='')


def test_a_frame_keeps_the_colours_of_the_camera():
    picture = compose_frame(frame(), 'high', INTRINSICS, IDENTITY)
    assert picture[100, 100] == pytest.approx([200, 40, 10], abs=6)
    assert picture[100, 700] == pytest.approx([200, 40, 10], abs=6)


def test_plan_is_drawn_where_it_projects():
    line = np.stack([np.linspace(-0.2, 0.2, 8), np.zeros(8), np.ones(8)], axis=-1)
    plain = compose_frame(frame(), 'high', INTRINSICS, IDENTITY)
    sample_instructions = compose_frame(frame(plans={'left': line}), 'high', INTRINSICS, IDENTITY)
    rows, columns = np.nonzero(np.abs(sample_instructions.astype(int) - plain).max(axis=-1) > 60)
    # x = ±0.2 m at 1 m lands at 2 * (160 ± 60) px; dots and a label stand around it.
    assert columns.min() >= 196
    assert columns.max() <= 520
    assert abs(np.median(rows) - 240) < 5


def test_a_plan_far_outside_the_image_or_behind_it_does_not_break_the_video():
    wild = np.array([[1e9, 0, 1e-6], [0, 0, -1], [np.nan, 0, 1]])
    assert compose_frame(frame(plans={'left': wild}), 'high', INTRINSICS, IDENTITY).shape == (536, 854, 3)


def test_the_video_has_every_frame(tmp_path):
    path = tmp_path / 'film.mp4'
    write_demo_video([frame() for _ in range(7)], path, overview='high', intrinsics=INTRINSICS,
                     world_from_camera=IDENTITY, rate_hz=15.0)
    with av.open(str(path)) as container:
        pictures = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
    assert len(pictures) == 7
    assert pictures[3][100, 100] == pytest.approx([200, 40, 10], abs=12)
