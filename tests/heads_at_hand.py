"""What the tests of nets share: every head of ours by a name that a spec may have, one built, and random numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gapbench.keys import key_for
from gapbench.models.registry import HEADS
from gapbench.weights import name_arrays

CHANNELS, SIDE, CLASSES = 6, 5, 3
EVERY_HEAD = (
    "flatten",
    "gap",
    "gap_conv",
    "gap_conv:relu",
    "gmp",
    "gem",
    "ladder:2",
    "ladder:3",
    "ladder_tiled:2",
    "flatten_tiled",
    "flatten_lowrank",
    "flatten_conv",
    "flatten_conv:relu",
    "gap_mlp",
)
OURS = {name for name, head in HEADS.items() if head.__module__.startswith("gapbench.")}  # beside those of other tests

# Two float32 sums of the same n <= 200 terms near one, in another order: the error is some n · 2**-24, so 1e-5.
SUM = {"rtol": 1e-5, "atol": 1e-5}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def features() -> np.ndarray:
    return numbers(4, SIDE, SIDE, CHANNELS)


def head_of(name: str, seed: int = 0, side: int = SIDE) -> Any:
    """A head at its start, but for biases that are not zero, so that a lost one shows."""
    name, _, argument = name.partition(":")
    head: Any = HEADS[name](CHANNELS, side, CLASSES, argument, nnx.Rngs(key_for(seed, "head")))
    for path, variable in nnx.to_flat_state(nnx.state(head, nnx.Param)):
        if path[-1] == "bias":
            variable[...] = jnp.asarray([0.5, -1.0, 2.0] * variable.size)[: variable.size]
            nnx.update(head, nnx.from_flat_state([(path, variable)]))
    return head


def arrays(head: Any) -> dict[str, np.ndarray]:
    """Its parameters, by path."""
    return {name: np.asarray(array) for name, array in name_arrays(nnx.state(head, nnx.Param)).items()}
