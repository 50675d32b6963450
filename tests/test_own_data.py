"""A data set from a function: read like ours, never stale, and refused in one line where it is none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapbench import data
from gapbench.data.sources import SOURCES
from gapbench.spec import Task, UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(30, 8, 10, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3
GOOD = (IMAGES[:20], LABELS[:20], IMAGES[20:], LABELS[20:])


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, and the names of before."""
    monkeypatch.setenv("GAPBENCH_CACHE", str(tmp_path))
    before = dict(SOURCES)
    yield
    SOURCES.clear()
    SOURCES.update(before)


def register(made: Any, name: str = "mine") -> Callable[[], Any]:
    @data.register_dataset(name)
    def maker() -> Any:
        return made

    return maker


def test_what_a_function_returns_is_loaded_at_a_size_and_split() -> None:
    assert register(GOOD)() is GOOD
    loaded = data.load("mine", 8)
    np.testing.assert_array_equal(loaded.train_images, IMAGES[:20, :, 1:9])  # the centre square
    np.testing.assert_array_equal(loaded.test_labels, LABELS[20:])
    assert loaded.class_names == ("0", "1", "2")
    drawn = data.split(loaded, Task(dataset="mine", px=8, train_images=12, val_images=6), seed=0)
    assert np.bincount(drawn.train.labels).tolist() == [4, 4, 4]
    assert data.check("mine").fingerprint == loaded.fingerprint


def test_grey_images_need_no_channel_axis() -> None:
    grey = (IMAGES[:20, ..., 0], LABELS[:20], IMAGES[20:, ..., :1], LABELS[20:])
    register(grey)
    assert data.load("mine", 8).train_images.shape == (20, 8, 8, 1)


def test_other_content_under_the_same_name_is_read_anew() -> None:
    register(GOOD)
    first = data.load("mine", 8)
    assert data.load("mine", 8).fingerprint == first.fingerprint
    register((255 - IMAGES[:20], *GOOD[1:]))
    second = data.load("mine", 8)
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(second.train_images, 255 - first.train_images)


def test_the_function_is_called_once_however_often_its_data_is_loaded() -> None:
    calls = []

    @data.register_dataset("mine")
    def maker() -> Any:
        calls.append(1)
        return GOOD

    for px in (8, 8, 6):
        data.load("mine", px)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, IMAGES[:20] / 255, "mine: train images are float64 [20, 8, 10, 3]: make them uint8, 0 to 255, "),
        (2, IMAGES[20:, ..., :2], "mine: test images are uint8 [10, 8, 10, 2]: make them uint8, 0 to 255, "),
        (2, IMAGES[20:, ..., :1], "mine: train images are [20, 8, 10, 3], test images [10, 8, 10, 1]: one C for both"),
        (1, LABELS[:19], "mine: train labels are int64 [19] for 20 images: make them a whole number from 0 on"),
        (1, LABELS[:20] - 1, "mine: train labels are int64 [20] for 20 images: make them a whole number from 0 on"),
        (0, IMAGES[:20, :0], "mine: train images are [20, 0, 10, 3]: give at least one, of at least one pixel"),
        (1, LABELS[:20] + 10**9, "mine: a label is 10000000"),
        (3, LABELS[20:] * 1.0, "mine: test labels are float64 [10] for 10 images"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused_in_one_line(place: int, value: Any, message: str) -> None:
    register((*GOOD[:place], value, *GOOD[place + 1 :]))
    with pytest.raises(UserError) as raised:
        data.load("mine", 8)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("made", [None, GOOD[:3], 5])
def test_anything_but_four_arrays_is_refused(made: Any) -> None:
    register(made)
    with pytest.raises(UserError, match=r"^mine: return train images, train labels, test images and test labels"):
        data.load("mine", 8)


def test_what_the_function_raises_is_one_line() -> None:
    @data.register_dataset("mine")
    def maker() -> Any:
        raise FileNotFoundError("no such\nfile")

    with pytest.raises(UserError, match=r"^mine: FileNotFoundError: no such$"):
        data.load("mine", 8)


def test_a_name_of_ours_or_of_no_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data set 'digits' is gapbench's own: register yours under another name$"):
        data.register_dataset("digits")
    with pytest.raises(UserError, match=r"^data set 'My data': a name is small letters"):
        data.register_dataset("My data")
