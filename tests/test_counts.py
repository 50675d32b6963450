"""The closed forms against hand counts, and against the nets that are really built."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

from gapbench.counts import (
    HEAD_COUNTS,
    count_backbone,
    count_head,
    count_spec_head,
    listed_heads,
    match_error,
    optimizer_bytes,
)
from gapbench.models.classifier import init_classifier
from gapbench.models.registry import HEADS
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError
from gapbench.train import make_hyper, make_optimizer

sys.path.insert(0, str(Path(__file__).parent))
from heads_at_hand import EVERY_HEAD, OURS

CLASSES = 10


def spec_of(
    head: str = "gap", px: int = 8, norm: str = "none", padding: str = "zero", width: int = 4, stages: int = 1
) -> RunSpec:
    return RunSpec(
        task=Task(dataset="digits", px=px, train_images=100),
        backbone=Backbone.model_validate({"width": width, "stages": stages, "norm": norm, "padding": padding}),
        head=head,
        recipe=Recipe(peak_lr=1e-3, batch=8, steps=2, eval_every=1),
        seed=0,
    )


def built_sizes(spec: RunSpec, image_channels: int) -> dict[str, int]:
    """Parameters of the two parts of the net, counted on the arrays that its constructor makes."""
    shapes = nnx.eval_shape(lambda: nnx.state(init_classifier(spec, image_channels, CLASSES), nnx.Param))
    return {part: sum(leaf.size for leaf in jax.tree.leaves(shapes[part])) for part in ("backbone", "head")}


def test_the_article_s_example() -> None:
    # 32 maps of 10×10 and 2 classes: 32·10·10 = 3200 weights a class with flatten, 32 with gap; and 2 biases each
    assert count_head("flatten", 32, 10, 2).parameters == 3200 * 2 + 2
    assert count_head("gap", 32, 10, 2).parameters == 32 * 2 + 2


def test_flatten_has_the_positions_but_one_more_times_than_gap() -> None:
    # (H'·W' - 1)·C·K = (10·10 - 1)·32·2 = 6,336 and (7·7 - 1)·64·10 = 30,720
    for (channels, feature_px, classes), expected in {(32, 10, 2): 6_336, (64, 7, 10): 30_720}.items():
        counts = [count_head(head, channels, feature_px, classes).parameters for head in ("flatten", "gap")]
        assert counts[0] - counts[1] == expected


@pytest.mark.parametrize("px", [8, 13, 28])
def test_the_parameters_of_gap_do_not_depend_on_the_input_size_and_those_of_flatten_do(px: int) -> None:
    # stages 2, width 4: C = 8, so gap has (8 + 1)·10 = 90; flatten (H'² · 8 + 1)·10 with H' = px // 4
    assert count_spec_head(spec_of("gap", px, stages=2), CLASSES).parameters == 90
    assert built_sizes(spec_of("gap", px, stages=2), 1)["head"] == 90
    assert count_spec_head(spec_of("flatten", px, stages=2), CLASSES).parameters == ((px // 4) ** 2 * 8 + 1) * 10


@pytest.mark.parametrize("padding", ["zero", "valid", "circular"])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("head", EVERY_HEAD)
def test_the_closed_form_is_the_number_of_parameters_of_the_built_net(head: str, norm: str, padding: str) -> None:
    spec = spec_of(head, px=27, norm=norm, padding=padding, stages=2)  # odd, and odd again after a stage
    built = built_sizes(spec, image_channels=3)
    assert count_spec_head(spec, CLASSES).parameters == built["head"]
    assert count_backbone(spec, image_channels=3).parameters == built["backbone"]


@pytest.mark.parametrize("head", [*EVERY_HEAD, "ladder:1", "ladder:4", "ladder_tiled:4"])
@pytest.mark.parametrize(("channels", "feature_px", "classes"), [(3, 4, 2), (32, 7, 10), (5, 10, 100), (64, 6, 3)])
def test_the_closed_form_is_the_number_of_parameters_of_the_built_head(
    head: str, channels: int, feature_px: int, classes: int
) -> None:
    name, _, argument = head.partition(":")
    shapes = nnx.eval_shape(
        lambda: nnx.state(HEADS[name](channels, feature_px, classes, argument, nnx.Rngs(0)), nnx.Param)
    )
    built = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count_head(head, channels, feature_px, classes).parameters == built


@pytest.mark.parametrize(("channels", "feature_px", "classes"), [(32, 7, 10), (16, 14, 10), (4, 1, 2), (2, 30, 2)])
def test_matched_heads_have_the_size_whose_parameters_are_nearest(channels: int, feature_px: int, classes: int) -> None:
    gap, flatten = (channels + 1) * classes, (feature_px**2 * channels + 1) * classes
    lowrank = {r: r * (2 * feature_px + channels + classes) + classes for r in range(1, 1000)}
    mlp = {h: h * (channels + 1) + (h + 1) * classes for h in range(1, 10_000)}
    for head, sizes, target in (("flatten_lowrank", lowrank, gap), ("gap_mlp", mlp, flatten)):
        ours = count_head(head, channels, feature_px, classes).parameters
        assert ours in sizes.values()
        assert abs(ours - target) == min(abs(size - target) for size in sizes.values())
        assert match_error(head, channels, feature_px, classes) == ours / target - 1


def test_the_match_error_by_hand() -> None:
    # C = 32, H' = 7, K = 10: r = 320 / (14 + 32 + 10) = 5.7 -> 6, so 6·56 + 10 = 346 for gap's 330
    assert match_error("flatten_lowrank", 32, 7, 10) == pytest.approx(16 / 330, rel=1e-12)
    # h = 49·320 / 43 = 364.7 -> 365, so 365·33 + 366·10 = 15,705 for flatten's 15,690
    assert match_error("gap_mlp", 32, 7, 10) == pytest.approx(15 / 15_690, rel=1e-9)
    with pytest.raises(UserError, match="unknown matched head 'gap'"):
        match_error("gap", 32, 7, 10)


def test_the_built_backbone_makes_the_feature_map_that_the_counts_assume() -> None:
    for padding, feature_px in (("zero", 4), ("circular", 4), ("valid", 1)):  # 19 -> 9 -> 4; 19 -> 15 -> 7 -> 3 -> 1
        spec = spec_of(px=19, padding=padding, stages=2)
        shape = nnx.eval_shape(
            lambda spec=spec: init_classifier(spec, 1, CLASSES).backbone(jax.numpy.zeros((2, 19, 19, 1)), False)
        ).shape
        assert shape == (2, feature_px, feature_px, 8)
        assert spec.backbone.feature_px(19) == feature_px
        assert spec.backbone.channels == 8


def test_the_arithmetic_of_a_backbone_by_hand() -> None:
    # zero padding, 8×8, 1 -> 4 -> 4 channels: 2·9·1·4·64 + 2·9·4·4·64 = 4,608 + 18,432
    # parameters (9·1 + 1)·4 + (9·4 + 1)·4 = 40 + 148; kept outputs 4 bytes · (4·64 + 4·64 + 4·16)
    assert count_backbone(spec_of(), 1) == (188, 23_040, 4 * 576)
    # valid padding: the maps are 6×6 and 4×4, pooled 2×2: 2·9·4·36 + 2·9·16·16 = 2,592 + 4,608
    assert count_backbone(spec_of(padding="valid"), 1) == (188, 7_200, 4 * (4 * 36 + 4 * 16 + 4 * 4))
    # two norms of 4 channels, each a scale and a shift: 2·(2·4) more parameters
    assert count_backbone(spec_of(norm="group"), 1).parameters == 188 + 16


def test_the_arithmetic_of_each_head_by_hand() -> None:
    # 4 channels, 3×3 positions, 10 classes
    assert count_head("flatten", 4, 3, 10)[:2] == (370, 2 * 36 * 10)  # (36 + 1)·10
    assert count_head("gap", 4, 3, 10)[:2] == (50, 36 + 2 * 4 * 10)  # 36 additions, then the dense layer
    assert count_head("gap_conv", 4, 3, 10)[:2] == (
        50,
        9 * (2 * 4 * 10) + 90,
    )  # the dense layer nine times, 90 additions
    assert count_head("gmp", 4, 3, 10)[:2] == (50, 36 + 2 * 4 * 10)  # 36 comparisons
    assert count_head("gem", 4, 3, 10)[:2] == (51, 36 + 2 * 4 * 10)  # and the exponent
    # r = 40 / (6 + 4 + 10) = 2: two maps of 9, each position times its weight (itself a product) and added
    assert count_head("flatten_lowrank", 4, 3, 10)[:2] == (2 * 20 + 10, 9 * (2 * 4 * 2) + 3 * 18 + 2 * 2 * 10)
    # h = 360 / 15 = 24
    assert count_head("gap_mlp", 4, 3, 10)[:2] == (24 * 5 + 25 * 10, 36 + 2 * 4 * 24 + 2 * 24 * 10)
    # the dense layer nine times, and another of 9·10 inputs
    assert count_head("flatten_conv", 4, 3, 10)[:2] == (50 + 91 * 10, 9 * (2 * 4 * 10) + 2 * 90 * 10)
    # 2×2 bins of 1.5 positions: products with a 2×3 matrix, over 12 columns of 4 channels, then over 2·4 rows
    assert count_head("ladder:2", 4, 3, 10)[:2] == (17 * 10, 2 * 2 * 3 * 12 + 2 * 2 * 3 * 8 + 2 * 16 * 10)
    assert count_head("ladder:1", 4, 3, 10) == count_head("gap", 4, 3, 10)
    assert count_head("ladder:3", 4, 3, 10) == count_head("flatten", 4, 3, 10) == count_head("flatten_tiled", 4, 3, 10)
    assert count_head("ladder:2", 4, 4, 10).flops == 64 + 2 * 16 * 10  # whole positions: 64 additions


def test_every_built_in_head_has_a_closed_form_and_another_is_refused_with_the_nearest() -> None:
    assert set(HEAD_COUNTS) == OURS
    assert {head.partition(":")[0] for head in listed_heads(3)} == OURS
    for feature_px in (1, 3):
        assert all(count_head(head, 4, feature_px, 10).parameters > 0 for head in listed_heads(feature_px))
    with pytest.raises(UserError, match="head 'ladder:4': ladder takes :g with a whole g from 1 to H' = 3"):
        count_head("ladder:4", 4, 3, 10)
    with pytest.raises(UserError, match="unknown head 'flaten': did you mean 'flatten'"):
        count_head("flaten", 4, 3, 10)
    deep = spec_of().model_copy(update={"backbone": Backbone(kind="plane")})
    with pytest.raises(UserError, match="unknown backbone 'plane': did you mean 'plain'"):
        count_backbone(deep, 1)


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("sgd", 1)])
def test_the_optimizer_s_bytes_are_those_of_its_real_moments(optimizer: str, moments: int) -> None:
    recipe = Recipe.model_validate(spec_of().recipe.model_dump() | {"optimizer": optimizer})
    params = nnx.eval_shape(lambda: nnx.state(init_classifier(spec_of(), 1, CLASSES), nnx.Param))
    state = jax.eval_shape(make_optimizer(recipe, make_hyper(recipe)).init, params)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state) if leaf.shape)  # no step counters
    # 188 parameters of the backbone and 50 of the head, 4 bytes a moment
    assert optimizer_bytes(recipe, 238) == kept == 4 * 238 * moments


def test_counting_imports_no_jax() -> None:
    code = "import gapbench.counts, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
