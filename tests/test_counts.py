"""The closed forms against hand counts, and against the nets that are really built."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

from gapbench.counts import HEAD_COUNTS, count_backbone, count_head, count_spec_head, optimizer_bytes
from gapbench.models.classifier import init_classifier
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
    spec = spec_of(head, px=19, norm=norm, padding=padding, stages=2)  # odd, and odd again after a stage
    built = built_sizes(spec, image_channels=3)
    assert count_spec_head(spec, CLASSES).parameters == built["head"]
    assert count_backbone(spec, image_channels=3).parameters == built["backbone"]


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


def test_every_built_in_head_has_a_closed_form_and_another_is_refused_with_the_nearest() -> None:
    assert set(HEAD_COUNTS) == OURS
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
