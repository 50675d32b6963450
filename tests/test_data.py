"""Sizing and splits: what is drawn, from what, and what must not move with the size, the head or the seed."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gapbench import data
from gapbench.data.sizing import resize
from gapbench.data.sources import SOURCES
from gapbench.data.splits import Splits, allocate, stratified
from gapbench.spec import Task, UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GAPBENCH_DATA", raising=False)
    monkeypatch.setenv("GAPBENCH_CACHE", str(tmp_path))
    return tmp_path / "resized"


def made(px: int = 4, train: int = 90, test: int = 30, channels: int = 2) -> data.Dataset:
    """Classes 0, 1, 2 in shares 1/2, 1/3, 1/6; the first pixel of each image is its index."""
    rng = np.random.default_rng(7)

    def half(n: int) -> tuple[np.ndarray, np.ndarray]:
        images = rng.integers(0, 256, (n, px, px, channels), np.uint8)
        images[:, 0, 0, 0] = np.arange(n)
        return images, np.resize(np.array([0, 0, 0, 1, 1, 2], np.int32), n)

    return data.Dataset("made", px, *half(train), *half(test), ("a", "b", "c"), "0" * 16)


def task(train_images: int = 36, val_images: int = 12, px: int = 4) -> Task:
    return Task(dataset="made", px=px, train_images=train_images, val_images=val_images)


def indices(split: data.Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_every_split_has_its_exact_share_of_each_class() -> None:
    splits = data.split(made(), task(), seed=0)
    assert np.bincount(splits.train.labels).tolist() == [18, 12, 6]  # 36 in shares 1/2, 1/3, 1/6
    assert np.bincount(splits.val.labels).tolist() == [6, 4, 2]
    assert np.bincount(splits.probe.labels).tolist() == [15, 10, 5]  # as large as the test split
    assert np.bincount(splits.test.labels).tolist() == [15, 10, 5]


def test_largest_remainders_take_the_places_left_over() -> None:
    # 7 places for 6, 3, 3 of 12: quotas 3.5, 1.75, 1.75; floors 3, 1, 1; the two places left go to the two 0.75
    assert allocate(np.array([6, 3, 3]), 7).tolist() == [3, 2, 2]
    assert allocate(np.array([5, 5, 5]), 4).tolist() == [2, 1, 1]  # ties go to the lower class
    assert allocate(np.array([6, 0, 1]), 7).tolist() == [6, 0, 1]


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    labels = made().train_labels
    small, large = (set(stratified(labels, n, np.random.default_rng(3)).tolist()) for n in (12, 48))
    assert small < large


def test_train_and_validation_are_disjoint_and_the_probe_lies_within_train() -> None:
    splits = data.split(made(), task(train_images=60, val_images=30), seed=1)
    train, val, probe = (indices(part) for part in (splits.train, splits.val, splits.probe))
    assert sorted(train + val) == list(range(90))
    assert set(probe) < set(train)
    assert len(set(probe)) == len(probe)


def test_images_keep_their_labels() -> None:
    dataset = made()
    splits = data.split(dataset, task(), seed=2)
    for part in (splits.train, splits.val, splits.probe):
        assert part.labels.tolist() == dataset.train_labels[indices(part)].tolist()


def test_the_probe_is_the_whole_subset_where_that_is_smaller_than_the_test_split() -> None:
    splits = data.split(made(), task(train_images=6), seed=0)
    assert indices(splits.probe) == indices(splits.train)


def test_the_same_seed_draws_the_same_images_at_every_size() -> None:
    small, large = data.split(made(4), task(), seed=5), data.split(made(8), task(px=8), seed=5)
    for one, other in ((small.train, large.train), (small.val, large.val), (small.probe, large.probe)):
        assert indices(one) == indices(other)
    assert small.subset_hash != large.subset_hash  # the size is part of what a pair must share


def test_a_seed_repeats_and_another_differs() -> None:
    one, again, other = (data.split(made(), task(), seed) for seed in (0, 0, 1))
    assert indices(one.train) == indices(again.train)
    assert one.subset_hash == again.subset_hash
    assert set(indices(one.train)) != set(indices(other.train))
    assert one.subset_hash != other.subset_hash


def test_the_test_split_does_not_know_the_seed() -> None:
    dataset = made()
    for seed in range(3):
        assert data.split(dataset, task(), seed).test.images.tobytes() == dataset.test_images.tobytes()


def test_the_hash_knows_the_content_and_the_validation_images() -> None:
    hashes = {
        data.split(made(), task(), 0).subset_hash,
        data.split(made(), task(val_images=6), 0).subset_hash,
        data.split(data.Dataset(**{**vars(made()), "fingerprint": "1" * 16}), task(), 0).subset_hash,
    }
    assert len(hashes) == 3


def test_mean_and_std_are_those_of_the_training_subset_alone() -> None:
    dataset = made()
    splits = data.split(dataset, task(), seed=0)
    values = splits.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(splits.mean, values.mean(axis=(0, 1, 2)), rtol=1e-6)  # one rounding to float32
    np.testing.assert_allclose(splits.std, values.std(axis=(0, 1, 2)), rtol=1e-6)
    everything = dataset.train_images.astype(np.float64).mean(axis=(0, 1, 2)) / 255
    assert np.abs(splits.mean - everything).min() > 1e-4  # the reference above could tell


def normalised(splits: Splits) -> np.ndarray:
    return (splits.train.images.astype(np.float32) / np.float32(255) - splits.mean) / splits.std


def test_normalised_training_images_have_mean_zero_and_deviation_one() -> None:
    splits = data.split(made(), task(), seed=0)
    scaled = normalised(splits)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_a_constant_channel_stays_finite() -> None:
    dataset = made(channels=1)
    flat = data.Dataset(**{**vars(dataset), "train_images": np.full_like(dataset.train_images, 9)})
    splits = data.split(flat, task(), seed=0)
    assert splits.std.tolist() == [np.float32(1 / 255)]
    np.testing.assert_allclose(normalised(splits), 0, atol=1e-5)


def test_a_subset_that_does_not_fit_names_the_field_and_what_there_is() -> None:
    with pytest.raises(UserError, match=r"task.train_images=80 and val_images=12: made has 90 training images"):
        data.split(made(), task(train_images=80), seed=0)
    with pytest.raises(UserError, match=r"task.train_images=2: made has 3 classes"):
        data.split(made(), task(train_images=2), seed=0)


def test_every_example_comes_once_an_epoch_and_short_batches_are_filled() -> None:
    order = data.batches(n=10, batch=4, steps=5, seed=0)  # 20 indices: two epochs, the third batch spans both
    assert order.shape == (5, 4)
    assert sorted(order.ravel()[:10].tolist()) == sorted(order.ravel()[10:].tolist()) == list(range(10))
    assert order.ravel()[:10].tolist() != order.ravel()[10:].tolist()


def test_a_batch_may_be_larger_than_the_data() -> None:
    order = data.batches(n=3, batch=8, steps=2, seed=0).ravel()
    assert [sorted(order[i : i + 3].tolist()) for i in range(0, 15, 3)] == [[0, 1, 2]] * 5


def test_the_order_repeats_by_seed_and_a_longer_run_begins_the_same() -> None:
    short, long, other = data.batches(50, 8, 10, 3), data.batches(50, 8, 90, 3), data.batches(50, 8, 10, 4)
    assert short.tolist() == long[:10].tolist()
    assert short.tolist() != other.tolist()


def test_half_a_checkerboard_is_grey() -> None:
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)[None, :, :, None]
    half = resize(board, 8)
    assert set(np.unique(board[:, ::2, ::2])) == {0}  # every second pixel: what aliasing would give
    assert np.abs(half - 127.5).max() < 3  # not 0.5: the filter is cut at the border


def test_an_image_of_the_right_size_is_untouched() -> None:
    images = made().train_images[..., :1]
    assert resize(images, 4).tobytes() == images.tobytes()


def test_the_centre_square_is_kept() -> None:
    wide = np.zeros((1, 4, 8, 3), np.uint8)
    wide[:, :, 2:6] = 200
    assert np.unique(resize(wide, 4)).tolist() == [200]
    assert np.unique(resize(wide, 2)).tolist() == [200]
    assert resize(wide.swapaxes(1, 2), 2).shape == (1, 2, 2, 3)
    assert np.unique(resize(wide[:, :1, 2:5], 2)).tolist() == [200]  # from a single pixel


def test_the_fingerprint_does_not_know_the_size_but_the_cache_does() -> None:
    small, large = data.load("digits", 4), data.load("digits", 8)
    assert small.fingerprint == large.fingerprint == data.check("digits").fingerprint
    assert (small.train_images.shape, large.train_images.shape) == ((1437, 4, 4, 1), (1437, 8, 8, 1))


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(files: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setitem(SOURCES, "digits", dataclasses.replace(SOURCES["digits"], read=read))


def test_a_warm_cache_gives_the_same_data_set_without_reading_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = data.load("digits", 4)
    unread(monkeypatch)
    warm = data.load("digits", 4)
    assert vars(cold).keys() == vars(warm).keys()
    for field, value in vars(cold).items():
        np.testing.assert_array_equal(value, vars(warm)[field])
    with pytest.raises(AssertionError, match="read again"):
        data.load("digits", 5)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-100], lambda whole: b"", lambda whole: b"x" * len(whole)])
def test_a_broken_cache_file_is_made_again(cache: Path, damage, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = data.load("digits", 4)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert data.load("digits", 4).train_images.tobytes() == cold.train_images.tobytes()
    unread(monkeypatch)
    assert data.load("digits", 4).fingerprint == cold.fingerprint
    assert [*cache.iterdir()] == [file]  # no temporary file stays


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    for value in (1, 2):
        for place in ("train/a/x.png", "test/a/x.png"):
            (tmp_path / "mine" / place).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), value).save(tmp_path / "mine" / place)
            os.utime(tmp_path / "mine" / place, ns=(value, value))
        data.add("mine", tmp_path / "mine")
        assert np.unique(data.load("folder:mine", 4).train_images).tolist() == [value]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GAPBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set GAPBENCH_CACHE to a folder of yours"):
        data.load("digits", 4)


@pytest.mark.skipif(not SOURCES["fashion_mnist"].find(), reason="fashion_mnist is not on this machine")
def test_the_seventy_thousand_real_fashion_images_are_read() -> None:
    checked = data.check("fashion_mnist")
    assert [*checked.train_images.values()] == [6000] * 10
    assert [*checked.test_images.values()] == [1000] * 10
    assert checked.shapes == ((28, 28, 1),)
