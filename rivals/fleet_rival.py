"""gapbench as a fleet: all seeds of a net as replicas of the one program that a sweep on an accelerator runs.

All calls into the library's fleets stand here. The images and batches are those that the sweep itself draws from the
cells' specs; only the initial weights are read from the cells. `train_step` keeps its losses to itself in that program:
those that are wanted come from evaluating each batch just before its step, with the same program.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cell import Cell, Train

from gapbench import data
from gapbench.peaks import measure_peaks
from gapbench.replicas import Replica, compile_width, enlist, make_mesh, make_resident, place, stack
from gapbench.spec import RunSpec
from gapbench.weights import import_weights

PACKAGES = ("flax", "jax", "optax")


def enlist_cell(cell: Cell, spec: RunSpec, dataset: data.Dataset) -> Replica:
    """The replica of a sweep, with the cell's weights instead of its own."""
    replica = enlist(spec, dataset)
    params = import_weights(cell.weights, replica.state.params)
    return replica._replace(state=replica.state._replace(params=params))


def load(cells: list[Cell], precision: str = "float32") -> Train:
    """All seeds of a net at once, on the first device."""
    specs = [RunSpec(**cell.spec | {"recipe": cell.spec["recipe"] | {"precision": precision}}) for cell in cells]
    dataset, mesh = data.load(specs[0].task.dataset, specs[0].task.px), make_mesh(jax.devices()[:1])
    resident = make_resident(dataset, mesh)
    program = compile_width(specs[0], dataset, resident, mesh, len(cells))
    replicas = [enlist_cell(cell, spec, dataset) for cell, spec in zip(cells, specs, strict=True)]
    inputs = place(stack([replica.inputs for replica in replicas]), mesh)
    start = place(stack([(replica.state, np.zeros((), np.int32)) for replica in replicas]), mesh)
    batch = specs[0].recipe.batch

    def call(carry: Any, inputs: Any, steps: tuple[int, int], chunks: tuple[int, int]) -> tuple[Any, Any]:
        bounds = np.asarray(steps, np.int32), np.asarray(chunks, np.int32)
        *carry, sums = program.call(*carry, inputs, resident, *bounds)
        return carry, jax.device_get(sums)

    def loss_before(carry: Any, t: int) -> tuple[Any, np.ndarray]:
        chunks = inputs.chunks.at[:, 0, :batch].set(inputs.order[:, t])  # a batch in place of the first chunk
        counts = inputs.counts.at[:, 0].set(jnp.arange(inputs.counts.shape[-1]) < batch)
        carry, sums = call(carry, inputs._replace(chunks=chunks, counts=counts), (t, t), (0, 1))
        return carry, sums.losses[:, 0] / batch

    def train(steps: int, watch: bool) -> np.ndarray:
        carry, losses = jax.tree.map(jnp.copy, start), []  # a call's input is donated
        if not watch:
            carry, _ = call(carry, inputs, (0, steps), (0, 0))
            jax.block_until_ready(carry)
            return np.empty((len(cells), 0))
        for t in range(steps):
            carry, loss = loss_before(carry, t)
            carry, _ = call(carry, inputs, (t, t + 1), (0, 0))
            losses.append(loss)
        return np.stack(losses, axis=1)

    return train


def measure_peak() -> float:
    """FLOP/s of a float32 matmul on the device."""
    return measure_peaks().matmul_flops_per_s["float32"]
