"""Images at a size, split by a seed; and what `gapbench data` says and does about where they come from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gapbench.data.formats import Images
from gapbench.data.kinds import Source
from gapbench.data.places import registered
from gapbench.data.sizing import Dataset, Shape, inspect, load, resize
from gapbench.data.sources import SOURCES, add, source
from gapbench.data.splits import Split, Splits, batches, normalise, split

__all__ = [
    "SOURCES",
    "Check",
    "Dataset",
    "Images",
    "Row",
    "Source",
    "Split",
    "Splits",
    "add",
    "batches",
    "cache_folder",
    "check",
    "describe",
    "fetch",
    "load",
    "normalise",
    "resize",
    "source",
    "split",
]


class Row(NamedTuple):
    """One line of `gapbench data list`; a number is None where only reading tells."""

    name: str
    images: int | None
    px: int | None
    classes: int | None
    where: str  # a path or a package, or "not here: " and the command that gets it


class Check(NamedTuple):
    """What reading every image of a data set found."""

    name: str
    train_images: dict[str, int]  # by class name
    test_images: dict[str, int]
    shapes: tuple[Shape, ...]  # every height, width and channels found, ascending
    fingerprint: str


def describe() -> list[Row]:
    """Every known data set, the added folders last."""
    rows = []
    for origin in (*SOURCES.values(), *(source(f"folder:{short}") for short in registered())):
        files = origin.find()
        where = origin.where(files) if files else f"not here: {origin.mend}"
        rows.append(Row(origin.name, origin.images, origin.px, origin.classes, where))
    return rows


def fetch(name: str) -> tuple[Path, ...]:
    """The files of a data set, downloaded unless they are here."""
    origin = source(name)
    return origin.find() or origin.fetch()


def check(name: str) -> Check:
    """Reads every image; raises UserError naming the first file that is not well-formed."""
    images = source(name).read(fetch(name))
    shapes, fingerprint = inspect(images)

    def by_class(labels: np.ndarray) -> dict[str, int]:
        counts = np.bincount(labels, minlength=len(images.class_names))
        return dict(zip(images.class_names, counts.tolist(), strict=True))

    return Check(name, by_class(images.train_labels), by_class(images.test_labels), shapes, fingerprint)
