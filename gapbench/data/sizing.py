"""The images at the size of the task, antialiased."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gapbench.data.formats import Pixels


def square(image: UInt8[np.ndarray, "H W C"], px: int) -> UInt8[np.ndarray, "{px} {px} C"]:
    """The centre square of an image at px×px."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    crop = image[top : top + side, left : left + side]
    if side == px:
        return crop
    resized = Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop).resize((px, px), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(px, px, -1)


def resize(images: Iterable[Pixels], px: int) -> UInt8[np.ndarray, "N {px} {px} C"]:
    """The centre square of each image at px×px; Pillow widens its bilinear filter when reducing, so none aliases."""
    return np.stack([square(image, px) for image in images])
