"""What the tests of nets share: every head of ours by a name that a spec may have, one built, and random numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gapbench.keys import key_for
from gapbench.models.registry import HEADS

CHANNELS, SIDE, CLASSES = 6, 5, 3
EVERY_HEAD = ("flatten", "gap", "gap_conv", "gap_conv:relu", "gmp")
OURS = {name for name, head in HEADS.items() if head.__module__.startswith("gapbench.")}  # beside those of other tests

# Two float32 sums of the same n <= 200 terms near one, in another order: the error is some n · 2**-24, so 1e-5.
SUM = {"rtol": 1e-5, "atol": 1e-5}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def features() -> np.ndarray:
    return numbers(4, SIDE, SIDE, CHANNELS)


def head_of(name: str, seed: int = 0) -> Any:
    """A head with a bias that is not zero, so that a lost one shows."""
    name, _, argument = name.partition(":")
    head: Any = HEADS[name](CHANNELS, SIDE, CLASSES, argument, nnx.Rngs(key_for(seed, "head")))
    layer(head).bias[...] = jnp.asarray([0.5, -1.0, 2.0])
    return head


def layer(head: Any) -> Any:
    return head.conv if hasattr(head, "conv") else head.dense


def arrays(head: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(layer(head).kernel[...])
    return kernel.reshape(-1, kernel.shape[-1]), np.asarray(layer(head).bias[...])
