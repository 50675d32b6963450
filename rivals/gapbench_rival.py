"""gapbench itself: per step exactly what a sweep's worker does (`gapbench.train.train_run`), without its evaluations.

All calls into the library's training stand here.
"""

import os

from gapbench.worker import xla_flags

os.environ["XLA_FLAGS"] = xla_flags()  # as `pin_process` does, before JAX starts

import jax
import jax.numpy as jnp
import numpy as np
from cell import Cell, Train

from gapbench.keys import key_for
from gapbench.peaks import measure_peaks
from gapbench.spec import RunSpec
from gapbench.train import Constants, TrainState, compile_program, init_state, make_hyper
from gapbench.weights import import_weights

PACKAGES = ("flax", "jax", "optax")


def init_from(cell: Cell, spec: RunSpec) -> TrainState:
    """The state at step 0, with the cell's weights instead of its own."""
    _, state = init_state(spec, cell.images.shape[-1], cell.classes)
    return state._replace(params=import_weights(cell.weights, state.params))


def load(cells: list[Cell]) -> Train:
    """One seed after another; a pinned process each for two halves of the seeds."""
    specs = [RunSpec(**cell.spec) for cell in cells]
    program = compile_program(specs[0].program, cells[0].images.shape[-1], cells[0].classes)
    states = [init_from(cell, spec) for cell, spec in zip(cells, specs, strict=True)]

    def train(steps: int, watch: bool) -> np.ndarray:
        losses = []
        for cell, spec, start in zip(cells, specs, states, strict=True):
            state, pending = jax.tree.map(jnp.copy, start), []  # a step's input is donated
            moments = (jnp.asarray(cell.mean), jnp.asarray(cell.std))
            constants = Constants(moments, key_for(spec.seed, "dropout"), make_hyper(spec.recipe))
            for index in cell.order[:steps]:
                state, loss = program.step(state, cell.images[index], cell.labels[index], constants)
                pending.append(loss)
            losses.append(jax.device_get(pending))
        return np.array(losses)

    return train


def measure_peak() -> float:
    """FLOP/s of a float32 matmul on this process's core."""
    return measure_peaks().matmul_flops_per_s["float32"]
