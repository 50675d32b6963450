"""The programs that are timed: a train step or the logits of one net, or of a fleet of them, on random images."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gapbench.grids import Cell
from gapbench.memory import memory_fields
from gapbench.models.classifier import normalise
from gapbench.spec import RunSpec
from gapbench.stopwatch import Timed, no_compile_cache
from gapbench.train import Constants, init_state, make_constants, train_step

STEPS_PER_CALL = 8  # of a fleet's training on an accelerator, scanned so that the dispatch of each does not show

Shape = tuple[int, int]  # channels of the images, number of classes
Step = Callable[[Any, jax.Array, jax.Array, Constants], Any]  # carry, images, labels -> carry and loss, or logits


def steps_per_call(cell: Cell) -> int:
    """One, as `train_run` calls it, but for fleets on an accelerator; on a CPU a scanned convolution is very slow."""
    scanned = cell.fleet > 1 and cell.phase == "train" and jax.default_backend() != "cpu"
    return STEPS_PER_CALL if scanned else 1


def as_fleet(step: Step, steps: int) -> Callable[..., Any]:
    """Every replica's step at once, each on images of its own: order [T, R, B] picks them from one pool."""
    replicas = jax.vmap(step, in_axes=(0, 0, 0, None))

    def call(carry: Any, pool: jax.Array, labels: jax.Array, constants: Constants, order: jax.Array) -> Any:
        def one(carry: Any, index: jax.Array) -> Any:
            return replicas(carry, pool[index], labels[index], constants)

        return one(carry, order[0]) if steps == 1 else jax.lax.scan(one, carry, order)

    return call


def make_program(spec: RunSpec, cell: Cell, shape: Shape) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """The function of one call, its carry, and its other arguments.

    The replicas of a fleet start from equal weights (no speed depends on their values) and part with their images.
    """
    graph, state = init_state(spec, *shape)
    channels, classes = shape
    rng = np.random.default_rng(spec.seed)
    images = jnp.asarray(rng.integers(0, 256, (cell.batch, cell.px, cell.px, channels), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, classes, cell.batch, dtype=np.int32))
    moments = (jnp.full(channels, 0.5), jnp.full(channels, 0.29))  # of uniform pixels
    constants = make_constants(spec, moments)

    def infer(variables: Any, images: jax.Array, labels: jax.Array, constants: Constants) -> Any:
        return nnx.merge(graph, *variables)(normalise(images, constants.moments), train=False)

    step: Step = infer
    carry: Any = (state.params, state.stats)
    if cell.phase == "train":
        step, carry = functools.partial(train_step, graph, spec.recipe), state
    if cell.fleet == 1:
        return functools.partial(step), carry, (images, labels, constants)
    steps = steps_per_call(cell)
    order = rng.permuted(np.tile(np.arange(cell.batch, dtype=np.int32), (steps, cell.fleet, 1)), axis=-1)
    carry = jax.tree.map(lambda leaf: jnp.stack([leaf] * cell.fleet), carry)
    return as_fleet(step, steps), carry, (images, labels, constants, jnp.asarray(order))


def compile_head(spec: RunSpec, cell: Cell, shape: Shape) -> tuple[Timed, dict[str, Any]]:
    """One head's program, and its row's compile times, FLOPs and bytes (None where XLA is silent).

    A first trace is not timed: JAX keeps those of its own small functions, and the first head would pay for both.
    """
    call, carry, rest = make_program(spec, cell, shape)
    train = cell.phase == "train"
    jit = functools.partial(jax.jit, donate_argnums=0 if train else None)
    jit(functools.partial(call)).trace(carry, *rest)
    with no_compile_cache():
        start = time.perf_counter()
        traced, traced_at = jit(call).trace(carry, *rest), time.perf_counter()
        lowered, lowered_at = traced.lower(), time.perf_counter()
        compiled, compiled_at = lowered.compile(), time.perf_counter()
    # FLOPs before compilation, which may hide a convolution in a library's call; bytes after it has fused what it can
    costs, fused = lowered.cost_analysis() or {}, compiled.cost_analysis() or {}
    fields = {
        "trace_s": traced_at - start,
        "lower_s": lowered_at - traced_at,
        "compile_s": compiled_at - lowered_at,
        "steps_per_call": steps_per_call(cell),
        "xla_flops": known(costs.get("flops") or fused.get("flops")),
        "xla_bytes": known(fused.get("bytes accessed")),
        **memory_fields(compiled),
    }
    program = (lambda old: compiled(old, *rest)) if train else (lambda old: (old, compiled(old, *rest)))
    return Timed(program, carry, steps=steps_per_call(cell), text=compiled.as_text() or ""), fields


def known(cost: float | None) -> float | None:
    """A cost that XLA did count: it says 0, or a negative number, where it did not."""
    return cost if cost and cost > 0 else None
