"""A data set that a function of the user's own returns as arrays; those of files are in sources.py.

@register_dataset("mine")
def mine(): return train_images, train_labels, test_images, test_labels
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gapbench.data.formats import Images
from gapbench.data.sources import SOURCES, Files, Source
from gapbench.spec import UserError, explain

MakerT = TypeVar("MakerT", bound=Callable[[], Any])
OURS = frozenset(SOURCES)


@dataclass(frozen=True)
class Made(Source):
    """Where the data set of a function comes from."""

    def stamp(self, files: Files) -> str:
        """The content itself: what the function reads is its own business, and may change."""
        made, sha = self.read(files), hashlib.sha256()
        for array in map(np.asarray, (made.train_images, made.train_labels, made.test_images, made.test_labels)):
            sha.update(repr(array.shape).encode())
            sha.update(array.tobytes())
        return sha.hexdigest()


def register_dataset(name: str) -> Callable[[MakerT], MakerT]:
    """Make what a function returns known as the data set `name`, the last of a name counting.

    It returns training images and labels, then test images and labels: uint8 [N, H, W] or [N, H, W, C] with C = 1 or 3,
    and integers from 0 to K - 1. Raises UserError where the name is one of ours or cannot be a file's.
    """
    if name in OURS:
        raise UserError(f"data set {name!r} is gapbench's own: register yours under another name")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"data set {name!r}: a name is small letters, digits and _, and begins with a letter")

    def register(maker: MakerT) -> MakerT:
        @cache
        def read() -> Images:
            try:
                made = maker()
            except Exception as error:  # whatever the user's own function raises
                raise UserError(f"{name}: {explain(error)}") from error
            return as_images(name, made)

        here: list[Files] = [(Path(__file__),)]  # it has no files, and a source that is here has one
        SOURCES[name] = Made(name, None, None, (), lambda: here, lambda files: read(), "register it")
        return maker

    return register


def as_images(name: str, made: Any) -> Images:
    """Four arrays as a data set; raises UserError that names the first which is not as `register_dataset` says."""
    try:
        train, train_labels, test, test_labels = map(np.asarray, made)
    except (TypeError, ValueError) as error:
        told = "return train images, train labels, test images and test labels, an array each"
        raise UserError(f"{name}: {told}") from error
    for half, images, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
            mend = "make them uint8, 0 to 255, [N, H, W] or [N, H, W, C] with C = 1 or 3"
            raise UserError(f"{name}: {half} images are {images.dtype} {list(images.shape)}: {mend}")
        if not images.size:
            raise UserError(f"{name}: {half} images are {list(images.shape)}: give at least one, of at least one pixel")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or not len(labels) or labels.min() < 0:
            told = f"{labels.dtype} {list(labels.shape)} for {len(images)} images"
            raise UserError(f"{name}: {half} labels are {told}: make them a whole number from 0 on for each image")
    train, test = (images.reshape(*images.shape[:3], -1) for images in (train, test))
    if train.shape[3:] != test.shape[3:]:
        raise UserError(f"{name}: train images are {list(train.shape)}, test images {list(test.shape)}: one C for both")
    if (last := int(max(train_labels.max(), test_labels.max()))) >= len(train):
        raise UserError(f"{name}: a label is {last}, of {len(train)} train images: number the classes from 0 on")
    names = tuple(map(str, range(1 + last)))
    return Images(train, train_labels.astype(np.int32), test, test_labels.astype(np.int32), names)
