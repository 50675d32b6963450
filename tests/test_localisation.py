"""Golden cases of the localisation metrics, on maps made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.localisation import (
    THRESHOLDS,
    box_overlap,
    centre_maps,
    choose_thresholds,
    enlarge,
    ground_truth,
    normalise,
    overlap,
    pixel_precision,
    pointing_game,
    score_maps,
    stretch,
)
from gapbench.models.registry import BACKBONES
from gapbench.spec import Backbone

PX = 8
MASK = np.zeros((1, PX, PX), np.uint8)
MASK[0, 2:5, 1:5] = 1  # rows 2 to 4, columns 1 to 4
BOX = np.array([[[2, 1, 4, 4]]])


def one(**pixels: float) -> np.ndarray:
    """A map of zeros with some pixels set, named `y_x`."""
    made = np.zeros((1, PX, PX))
    for place, value in pixels.items():
        y, x = map(int, place.strip("p").split("_"))
        made[0, y, x] = value
    return made


def test_boxes_hold_both_ends() -> None:
    np.testing.assert_array_equal(ground_truth(MASK), BOX)


def test_an_image_with_fewer_objects_repeats_its_first_box() -> None:
    two = np.concatenate([MASK, MASK])
    two[1, 6:8, 6:8] = 2
    np.testing.assert_array_equal(ground_truth(two), [[[2, 1, 4, 4]] * 2, [[2, 1, 4, 4], [6, 6, 7, 7]]])


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 1, 1), (1, 1, 2, 2), 1 / 7),  # one pixel of 4 + 4 - 1
        ((0, 0, 1, 1), (2, 2, 3, 3), 0.0),
        ((0, 0, 0, 0), (0, 0, 1, 3), 1 / 8),
    ],
)
def test_intersection_over_union_counts_pixels(a: tuple[int, ...], b: tuple[int, ...], iou: float) -> None:
    assert overlap(np.array(a), np.array(b)) == pytest.approx(iou)


def test_the_pointing_game_looks_at_the_maximum_and_shares_ties() -> None:
    assert pointing_game(one(p2_1=1.0), BOX, 0.0) == [1.0]
    assert pointing_game(one(p1_1=1.0), BOX, 0.0) == [0.0]
    assert pointing_game(one(p1_1=1.0), BOX, 1 / PX) == [1.0]  # one pixel above the box
    assert pointing_game(one(p1_0=1.0), BOX, 1 / PX) == [0.0]  # √2 from its corner
    assert pointing_game(one(p2_1=1.0, p0_7=1.0), BOX, 0.0) == [0.5]
    assert pointing_game(one(), BOX, 0.0) == [12 / 64]  # a blind guess


def test_boxes_around_components_strictly_above_the_threshold() -> None:
    maps = one(p2_1=1.0, p4_4=1.0, p3_2=0.6, p3_3=0.6, p6_6=0.5)  # a diagonal of four, and one apart
    assert box_overlap(maps, BOX, 0.55) == (1.0, 1.0)
    assert box_overlap(maps, BOX, 0.6).every == [1 / 12]  # two single pixels are left
    assert box_overlap(maps, BOX, 1.0) == (0.0, 0.0)  # nothing is above


def test_version_1_takes_the_largest_component_and_version_2_the_best() -> None:
    maps = np.zeros((1, PX, PX))
    maps[0, 6:8, 0:8] = 1  # 16 pixels, elsewhere
    maps[0, 2:5, 1:5] = 1  # the object's 12
    found = box_overlap(maps, BOX, 0.5)
    assert found.largest == [0.0]
    assert found.every == [1.0]


def test_components_of_different_images_never_touch() -> None:
    maps = np.concatenate([one(p0_0=1.0), one(p0_0=1.0), one()])
    masks = np.zeros((3, PX, PX), np.uint8)
    masks[:, 0, 0] = 1
    np.testing.assert_array_equal(box_overlap(maps, ground_truth(masks), 0.5).largest, [1.0, 1.0, 0.0])


def test_each_threshold_is_the_lowest_at_which_most_images_are_found() -> None:
    maps = np.full((1, PX, PX), 0.5)
    maps[0, 2:5, 1:5] = 1.0
    chosen = choose_thresholds(normalise(maps), BOX)
    assert chosen == ((THRESHOLDS[0],) * 3, (THRESHOLDS[0],) * 3)
    maps[0, 0, 0] = 0.0  # normalised, the surroundings are now at 0.5
    chosen = choose_thresholds(normalise(maps), BOX)
    assert chosen.every == (pytest.approx(0.5),) * 3


def test_scores_are_what_the_parts_say() -> None:
    maps = np.zeros((1, PX, PX))
    maps[0, 2:5, 1:3] = 1.0  # the left half of the object: overlap 6 / 12
    scores = score_maps(maps, MASK, choose_thresholds(maps, BOX))
    expected = {"pointing": 1, "pointing_15": 1, "box_largest_30": 1, "box_largest_50": 1, "box_largest_70": 0}
    expected |= {"box_all_30": 1, "box_all_50": 1, "box_all_70": 0, "box": 2 / 3}
    # average precision: half of the pixels at precision 1, the rest at 12 / 64 when all pixels are in
    assert {name: float(value[0]) for name, value in scores.items()} == pytest.approx(
        {**expected, "precision": 0.5 + 0.5 * 12 / 64}
    )
    assert pixel_precision(maps, MASK > 0) == pytest.approx(0.5 + 0.5 * 12 / 64)


def test_enlarging_is_bilinear_with_half_pixel_centres() -> None:
    made = enlarge(np.array([[[0.0, 1.0], [0.0, 1.0]]]), 4, stride=2, start=0)
    np.testing.assert_allclose(made[0], [[0, 0.25, 0.75, 1]] * 4, atol=1e-12)
    np.testing.assert_array_equal(stretch(made, 4), made)


def test_a_position_lies_over_the_pixels_it_was_pooled_from() -> None:
    """7 px leave a map of 3×3 and a column over; unpadded convolutions of a stage leave two pixels out before it."""
    ramp = np.tile(np.arange(3.0), (3, 1))[None]
    np.testing.assert_allclose(enlarge(ramp, 7, stride=2, start=0)[0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2, 2])
    np.testing.assert_allclose(enlarge(ramp, 10, stride=2, start=2)[0, 0], [0, 0, 0, 0.25, 0.75, 1.25, 1.75, 2, 2, 2])
    np.testing.assert_allclose(enlarge(ramp, 5, stride=2, start=0)[0, 0], [0, 0.25, 0.75, 1.25, 1.75])  # rounded up


@pytest.mark.parametrize("kind", ["zero", "valid", "circular", "nin"])
@pytest.mark.parametrize("px", [28, 32, 37])
def test_what_moves_the_map_most_lies_under_the_position_that_moves(kind: str, px: int) -> None:
    """The gradient of one position is centred on the pixels that `enlarge` gives it, in a net whose weights are one."""
    backbone = Backbone(kind="nin", width=6) if kind == "nin" else Backbone(width=2, padding=kind)  # type: ignore[arg-type]
    y, x = np.mgrid[:px, :px]
    side = backbone.feature_px(px)
    net = BACKBONES[backbone.kind](backbone, 1, nnx.Rngs(0))
    for _, module in nnx.iter_modules(net):
        if isinstance(module, (nnx.Conv, nnx.Linear)):
            module.kernel[...] = jnp.ones_like(module.kernel[...])

    def middle(image: jax.Array) -> jax.Array:
        return net(image[None, ..., None], False)[0, side // 2, side // 2].sum()

    # of equal inputs a pool shares the gradient, so that the receptive field is symmetric
    seen = np.asarray(jax.jit(jax.grad(middle))(jnp.ones((px, px))))
    spot = np.zeros((1, side, side))
    spot[0, side // 2, side // 2] = 1
    over = enlarge(spot, px, backbone.stride, backbone.start)[0]
    for axis in (y, x):
        assert np.average(axis, weights=seen) == pytest.approx(
            np.average(axis, weights=over), abs=0.8 if kind == "nin" else 0.01
        )


def test_a_map_without_contrast_stays_without_and_finds_nothing() -> None:
    flat = normalise(np.full((1, PX, PX), 7.0))
    assert (flat == 0).all()
    assert choose_thresholds(flat, BOX).every == (THRESHOLDS[0],) * 3
    assert box_overlap(flat, BOX, 0.05) == (0.0, 0.0)


def test_the_centre_baseline_thresholds_to_centred_boxes() -> None:
    made = normalise(centre_maps(2, PX))
    boxes = {int((made[0] > t).sum()) for t in THRESHOLDS}
    assert boxes == {4, 16, 36}
    assert made[0, 3, 3] == 1
    assert made[0, 0, 0] == 0
