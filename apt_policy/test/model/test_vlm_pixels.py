import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from apt_policy.model.vlm.pixels import ImageSpec, covered_tokens, patches, token_means


@pytest.mark.parametrize('spec', [ImageSpec(), ImageSpec(mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))],
                         ids=['Qwen3-VL', 'other statistics'])
def test_patches_equal_those_of_the_published_processor(spec):
    pixels = torch.randint(0, 256, (3, 256, 256, 3), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    processor = Qwen2VLImageProcessorPil(
        patch_size=spec.patch, temporal_patch_size=spec.frames, merge_size=spec.merge, image_mean=spec.mean,
        image_std=spec.std, size={'shortest_edge': 65536, 'longest_edge': 16777216})
    published = processor([Image.fromarray(image.numpy()) for image in pixels], return_tensors='pt')
    got, grid = patches(pixels.permute(0, 3, 1, 2).float() / 255, spec)
    assert torch.equal(grid, published['image_grid_thw'])
    assert torch.allclose(got, published['pixel_values'], atol=1e-5)


def test_a_camera_of_256_pixels_has_64_tokens():
    assert ImageSpec().tokens(256) == 64


def test_an_image_that_does_not_fit_the_grid_is_refused():
    with pytest.raises(ValueError, match='images are 100 px wide; this vision encoder needs a multiple of 32'):
        ImageSpec().tokens(100)


def test_coordinates_are_averaged_over_the_pixels_of_each_token():
    x, y = torch.meshgrid(torch.arange(64.0), torch.arange(96.0)[:64], indexing='xy')
    means = token_means(torch.stack([x, y])[None, None], ImageSpec())
    assert means.shape == (1, 1, 4, 2)
    # Tokens go row by row.
    assert means[0, 0].tolist() == [[15.5, 15.5], [47.5, 15.5], [15.5, 47.5], [47.5, 47.5]]


def test_one_valid_pixel_makes_a_token_valid():
    mask = torch.zeros(1, 2, 64, 64, dtype=torch.bool)
    mask[0, 0, 40, 3] = True
    assert covered_tokens(mask, ImageSpec())[0].tolist() == [[False, False, True, False], [False] * 4]
