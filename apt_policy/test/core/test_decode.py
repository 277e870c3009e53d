"""A colour chart through every encoding, and what must be refused.

The charts are encoded here from the definitions of the encodings, not with the libraries
that decode them.
"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from apt_policy.core.decode import DecodeError, decode_image
from apt_policy.core.pixels import BYTES_PER_PIXEL, pixel_readers

PATCH = 16
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255],
                    [200, 100, 50], [40, 90, 160], [255, 255, 255], [0, 0, 0], [128, 128, 128],
                    [90, 10, 30]], np.uint8).reshape(3, 4, 3)
CHART = np.kron(COLOURS, np.ones((PATCH, PATCH, 1), np.uint8))
HEIGHT, WIDTH = CHART.shape[:2]
GRAY = np.rint(CHART @ [0.299, 0.587, 0.114]).astype(np.uint8)

# Encoding -> the worst error of a patch's colour that its definition allows.
TOLERANCE = dict.fromkeys(BYTES_PER_PIXEL, 0) | {
    'yuv422': 3, 'uyvy': 3, 'yuv422_yuy2': 3, 'yuyv': 3, 'mono16': 1, 'rgb16': 1, 'bgr16': 1}


def _yuv422(order: str) -> np.ndarray:
    """BT.601 studio range; each pair of pixels shares its chroma."""
    red, green, blue = np.moveaxis(CHART.astype(float), -1, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = (128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255)[:, ::2]
    v = (128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255)[:, ::2]
    parts = {'y0': luma[:, ::2], 'y1': luma[:, 1::2], 'u': u, 'v': v}
    pairs = np.stack([parts[name] for name in order.split()], axis=-1)
    return np.rint(pairs).astype(np.uint8).reshape(HEIGHT, -1)


def _bayer(pattern: str) -> np.ndarray:
    """One sensor pixel of each colour in a 2x2 cell, named row by row."""
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, letter in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = CHART[row::2, column::2, 'rgb'.index(letter)]
    return mosaic


def _chart_bytes(encoding: str) -> np.ndarray:
    """The chart's rows (H, step) in an encoding."""
    alpha = np.full((HEIGHT, WIDTH, 1), 77, np.uint8)
    plain = {
        'rgb8': CHART, 'bgr8': CHART[..., ::-1], 'rgba8': np.concatenate([CHART, alpha], -1),
        'bgra8': np.concatenate([CHART[..., ::-1], alpha], -1), 'mono8': GRAY,
        'uyvy': _yuv422('u y0 v y1'), 'yuv422': _yuv422('u y0 v y1'),
        'yuyv': _yuv422('y0 u y1 v'), 'yuv422_yuy2': _yuv422('y0 u y1 v')}
    if encoding in plain:
        return np.ascontiguousarray(plain[encoding]).reshape(HEIGHT, -1)
    if encoding.startswith('bayer'):
        mosaic = _bayer(encoding.removeprefix('bayer_')[:4])
        wide = mosaic.astype('<u2') * 257 if encoding.endswith('16') else mosaic
    else:
        wide = {'rgb16': CHART, 'bgr16': CHART[..., ::-1], 'mono16': GRAY}[encoding].astype('<u2') * 257
    return np.ascontiguousarray(wide).reshape(HEIGHT, -1).view(np.uint8)


def _header(messages: SimpleNamespace):
    return messages.Header(stamp=messages.Time(sec=1, nanosec=0), frame_id='cam')


def _image(messages: SimpleNamespace, encoding: str, rows: np.ndarray, *, width: int = WIDTH,
           big_endian: int = 0, step: int | None = None):
    return messages.Image(header=_header(messages), height=HEIGHT, width=width, encoding=encoding,
                          is_bigendian=big_endian, step=rows.shape[1] if step is None else step,
                          data=messages.pixels(rows.tobytes()))


def _compressed(messages: SimpleNamespace, form: str, data: bytes):
    return messages.CompressedImage(header=_header(messages), format=form, data=messages.pixels(data))


def _patches(image: np.ndarray) -> np.ndarray:
    """(3, 4, 3) colours in the middle of the patches."""
    half = PATCH // 2
    return image[half::PATCH, half::PATCH].astype(int)


@pytest.fixture(params=list(pixel_readers()))
def reader(request):
    """Every image library that is installed here."""
    return pixel_readers()[request.param]


@pytest.mark.parametrize('encoding', BYTES_PER_PIXEL)
def test_every_encoding_yields_the_charts_colours(encoding, messages, reader):
    image = decode_image(_image(messages, encoding, _chart_bytes(encoding)), reader)
    assert image.shape == CHART.shape
    assert image.dtype == np.uint8
    truth = np.repeat(GRAY[..., None], 3, -1) if encoding.startswith('mono') else CHART
    assert np.abs(_patches(image) - _patches(truth)).max() <= TOLERANCE[encoding]


@pytest.mark.parametrize('encoding', BYTES_PER_PIXEL)
@pytest.mark.parametrize('padding', [6, 64])
def test_padded_rows_change_nothing(encoding, padding, messages, reader):
    rows = _chart_bytes(encoding)
    padded = np.concatenate([rows, np.full((HEIGHT, padding), 99, np.uint8)], axis=1)
    np.testing.assert_array_equal(decode_image(_image(messages, encoding, padded), reader),
                                  decode_image(_image(messages, encoding, rows), reader))


