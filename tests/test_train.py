"""The step, the schedule and the loop: golden losses, learning, repetition, and what each option touches."""

import logging
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gapbench.data import Dataset, batches, load, split
from gapbench.data.splits import Splits
from gapbench.evaluate import BATCH
from gapbench.spec import Backbone, Recipe, RunSpec, Task
from gapbench.train import (
    Constants,
    Trained,
    TrainState,
    compile_program,
    evaluate_splits,
    hash_arrays,
    init_state,
    make_constants,
    make_hyper,
    make_optimizer,
    make_schedule,
    train_run,
)

HEADS = ("flatten", "gap")


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    """optax's AdamW and cosine schedule mix integer step counters with floats, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load("digits", 8)


def spec_of(head: str = "gap", seed: int = 0, train_images: int = 32, width: int = 4, **changes: Any) -> RunSpec:
    """Tests share what they can of this: each further recipe or head costs two seconds of compiling."""
    recipe = {
        "peak_lr": 0.01,
        "batch": 8,
        "steps": 3,
        "eval_every": 3,
        "schedule": "constant",
        "dropout": 0.3,
    } | changes
    return RunSpec(
        task=Task(dataset="digits", px=8, train_images=train_images, val_images=20),
        backbone=Backbone.model_validate({"width": width, "stages": 1, "norm": recipe.pop("norm", "none")}),
        head=head,
        recipe=Recipe.model_validate(recipe),
        seed=seed,
    )


def constants_of(spec: RunSpec, splits: Splits) -> Constants:
    moments = (jnp.asarray(splits.mean), jnp.asarray(splits.std))
    return make_constants(spec, moments)


def step_losses(spec: RunSpec, digits: Dataset) -> tuple[list[float], TrainState]:
    """The losses of a run's steps, and the state after them."""
    splits = split(digits, spec.task, spec.seed)
    program = compile_program(spec.program, 1, 10)
    _, state = init_state(spec, 1, 10)
    constants, losses = constants_of(spec, splits), []
    for index in batches(spec.task.train_images, spec.recipe.batch, spec.recipe.steps, spec.seed):
        images, labels = splits.train.images[index], splits.train.labels[index]
        state, pulse = program.step(state, images, labels, constants)
        losses.append(float(pulse.loss))
    return losses, state


def digest_of(trained: Trained) -> tuple[Any, ...]:
    return trained.curve, trained.final, trained.pairing, hash_arrays(trained.state.params)


GOLDEN = {
    "flatten": [2.820073, 2.379467, 2.682335],
    "gap": [2.346470, 2.509633, 2.390909],
}  # AdamW, dropout 0.3, seed 0


