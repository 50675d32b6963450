"""Canvases: what is pasted lies where the mask says, whole and never enlarged, and the same on any machine."""

import hashlib
from itertools import product

import numpy as np
import pytest
from records_maker import experiment

from gapbench.data import canvas, check, load, split
from gapbench.data.canvas import CELLS, INK, Canvas, boxes_of, draw_canvas, parse, starts
from gapbench.spec import Task, UserError

WHITE = [np.full((8, 8, 1), level, np.uint8) for level in (100, 150, 200, 250)]  # no background: all of it is ink
LABELS = np.array([0, 1, 0, 1], np.int32)


def draw(px: int = 24, i: int = 0, test: bool = False, **how: object) -> tuple[np.ndarray, np.ndarray, int]:
    pixels, mask, label = draw_canvas(Canvas(source="digits", **how), px, WHITE, LABELS, i, test)  # type: ignore[arg-type]
    return pixels[:, :, 0], mask, label


def test_the_object_alone_is_what_the_mask_says_and_its_box_ends_inside() -> None:
    for i, px in product(range(4), (8, 13, 24)):
        pixels, mask, label = draw(px, i, clutter="none", smallest=0.5, largest=0.9)
        np.testing.assert_array_equal(mask, pixels > 0)
        (top, left, bottom, right), = boxes_of(mask)  # fmt: skip
        assert mask[top : bottom + 1, left : right + 1].all()  # white squares: the box is full
        assert mask.sum() == (bottom - top + 1) * (right - left + 1)
        assert bottom - top == right - left
        assert 4 <= bottom - top + 1 <= 7  # 0.5 and 0.9 of 8
        assert label == LABELS[i]


def test_dark_pixels_of_a_grey_image_are_background_and_those_of_a_colour_image_are_not() -> None:
    ring = np.full((8, 8, 1), 200, np.uint8)
    ring[2:6, 2:6] = INK - 1
    how = Canvas(source="digits", clutter="noise", smallest=1.0, largest=1.0)
    grey = draw_canvas(how, 12, [ring], np.zeros(1, np.int32), 0, False)
    assert grey.mask.sum() == 64 - 16
    colour = draw_canvas(how, 12, [np.repeat(ring, 3, axis=2)], np.zeros(1, np.int32), 0, False)
    assert colour.mask.sum() == 64
    assert set(np.unique(grey.pixels[grey.mask > 0])) == {200}  # what was pasted is not blended


def test_the_same_canvas_for_each_image_whatever_else_is_drawn_and_another_for_another_split() -> None:
    one, again = draw(i=2), draw(i=2)
    np.testing.assert_array_equal(one[0], again[0])
    assert (draw(i=2, test=True)[0] != one[0]).any()
    assert (draw(i=0)[0] != one[0]).any()


def test_several_objects_of_one_class_stand_apart() -> None:
    levels = range(100, 250, 15)
    many, labels = [np.full((8, 8, 1), level, np.uint8) for level in levels], np.zeros(10, np.int32)
    how = Canvas(source="digits", objects=9, smallest=0.5, largest=0.5)
    pixels, mask, _ = draw_canvas(how, 40, many, labels, 0, False)
    assert len(boxes_of(mask)) == 9
    shown = [set(pixels[mask == number].ravel().tolist()) for number in range(1, 10)]
    assert shown[0] == {levels[0]}
    assert len(set.union(*shown)) == 9  # no image twice
    with pytest.raises(UserError, match="9 objects do not fit a canvas of 8 px"):
        draw_canvas(how, 8, many, labels, 0, False)
    with pytest.raises(UserError, match="objects=3: a class has 2 images only"):
        draw(24, objects=3)


@pytest.mark.parametrize(("px", "side", "cells"), [(24, 7, 3), (40, 18, 3), (28, 14, 2), (9, 3, 1), (10, 5, 2)])
def test_cells_part_the_places_of_an_object_among_them(px: int, side: int, cells: int) -> None:
    places = [y for cell in range(cells) for y in starts(px, side, cells, cell)]
    assert places == list(range(px - side + 1))  # each place in one cell, none left out
    for cell in range(cells):
        centres = np.array(starts(px, side, cells, cell)) + side / 2
        assert (centres >= cell * px / cells).all()
        assert (centres < (cell + 1) * px / cells).all() or cell == cells - 1


