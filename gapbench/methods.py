"""Which way of computing a fleet's convolutions is the fastest here? Times all, and writes the table of winners."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapbench.counts import LAYERS, Layer, plain_layers
from gapbench.grids import Cell, Grid
from gapbench.memory import free_memory, memory_fields
from gapbench.models import convolution
from gapbench.models.convolution import METHODS
from gapbench.records import provenance, write_fields
from gapbench.spec import Backbone
from gapbench.stopwatch import Timed, interleave, out_of_memory
from gapbench.timings import SHAPE, ConvolutionRow, Convolutions, needed_bytes, say_spent

Shape = tuple[Any, ...]  # values of SHAPE
PAYS = 1.05  # a way other than XLA's own must be so many times as fast, or it is not worth its memory


def make_method(method: str, cell: Cell, layer: Layer, padding: str) -> Timed:
    """Forward and both gradients on normal numbers, compiled; raises MemoryError where that does not fit."""
    rng, dtype = np.random.default_rng(0), jnp.dtype(cell.precision)

    def normal(*shape: int) -> jax.Array:
        drawn = rng.normal(size=(*shape[1:],)).astype(np.float32)
        return jnp.stack([jnp.asarray(drawn, dtype)] * shape[0])

    x = normal(cell.fleet, cell.batch, layer.px, layer.px, layer.c_in)
    kernel = normal(cell.fleet, 3, 3, layer.c_in, layer.c_out)
    px = layer.px - (2 if padding == "VALID" else 0)
    dy = normal(cell.fleet, cell.batch, px, px, layer.c_out)

    def both_ways(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> Any:
        y, back = jax.vjp(lambda x, kernel: METHODS[method](x, kernel, padding), x, kernel)
        return y, back(dy)

    free = free_memory()
    compiled = jax.jit(both_ways).lower(x, kernel, dy).compile()
    if (needed := needed_bytes(memory_fields(compiled))) > free:
        raise MemoryError(f"{needed} bytes are needed, {free:.0f} are free")
    return Timed(lambda carry: (carry, compiled(x, kernel, dy)), ())


def shape_of(row: Mapping[str, Any]) -> Shape:
    """What makes two rows, of the table or of what is timed, the same convolution."""
    return tuple(row[name] for name in SHAPE)


def row_at(cell: Cell, layer: Layer) -> dict[str, Any]:
    """What a row says of where it was timed."""
    return {**layer._asdict(), "batch": cell.batch, "replicas": cell.fleet, "precision": cell.precision}


def time_layer(cell: Cell, layer: Layer, padding: str, samples: int) -> list[ConvolutionRow]:
    """A row a method; one that does not fit in memory leaves the others to be timed."""
    rows, programs = dict[str, dict[str, Any]](), dict[str, Timed]()
    for method in METHODS:
        rows[method] = {**row_at(cell, layer), "method": method, "status": "ok"}
        try:
            programs[method] = make_method(method, cell, layer, padding)
            programs[method].call()
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            programs.pop(method, None)
            rows[method] |= {"status": "out_of_memory", "reason": out_of_memory(error)}
    if programs:
        calls, seconds = interleave(list(programs.values()), samples)
        for method, all_s in zip(programs, seconds, strict=True):
            rows[method] |= {"calls_per_sample": calls, "samples_s": tuple(all_s)}
    return [ConvolutionRow(**row) for row in rows.values()]


def convolutions_of(backbone: Backbone, grid: Grid, image_channels: int) -> list[tuple[Cell, Layer]]:
    """Every 3×3 convolution of the backbone at every size, batch, fleet and precision of the grid, each shape once.

    Both phases are one here: forward and gradients are timed together.
    """
    layers = LAYERS.get(backbone.kind, plain_layers)
    every = ((cell, layer) for cell in grid.cells for layer in layers(backbone, cell.px, image_channels))
    return list(dict.fromkeys((cell._replace(px=layer.px, phase="train"), layer) for cell, layer in every))


def time_convolutions(
    backbone: Backbone,
    grid: Grid,
    image_channels: int,
    *,
    samples: int = 10,
    budget_s: float = math.inf,
    progress: Callable[[str], None] = lambda _: None,
) -> Convolutions:
    """A row for each of `convolutions_of` and each method, until the time ends; the rest are rows `skipped`."""
    start, rows = time.perf_counter(), list[ConvolutionRow]()
    for cell, layer in convolutions_of(backbone, grid, image_channels):
        if time.perf_counter() - start > budget_s:
            row = row_at(cell, layer) | {"status": "skipped", "reason": say_spent(budget_s)}
            rows += [ConvolutionRow(**row, method=method) for method in METHODS]
            continue
        progress(f"{cell.fleet} × {layer.px}px, {layer.c_in} to {layer.c_out} channels, {cell.precision}")
        rows += time_layer(cell, layer, "VALID" if backbone.padding == "valid" else "SAME", samples)
    return Convolutions(provenance=provenance(), device_kind=jax.devices()[0].device_kind, rows=tuple(rows))


def fastest(rows: Sequence[ConvolutionRow]) -> list[dict[str, Any]]:
    """The table's rows: `grouped`, unless the fastest other method pays; shapes without any timing are left out."""
    medians: dict[Shape, tuple[dict[str, Any], dict[str, float]]] = {}
    for row in rows:
        if row.status == "ok":
            _, found = medians.setdefault(shape_of(row.shape), (row.shape, {}))
            found[row.method] = float(np.median(row.samples_s))
    table = []
    for shape, found in medians.values():
        best = min(found, key=lambda method: found[method])
        pays = found.get("grouped", math.inf) > PAYS * found[best]
        table.append({**shape, "method": best if pays else "grouped"})
    return table


def in_table(backbone: Backbone, grid: Grid, image_channels: int) -> bool:
    """Whether the table has every shape of the grid on this kind of device."""
    known = set(map(shape_of, convolution.measured().get(jax.devices()[0].device_kind, [])))
    asked = (row_at(cell, layer) for cell, layer in convolutions_of(backbone, grid, image_channels))
    return set(map(shape_of, asked)) <= known


def write_table(result: Convolutions) -> None:
    """Put the winners under the device's kind into the table that `choose_method` reads; other shapes there stay."""
    table = dict(convolution.measured())
    rows = [*table.get(result.device_kind, []), *fastest(result.rows)]  # of two for a shape, the later counts
    table[result.device_kind] = list({shape_of(row): row for row in rows}.values())
    write_fields(convolution.TABLE, table, by_row=table)
    convolution.measured.cache_clear()
