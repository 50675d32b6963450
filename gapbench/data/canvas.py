"""Images pasted among clutter at places that are known: the data set `canvas:SOURCE`, at every size in real pixels.

After the cluttered translated MNIST of Mnih et al. 2014 (arXiv 1406.6247): crops of other images are strewn over a
black canvas, then the object, as it is or smaller, covers what lies under it. Which pixels are its own is known.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8
from pydantic import Field, field_validator, model_validator
from scipy import ndimage

from gapbench.data.formats import Images, Pixels
from gapbench.data.sizing import square
from gapbench.data.splits import Dataset
from gapbench.keys import generator_for
from gapbench.spec import Declaration, UserError, validate

PREFIX = "canvas:"
INK = 32  # of 255: darker pixels of a grey image are its background, and the canvas shows through
CROP = 2 / 7  # side of a crop of clutter, of its image's (8 px of 28)
CROP_EVERY = 20  # px: one crop for each square of this side
NOISE = 96  # levels of clutter=noise, at every pixel evenly from 0
TRIES = 1000  # to place an object beside those that are there
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
CELLS = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
Scale = Annotated[float, Field(gt=0, le=1)]


class Canvas(Declaration):
    """How a canvas is made; its name is the data set's in a `Task`."""

    source: str  # the data set whose images are pasted
    objects: Annotated[int, Field(ge=1, le=9)] = 1  # of one class, without overlap
    smallest: Scale = 0.5  # side of an object, of its image's own: never enlarged
    largest: Scale = 0.9
    clutter: Literal["crops", "noise", "none"] = "crops"
    label: Literal["what", "where", "swapped"] = "what"  # where: the cell of a 3×3 grid that holds the centre.
    # swapped: what, but in training even classes stand on the left and odd ones on the right, and in test the reverse
    place: Literal["anywhere", "middle"] = "anywhere"  # middle: as in the usual data sets

    @model_validator(mode="after")
    def _fits_together(self) -> "Canvas":
        if self.smallest > self.largest:
            raise ValueError(f"smallest={self.smallest:g}: must not be above largest={self.largest:g}")
        if self.objects > 1 and self.label != "what":
            raise ValueError(f"objects={self.objects}: label={self.label} is of one object; leave one of both out")
        if self.place == "middle" and (self.objects > 1 or self.label != "what"):
            raise ValueError("place=middle: of one object whose label is what; leave the others out")
        return self

    @field_validator("source")
    @classmethod
    def _is_no_canvas(cls, source: str) -> str:
        if is_canvas(source) or not source:
            raise ValueError("paste a data set of images, such as mnist5k")
        return source

    @property
    def name(self) -> str:
        """`canvas:mnist5k,clutter=noise`: what is not at its default."""
        options = self.model_dump(exclude={"source"}, exclude_defaults=True)
        return PREFIX + ",".join([self.source, *(f"{field}={value}" for field, value in options.items())])


def canvas(
    source: str,
    objects: int = 1,
    scale: tuple[float, float] = (0.5, 0.9),
    clutter: str = "crops",
    label: str = "what",
    place: str = "anywhere",
) -> str:
    """The name of a canvas data set, for `Task(dataset=...)`; its px is the side of the canvas.

    Raises:
      UserError: a value that `Canvas` refuses.
    """
    fields = {"source": source, "objects": objects, "clutter": clutter, "label": label, "place": place}
    return validate(Canvas, fields | dict(zip(("smallest", "largest"), scale, strict=True)), "canvas").name


def is_canvas(dataset: str) -> bool:
    """Whether a data set's name is that of canvases."""
    return dataset.startswith(PREFIX)


def parse(name: str) -> Canvas:
    """The canvas of a name; raises UserError where the name is not that of a canvas, or not the one way to write it."""
    source, *options = name.removeprefix(PREFIX).split(",")
    pairs = [option.partition("=") for option in options]
    how = validate(Canvas, {"source": source} | {field: value for field, _, value in pairs}, name)
    if how.name != name:  # or one picture would be two data sets
        raise UserError(f"{name}: write it {how.name}")
    return how


class Drawn(NamedTuple):
    """One canvas."""

    pixels: UInt8[np.ndarray, "px px C"]
    mask: UInt8[np.ndarray, "px px"]  # 0 where no object is, else its number from 1 on
    label: int


