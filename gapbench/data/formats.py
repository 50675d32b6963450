"""What the bytes mean: IDX files, CIFAR records, and PNG or JPEG trees in a folder, a zip or a tar.

All is read in memory and within bounds: nothing is extracted to disk, nothing unpickled. Where files lie: sources.py.
"""

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
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from gapbench.spec import UserError

# _: two arrays of one signature may differ in it
Pixels = UInt8[np.ndarray, "_H _W _C"]
Stack = UInt8[np.ndarray, "_N _H _W _C"]

MAX_MEMBER_BYTES = 1 << 28  # cifar100's train.bin has 154 MB
MAX_TOTAL_BYTES = 1 << 32
SUFFIXES = ("", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")  # of an image tree; "" is a folder
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # the others hold more than 8 bits a channel
BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Images:
    """The raw content of a data set, before any resizing."""

    train_images: Iterable[Pixels]  # a Stack where sizes are equal and small, else decoded while iterating
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


def cifar_records(name: str, data: bytes, label_bytes: int) -> tuple[Stack, UInt8[np.ndarray, "N"]]:
    """Images and labels; a record is `label_bytes` labels, the finest last, then 32×32 red, green and blue values."""
    record_bytes = label_bytes + 3 * 32 * 32
    if not data or len(data) % record_bytes:
        raise UserError(f"{name}: {len(data)} bytes are not records of {record_bytes}; delete it and get it again")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record_bytes)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, label_bytes - 1]


class Member(NamedTuple):
    """One entry of a folder or archive; must be read before the next one is asked for."""

    name: str  # with / between parts, relative to the root
    is_folder: bool
    is_regular: bool  # a plain file: no link, no device
    size_bytes: int
    read: Callable[[], bytes]


def _in_folder(path: Path) -> Iterator[Member]:
    for entry in sorted(path.rglob("*")):
        is_folder = entry.is_dir()
        size = 0 if is_folder else entry.stat().st_size
        yield Member(entry.relative_to(path).as_posix(), is_folder, entry.is_file(), size, entry.read_bytes)


def _in_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            is_regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            yield Member(info.filename, info.is_dir(), is_regular, info.file_size, partial(archive.read, info))


def _in_tar(path: Path) -> Iterator[Member]:
    def read(info: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(info)
        return stream.read() if stream else b""  # None for what is no plain file, which `members` refuses

    with tarfile.open(path) as archive:
        for info in archive:
            yield Member(info.name, info.isdir(), info.isreg(), info.size, partial(read, info))


def members(path: Path) -> Iterator[Member]:
    """Every entry of a folder, zip or tar; raises UserError for one that is unsafe or too large to read."""
    total = 0
    entries = _in_folder if path.is_dir() else _in_zip if path.suffix == ".zip" else _in_tar
    for member in entries(path):
        where = PurePosixPath(member.name)
        if where.is_absolute() or ".." in where.parts or not (member.is_folder or member.is_regular):
            raise UserError(f"{path}: {member.name} is a link, a device or outside the archive; pack plain files only")
        total += member.size_bytes
        if member.size_bytes > MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
            raise UserError(
                f"{path}: {member.name} goes past the limit ({MAX_MEMBER_BYTES} bytes a file,"
                f" {MAX_TOTAL_BYTES} in all); use fewer or smaller images"
            )
        yield member


@contextmanager
def _opened(name: str, data: bytes) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no concern of ours
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.mode not in GREY_MODES | COLOUR_MODES:
                    raise ValueError(f"mode {image.mode}: more than 8 bits a channel")
                yield image
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            reason = "unknown content" if isinstance(error, UnidentifiedImageError) else error
            raise UserError(f"{name}: not a readable 8-bit PNG or JPEG ({reason}); mend or remove it") from error


@dataclass(frozen=True)
class Encoded:
    """PNG or JPEG files, decoded one by one at each iteration: as pixels, photographs would not fit in memory."""

    files: tuple[tuple[str, bytes], ...]  # name, content
    mode: str  # L or RGB; transparency is dropped

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Pixels]:
        for name, data in self.files:
            with _opened(name, data) as image:
                ImageOps.exif_transpose(image, in_place=True)
                pixels = np.asarray(image.convert(self.mode))
            yield pixels.reshape(*pixels.shape[:2], -1)


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
    folders: set[tuple[str, ...]] = set()
    with readable(path):
        for member in members(path):
            place = _place(member.name)
            if member.is_folder:
                folders |= {place} if len(place) == 2 else set()
            elif len(place) == 3:
                files[place] = member.read()
            elif place:
                raise UserError(f"{path}: {member.name} is not in train/<class>/ or test/<class>/; move it there")
    filled = {place[:2] for place in files}
    if empty := sorted({("train", "*"), ("test", "*")} - {(split, "*") for split, _ in filled} | (folders - filled)):
        raise UserError(f"{path}: no images in {'/'.join(empty[0])}; add some, or remove the empty folder")
    names = tuple(sorted(label for split, label in filled if split == "train"))
    if strange := sorted({label for split, label in filled if split == "test"} - set(names)):
        raise UserError(f"{path}: class {strange[0]} is in test but not in train; add train/{strange[0]}")
    modes = set()
    for place, data in sorted(files.items()):
        with _opened(f"{path}: {'/'.join(place)}", data) as image:
            modes.add(image.mode)
    mode = "L" if modes <= GREY_MODES else "RGB"

    def split(which: str) -> tuple[Encoded, Int32[np.ndarray, "N"]]:
        places = sorted(place for place in files if place[0] == which)
        labels = np.array([names.index(place[1]) for place in places], np.int32)
        return Encoded(tuple((f"{path}: {'/'.join(place)}", files[place]) for place in places), mode), labels

    return Images(*split("train"), *split("test"), class_names=names)