def test_where_is_labelled_by_the_cell_of_the_centre() -> None:
    for i in range(4):
        _, mask, label = draw(30, i, label="where", clutter="none", largest=0.6)
        (top, left, bottom, right), = boxes_of(mask)  # fmt: skip
        row, column = (int((low + high + 1) / 2 // 10) for low, high in ((top, bottom), (left, right)))
        assert 3 * row + column == label
    assert CELLS[3] == "middle left"


def test_swapped_sides_follow_the_class_in_training_and_its_reverse_in_test() -> None:
    for i, test in product(range(4), (False, True)):
        _, mask, label = draw(24, i, test, label="swapped", clutter="none")
        (_, left, _, right), = boxes_of(mask)  # fmt: skip
        assert label == LABELS[i]
        assert ((left + right + 1) / 2 >= 12) == bool((label + test) % 2)


def test_in_the_middle_stands_the_same_object_among_the_same_clutter() -> None:
    for i, px in product(range(4), (8, 13, 24)):
        (pixels, mask, label), (elsewhere, where, same) = draw(px, i, place="middle"), draw(px, i)
        (top, left, bottom, right), = boxes_of(mask)  # fmt: skip
        assert {top + bottom + 1 - px, left + right + 1 - px} <= {-1, 0}
        assert label == same
        np.testing.assert_array_equal(pixels[mask > 0], elsewhere[where > 0])
        clutter = (mask == 0) & (where == 0)
        np.testing.assert_array_equal(pixels[clutter], elsewhere[clutter])


def test_names_are_short_and_read_back() -> None:
    assert canvas("mnist5k") == "canvas:mnist5k"
    name = canvas("folder:birds", scale=(0.4, 0.65), clutter="noise", label="where")
    assert name == "canvas:folder:birds,smallest=0.4,largest=0.65,clutter=noise,label=where"
    assert parse(name) == Canvas(source="folder:birds", smallest=0.4, largest=0.65, clutter="noise", label="where")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("canvas:", "source: paste a data set"),
        ("canvas:canvas:digits", "source: paste a data set"),
        ("canvas:digits,colour=red", "colour: Extra inputs"),
        ("canvas:digits,largest=1.5", "largest: "),
        ("canvas:digits,smallest=0.8,largest=0.5", "smallest=0.8: must not be above largest=0.5"),
        ("canvas:digits,objects=2,label=where", "objects=2: label=where is of one object"),
        ("canvas:digits,label=where,place=middle", "place=middle: of one object whose label is what"),
        ("canvas:digits,label=where,clutter=noise", "write it canvas:digits,clutter=noise,label=where"),
        ("canvas:digits,objects=1", "write it canvas:digits$"),
        ("canvas:digits,label=what,label=where", "write it canvas:digits,label=where"),
    ],
)
def test_what_no_canvas_can_be_is_refused_with_the_field(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(name, 16)


def test_what_a_canvas_is_drawn_from_is_what_can_be_checked() -> None:
    with pytest.raises(UserError, match="canvas:digits,clutter=none: is drawn from digits, size by size; check digits"):
        check("canvas:digits,clutter=none")


def test_an_object_that_does_not_fit_says_what_to_do() -> None:
    with pytest.raises(UserError, match="object of 7 px does not fit a canvas of 6 px: give a larger px or"):
        draw(6, i=1, smallest=0.9)
    with pytest.raises(UserError, match="object of 7 px does not fit a canvas of 6 px: give a larger px or"):
        draw(6, i=1, smallest=0.9, place="middle")


def test_the_data_set_is_split_by_seed_like_any_other_with_masks_beside_its_images() -> None:
    name = canvas("digits", scale=(0.9, 1.0))
    dataset = load(name, 16)
    assert dataset.train_images.shape == (1437, 16, 16, 1)
    assert dataset.train_masks is not None
    assert dataset.train_masks.shape == (1437, 16, 16)
    assert (dataset.train_masks.max(axis=(1, 2)) == 1).all()
    again = load(name, 16)  # from the cache
    np.testing.assert_array_equal(again.test_masks, dataset.test_masks)
    assert again.fingerprint == dataset.fingerprint
    splits = split(dataset, Task(dataset=name, px=16, train_images=100, val_images=50), seed=3)
    np.testing.assert_array_equal(splits.val.images, dataset.train_images[splits.val.places])


def test_canvases_do_not_change_from_release_to_release() -> None:
    # Change this value only together with data.loading.CACHE_FORMAT: records made before cannot be compared after.
    drawn = [draw_canvas(Canvas(source="digits"), 24, WHITE, LABELS, i, False).pixels for i in range(4)]
    assert hashlib.sha256(np.stack(drawn).tobytes()).hexdigest()[:16] == "533df002fe5e9326"


def test_cells_are_told_apart_by_the_options_in_which_their_canvases_differ() -> None:
    options: list[dict[str, str]] = [{}, {"label": "where"}, {"clutter": "none", "place": "middle"}]
    names = [canvas("digits", scale=(0.4, 0.6), **option) for option in options]
    tasks = [Task(dataset=name, px=16, train_images=100) for name in names]
    runs = [spec.model_copy(update={"task": task}) for spec in experiment(seeds=1).runs for task in tasks]
    labels = {cell.dataset: cell.label for cell in experiment(runs=runs).cells}
    assert [labels[name] for name in names] == ["16 px", "16 px, label where", "16 px, clutter none, place middle"]
