"""Dropout with a rate that is an input of the program, not `nnx.Dropout`'s constant: replicas may differ in it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Maps = Float[Array, "B H W C"]
Drop = Callable[[Float[Array, "B ..."]], Float[Array, "B ..."]]  # what a head does to the input of its dense layer


def keep_all(x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """The `Drop` of evaluation, and of training without dropout."""
    return x


def drop(x: Float[Array, "B ..."], rate: Float[Array, ""], key: jax.Array) -> Float[Array, "B ..."]:
    """Zero with probability `rate`, else x / (1 - rate)."""
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate).astype(x.dtype), jnp.zeros((), x.dtype))


def drop_maps(x: Maps, rate: float, key: jax.Array | None, place: int) -> Maps:
    """`drop` at one of several places in a backbone; without a key (in evaluation, or at rate 0) the identity."""
    return x if key is None else drop(x, jnp.asarray(rate, jnp.float32), jax.random.fold_in(key, place))
