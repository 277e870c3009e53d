"""JPEG images that are halved while they are decoded, against decoding all and averaging."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from apt_policy.core.decode import DecodeError, decode_image, decode_image_reduced
from apt_policy.core.images import letterbox, whole_halvings


@pytest.fixture
def picture(rng):
    """Smooth noise with colours of its own, as in a photograph."""
    layers = [cv2.resize(rng.normal(0, size, (480 // size, 640 // size, 3)), (640, 480), interpolation=cv2.INTER_CUBIC)
              for size in (8, 16, 40, 80)]
    total = np.sum(layers, axis=0)
    return ((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)


@pytest.fixture
def message(picture):
    _, data = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return SimpleNamespace(format='jpeg', data=data.ravel())


@pytest.mark.parametrize('halvings', [1, 2, 3])
def test_a_jpeg_halved_on_the_way_is_the_average_of_the_whole_but_for_rounding(message, halvings):
    reduced, factor = decode_image_reduced(message, halvings)
    whole = decode_image(message)
    average = cv2.resize(whole, (640 // factor, 480 // factor), interpolation=cv2.INTER_AREA)
    assert factor == 2 ** halvings and reduced.shape == average.shape
    difference = np.abs(reduced.astype(int) - average)
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 3


def test_what_is_no_jpeg_and_what_needs_no_halving_is_decoded_whole(message, picture):
    _, png = cv2.imencode('.png', picture[..., ::-1])
    raw = SimpleNamespace(encoding='rgb8', height=480, width=640, step=1920, is_bigendian=0, data=picture.reshape(-1))
    for other in (SimpleNamespace(format='png', data=png.ravel()), raw):
        rgb, factor = decode_image_reduced(other, 2)
        assert factor == 1
        np.testing.assert_array_equal(rgb, picture)
    assert decode_image_reduced(message, 0).factor == 1


def test_a_sensor_mosaic_in_a_jpeg_is_not_averaged_over_its_colours(message):
    mosaic = np.kron(np.ones((60, 80), np.uint8), np.array([[200, 100], [100, 30]], np.uint8))
    _, data = cv2.imencode('.jpg', mosaic, [cv2.IMWRITE_JPEG_QUALITY, 100])
    rgb, factor = decode_image_reduced(SimpleNamespace(
        format='bayer_rggb8; jpeg compressed bayer_rggb8', data=data.ravel()), 1)
    assert factor == 1 and rgb.shape == (120, 160, 3)


def test_a_truncated_or_corrupt_jpeg_is_refused(message):
    with pytest.raises(DecodeError, match='truncated'):
        decode_image_reduced(SimpleNamespace(format='jpeg', data=message.data[:9000]), 1)
    broken = message.data.copy()
    broken[2:400] = 0
    with pytest.raises(DecodeError, match='corrupt'):
        decode_image_reduced(SimpleNamespace(format='jpeg', data=broken), 1)


@pytest.mark.parametrize(('height', 'width', 'count'), [
    (480, 640, 1), (720, 1280, 2), (1080, 1920, 2), (256, 256, 0), (2048, 2048, 3), (481, 641, 0), (360, 640, 1)])
def test_halvings_are_those_that_leave_the_letterbox_something_to_do(height, width, count):
    assert whole_halvings(height, width, 256) == count
    scale = 256 / max(height, width)
    assert height >> count >= round(height * scale) and width >> count >= round(width * scale)


def test_the_letterboxed_view_hardly_depends_on_where_it_was_halved(message):
    intrinsics = np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]])
    whole = letterbox(decode_image(message), intrinsics, 256)
    rgb, factor = decode_image_reduced(message, 1)
    halved = letterbox(rgb, np.diag((1 / factor, 1 / factor, 1.0)) @ intrinsics, 256)
    np.testing.assert_allclose(halved.intrinsics, whole.intrinsics, atol=1e-9)
    np.testing.assert_array_equal(halved.mask, whole.mask)
    assert np.abs(halved.rgb.astype(int) - whole.rgb).mean() < 1.0