@pytest.mark.parametrize("head", HEADS)
def test_the_first_losses_are_those_of_the_published_code(head: str, digits: Dataset) -> None:
    losses, _ = step_losses(spec_of(head), digits)
    # Another processor or XLA sums in another order: 1e-7 a term, and AdamW's first steps, g / |g|, can
    # amplify that a hundredfold where a gradient is near zero. A real change moves the losses by percents.
    np.testing.assert_allclose(
        losses,
        GOLDEN[head],
        rtol=1e-4,
        err_msg="the numbers of every published record moved. Update these only together with them: when the data,"
        " the initialisation, a stream, the step or the optimiser was changed on purpose",
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_net_learns_32_images_by_heart(head: str, digits: Dataset) -> None:
    steps = {"flatten": 100, "gap": 300}[head]
    spec = spec_of(head, width=16, batch=32, steps=steps, eval_every=steps, schedule="cosine", peak_lr=0.03, dropout=0)
    trained = train_run(spec, digits)
    assert trained.curve["step"] == [0, 0, 0, steps, steps, steps]
    assert trained.curve["accuracy"][0] < 0.5
    assert trained.final["train"].accuracy == 1.0
    assert trained.final["train"].loss < 0.1


def test_one_program_serves_every_step_seed_learning_rate_decay_and_dropout_rate(
    digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    train_run(spec_of(seed=0), digits)
    before = compile_program.cache_info()

    def compiled() -> list[str]:
        return [record.message for record in caplog.records if "train_step" in record.message]

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train_run(spec_of(seed=1, peak_lr=0.02, weight_decay=0.1, head_weight_decay=0.2, dropout=0.1), digits)
        after = compile_program.cache_info()
        assert (after.hits, after.misses) == (before.hits + 1, before.misses)
        assert compiled() == []
        compile_program(spec_of(batch=4), 1, 10)  # another shape does compile, and is seen here
        assert compile_program.cache_info().misses == before.misses + 1
        assert compiled() != []


@pytest.mark.parametrize("head", HEADS)
def test_a_seed_repeats_bit_for_bit_and_another_differs(head: str, digits: Dataset) -> None:
    first, again, other = (train_run(spec_of(head, seed), digits) for seed in (0, 0, 1))
    assert digest_of(first) == digest_of(again)
    for name in ("subset", "backbone", "order"):
        assert first.pairing[name] != other.pairing[name]
    assert first.pairing["data"] == other.pairing["data"]
    assert first.final["test"].loss != other.final["test"].loss


def test_a_repeat_of_a_run_has_all_of_its_random_streams_and_on_a_cpu_its_numbers(digits: Dataset) -> None:
    again = spec_of().model_copy(update={"repeat": 1})
    assert again.run_id != spec_of().run_id
    assert digest_of(train_run(again, digits)) == digest_of(train_run(spec_of(), digits))


def test_dropout_acts_in_training_and_never_in_evaluation(digits: Dataset) -> None:
    dry, wet = spec_of(dropout=0), spec_of()
    (dry_loss, *_), (wet_loss, *_) = (step_losses(spec, digits)[0] for spec in (dry, wet))
    assert abs(dry_loss - wet_loss) > 1e-3
    splits, scores = split(digits, dry.task, 0), []
    for spec in (dry, wet):
        _, state = init_state(spec, 1, 10)
        program = compile_program(spec.program, 1, 10)
        moments = (jnp.asarray(splits.mean), jnp.asarray(splits.std))
        scores.append(evaluate_splits(program, state, moments, {"test": splits.test}))
    assert scores[0] == scores[1]  # same weights, and one program: the dropout leaves no trace in evaluation


def test_every_step_draws_another_dropout(digits: Dataset) -> None:
    spec = spec_of()
    splits = split(digits, spec.task, 0)
    program, losses = compile_program(spec.program, 1, 10), []
    for step in (0, 1, 1):
        _, state = init_state(spec, 1, 10)
        state = state._replace(step=jnp.asarray(step, jnp.int32))
        images, labels = splits.train.images[:8], splits.train.labels[:8]
        losses.append(float(program.step(state, images, labels, constants_of(spec, splits))[1].loss))
    assert losses[1] == losses[2]
    assert abs(losses[0] - losses[1]) > 1e-3


def updated(recipe: Recipe, steps: int = 1) -> list[nnx.State]:
    """The parameters of a small net before and after each step on gradients that are all 0.5."""
    params = init_state(spec_of(norm="group"), 1, 10)[1].params
    tx = make_optimizer(recipe, make_hyper(recipe))
    grads, states, opt_state = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), params), [params], tx.init(params)
    for _ in range(steps):
        updates, opt_state = tx.update(grads, opt_state, states[-1])
        states.append(optax.apply_updates(states[-1], updates))
    return states


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_acts_on_kernels_and_on_nothing_else(optimizer: str) -> None:
    recipe = spec_of(optimizer=optimizer, weight_decay=0.0).recipe
    (start, free), (_, decayed) = (updated(recipe.model_copy(update={"weight_decay": decay})) for decay in (0.0, 0.1))
    # w - lr·(step + decay·w) for AdamW; Nesterov's first step takes g + decay·w once, and 0.9 of it again
    factor = {"adamw": 1.0, "sgd": 1.9}[optimizer]
    seen = {"kernel": 0, "bias": 0, "scale": 0}
    for (path, w0), w1, w2 in zip(
        jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(free), jax.tree.leaves(decayed), strict=True
    ):
        kind = next(kind for kind in seen if f"'{kind}'" in jax.tree_util.keystr(path))
        seen[kind] += 1
        if kind == "kernel":
            assert np.abs(w0).max() > 0.1
            np.testing.assert_allclose(w2 - w1, -0.01 * factor * 0.1 * w0, atol=3e-7)  # float32 weights near one
        else:
            np.testing.assert_array_equal(w2, w1)
    assert seen == {"kernel": 3, "bias": 5, "scale": 2}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_head_s_learning_rate_is_the_factor_times_the_body_s(optimizer: str) -> None:
    recipe = spec_of(optimizer=optimizer, weight_decay=0.1).recipe
    slow = recipe.model_copy(update={"head_lr": 0.1})
    (start, fast_end), (_, slow_end) = updated(recipe), updated(slow)
    for name, factor in (("backbone", 1.0), ("head", 0.1)):
        for w0, w1, w2 in zip(*(jax.tree.leaves(state[name]) for state in (start, fast_end, slow_end)), strict=True):
            assert np.abs(w1 - w0).max() > 5e-3
            np.testing.assert_allclose(w2 - w0, factor * (w1 - w0), atol=3e-7)  # float32 weights near one


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_head_s_own_weight_decay_acts_on_its_kernels_and_on_nothing_else(optimizer: str) -> None:
    recipe = spec_of(optimizer=optimizer, weight_decay=0.05).recipe
    same, other = (recipe.model_copy(update={"head_weight_decay": decay}) for decay in (0.05, 0.15))
    (start, shared), (_, equal), (_, own) = updated(recipe), updated(same), updated(other)
    jax.tree.map(np.testing.assert_array_equal, shared, equal)  # None is weight_decay
    factor = {"adamw": 1.0, "sgd": 1.9}[optimizer]  # as above
    for (path, w0), w1, w2 in zip(
        jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(shared), jax.tree.leaves(own), strict=True
    ):
        if jax.tree_util.keystr(path) == "['head']['dense']['kernel'].value":
            assert np.abs(w0).max() > 0.1
            np.testing.assert_allclose(w2 - w1, -0.01 * factor * 0.1 * w0, atol=3e-7)
        else:
            np.testing.assert_array_equal(w2, w1)


