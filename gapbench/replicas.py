"""Runs that share shapes as one compiled program: `train_step` in a loop, over replicas, over devices.

Replicas differ in seed, learning rate, weight decay and dropout rate, which are inputs. The data set stays on the
devices as bytes; a batch is a row of indices into it. `gapbench.fleet` decides how many run and what becomes of them.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Int32, UInt8

from gapbench.data import Dataset
from gapbench.data.splits import Splits
from gapbench.evaluate import count_batch
from gapbench.memory import is_out_of_memory, memory_fields
from gapbench.spec import Recipe, RunSpec
from gapbench.timings import needed_bytes
from gapbench.train import Constants, TrainState, start_run, train_step

CHUNK = 256  # images a replica evaluates at once, at most


class Resident(NamedTuple):
    """A data set on the devices, whole on each: its training images, then its test images."""

    images: UInt8[Array, "M H W C"]
    labels: Int32[Array, "M"]


class Inputs(NamedTuple):
    """What one replica does not change."""

    order: Int32[Array, "T B"]  # of each step's images in the resident ones
    constants: Constants  # its keys as plain words, which stack and shard like the rest
    chunks: Int32[Array, "N E"]  # of the images evaluated at once; a split's last chunk is padded
    counts: Bool[Array, "N E"]  # False on padding


class Part(NamedTuple):
    """Where one split lies in the chunks."""

    name: str
    images: int
    rows: slice


class Replica(NamedTuple):
    """One run before its first step."""

    graph: nnx.GraphDef
    state: TrainState
    inputs: Inputs
    curve: tuple[Part, ...]  # its chunks come first
    whole: tuple[Part, ...]
    pairing: dict[str, str]
    parameters: dict[str, int]


class Sums(NamedTuple):
    """What the host reads after a call; each has a leading replica axis there."""

    lost: Int[Array, ""]  # the first step, counted from 1, whose loss or gradient is not finite; 0 while there is none
    losses: Float[Array, "N"]  # summed over a chunk; 0 in chunks not evaluated
    correct: Int[Array, "N"]
    gradient: Float[Array, "2"]  # norms (`train.Pulse`) of the call's first step; 0 where it trained none


@dataclass(frozen=True)
class Program:
    """One compiled call for any number of steps and chunks."""

    call: Callable[..., tuple[TrainState, Int[Array, "R"], Sums]]
    width: int  # replicas it takes
    bytes: int  # of one device, at its peak, by the compiler's account
    compile_s: float


def advance(
    graph: nnx.GraphDef,
    recipe: Recipe,
    state: TrainState,
    lost: Int[Array, ""],
    inputs: Inputs,
    resident: Resident,
    steps: Int[Array, "2"],
    chunks: Int[Array, "2"],
) -> tuple[TrainState, Int[Array, ""], Sums]:
    """Train one replica for steps first to last, then evaluate chunks first to last; either range may be empty."""
    images, labels = resident
    constants = inputs.constants._replace(keys=jax.tree.map(jax.random.wrap_key_data, inputs.constants.keys))

    def train_one(i: Int[Array, ""], carry: tuple[TrainState, Array, Array]) -> tuple[TrainState, Array, Array]:
        state, lost, first = carry
        index = inputs.order[i]
        state, (loss, norms) = train_step(graph, recipe, state, images[index], labels[index], constants)
        lost = jnp.where((lost == 0) & ~jnp.isfinite(loss + norms.sum()), i + 1, lost)
        return state, lost, jnp.where(i == steps[0], norms, first)

    def count_one(n: Int[Array, ""], sums: tuple[Array, Array]) -> tuple[Array, Array]:
        index, variables = inputs.chunks[n], (state.params, state.stats)
        counted = count_batch(graph, variables, constants.moments, images[index], labels[index], inputs.counts[n])
        return sums[0].at[n].set(counted[0]), sums[1].at[n].set(counted[1])

    state, lost, first = jax.lax.fori_loop(steps[0], steps[1], train_one, (state, lost, jnp.zeros(2)))
    empty = (jnp.zeros(len(inputs.chunks), jnp.float32), jnp.zeros(len(inputs.chunks), jnp.int32))
    losses, correct = jax.lax.fori_loop(chunks[0], chunks[1], count_one, empty)
    return state, lost, Sums(lost, losses, correct, first)


def enlist(spec: RunSpec, dataset: Dataset) -> Replica:
    """The run that `train_run` would train, its images named by their place in the resident data."""
    start = start_run(spec, dataset)
    order = start.splits.train.places[start.order].astype(np.int32)
    constants = start.constants._replace(keys=jax.tree.map(jax.random.key_data, start.constants.keys))
    chunks, counts, curve, whole = chunk_splits(start.splits, len(dataset.train_labels))
    inputs = Inputs(jnp.asarray(order), constants, jnp.asarray(chunks), jnp.asarray(counts))
    return Replica(start.graph, start.state, inputs, curve, whole, start.pairing, start.parameters)


def chunk_splits(
    splits: Splits, test_offset: int
) -> tuple[Int32[np.ndarray, "N E"], Bool[np.ndarray, "N E"], tuple[Part, ...], tuple[Part, ...]]:
    """Indices and counts of every chunk, and where each split of the curve, then each whole one, lies in them."""
    size = min(CHUNK, max(len(part.places) for part in splits.curve.values()))
    named = [*splits.curve.items(), *splits.whole.items()]
    rows = [-(-len(part.places) // size) for _, part in named]
    chunks, counts = np.zeros((sum(rows), size), np.int32), np.zeros((sum(rows), size), np.bool_)
    parts, first = [], 0
    for (name, part), many in zip(named, rows, strict=True):
        lies = slice(first, first + many)
        n, offset = len(part.places), test_offset if name == "test" else 0
        chunks[lies].reshape(-1)[:n] = part.places + offset
        counts[lies].reshape(-1)[:n] = True
        parts.append(Part(name, n, lies))
        first += many
    return chunks, counts, tuple(parts[: len(splits.curve)]), tuple(parts[len(splits.curve) :])


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """The devices in a row; replicas are dealt over them."""
    return jax.make_mesh((len(devices),), ("replicas",), axis_types=(AxisType.Auto,), devices=tuple(devices))


def by_replica(mesh: Mesh) -> NamedSharding:
    """The first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("replicas"))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every host has, on the devices of all of them."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def place(leaves: Any, mesh: Mesh) -> Any:
    """Stacked leaves, dealt over the devices."""
    return jax.tree.map(lambda leaf: put(np.asarray(leaf), by_replica(mesh)), leaves)


