"""The images at the size of the task, antialiased and kept in the cache; where they come from: sources.py."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
import PIL
from jaxtyping import Int32, UInt8
from PIL import Image

from gapbench.data.formats import Images, Pixels
from gapbench.data.sources import cache_folder, fetch, keep, source
from gapbench.data.splits import Dataset
from gapbench.spec import digest

T = TypeVar("T")
CACHE_FORMAT = 1  # counted up when resizing or the stored fields change: old files are then not read


def _square(image: UInt8[np.ndarray, "H W C"], px: int) -> UInt8[np.ndarray, "{px} {px} C"]:
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    crop = image[top : top + side, left : left + side]
    if side == px:
        return crop
    resized = Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop).resize((px, px), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(px, px, -1)


def resize(images: Iterable[Pixels], px: int) -> UInt8[np.ndarray, "N {px} {px} C"]:
    """The centre square of each image at px×px; Pillow widens its bilinear filter when reducing, so none aliases."""
    return np.stack([_square(image, px) for image in images])


def _hashed(images: Images, take: Callable[[Iterator[Pixels]], T]) -> tuple[T, T, str]:
    """`take` of both splits, and the fingerprint: sha256 of class names, labels, shapes and pixels, in one pass."""
    sha = hashlib.sha256(repr(images.class_names).encode())

    def passing(pixels: Iterable[Pixels], labels: Int32[np.ndarray, "N"]) -> Iterator[Pixels]:
        sha.update(labels.astype("<i4").tobytes())
        for image in pixels:
            sha.update(repr(image.shape).encode())
            sha.update(image.tobytes())
            yield image

    train = take(passing(images.train_images, images.train_labels))
    test = take(passing(images.test_images, images.test_labels))
    return train, test, sha.hexdigest()[:16]


def _cached(path: Path, name: str, px: int) -> Dataset | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            fields = dict(stored)
        fields |= {"class_names": tuple(fields["class_names"].tolist()), "fingerprint": str(fields["fingerprint"])}
        return Dataset(name, px, **fields)
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, BadZipFile):
        return None  # none yet, or a broken one: made again


def load(name: str, px: int) -> Dataset:
    """The data set at px×px: from the cache while its files are unchanged, else read, downloading what is missing."""
    origin, files = source(name), fetch(name)
    identity = digest([name, px, origin.stamp(files), PIL.__version__, CACHE_FORMAT], 16)  # Pillow resizes
    path = cache_folder() / "resized" / f"{name.replace(':', '_')}-{px}px-{identity}.npz"
    if stored := _cached(path, name, px):
        return stored
    images = origin.read(files)
    train, test, fingerprint = _hashed(images, lambda pixels: resize(pixels, px))
    dataset = Dataset(name, px, train, images.train_labels, test, images.test_labels, images.class_names, fingerprint)
    content = BytesIO()
    np.savez(content, **{field: value for field, value in vars(dataset).items() if field not in ("name", "px")})
    keep(path, content.getvalue())
    return dataset


class Check(NamedTuple):
    """What reading every image of a data set found."""

    name: str
    train_images: dict[str, int]  # by class name
    test_images: dict[str, int]
    shapes: tuple[tuple[int, ...], ...]  # every height, width and channels found, ascending
    fingerprint: str


def check(name: str) -> Check:
    """Reads every image; raises UserError naming the first file that is not well-formed."""
    images = source(name).read(fetch(name))
    train, test, fingerprint = _hashed(images, lambda pixels: {image.shape for image in pixels})
    names = images.class_names
    counts = [np.bincount(labels, minlength=len(names)) for labels in (images.train_labels, images.test_labels)]
    train_n, test_n = (dict(zip(names, n.tolist(), strict=True)) for n in counts)
    return Check(name, train_n, test_n, tuple(sorted(train | test)), fingerprint)
