"""Image augmentation for training."""

import cv2
import numpy as np
import pytest

from apt_training.data.augment import (
    Augmentation,
    ColourChange,
    Crop,
    apply_colour,
    crop_box,
    draw_colour,
    draw_crop,
)
from apt_training.data.sample_images import crop_view, fit_view
from apt_training.episodes.episode import CameraFrame


@pytest.fixture
def picture():
    """Smooth, with noise, and nothing near black or white."""
    rng = np.random.default_rng(0)
    return np.clip(cv2.GaussianBlur(rng.normal(128, 300, (48, 64, 3)), (0, 0), 4) + rng.normal(0, 4, (48, 64, 3)),
                   5, 250).astype(np.uint8)


def plain_colour(rgb, change, mean):
    """The published chain in floats."""
    image = rgb / 255 * change.brightness
    image = (image - mean * change.brightness) * change.contrast + mean * change.brightness
    grey = image.mean(-1, keepdims=True)
    image = np.clip((image - grey) * change.saturation + grey, 0, 1)
    return 255 * image ** change.gamma


@pytest.mark.parametrize('seed', range(8))
def test_colours_change_as_in_the_published_chain(picture, seed):
    change = draw_colour(Augmentation(blur=0.0), np.random.default_rng(seed))
    wanted = plain_colour(picture, change, (picture / 255).mean((0, 1)))
    # A grey level before gamma is more of them after it where it is dark.
    assert np.abs(apply_colour(picture, change, None) - wanted).max() < 2.0


def test_nothing_drawn_changes_nothing(picture):
    assert np.array_equal(apply_colour(picture, ColourChange(1, 1, 1, 1, 0, 1), None), picture)


def test_pixels_outside_the_mask_stay_and_do_not_count(picture):
    mask = np.ones((48, 64), np.bool_)
    mask[:12] = False
    boxed = np.where(mask[..., None], picture, 0).astype(np.uint8)
    change = ColourChange(1.2, 0.8, 1.1, 0.9, 3, 0.7)
    changed = apply_colour(boxed, change, mask)
    assert not changed[:12].any()
    alone = apply_colour(np.ascontiguousarray(picture[12:]), change, None)
    assert np.array_equal(changed[16:], alone[4:])


def test_the_draws_cover_the_published_ranges_and_no_more():
    rng = np.random.default_rng(0)
    draws = [draw_colour(Augmentation(), rng) for _ in range(3000)]
    for name, low, high in (('brightness', 0.75, 1.25), ('contrast', 0.75, 1.25), ('saturation', 0.75, 1.25),
                            ('gamma', 0.85, 1.15), ('blur_sigma', 0.2, 1.0)):
        values = [getattr(draw, name) for draw in draws]
        span = (high - low) / 20
        assert low <= min(values) < low + span and high - span < max(values) <= high
    assert abs(np.mean([draw.blur_side > 0 for draw in draws]) - 1 / 7) < 0.03
    assert {draw.blur_side for draw in draws} == {0, 3, 5}
    crops = [draw_crop(Augmentation(crop=0.05), rng) for _ in range(1000)]
    assert 0.95 <= min(crop.scale for crop in crops) < 0.96 and max(crop.scale for crop in crops) <= 1


def test_a_crop_stays_inside_and_reaches_every_edge():
    rng = np.random.default_rng(0)
    boxes = [crop_box(draw_crop(Augmentation(crop=0.05), rng), 200, 300) for _ in range(2000)]
    assert min(min(rows.start, columns.start) for rows, columns in boxes) == 0
    assert all(rows.stop <= 200 and columns.stop <= 300 for rows, columns in boxes)
    assert max(rows.stop for rows, _ in boxes) >= 199


def test_a_point_of_the_world_stays_under_its_pixel_through_crop_and_resize():
    # One bright pixel where a point at (0.2, -0.1, 1) m is seen.
    intrinsics = np.array([[200.0, 0, 160.0], [0, 200.0, 120.0], [0, 0, 1]])
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[96:104, 196:204] = 255
    view = CameraFrame(rgb=rgb, mask=None, intrinsics=intrinsics, world_from_camera=np.eye(4))
    for crop in (Crop(1.0, 0.0, 0.0), Crop(0.9, 0.05, -0.05)):
        image, mask, moved = fit_view(crop_view(view, crop), 128)
        u, v, _ = moved @ (0.2, -0.1, 1.0)
        weight = image[..., 0].astype(float)
        at = np.arange(128) + 0.5
        assert abs((weight.sum(0) * at).sum() / weight.sum() - u) < 0.1
        assert abs((weight.sum(1) * at).sum() / weight.sum() - v) < 0.1
        assert mask[int(v), int(u)] and not mask[0].any()


def test_a_stored_mask_follows_its_image():
    mask = np.zeros((240, 320), np.bool_)
    mask[:, :160] = True
    view = CameraFrame(rgb=np.zeros((240, 320, 3), np.uint8), mask=mask, intrinsics=np.eye(3),
                       world_from_camera=np.eye(4))
    _, fit, _ = fit_view(view, 128)
    assert fit[64, :64].all() and not fit[64, 64:].any() and not fit[:16].any()


def test_an_image_of_the_right_size_is_not_touched(picture):
    square = np.ascontiguousarray(picture[:48, :48])
    intrinsics = np.array([[60.0, 0, 24.1], [0, 60.0, 23.7], [0, 0, 1]])
    rgb, mask, moved = fit_view(CameraFrame(rgb=square, mask=None, intrinsics=intrinsics,
                                            world_from_camera=np.eye(4)), 48)
    assert rgb is square and mask.all() and moved is intrinsics


def test_ranges_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match='colour is 2'):
        Augmentation(colour=2.0)