def stack(members: Sequence[Any]) -> Any:
    """One tree on the host, with a leading replica axis, of trees that are alike."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *members)


def fetch(tree: Any) -> Any:
    """Sharded arrays, whole, on this host."""
    return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else jax.device_get(tree)


def make_resident(dataset: Dataset, mesh: Mesh) -> Resident:
    """Put the data set on the devices."""
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    return Resident(put(images, everywhere(mesh)), put(labels, everywhere(mesh)))


def compile_width(spec: RunSpec, dataset: Dataset, resident: Resident, mesh: Mesh, width: int) -> Program:
    """The program of `spec` for so many replicas; `width` is a multiple of the number of devices."""
    start = time.perf_counter()
    one = enlist(spec, dataset)
    state, lost, inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((width, *np.shape(leaf)), leaf.dtype),
        (one.state, np.zeros((), np.int32), one.inputs),
    )
    bounds = jax.ShapeDtypeStruct((2,), jnp.int32)
    over, whole = by_replica(mesh), everywhere(mesh)
    replicas = jax.vmap(
        functools.partial(advance, one.graph, spec.program.recipe), in_axes=(0, 0, 0, None, None, None), axis_size=width
    )
    call = jax.jit(
        replicas,
        donate_argnums=(0, 1),
        in_shardings=(over, over, over, whole, whole, whole),
        out_shardings=(over, over, whole),
    )
    compiled = call.lower(state, lost, inputs, resident, bounds, bounds).compile()
    return Program(compiled, width, peak_bytes(compiled), time.perf_counter() - start)


def peak_bytes(compiled: Any) -> int:
    """What one device holds at once, the program's own code included."""
    return needed_bytes(memory_fields(compiled)) + int(compiled.memory_analysis().generated_code_size_in_bytes)


def widths(replicas: int, devices: int) -> Iterator[int]:
    """Replicas a program, widest first: of 1, 2, ... equal crews, rounded up to a multiple of the devices."""
    crews = (-(-replicas // n) for n in range(1, replicas + 1))
    return iter(dict.fromkeys(-(-crew // devices) * devices for crew in crews))


def compile_fitting(
    spec: RunSpec, dataset: Dataset, resident: Resident, mesh: Mesh, replicas: int, free_bytes: int | None
) -> Program:
    """The widest program for at most so many replicas that fits; the narrowest, where none does."""
    program, fits, narrowest = None, float("inf"), mesh.size
    for width in widths(replicas, mesh.size):
        if width > max(fits, narrowest):
            continue
        try:
            program = compile_width(spec, dataset, resident, mesh, width)
        except Exception as error:  # some compilers say so themselves
            if width == narrowest or not is_out_of_memory(error):
                raise
            continue
        if free_bytes is None or program.bytes <= free_bytes:
            break
        fits = width * free_bytes / program.bytes  # what does not grow with it makes this too wide, never too narrow
    assert program is not None
    return program
