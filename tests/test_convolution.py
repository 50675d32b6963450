"""The convolution: one value and one gradient by every way of computing it, with and without replicas."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapbench.models import convolution
from gapbench.models.convolution import METHODS, choose_method, convolve, measured, square_conv

SUM = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums of up to 500 terms near one, in another order
PADDINGS = ("SAME", "VALID")


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(convolution, "TABLE", tmp_path / "convolution.json")
    measured.cache_clear()
    yield tmp_path / "convolution.json"
    measured.cache_clear()


def by_hand(x: jax.Array, kernel: jax.Array, padding: str) -> np.ndarray:
    side = len(kernel)
    edge = (side // 2, side // 2)
    padded = np.pad(x, ((0, 0), edge, edge, (0, 0))) if padding == "SAME" else np.asarray(x)
    height, width = padded.shape[1] - side + 1, padded.shape[2] - side + 1
    shifted = ((padded[:, i : i + height, j : j + width], kernel[i, j]) for i in range(side) for j in range(side))
    return sum(part @ np.asarray(weights) for part, weights in shifted)


def gradients(conv: Any, x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.grad(lambda x, kernel: jnp.sum(conv(x, kernel) * dy), argnums=(0, 1))(x, kernel)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [1, 3, 4])  # up to three have a way of their own on the CPU
@pytest.mark.parametrize("side", [3, 5])
def test_it_is_a_sum_over_shifted_products_with_xla_s_gradients(side: int, channels: int, padding: str) -> None:
    x, kernel = numbers(2, 6, 5, channels), numbers(side, side, channels, 4, seed=1)
    conv = square_conv(padding)
    expected = by_hand(x, kernel, padding)
    np.testing.assert_allclose(conv(x, kernel), expected, **SUM)
    dy = numbers(*expected.shape, seed=2)
    for ours, xlas in zip(
        gradients(conv, x, kernel, dy), gradients(partial(convolve, padding=padding), x, kernel, dy), strict=True
    ):
        np.testing.assert_allclose(ours, xlas, **SUM)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("method", METHODS)
def test_replicas_compute_what_each_computes_alone_by_every_method(method: str, padding: str, table: Path) -> None:
    row = {"replicas": 3, "px": 6, "c_in": 2, "c_out": 4, "precision": "float32", "method": method}
    table.write_text(json.dumps({jax.devices()[0].device_kind: [row]}))
    assert choose_method(6, 2, 4, 3, "float32") == method
    x, kernel, conv = numbers(3, 2, 6, 6, 2), numbers(3, 3, 3, 2, 4, seed=1), square_conv(padding)
    ys = jax.vmap(conv)(x, kernel)
    dy = numbers(*ys.shape, seed=2)
    together = jax.vmap(partial(gradients, conv))(x, kernel, dy)
    for r in range(3):
        np.testing.assert_allclose(ys[r], by_hand(x[r], kernel[r], padding), **SUM)
        for batched, alone in zip(together, gradients(conv, x[r], kernel[r], dy[r]), strict=True):
            np.testing.assert_allclose(batched[r], alone, **SUM)


def test_replicas_may_share_their_images_or_their_kernel() -> None:
    x, kernels, conv = numbers(2, 6, 6, 2), numbers(3, 3, 3, 2, 4, seed=1), square_conv("SAME")
    shared = jax.vmap(conv, in_axes=(None, 0))(x, kernels)
    np.testing.assert_allclose(shared[2], conv(x, kernels[2]), **SUM)
    np.testing.assert_allclose(
        jax.vmap(conv, in_axes=(0, None))(shared[..., :2], kernels[0])[1], conv(shared[1, ..., :2], kernels[0]), **SUM
    )


def test_the_table_chooses_by_precision_then_by_the_nearest_shape_and_a_device_without_rows_is_grouped(
    table: Path,
) -> None:
    rows = [
        {"replicas": 8, "px": 28, "c_in": 16, "c_out": 16, "precision": "float32", "method": "patches"},
        {"replicas": 64, "px": 28, "c_in": 16, "c_out": 16, "precision": "float32", "method": "scan"},
        {"replicas": 8, "px": 28, "c_in": 16, "c_out": 16, "precision": "bfloat16", "method": "grouped"},
    ]
    table.write_text(json.dumps({jax.devices()[0].device_kind: rows}))
    assert choose_method(28, 16, 16, 10, "float32") == "patches"
    assert choose_method(14, 16, 32, 60, "float32") == "scan"
    assert choose_method(28, 16, 16, 60, "bfloat16") == "grouped"
    measured.cache_clear()
    table.write_text(json.dumps({"another device": rows}))
    assert choose_method(28, 16, 16, 8, "float32") == "grouped"
