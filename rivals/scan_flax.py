"""What JAX lore recommends: the whole epoch in one lax.scan, all seeds at once in vmap, data resident, one dispatch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from cell import Cell, Train
from flax import nnx
from jax import Array
from textbook_flax import PACKAGES, loss_fn, make_model, make_optimizer

__all__ = ["PACKAGES", "load"]


def load(cells: list[Cell]) -> Train:
    """All seeds of a net at once."""
    split = [nnx.split(make_model(cell)) for cell in cells]
    graph, tx = split[0][0], make_optimizer(cells[0])
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in split))
    images, labels, mean, std = (
        jnp.stack([getattr(cell, name) for cell in cells]) for name in ("images", "labels", "mean", "std")
    )

    def train_epoch(params: Any, images: Array, labels: Array, mean: Array, std: Array, order: Array) -> Any:
        def step(carry: Any, index: Array) -> Any:
            params, opt_state = carry
            loss, grads = jax.value_and_grad(
                lambda p: loss_fn(nnx.merge(graph, p), images[index], labels[index], mean, std)
            )(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        return jax.lax.scan(step, (params, tx.init(params)), order)

    train_seeds = jax.jit(jax.vmap(train_epoch))

    def train(steps: int, watch: bool) -> np.ndarray:
        order = np.stack([cell.order[:steps] for cell in cells])
        carry, losses = train_seeds(params, images, labels, mean, std, order)
        jax.block_until_ready(carry)  # the last update counts too
        return np.asarray(losses)

    return train
