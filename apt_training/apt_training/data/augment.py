"""Image augmentation for training, drawn from a numpy generator.

Colour augmentation is one affine map and one lookup table on uint8, which is within one grey level of the published
floating-point chain at a tenth of its time. Camera dropout is part of the model (:mod:`apt_policy.model.perturb`).

Letters: H, W image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of random changes; the defaults are the published ones."""

    colour: float = 0.25
    """Brightness, contrast and saturation are multiplied by a factor in 1 - colour .. 1 + colour."""
    gamma: float = 0.15
    """The exponent is in 1 - gamma .. 1 + gamma."""
    blur: float = 1 / 7
    """Probability that an image is blurred."""
    crop: float = 0.0
    """Largest share of each side that is cropped, 0.05 in the published option; wrist cameras are never cropped."""

    def __post_init__(self) -> None:
        for name, most in (('colour', 1.0), ('gamma', 1.0), ('blur', 1.0), ('crop', 0.9)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f'augmentation.{name} is {getattr(self, name)}; expected 0 .. {most}')


NO_AUGMENTATION = Augmentation(colour=0.0, gamma=0.0, blur=0.0)


class ColourChange(NamedTuple):
    """Colour augmentation drawn for one image."""

    brightness: float
    """Factor of the brightness."""
    contrast: float
    """Factor of the contrast about each channel's mean."""
    saturation: float
    """Factor of the saturation; 0 gives grey."""
    gamma: float
    """Exponent of the intensity."""
    blur_side: int
    """Side of the Gaussian kernel [px], odd; 0: no blur."""
    blur_sigma: float
    """Standard deviation of the Gaussian kernel [px]."""


class Crop(NamedTuple):
    """Crop drawn for all cameras of a sample, in shares of the image's sides."""

    scale: float
    """Share of each side that remains."""
    right: float
    """Shift of the centre to the right."""
    down: float
    """Shift of the centre downwards."""


def draw_colour(augmentation: Augmentation, rng: np.random.Generator) -> ColourChange:
    """Draw the change of one image; the amount of numbers taken from ``rng`` is constant."""
    most = augmentation.colour
    brightness, contrast, saturation = rng.uniform(1 - most, 1 + most, 3).tolist()
    gamma = float(rng.uniform(1 - augmentation.gamma, 1 + augmentation.gamma))
    blurred, side, sigma = rng.random() < augmentation.blur, int(rng.choice((3, 5))), float(rng.uniform(0.2, 1.0))
    return ColourChange(brightness, contrast, saturation, gamma, side if blurred else 0, sigma)


def draw_crop(augmentation: Augmentation, rng: np.random.Generator) -> Crop:
    """Draw the crop of one sample; the amount of numbers taken from ``rng`` is constant."""
    scale = 1 - augmentation.crop * float(rng.random())
    right, down = (rng.uniform(-0.5, 0.5, 2) * (1 - scale)).tolist()
    return Crop(scale, right, down)


def apply_colour(rgb: Rgb, change: ColourChange, mask: NDArray[np.bool_] | None) -> Rgb:
    """Apply brightness, contrast about each channel's mean, saturation, gamma and blur.

    Args:
        rgb: (H, W, 3) image; not modified.
        change: change to apply.
        mask: (H, W) bool; pixels outside do not count in the mean and keep their values; None: all pixels.

    Returns:
        (H, W, 3) changed image.
    """
    brightness, contrast, saturation, gamma, side, sigma = change
    grey = np.full((3, 3), (1 - saturation) / 3) + saturation * np.eye(3)
    inside = None if mask is None else mask.view(np.uint8)
    mean = brightness * np.array(cv2.mean(rgb, inside)[:3])
    affine = np.column_stack([grey * (brightness * contrast), grey @ mean * (1 - contrast)])
    changed = cv2.transform(rgb, affine)
    table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    changed = cv2.LUT(changed, table)
    if side:
        changed = cv2.GaussianBlur(changed, (side, side), sigmaX=sigma)
    if mask is not None and not mask.all():
        changed = np.where(mask[..., None], changed, rgb)
    return np.asarray(changed, np.uint8)


def crop_box(crop: Crop, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of an image inside a crop."""
    inner_h, inner_w = max(1, int(height * crop.scale)), max(1, int(width * crop.scale))
    top = int(np.clip((height - inner_h) / 2 + crop.down * height, 0, height - inner_h))
    left = int(np.clip((width - inner_w) / 2 + crop.right * width, 0, width - inner_w))
    return slice(top, top + inner_h), slice(left, left + inner_w)
