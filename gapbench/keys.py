"""Every random stream, folded by name from one seed: a head that draws no numbers cannot move another stream."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax

STREAMS = ("backbone", "head", "subset", "order", "augment", "dropout", "backbone_dropout", "bootstrap", "canvas")


def _name_number(name: str) -> int:
    if name not in STREAMS:
        raise ValueError(f"unknown stream {name!r}: one of {', '.join(STREAMS)}")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def key_for(seed: int, name: str) -> "jax.Array":
    """The JAX key of the stream `name`; raises ValueError for a name not in STREAMS."""
    import jax  # here, so that data and analysis draw from NumPy streams without starting JAX

    return jax.random.fold_in(jax.random.key(seed), _name_number(name))


def generator_for(seed: int, name: str) -> np.random.Generator:
    """The NumPy generator of the stream `name`; raises ValueError for a name not in STREAMS."""
    return np.random.default_rng([_name_number(name), seed])
