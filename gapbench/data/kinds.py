"""The kinds of sources: images inside a package, published files, a folder of the user's; how each is found and got.

What the bytes mean is for formats.py; which sources there are, for sources.py.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pooch
from jaxtyping import UInt8

from gapbench.data import places
from gapbench.data.formats import SUFFIXES, Images, Stack, read_tree
from gapbench.data.strata import stratified
from gapbench.spec import UserError

DOWNLOAD_TIMEOUT_S = 30
LabelBytes = UInt8[np.ndarray, "_N"]
Halves = tuple[Stack, LabelBytes, Stack, LabelBytes]  # train images and labels, test images and labels


def _stamp(path: Path) -> str:
    return f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}"


@dataclass(frozen=True)
class Source(ABC):
    """Where one data set comes from."""

    name: str
    images: int | None  # training and test images together; None: only reading tells
    px: int | None
    classes: int | None

    @abstractmethod
    def find(self) -> tuple[Path, ...]:
        """The files that hold the data set, from the first place that has them all; () when it is not here."""

    @abstractmethod
    def fetch(self) -> tuple[Path, ...]:
        """Downloads the files; raises UserError when that cannot be done, with the mend."""

    @abstractmethod
    def read(self, files: tuple[Path, ...]) -> Images:
        """The raw images; raises UserError naming the file that is not well-formed."""

    @property
    @abstractmethod
    def mend(self) -> str:
        """What the user does to get the data set."""

    def where(self, files: tuple[Path, ...]) -> str:
        """The place of the files found, to be read by a person."""
        return str(files[0] if len(files) == 1 else files[0].parent)

    def stamp(self, files: tuple[Path, ...]) -> str:
        """Changes when the files do, at the price of their metadata."""
        return "\n".join(_stamp(entry) for path in files for entry in (path, *sorted(path.rglob("*"))))


@dataclass(frozen=True)
class Embedded(Source):
    """Images inside a Python package, which names no test split: ours is a fixed stratified draw."""

    package: str
    distribution: str
    arrays: Callable[[], tuple[Stack, np.ndarray]]  # every image, and its label
    test_images: int

    def find(self) -> tuple[Path, ...]:
        spec = find_spec(self.package)
        return (Path(spec.origin),) if spec and spec.origin else ()

    def fetch(self) -> tuple[Path, ...]:
        raise UserError(f"{self.name}: the package {self.package} is missing: {self.mend}")

    @property
    def mend(self) -> str:
        return f"pip install {self.distribution}"

    def where(self, files: tuple[Path, ...]) -> str:
        return f"inside {self.distribution} {version(self.distribution)}"

    def stamp(self, files: tuple[Path, ...]) -> str:
        return version(self.distribution)

    def read(self, files: tuple[Path, ...]) -> Images:
        images, labels = self.arrays()
        labels = labels.astype(np.int32)
        test = np.zeros(len(labels), bool)
        test[stratified(labels, self.test_images, np.random.default_rng(0))] = True
        names = tuple(str(label) for label in range(int(labels.max()) + 1))
        return Images(images[~test], labels[~test], images[test], labels[test], names)


@dataclass(frozen=True)
class Files(Source):
    """Published files, looked for in GAPBENCH_DATA, the system's folder and the cache, and else downloaded."""

    url: str  # ends in /
    md5s: dict[str, str]  # of each file that is downloaded
    unpacked: tuple[tuple[str, ...], ...]  # other names under which the same content is accepted
    class_names: tuple[str, ...]
    parse: Callable[[tuple[Path, ...]], Halves]
    package: str = ""  # Debian's

    @property
    def folders(self) -> tuple[Path, ...]:
        return (
            *places.data_folders(self.name),
            places.SYSTEM_FOLDER / self.name.replace("_", "-"),
            places.cache_folder() / self.name,
        )

    def find(self) -> tuple[Path, ...]:
        layouts = [
            [folder / name for name in names] for folder in self.folders for names in (tuple(self.md5s), *self.unpacked)
        ]
        return next((tuple(paths) for paths in layouts if all(path.is_file() for path in paths)), ())

    @property
    def mend(self) -> str:
        package = f", install the Debian package {self.package}" if self.package else ""
        return f"`gapbench data fetch {self.name}` when online{package}, or put the files into GAPBENCH_DATA"

    def fetch(self) -> tuple[Path, ...]:
        load = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=DOWNLOAD_TIMEOUT_S, chunk_size=1 << 16)
        folder = places.cache_folder() / self.name
        try:
            return tuple(
                Path(pooch.retrieve(self.url + name, f"md5:{md5}", fname=name, path=folder, downloader=load))
                for name, md5 in self.md5s.items()
            )
        except ValueError as error:  # pooch names the file and both hashes, and has deleted the file
            raise UserError(f"{self.name}: {error} Mend: {self.mend}") from error
        except OSError as error:
            looked = ", ".join(map(str, self.folders))
            raise UserError(
                f"{self.name}: no {', '.join(self.md5s)} in {looked}, and {self.url} gave {type(error).__name__}:"
                f" {self.mend}"
            ) from error

    def read(self, files: tuple[Path, ...]) -> Images:
        train_images, train_labels, test_images, test_labels = self.parse(files)
        where, known = files[0].parent, len(self.class_names)
        for images, labels in ((train_images, train_labels), (test_images, test_labels)):
            if len(images) != len(labels) or not len(labels) or int(labels.max()) >= known:
                raise UserError(
                    f"{self.name}: the files in {where} do not fit together: {len(images)} images,"
                    f" {len(labels)} labels, {known} classes; delete them and run `gapbench data fetch {self.name}`"
                )
        train, test = train_labels.astype(np.int32), test_labels.astype(np.int32)
        return Images(train_images, train, test_images, test, self.class_names)


@dataclass(frozen=True)
class Folder(Source):
    """The user's own images, as a folder or an archive: in GAPBENCH_DATA, or registered."""

    @property
    def short(self) -> str:
        """The name without `folder:`."""
        return self.name.removeprefix("folder:")

    @property
    def candidates(self) -> tuple[Path, ...]:
        """Where it may lie, in order."""
        stems = places.data_folders(self.short)[:2]
        paths = [stem.with_name(stem.name + suffix) for stem in stems for suffix in SUFFIXES]
        known = places.registered()
        return *paths, *(Path(known[name]) for name in (self.short,) if name in known)

    def find(self) -> tuple[Path, ...]:
        return next(((path,) for path in self.candidates if path.exists()), ())

    @property
    def mend(self) -> str:
        return f"`gapbench data add {self.short} PATH`, or put {self.short} or {self.short}.zip into GAPBENCH_DATA"

    def fetch(self) -> tuple[Path, ...]:
        looked = ", ".join(map(str, self.candidates)) or "GAPBENCH_DATA, which is not set, nor added"
        raise UserError(f"{self.name}: not in {looked}: {self.mend}")

    def read(self, files: tuple[Path, ...]) -> Images:
        return read_tree(files[0])