def test_sgd_is_nesterov_momentum_by_hand() -> None:
    start, one, two = updated(spec_of(optimizer="sgd", weight_decay=0.0).recipe, steps=2)
    for w0, w1, w2 in zip(*map(jax.tree.leaves, (start, one, two)), strict=True):
        # g = 0.5: m1 = 0.5, and the step is lr·(g + 0.9·m1) = 0.01·0.95; m2 = 0.5 + 0.45, and lr·(0.5 + 0.855)
        np.testing.assert_allclose(w1 - w0, np.full(w0.shape, -0.0095), atol=3e-7)  # float32 weights near one
        np.testing.assert_allclose(w2 - w1, np.full(w0.shape, -0.01355), atol=3e-7)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        # cosine over 10 steps: at 5 half the peak, at the end zero
        ({"schedule": "cosine"}, {0: 0.4, 5: 0.2, 10: 0.0}),
        # warm-up in 2 steps, then a cosine over the 8 that are left: half the peak at 2 + 4
        ({"schedule": "cosine", "warmup_steps": 2}, {0: 0.0, 1: 0.2, 2: 0.4, 6: 0.2, 10: 0.0}),
        ({"schedule": "constant"}, {0: 0.4, 5: 0.4, 9: 0.4}),
        ({"schedule": "constant", "warmup_steps": 2}, {0: 0.0, 1: 0.2, 2: 0.4, 9: 0.4}),
    ],
)
def test_the_learning_rate_at_the_start_the_end_of_the_warm_up_and_the_last_step(
    recipe: dict[str, Any], expected: dict[int, float]
) -> None:
    schedule = make_schedule(Recipe.model_validate({"peak_lr": 0.4, "batch": 8, "steps": 10, "eval_every": 5} | recipe))
    # float32 cosine: 1e-7 of the peak
    np.testing.assert_allclose([0.4 * schedule(step) for step in expected], list(expected.values()), atol=1e-7)