@pytest.mark.parametrize('encoding', ['mono16', 'rgb16', 'bayer_rggb16', 'rgb8', 'bgr8', 'yuv422'])
def test_big_endian_swaps_wide_samples_and_nothing_else(encoding, messages, reader):
    rows = _chart_bytes(encoding)
    # A chart whose two bytes differ, or a missing swap would go unseen.
    if encoding.endswith('16'):
        rows = (rows.view('<u2') & 0xff00).view(np.uint8)
        swapped = rows.view('<u2').byteswap().view(np.uint8)
    else:
        swapped = rows
    np.testing.assert_array_equal(
        decode_image(_image(messages, encoding, swapped, big_endian=1), reader),
        decode_image(_image(messages, encoding, rows), reader))


def test_an_rgb8_image_is_not_copied(messages):
    message = _image(messages, 'rgb8', _chart_bytes('rgb8'))
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('form', ['png', 'rgb8; png compressed bgr8', 'bgr8; png compressed bgr8'])
def test_png_yields_exactly_the_charts_colours(form, messages, reader):
    data = cv2.imencode('.png', CHART[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(_compressed(messages, form, data), reader), CHART)


@pytest.mark.parametrize('form', ['jpeg', 'jpg', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8'])
def test_jpeg_yields_the_charts_colours(form, messages, reader):
    data = cv2.imencode('.jpg', CHART[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    image = decode_image(_compressed(messages, form, data), reader)
    assert np.abs(_patches(image) - _patches(CHART)).max() <= 8


@pytest.mark.parametrize(('suffix', 'form', 'limit'), [
    ('.png', 'mono8; png compressed ', 0), ('.jpg', 'mono8; jpeg compressed mono8', 4), ('.jpg', 'jpeg', 4),
    ('.jpg', 'bayer_rggb8; jpeg compressed mono8', 4)])
def test_gray_files_become_gray_rgb(suffix, form, limit, messages, reader):
    data = cv2.imencode(suffix, GRAY)[1].tobytes()
    image = decode_image(_compressed(messages, form, data), reader)
    assert np.abs(_patches(image) - _patches(np.repeat(GRAY[..., None], 3, -1))).max() <= limit


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_sensor_mosaic_in_a_gray_png_is_demosaiced_as_its_format_says(pattern, messages, reader):
    data = cv2.imencode('.png', _bayer(pattern))[1].tobytes()
    image = decode_image(_compressed(messages, f'bayer_{pattern}8; png compressed ', data), reader)
    np.testing.assert_array_equal(_patches(image), _patches(CHART))


def test_an_unknown_encoding_is_named_beside_the_supported_ones(messages):
    with pytest.raises(DecodeError, match=r"'32FC1' is not supported; supported are rgb8, bgr8.*bayer"):
        decode_image(_image(messages, '32FC1', _chart_bytes('rgba8')))


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'bayer_rggb8'])
def test_a_wrong_amount_of_data_is_refused_with_both_numbers(encoding, messages):
    rows = _chart_bytes(encoding)
    with pytest.raises(DecodeError, match=rf'has {rows.size - rows.shape[1]} bytes.* = {rows.size}'):
        decode_image(_image(messages, encoding, rows[:-1], step=rows.shape[1]))


def test_a_step_shorter_than_a_row_is_refused(messages):
    with pytest.raises(DecodeError, match=f'step 100; a row needs {3 * WIDTH} bytes'):
        decode_image(_image(messages, 'rgb8', np.zeros((HEIGHT, 100), np.uint8)))


def test_an_empty_image_is_refused(messages):
    with pytest.raises(DecodeError, match='0x48'):
        decode_image(_image(messages, 'rgb8', np.zeros((HEIGHT, 0), np.uint8), width=0))


def test_what_the_library_cannot_read_is_refused_not_raised_as_its_own_error(messages, reader):
    odd = np.zeros((HEIGHT, 2 * (WIDTH - 1)), np.uint8)
    with pytest.raises(DecodeError, match='yuv422 image of 63x48 cannot be read'):
        decode_image(_image(messages, 'yuv422', odd, width=WIDTH - 1), reader)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_truncated_file_is_refused(suffix, messages, rng):
    noise = rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    with pytest.raises(DecodeError, match='truncated'):
        decode_image(_compressed(messages, suffix[1:], data[:len(data) // 2]))


def test_a_jpeg_with_padding_behind_its_end_is_read(messages):
    data = cv2.imencode('.jpg', CHART[..., ::-1])[1].tobytes() + bytes(100)
    assert decode_image(_compressed(messages, 'jpeg', data)).shape == CHART.shape


def test_a_corrupt_file_is_refused(messages, reader):
    data = cv2.imencode('.png', CHART)[1].tobytes()
    broken = data[:8] + bytes(len(data) - 60) + data[-52:]
    with pytest.raises(DecodeError, match='png image of .* cannot be read'):
        decode_image(_compressed(messages, 'png', broken), reader)


@pytest.mark.parametrize('data', [b'', b'h264 stream'])
def test_a_file_of_another_kind_is_refused_with_its_format(data, messages):
    with pytest.raises(DecodeError, match="format 'h264' .* supported are jpeg and png"):
        decode_image(_compressed(messages, 'h264', data))


def test_a_format_that_leaves_red_and_blue_open_is_refused(messages):
    data = cv2.imencode('.jpg', CHART)[1].tobytes()
    with pytest.raises(DecodeError, match='whether red and blue are swapped'):
        decode_image(_compressed(messages, 'rgb8; jpeg compressed rgb8', data))
