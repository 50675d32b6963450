"""Shifts against NumPy, and where they act: in training alone, anew in every step, alike in both runs of a pair."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapbench import train
from gapbench.augmentation import shift
from gapbench.keys import key_for
from gapbench.spec import Backbone, Recipe, RunSpec, Task

ALL = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """out[h, w] = image[h - down, w - right], black where that is outside."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for h in range(height):
        for w in range(width):
            if 0 <= h - down < height and 0 <= w - right < width:
                out[h, w] = image[h - down, w - right]
    return out


def shifts_of(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int]]:
    """By how much each image was moved; there must be one answer."""
    found = [[by for by in ALL if np.array_equal(moved(a, *by), b)] for a, b in zip(before, after, strict=True)]
    assert all(len(answers) == 1 for answers in found)
    return [answers[0] for answers in found]


def images_of(n: int, height: int = 6, width: int = 5, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (n, height, width, channels), dtype=np.uint8)


def test_every_image_moves_by_a_shift_of_its_own_and_black_fills_in() -> None:
    images = images_of(500)
    after = jax.jit(shift)(images, key_for(0, "augment"))
    assert after.dtype == jnp.uint8
    found = shifts_of(images, np.asarray(after))
    counts = np.array([found.count(by) for by in ALL])
    # 500 draws from 25: 20 of each in the mean, chi-squared with 24 degrees of freedom: 52 has p = 0.0008
    assert np.sum((counts - 20) ** 2 / 20) < 52


def test_a_key_repeats_its_shifts_and_another_does_not() -> None:
    images = images_of(50)
    one, again, other = (shift(jnp.asarray(images), key_for(seed, "augment")) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert shifts_of(images, np.asarray(one)) != shifts_of(images, np.asarray(other))


def spec_of(head: str, augment: str = "shift", seed: int = 0) -> RunSpec:
    return RunSpec(
        task=Task(dataset="digits", px=8, train_images=40, val_images=20),
        backbone=Backbone(width=4, stages=1),
        head=head,
        recipe=Recipe.model_validate({"peak_lr": 0.01, "batch": 8, "steps": 7, "eval_every": 7, "augment": augment}),
        seed=seed,
    )


def arguments_of(spec: RunSpec) -> tuple[Any, tuple[Any, ...]]:
    graph, state = train.init_state(spec, 1, 10)
    images, labels = jnp.asarray(images_of(8, 8, 8, 1)), jnp.zeros(8, jnp.int32)
    return graph, (state, images, labels, train.make_constants(spec, (jnp.zeros(1), jnp.ones(1))))


def test_both_runs_of_a_pair_see_the_same_shifts_anew_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def spy(images: jax.Array, key: jax.Array) -> jax.Array:
        after = shift(images, key)
        jax.debug.callback(lambda values: seen.append(np.asarray(values)), after, ordered=True)
        return after

    monkeypatch.setitem(train.AUGMENTATIONS, "shift", spy)
    with jax.numpy_dtype_promotion("standard"):
        for head, seed in (("flatten", 0), ("gap", 0), ("gap", 1)):
            spec = spec_of(head, seed=seed)
            graph, (state, *given) = arguments_of(spec)
            step = jax.jit(functools.partial(train.train_step, graph, spec.recipe))
            for _ in range(2):
                state, _ = step(state, *given)
    jax.effects_barrier()  # until the spy saw all
    flatten, gap, other = seen[:2], seen[2:4], seen[4:]
    np.testing.assert_array_equal(flatten, gap)
    assert shifts_of(images_of(8, 8, 8, 1), flatten[0]) != shifts_of(images_of(8, 8, 8, 1), flatten[1])
    assert not np.array_equal(gap, other)


def test_a_program_without_augmentation_draws_nothing_and_pads_no_bytes() -> None:
    def program(augment: str) -> str:
        spec = spec_of("gap", augment)
        graph, arguments = arguments_of(spec)
        with jax.numpy_dtype_promotion("standard"):
            return str(jax.make_jaxpr(functools.partial(train.train_step, graph, spec.recipe))(*arguments))

    for trace in ("random_bits[", "u8[8,12,12,1]"):  # of the draw, and the padded bytes
        assert trace in program("shift")
        assert trace not in program("none")