def test_a_huge_learning_rate_ends_as_diverged_with_the_step_named(digits: Dataset) -> None:
    trained = train_run(spec_of(optimizer="sgd", peak_lr=1e30, steps=8, eval_every=4), digits)
    # the first step's loss is that of the initial weights; the second is computed with the exploded ones
    assert trained.reason == "the training loss or its gradient is not finite at step 2"
    assert trained.curve["step"] == [0, 0, 0]
    assert np.isfinite(trained.curve["loss"]).all()
    assert trained.final == {}


def test_weights_that_explode_in_the_last_step_are_seen_by_the_evaluation(digits: Dataset) -> None:
    trained = train_run(spec_of(optimizer="sgd", peak_lr=1e30, steps=1, eval_every=1), digits)
    assert trained.reason == "an evaluated loss is not finite at step 1"
    assert trained.final == {}


def test_the_curve_has_every_split_at_every_step_of_the_grid_and_evaluating_changes_no_weight(digits: Dataset) -> None:
    often, rare = (train_run(spec_of(steps=5, eval_every=every, norm="batch"), digits) for every in (2, 5))
    assert often.curve["step"] == [step for step in (0, 2, 4, 5) for _ in range(3)]
    assert often.curve["split"] == ["train", "val", "test"] * 4
    assert int(often.state.step) == 5
    for row, name in enumerate(("train", "val"), start=9):  # 20 images and 32: the curve sees them whole
        assert often.final[name] == pytest.approx((often.curve["loss"][row], often.curve["accuracy"][row]), rel=1e-6)
    assert rare.curve["step"] == [0, 0, 0, 5, 5, 5]
    assert rare.final == often.final
    assert hash_arrays(rare.state.params) == hash_arrays(often.state.params)
    assert hash_arrays(rare.state.stats) == hash_arrays(often.state.stats)


def test_gradient_norms_are_those_of_the_batch_that_follows_each_evaluation(digits: Dataset) -> None:
    spec = spec_of(steps=5, eval_every=2, dropout=0.0, optimizer="sgd", weight_decay=0.0)
    trained = train_run(spec, digits)
    splits, (graph, state) = split(digits, spec.task, 0), init_state(spec, 1, 10)
    order = batches(32, 8, 5, 0)

    def loss_of(params: Any, index: np.ndarray) -> jax.Array:  # the images as the net sees them, by NumPy
        images = (splits.train.images[index].astype(np.float32) / 255 - splits.mean) / splits.std
        logits = nnx.merge(graph, params, state.stats)(jnp.asarray(images, jnp.float32), train=True)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(splits.train.labels[index])[:, None], 1)
        return -jnp.mean(picked)

    grads = jax.grad(loss_of)(state.params, order[0])
    for part in ("backbone", "head"):
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads[part])])
        assert trained.gradients[part][0] == pytest.approx(np.linalg.norm(flat), rel=1e-5)
    assert trained.gradients["step"] == [0, 2, 4]


def test_the_reported_parameters_are_those_of_the_two_parts(digits: Dataset) -> None:
    # (9 + 1)·4 + (36 + 1)·4 = 188; flatten (4·4·4 + 1)·10 = 650, gap (4 + 1)·10 = 50
    for head, expected in (("flatten", 650), ("gap", 50)):
        assert train_run(spec_of(head), digits).parameters == {"backbone": 188, "head": expected}


def test_a_test_split_longer_than_a_batch_is_evaluated_whole(digits: Dataset) -> None:
    assert len(digits.test_labels) % BATCH != 0
    accuracy = train_run(spec_of(), digits).final["test"].accuracy
    assert (accuracy * len(digits.test_labels)).is_integer()


def test_hashes_see_every_bit_of_every_leaf() -> None:
    base = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    changed = {"a": np.zeros(3, np.float32), "b": np.nextafter(np.ones(2, np.float32), np.float32(2))}
    assert hash_arrays(base) == hash_arrays({name: jnp.asarray(value) for name, value in base.items()})
    assert hash_arrays(base) != hash_arrays(changed)
