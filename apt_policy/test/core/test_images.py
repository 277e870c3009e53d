"""Letterboxing against projections of known points."""

import cv2
import numpy as np
import pytest

from apt_policy.core.images import letterbox

SIZES = [(480, 640), (720, 1280), (640, 480), (200, 320), (97, 131), (256, 256), (480, 641)]


def _blob_at(u: float, v: float, height: int, width: int, spread: float) -> np.ndarray:
    """A soft spot whose centre is (u, v), pixel centres at +0.5."""
    y, x = np.mgrid[:height, :width] + 0.5
    spot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * spread ** 2))
    return np.repeat(spot[..., None], 3, axis=2).astype(np.uint8)


def _centroid(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[:image.shape[0], :image.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_a_known_point_is_seen_where_the_new_intrinsics_project_it(height, width):
    focal = 0.9 * width
    intrinsics = np.array([[focal, 0, width / 2 + 3], [0, focal, height / 2 - 2], [0, 0, 1]])
    for point in ([0.1, 0.05, 1.0], [-0.2, 0.1, 0.8], [0.0, -0.12, 0.6]):
        pixel = intrinsics @ np.array(point) / point[2]
        image = _blob_at(pixel[0], pixel[1], height, width, spread=max(height, width) / 50)
        np.testing.assert_allclose(_centroid(image), pixel[:2], atol=0.1)
        boxed = letterbox(image, intrinsics, 256)
        expected = (boxed.intrinsics @ np.array(point) / point[2])[:2]
        np.testing.assert_allclose(_centroid(boxed.rgb), expected, atol=0.06)


@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_the_mask_covers_the_image_and_the_border_is_black(height, width):
    boxed = letterbox(np.full((height, width, 3), 200, np.uint8), np.eye(3), 256)
    assert boxed.rgb.shape == (256, 256, 3)
    assert boxed.mask.shape == (256, 256)
    assert (boxed.rgb[boxed.mask] == 200).all()
    assert (boxed.rgb[~boxed.mask] == 0).all()
    rows, columns = boxed.mask.any(axis=1).sum(), boxed.mask.any(axis=0).sum()
    assert max(rows, columns) == 256
    assert abs(rows / columns - height / width) < 1.5 / 256
    assert boxed.mask.sum() == rows * columns


def test_shrinking_averages_instead_of_picking():
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = letterbox(stripes, np.eye(3), 256).rgb[32:224]
    assert abs(inner.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(('height', 'width', 'limit'), [(480, 640, 2.5), (720, 1280, 2.5), (450, 601, 0.01)])
def test_shrinking_agrees_with_one_exact_area_average(height, width, limit, rng):
    noise = rng.uniform(0, 255, (60, 80, 3)).astype(np.uint8)
    photo = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    boxed = letterbox(photo, np.eye(3), 256)
    rows = boxed.mask.any(axis=1)
    expected = cv2.resize(photo, (256, int(rows.sum())), interpolation=cv2.INTER_AREA)
    assert np.abs(boxed.rgb[rows].astype(float) - expected).mean() <= limit


def test_an_image_of_the_right_size_passes_unchanged(rng):
    image = rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)
    boxed = letterbox(image, np.diag([300.0, 300.0, 1.0]), 256)
    np.testing.assert_array_equal(boxed.rgb, image)
    np.testing.assert_array_equal(boxed.intrinsics, np.diag([300.0, 300.0, 1.0]))


def test_rows_with_padding_are_read_without_a_copy_being_needed(rng):
    padded = rng.integers(0, 255, (480, 700, 3), dtype=np.uint8)
    view = padded[:, :640]
    np.testing.assert_array_equal(letterbox(view, np.eye(3), 256).rgb,
                                  letterbox(view.copy(), np.eye(3), 256).rgb)


def test_a_read_only_image_is_accepted_and_left_alone(rng):
    image = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    before = image.copy()
    image.flags.writeable = False
    letterbox(image, np.eye(3), 256)
    np.testing.assert_array_equal(image, before)
