"""The images at the size of the task, antialiased and kept in the cache; where they come from: sources.py."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import PIL
from jaxtyping import Int32, UInt8
from PIL import Image

from gapbench.data.formats import Images, Pixels, Stack
from gapbench.data.places import cache_folder, written
from gapbench.data.sources import source
from gapbench.spec import digest

Shape = tuple[int, ...]  # height, width, channels
CACHE_FORMAT = 1  # counted up when resizing or the stored fields change: old files are then not read


@dataclass(frozen=True)
class Dataset:
    """One data set at one size."""

    name: str
    px: int
    train_images: UInt8[np.ndarray, "N px px C"]
    train_labels: Int32[np.ndarray, "N"]
    test_images: UInt8[np.ndarray, "M px px C"]
    test_labels: Int32[np.ndarray, "M"]
    class_names: tuple[str, ...]
    fingerprint: str  # of the raw content, whatever the size and the packing


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


def _hashed(images: Iterable[Pixels], labels: Int32[np.ndarray, "N"], sha: "hashlib._Hash") -> Iterator[Pixels]:
    sha.update(labels.astype("<i4").tobytes())
    for image in images:
        sha.update(repr(image.shape).encode())
        sha.update(image.tobytes())
        yield image


def _sized(images: Images, px: int) -> tuple[Stack, Stack, str]:
    """Both splits at px×px, and the fingerprint: sha256 of class names, labels, shapes and pixels, in one pass."""
    sha = hashlib.sha256(repr(images.class_names).encode())
    train = resize(_hashed(images.train_images, images.train_labels, sha), px)
    test = resize(_hashed(images.test_images, images.test_labels, sha), px)
    return train, test, sha.hexdigest()[:16]


def inspect(images: Images) -> tuple[tuple[Shape, ...], str]:
    """Every image shape there is, ascending, and the fingerprint."""
    sha = hashlib.sha256(repr(images.class_names).encode())
    train = _hashed(images.train_images, images.train_labels, sha)
    shapes = {image.shape for image in train}
    shapes |= {image.shape for image in _hashed(images.test_images, images.test_labels, sha)}
    return tuple(sorted(shapes)), sha.hexdigest()[:16]


def _cached(path: Path, name: str, px: int) -> Dataset | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            fields = dict(stored)
        return Dataset(
            name,
            px,
            class_names=tuple(map(str, fields.pop("class_names"))),
            fingerprint=str(fields.pop("fingerprint")),
            **fields,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, BadZipFile):
        return None  # none yet, or a broken one: made again


def load(name: str, px: int) -> Dataset:
    """The data set at px×px: from the cache while its files are unchanged, else read, downloading what is missing.

    Raises:
      UserError: the name is unknown, or the files are missing or malformed.
    """
    origin = source(name)
    files = origin.find() or origin.fetch()
    identity = digest([name, px, origin.stamp(files), PIL.__version__, CACHE_FORMAT], 16)  # Pillow resizes
    path = cache_folder() / "resized" / f"{name.replace(':', '_')}-{px}px-{identity}.npz"
    if stored := _cached(path, name, px):
        return stored
    images = origin.read(files)
    train, test, fingerprint = _sized(images, px)
    dataset = Dataset(name, px, train, images.train_labels, test, images.test_labels, images.class_names, fingerprint)
    with written(path) as stream:
        np.savez(stream, **{field: value for field, value in vars(dataset).items() if field not in ("name", "px")})
    return dataset
