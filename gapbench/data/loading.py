"""A data set at a size, read or from the cache; where it comes from: sources.py, how it is resized: sizing.py."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
import PIL
from jaxtyping import Int32

from gapbench.data.canvas import is_canvas, make_dataset, parse
from gapbench.data.formats import Images, Pixels
from gapbench.data.sizing import resize
from gapbench.data.sources import cache_folder, fetch, keep, source
from gapbench.data.splits import Dataset
from gapbench.spec import UserError, digest, file_safe

T = TypeVar("T")
CACHE_FORMAT = 2  # counted up when resizing, drawing or the stored fields change: old files are then not read


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


def _resized(name: str, px: int, images: Images) -> Dataset:
    train, test, fingerprint = _hashed(images, lambda pixels: resize(pixels, px))
    return Dataset(name, px, train, images.train_labels, test, images.test_labels, images.class_names, fingerprint)


def load(name: str, px: int) -> Dataset:
    """The data set at px×px: from the cache while its files are unchanged, else made, downloading what is missing.

    Of `canvas:SOURCE` the images of the source are pasted on canvases of that size (canvas.py).
    """
    below = parse(name).source if is_canvas(name) else name
    origin, files = source(below), fetch(below)
    identity = digest([name, px, origin.stamp(files), PIL.__version__, CACHE_FORMAT], 16)  # Pillow resizes
    path = cache_folder() / "resized" / f"{file_safe(name)}-{px}px-{identity}.npz"
    if cached := _cached(path, name, px):
        return cached
    images = origin.read(files)
    dataset = make_dataset(name, px, images) if below != name else _resized(name, px, images)
    stored = {f: value for f, value in vars(dataset).items() if f not in ("name", "px") and value is not None}
    content = BytesIO()
    np.savez(content, **stored)
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
    if is_canvas(name):
        below = parse(name).source
        raise UserError(f"{name}: is drawn from {below}, size by size; check {below}")
    images = source(name).read(fetch(name))
    train, test, fingerprint = _hashed(images, lambda pixels: {image.shape for image in pixels})
    names = images.class_names
    counts = [np.bincount(labels, minlength=len(names)) for labels in (images.train_labels, images.test_labels)]
    train_n, test_n = (dict(zip(names, n.tolist(), strict=True)) for n in counts)
    return Check(name, train_n, test_n, tuple(sorted(train | test)), fingerprint)
