import cv2
import numpy as np
import pytest

from apt_training.episodes.episode import CameraFrame, EpisodeError, ImageStorage
from apt_training.episodes.read import Episode
from apt_training.inspect.contact_sheet import MAX_ROWS, draw_contact_sheet
from apt_training.inspect.drawing import draw_strip, evenly_spaced, overview_camera, project_into_view
from apt_training.inspect.episode_figure import draw_episode


def view_at(world_from_camera, size=(40, 60)):
    return CameraFrame(rgb=np.zeros((*size, 3), np.uint8), mask=None, world_from_camera=world_from_camera,
                       intrinsics=np.array([[50.0, 0, 30], [0, 50.0, 20], [0, 0, 1]]))


def test_points_are_projected_as_a_pinhole_does():
    pose = np.eye(4)
    pose[2, 3] = -2.0
    view = view_at(pose)
    assert project_into_view(view, np.array([0.0, 0.0, 0.0])) == pytest.approx((30, 20))
    assert project_into_view(view, np.array([0.4, -0.2, 0.0])) == pytest.approx((40, 15))


def test_points_behind_or_beside_the_image_are_not_seen():
    assert project_into_view(view_at(np.eye(4)), np.array([0.0, 0.0, -1.0])) is None
    assert project_into_view(view_at(np.eye(4)), np.array([5.0, 0.0, 1.0])) is None


def test_frames_are_spread_from_first_to_last():
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(2, 8) == [0, 1] and evenly_spaced(1, 8) == [0]


@pytest.mark.parametrize('storage', ImageStorage)
def test_red_stays_red_on_the_way_into_a_strip(write_episode, tmp_path, storage):
    write_episode(tmp_path / 'episode.h5', storage=storage, count=4, height=32, width=48)
    with Episode(tmp_path / 'episode.h5') as episode:
        picture = draw_strip(episode, 'high', [0], 64)
    thirds = (picture[10:54, left:left + 16] for left in (8, 40, 72))
    red, green, blue = (third.reshape(-1, 3).mean(axis=0) for third in thirds)
    assert red.argmax() == 0 and green.argmax() == 1 and blue.argmax() == 2


def test_a_strip_shows_only_what_the_letterbox_leaves(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5', count=3, height=32, width=48, mask=True)
    with Episode(tmp_path / 'episode.h5') as episode:
        # A mask hides 4 of 32 rows, so 28 rows become 56 px and 48 columns 96.
        assert draw_strip(episode, 'high', [0], 56).shape == (56, 96, 3)


def test_the_overview_is_the_camera_that_stands_still(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5', changes={'cameras': ('wrist', 'high')})
    with Episode(tmp_path / 'episode.h5') as episode:
        # The first camera of the fixture's frames stands still, whatever it is called.
        assert overview_camera(episode) == 'wrist'


@pytest.mark.parametrize('changes', [{}, {'arms': ('only',)}, {'prompts': ()}, {'cameras': ('a', 'b', 'c', 'd', 'e')}])
def test_any_episode_can_be_drawn(write_episode, tmp_path, changes):
    write_episode(tmp_path / 'episode.h5', desired=True, changes=changes)
    with Episode(tmp_path / 'episode.h5') as episode:
        draw_episode(episode, tmp_path / 'pictures/episode.png')
    picture = cv2.imread(str(tmp_path / 'pictures/episode.png'))
    assert picture.shape[1] == 1540 and picture.std() > 10


def test_an_episode_of_one_frame_can_be_drawn(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5', count=1)
    with Episode(tmp_path / 'episode.h5') as episode:
        draw_episode(episode, tmp_path / 'episode.png')
    draw_contact_sheet([tmp_path / 'episode.h5'], tmp_path / 'sheet.png')


def test_the_same_episodes_give_the_same_bytes(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5')
    for name in ('one.png', 'two.png'):
        draw_contact_sheet([tmp_path / 'episode.h5'], tmp_path / name)
    assert (tmp_path / 'one.png').read_bytes() == (tmp_path / 'two.png').read_bytes()


def test_a_contact_sheet_has_a_row_for_a_file_that_cannot_be_read(write_episode, tmp_path):
    write_episode(tmp_path / 'good.h5')
    (tmp_path / 'bad.h5').write_text('not an episode')
    draw_contact_sheet([tmp_path / 'good.h5', tmp_path / 'bad.h5'], tmp_path / 'both.png')
    draw_contact_sheet([tmp_path / 'good.h5'], tmp_path / 'one.png')
    both, one = (cv2.imread(str(tmp_path / name)) for name in ('both.png', 'one.png'))
    assert both.shape[0] - one.shape[0] == pytest.approx(110, abs=1)
    # The error is written in red, which nothing else in the row is.
    lower = both[one.shape[0]:].astype(int)
    assert (lower[..., 2] - lower[..., :2].max(axis=-1) > 80).sum() > 50


def test_a_contact_sheet_of_many_episodes_shows_an_even_selection(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5', count=2, height=16, width=16)
    draw_contact_sheet([tmp_path / 'episode.h5'] * (MAX_ROWS + 25), tmp_path / 'sheet.png')
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape[0] == pytest.approx(80 + 110 * MAX_ROWS, abs=2)


def test_a_contact_sheet_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match='got no episode for the contact sheet'):
        draw_contact_sheet([], tmp_path / 'sheet.png')


def test_a_picture_that_fails_leaves_the_old_one(write_episode, tmp_path):
    write_episode(tmp_path / 'episode.h5')
    with Episode(tmp_path / 'episode.h5') as episode:
        draw_episode(episode, tmp_path / 'episode.png')
    before = (tmp_path / 'episode.png').read_bytes()
    (tmp_path / 'episode.h5').write_bytes(b'damaged')
    with Episode(tmp_path / 'episode.h5') as episode, pytest.raises(EpisodeError):
        draw_episode(episode, tmp_path / 'episode.png')
    assert (tmp_path / 'episode.png').read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['episode.h5', 'episode.png']
