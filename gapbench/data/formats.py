"""What the bytes mean, read in memory and within bounds: nothing is extracted to disk, nothing unpickled."""

import gzip
import lzma
import math
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from gapbench.spec import UserError

# _: two arrays of one signature may differ in it
Pixels = UInt8[np.ndarray, "_H _W _C"]
Stack = UInt8[np.ndarray, "_N _H _W _C"]
LabelBytes = UInt8[np.ndarray, "_N"]
Halves = tuple[Stack, LabelBytes, Stack, LabelBytes]  # train images and labels, test images and labels

MAX_MEMBER_BYTES = 1 << 28  # cifar100's train.bin has 154 MB
MAX_TOTAL_BYTES = 1 << 32
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
DEEP_MODES = {"I;16", "I;16B"}  # 16 bits of grey, of which a user's image keeps the higher 8; no data set has others
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # of an image that a user names
BROKEN = OSError, EOFError, RuntimeError, struct.error, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Images:
    """The raw content of a data set, before any resizing; photographs are decoded while iterating, which goes once."""

    train_images: Iterable[Pixels]
    train_labels: Int32[np.ndarray, "N"]
    test_images: Iterable[Pixels]
    test_labels: Int32[np.ndarray, "M"]
    class_names: tuple[str, ...]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns whatever a truncated, malformed or unreadable file raises into a UserError that names it."""
    try:
        yield
    except BROKEN as error:
        raise UserError(f"{path}: truncated or malformed ({error}); delete it and get it again") from error


def read_idx(path: Path, ndim: int) -> UInt8[np.ndarray, "..."]:
    """IDX, gzipped or not: 0, 0, 8 (for uint8), the number of axes, each length as big-endian int32, the values."""
    with readable(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        if stream.read(4) != bytes((0, 0, 8, ndim)):
            raise UserError(f"{path}: not an IDX file of {ndim}-axis uint8 values; delete it and get it again")
        shape = struct.unpack(f">{ndim}I", stream.read(4 * ndim))
        data = stream.read(min(math.prod(shape), MAX_MEMBER_BYTES) + 1)
    if len(data) != math.prod(shape):
        raise UserError(f"{path}: its length does not fit its header, {shape}; delete it and get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_fashion(files: tuple[Path, ...]) -> Halves:
    """Training images and labels, test images and labels, each an IDX file."""
    train, train_labels, test, test_labels = map(read_idx, files, (3, 1, 3, 1))
    return train[..., None], train_labels, test[..., None], test_labels


def read_cifar(files: tuple[Path, ...], label_bytes: int, bins: tuple[str, ...]) -> Halves:
    """`bins`, the last of which is the test split, from their archive or loose.

    A record is `label_bytes` labels, the finest last, then 32×32 red, green and blue values.
    """
    data: dict[str, bytes] = {}
    for path in files:
        with readable(path):
            found = [(path.name, False, path.read_bytes)] if path.suffix == ".bin" else members(path)
            data |= {PurePosixPath(name).name: read() for name, _, read in found if name.endswith(bins)}
    record_bytes, parts = label_bytes + 3 * 32 * 32, []
    for name in bins:
        if name not in data:
            raise UserError(f"{files[0]}: has no {name}; delete it and get it again")
        if not data[name] or len(data[name]) % record_bytes:
            why = f"{len(data[name])} bytes are not records of {record_bytes}"
            raise UserError(f"{files[0].parent}: {name}: {why}; delete it and get it again")
        rows = np.frombuffer(data[name], np.uint8).reshape(-1, record_bytes)
        parts.append((rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, label_bytes - 1]))
    train, train_labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    return train, train_labels, *parts[-1]


def _entries(path: Path) -> Iterator[tuple[str, bool, bool, int, Callable[[], bytes]]]:
    """Name, whether it is a folder, whether it is a plain file (no link, no device), bytes, and what reads it."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            yield file.relative_to(path).as_posix(), file.is_dir(), file.is_file(), file.stat().st_size, file.read_bytes
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                is_plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                yield info.filename, info.is_dir(), is_plain, info.file_size, partial(archive.read, info)
    else:
        with tarfile.open(path) as tar:
            for item in tar:
                stream = tar.extractfile(item) if item.isreg() else None
                yield item.name, item.isdir(), item.isreg(), item.size, stream.read if stream else bytes


