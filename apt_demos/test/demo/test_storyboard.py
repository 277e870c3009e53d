"""Storyboard of a demonstration: a row for each instruction, from its first frame to its last."""

import cv2
import numpy as np
import pytest

from apt_demos.demo.demo_recorder import OVERVIEW
from apt_demos.demo.demo_runner import DemoInstruction, InstructionResult
from apt_demos.demo.media import STORYBOARD_FRAMES, write_storyboard
from apt_demos.demo.recording import Recording, VideoFrame
from apt_sim.evaluation.success_checker import EpisodeState, EpisodeStatus

BAR, SIDE, SEAM = 40, 320, 8


def instruction_result(levels, status):
    """Return the result of an instruction with uniformly grey frames."""
    jpegs = [cv2.imencode('.jpg', np.full((64, 64, 3), level, np.uint8))[1].tobytes() for level in levels]
    frames = tuple(VideoFrame(stamp_ns=0, jpegs={OVERVIEW: jpeg}, plans={}, prompt='pick', holding='')
                   for jpeg in jpegs)
    recording = Recording(
        control_rate_hz=50.0, duration_s=7.9, wall_s=8.0, arms={}, targets_sent=0, chunks=0, streams=(), holds={},
        latency_s=(0.0, 0.0), inference_s=(0.0, 0.0), frames=frames)
    return InstructionResult(instruction=DemoInstruction(prompt='pick up the red cube'), recording=recording,
                             status=status)


DONE = instruction_result(range(0, 190, 2), EpisodeStatus(state=EpisodeState.SUCCESS))
FAILED = instruction_result([30, 90], EpisodeStatus(state=EpisodeState.FAILURE, reason='lifted the blue cup'))
UNJUDGED = instruction_result([30], None)


def test_an_outcome_in_words():
    assert [(one.done, one.outcome) for one in (DONE, FAILED, UNJUDGED)] == [
        (True, 'done in 7.9 s'), (False, 'lifted the blue cup'), (False, '')]


def test_rows_begin_with_the_first_frame_and_end_with_the_last(tmp_path):
    write_storyboard([DONE, FAILED, UNJUDGED], tmp_path / 'story.png')
    picture = cv2.imread(str(tmp_path / 'story.png'))
    assert picture.shape == (3 * (BAR + SIDE), STORYBOARD_FRAMES * (SIDE + SEAM) - SEAM, 3)
    middles = picture[BAR + SIDE // 2::BAR + SIDE, SIDE // 2::SIDE + SEAM, 0].astype(int)
    assert middles[0] == pytest.approx([0, 62, 126, 188], abs=4)
    assert middles[1, [0, -1]] == pytest.approx([30, 90], abs=4)
    assert middles[2] == pytest.approx([30] * STORYBOARD_FRAMES, abs=4)
    assert not picture[BAR + SIDE // 2, SIDE:SIDE + SEAM].any(), 'a seam between moments'
    for row in range(3):
        bar = picture[row * (BAR + SIDE):][:BAR]
        said, told = bar[:, :400].max(), bar[:, -300:].max()
        assert said == 255 and bool(told > 100) is (row < 2), 'prompt at the left, outcome at the right'


def test_a_place_that_takes_no_file_is_named(tmp_path):
    with pytest.raises(OSError, match='missing'):
        write_storyboard([FAILED], tmp_path / 'missing' / 'story.jpg')


def test_an_instruction_without_frames_is_left_out(tmp_path):
    write_storyboard([instruction_result([], None), FAILED], tmp_path / 'story.png')
    assert cv2.imread(str(tmp_path / 'story.png')).shape[0] == BAR + SIDE
    with pytest.raises(OSError, match='the overview camera published no images'):
        write_storyboard([instruction_result([], None)], tmp_path / 'none.png')