def draw_canvas(
    how: Canvas, px: int, images: Sequence[Pixels], labels: Int32[np.ndarray, "N"], i: int, test: bool
) -> Drawn:
    """The canvas of image i of a split, from a stream of its own: the same on any machine, whatever else is drawn.

    Clutter and further objects come from the same half of the source, training or test: a canvas that a run trains on
    may show a crop of an image that is the object of one it validates on; and any, rarely, one of its own object's.

    Raises:
      UserError: an object that does not fit the canvas.
    """
    generator = generator_for(2 * i + test, "canvas")
    channels = images[i].shape[2]
    pixels, mask = np.zeros((px, px, channels), np.uint8), np.zeros((px, px), np.uint8)
    if how.clutter == "noise":
        pixels = generator.integers(0, NOISE, (px, px, channels), dtype=np.uint8)
    elif how.clutter == "crops":
        for other in generator.integers(len(images), size=round((px / CROP_EVERY) ** 2)):
            strew(pixels, images[other], generator)
    label = int(labels[i])
    grid, cell = (1, 1), (0, 0)
    if how.label == "where":
        label = int(generator.integers(9))
        grid, cell = (3, 3), divmod(label, 3)
    elif how.label == "swapped":
        grid, cell = (1, 2), (0, (label + test) % 2)
    chosen = [i]
    if how.objects > 1:
        alike = np.setdiff1d(np.flatnonzero(labels == labels[i]), [i])
        if len(alike) < how.objects - 1:
            raise UserError(f"objects={how.objects}: a class has {len(alike) + 1} images only; give fewer")
        chosen += generator.choice(alike, how.objects - 1, replace=False).tolist()
    for number, one in enumerate(chosen, start=1):
        put(pixels, mask, images[one], number, how, grid, cell, generator)
    return Drawn(pixels, mask, label)


def strew(pixels: UInt8[np.ndarray, "px px C"], image: Pixels, generator: np.random.Generator) -> None:
    """A crop of an image, which belongs to no class, at any place; of crops that overlap the brighter pixel stays."""
    side = min(len(pixels), max(2, round(CROP * min(image.shape[:2]))))
    top, left = (generator.integers(size - side + 1) for size in image.shape[:2])
    y, x = generator.integers(pixels.shape[0] - side + 1, size=2)
    under = pixels[y : y + side, x : x + side]
    np.maximum(under, image[top : top + side, left : left + side], out=under)


def put(
    pixels: UInt8[np.ndarray, "px px C"],
    mask: UInt8[np.ndarray, "px px"],
    image: Pixels,
    number: int,
    how: Canvas,
    grid: tuple[int, int],
    cell: tuple[int, int],
    generator: np.random.Generator,
) -> None:
    """The object, at a size and a place with its centre in the cell of the grid, where no other object is."""
    own, px = min(image.shape[:2]), len(mask)
    side = int(generator.integers(max(1, round(how.smallest * own)), max(1, round(how.largest * own)) + 1))
    patch = square(image, side)
    ink = patch[:, :, 0] >= INK if patch.shape[2] == 1 else np.ones((side, side), bool)
    ink = ink if ink.any() else np.ones((side, side), bool)
    ranges = [starts(px, side, n, k) for n, k in zip(grid, cell, strict=True)]
    if how.place == "middle":
        ranges = [places[(px - side) // 2 :][:1] for places in ranges]  # they start at 0; none where it does not fit
    if not all(ranges):
        raise UserError(f"an object of {side} px does not fit a canvas of {px} px: give a larger px or a smaller scale")
    for _ in range(TRIES):
        y, x = (int(generator.integers(places.start, places.stop)) for places in ranges)
        here = (slice(y, y + side), slice(x, x + side))
        if not mask[here].any():
            pixels[here][ink], mask[here][ink] = patch[ink], number
            return
    raise UserError(f"{how.objects} objects do not fit a canvas of {px} px: give a larger px or fewer objects")


def starts(px: int, side: int, cells: int, cell: int) -> range:
    """First pixels of an object of this side that lies inside px and has its centre in one of so many equal cells."""
    first, last = (-(-(2 * k * px - cells * side) // (2 * cells)) for k in (cell, cell + 1))  # ceil(k·px/n - side/2)
    return range(max(0, first), min(px - side + 1, last if cell + 1 < cells else px + 1))


def boxes_of(mask: UInt8[np.ndarray, "px px"]) -> Int[np.ndarray, "objects 4"]:
    """Top, left, bottom, right of each object's pixels, the ends included."""
    found = ndimage.find_objects(mask)
    return np.array([(y.start, x.start, y.stop - 1, x.stop - 1) for y, x in filter(None, found)]).reshape(-1, 4)


def make_dataset(name: str, px: int, images: Images) -> Dataset:
    """Every image of the source on a canvas of px×px of its own."""
    how = parse(name)
    halves = []
    for test, pixels, labels in (
        (False, images.train_images, images.train_labels),
        (True, images.test_images, images.test_labels),
    ):
        kept = list(pixels)
        halves.append([draw_canvas(how, px, kept, labels, i, test) for i in range(len(kept))])
    sha = hashlib.sha256(name.encode())
    fields: dict[str, np.ndarray] = {}
    for half, drawn in zip(("train", "test"), halves, strict=True):
        columns = zip(*drawn, strict=True)
        for what, kind, column in zip(("images", "masks", "labels"), ("u1", "u1", "<i4"), columns, strict=True):
            fields[f"{half}_{what}"] = np.asarray(column, kind)
            sha.update(fields[f"{half}_{what}"].tobytes())
    names = CELLS if how.label == "where" else images.class_names
    return Dataset(name, px, **fields, class_names=names, fingerprint=sha.hexdigest()[:16])  # type: ignore[arg-type]