def members(path: Path) -> Iterator[tuple[str, bool, Callable[[], bytes]]]:
    """Name, whether a folder, and what reads it (before the next is asked for); raises UserError where unsafe."""
    total = 0
    for name, is_folder, is_plain, size, read in _entries(path):
        where = PurePosixPath(name)
        if where.is_absolute() or ".." in where.parts or not (is_folder or is_plain):
            raise UserError(f"{path}: {name} is a link, a device or outside the archive; pack plain files only")
        total += size
        if size > MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
            limits = f"{MAX_MEMBER_BYTES} bytes a file, {MAX_TOTAL_BYTES} in all"
            raise UserError(f"{path}: {name} goes past the limit ({limits}); use fewer or smaller images")
        yield name, is_folder, read


@contextmanager
def _opened(
    name: str, data: bytes, formats: tuple[str, ...] = ("PNG", "JPEG"), deep: bool = False
) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no concern of ours
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(BytesIO(data), formats=formats) as image:
                if image.mode not in GREY_MODES | COLOUR_MODES | (DEEP_MODES if deep else set()):
                    raise ValueError(f"mode {image.mode}: more than 8 bits a channel")
                yield image
        except BROKEN_IMAGE as error:
            reason = "unknown content" if isinstance(error, UnidentifiedImageError) else error
            known = f"{', '.join(formats[:-1])} or {formats[-1]}"
            raise UserError(f"{name}: not a readable 8-bit {known} ({reason}); mend or remove it") from error


def _pixels(image: Image.Image, mode: str) -> Pixels:
    """As it is meant to be seen. `mode` is L or RGB; transparency is dropped."""
    ImageOps.exif_transpose(image, in_place=True)
    pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _decoded(files: dict[str, bytes], mode: str) -> Iterator[Pixels]:
    """One by one: as pixels, photographs would not fit in memory."""
    for name, data in files.items():
        with _opened(name, data) as image:
            pixels = _pixels(image, mode)
        yield pixels


def read_image(path: Path, channels: int) -> Pixels:
    """One image of any size and usual format, in so many channels, on white where it is transparent.

    Raises:
      UserError: there is none, or it cannot be read; the message names it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size > MAX_MEMBER_BYTES:
        raise UserError(f"{path}: has more than {MAX_MEMBER_BYTES} bytes; use a smaller image")
    with _opened(str(path), path.read_bytes(), FORMATS, deep=True) as image:
        ImageOps.exif_transpose(image, in_place=True)
        seen: Image.Image = image
        if image.mode in DEEP_MODES:
            seen = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.has_transparency_data:  # which images of a data set are read without
            seen = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return _pixels(seen, "L" if channels == 1 else "RGB")


def _place(name: str) -> tuple[str, ...]:
    """(split, class) of a folder or (split, class, file) of a file; () for what is neither train nor test."""
    parts = PurePosixPath(name).parts
    if any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in parts):
        return ()
    root = next((i for i, part in enumerate(parts[:2]) if part in ("train", "test")), None)  # one folder may wrap all
    return () if root is None else parts[root:]


def read_tree(path: Path) -> Images:
    """Images of `train/<class>/*` and `test/<class>/*`, classes sorted by name; grey when every image is."""
    files: dict[tuple[str, ...], bytes] = {}
    folders, modes = set(), set()
    with readable(path):
        for name, is_folder, read in members(path):
            place = _place(name)
            if is_folder:
                folders |= {place} if len(place) == 2 else set()
            elif len(place) == 3:
                files[place] = read()
                with _opened(f"{path}: {name}", files[place]) as image:
                    modes.add(image.mode)
            elif place:
                raise UserError(f"{path}: {name} is not in train/<class>/ or test/<class>/; move it there")
    filled = {place[:2] for place in files}
    if empty := sorted({("train", "*"), ("test", "*")} - {(split, "*") for split, _ in filled} | (folders - filled)):
        raise UserError(f"{path}: no images in {'/'.join(empty[0])}; add some, or remove the empty folder")
    names = tuple(sorted(label for split, label in filled if split == "train"))
    if strange := sorted({label for split, label in filled if split == "test"} - set(names)):
        raise UserError(f"{path}: class {strange[0]} is in test but not in train; add train/{strange[0]}")

    def split(which: str) -> tuple[Iterator[Pixels], Int32[np.ndarray, "_N"]]:
        places = sorted(place for place in files if place[0] == which)
        encoded = {f"{path}: {'/'.join(place)}": files[place] for place in places}
        labels = np.array([names.index(place[1]) for place in places], np.int32)
        return _decoded(encoded, "L" if modes <= GREY_MODES else "RGB"), labels

    return Images(*split("train"), *split("test"), class_names=names)
