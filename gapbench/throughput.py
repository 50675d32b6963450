"""How fast are the two heads on the device present? One process's share: a grid of cells, the important ones first."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gapbench.grids import Cell, Grid, closed_form, spec_at
from gapbench.memory import free_memory, memory_stat
from gapbench.operations import Profile, read_operations
from gapbench.peaks import measure_peaks
from gapbench.power import Counter, energy_of, open_meter
from gapbench.programs import Shape, compile_head
from gapbench.records import provenance, write_text
from gapbench.spec import RunSpec
from gapbench.stopwatch import Timed, interleave, out_of_memory, warm_up
from gapbench.timings import Canary, Throughput, TimingRow, needed_bytes, say_spent

Progress = Callable[[str], None]


@dataclass
class Kept:
    """The first cell's programs, to be timed again at the end."""

    cell: Cell | None = None
    heads: list[Timed] = field(default_factory=list)
    first_s: float = 0.0


def time_cell(
    specs: Sequence[RunSpec],
    cell: Cell,
    samples: int,
    shape: Shape,
    *,
    process: int = 0,
    counter: Counter | None = None,
    keep: Kept | None = None,
) -> list[TimingRow]:
    """One row a head; both are `out_of_memory` when the two do not fit together or the device says so."""
    rows: list[dict[str, Any]] = [{**cell._asdict(), "head": spec.head, "process": process} for spec in specs]
    free, heads = free_memory(), list[Timed]()
    try:
        for spec, row in zip(specs, rows, strict=True):
            row["flops"], kept_bytes = closed_form(spec, cell, shape)
            if kept_bytes > 2 * free:  # XLA fuses some of them away; a program of twice the memory it cannot save
                raise MemoryError(f"the activations alone are {kept_bytes:.0f} bytes, {free:.0f} are free")
            before = memory_stat("bytes_in_use")
            head, fields = compile_head(spec, cell, shape)
            heads.append(head)
            row.update(fields)
            if (needed := sum(map(needed_bytes, rows))) > free:
                raise MemoryError(f"both heads together need {needed} bytes, {free:.0f} are free")
            row["peak_bytes"] = call_peak(head, before)
        calls, seconds = interleave(heads, samples)
        for head, row in zip(heads, rows, strict=True):
            if counter:
                joules = energy_of(lambda head=head: head.call(calls), counter)  # type: ignore[misc]
                row["energy_j"] = joules and joules / (calls * head.steps)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        return [TimingRow(**row, status="out_of_memory", reason=out_of_memory(error)) for row in rows]
    if keep:
        keep.cell, keep.heads, keep.first_s = cell, heads, medians(seconds)
    both = zip(rows, seconds, strict=True)
    return [TimingRow(**row, status="ok", calls_per_sample=calls, samples_s=tuple(all_s)) for row, all_s in both]


def medians(seconds: Iterable[Sequence[float]]) -> float:
    """Of each head, summed."""
    return float(sum(np.median(all_s) for all_s in seconds))


def call_peak(head: Timed, before: int | None) -> int | None:
    """Bytes that the device held at most in one call beyond `before`; None unless it says so, and set a new peak."""
    old = memory_stat("peak_bytes_in_use")
    head.call()
    new = memory_stat("peak_bytes_in_use")
    return new - before if None not in (old, new, before) and new > old else None  # type: ignore[operator]


def time_device(
    spec: RunSpec,
    pair: tuple[str, str],
    grid: Grid,
    shape: Shape,
    *,
    samples: int = 30,
    process: int = 0,
    budget_s: float = math.inf,
    profile_to: Path | None = None,
    progress: Progress = lambda _: None,
) -> Throughput:
    """The peaks, then both heads in every cell until memory or time ends; the rest are rows `skipped`, with the reason.

    The first cell is timed again at the end: the canary. Raises UserError before anything is timed.
    """
    start = time.perf_counter()
    cells = [(cell, [spec_at(spec, cell, head) for head in pair]) for cell in grid.cells]
    progress("peaks of the device: matmul and copy")
    peaks = measure_peaks(grid.precision, process)
    rows, full, kept, longest_s = list[TimingRow](), dict[tuple[Any, ...], int](), Kept(), 0.0
    with open_meter(jax.devices()[0].platform) as (power, counter):
        for cell, specs in cells:
            ladder = cell._replace(batch=0)  # of batches: where one does not fit, a larger one is not tried
            reason = f"batch {full[ladder]} did not fit" if full.get(ladder, cell.batch) < cell.batch else ""
            begin = time.perf_counter()
            if begin - start + longest_s > budget_s:  # none is begun that would end beyond it
                reason = say_spent(budget_s)
            if reason:
                skipped = {**cell._asdict(), "process": process, "status": "skipped", "reason": reason}
                rows += [TimingRow(**skipped, head=head) for head in pair]
                continue
            progress(f"{cell}: {' and '.join(pair)}")
            keep = None if kept.heads else kept
            rows += time_cell(specs, cell, samples, shape, process=process, counter=counter, keep=keep)
            if rows[-1].status == "out_of_memory":
                full[ladder] = min(full.get(ladder, cell.batch), cell.batch)
            longest_s = max(longest_s, time.perf_counter() - begin)
    canaries: tuple[Canary, ...] = ()
    if kept.heads:
        progress("the first cell again")
        last_s = medians(interleave(kept.heads, samples)[1])
        canaries = (Canary(process=process, first_s=kept.first_s, last_s=last_s),)
        if profile_to and kept.cell:
            write_profile(dict(zip(pair, kept.heads, strict=True)), kept.cell, profile_to)
    return Throughput(
        provenance=provenance(),
        pair=pair,
        backbone=spec.backbone,
        recipe=spec.recipe,
        image_channels=shape[0],
        classes=shape[1],
        power=power,
        peaks=(peaks,),
        canaries=canaries,
        rows=tuple(rows),
    )


def write_profile(heads: dict[str, Timed], cell: Cell, folder: Path, calls: int = 10) -> None:
    """A trace of some calls of each head, under its name, for TensorBoard (XProf) and Perfetto; after all timing.

    Beside it `operations.json`, a `Profile` a head with the cell it is of.
    """
    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
        for name, head in heads.items():
            with jax.profiler.TraceAnnotation(name):
                head.call(calls)
    profiles = [
        cell._asdict() | profile(head, name, cell.px, calls).model_dump(mode="json") for name, head in heads.items()
    ]
    write_text(folder / "operations.json", json.dumps(profiles, indent=1, ensure_ascii=False) + "\n")


def profile(timed: Timed, head: str, px: int, calls: int = 10) -> Profile:
    """Seconds of a step by operation, from a trace a call.

    In a longer trace JAX frees no memory before its end, and every operation that writes waits for the kernel to find
    some: up to ten times as long as it computes.
    """
    warm_up(timed)
    step_s = timed.call(calls) / timed.steps
    with tempfile.TemporaryDirectory() as folder:
        for i in range(calls):
            with jax.profiler.trace(f"{folder}/{i}"):
                timed.call()
        operations = read_operations(Path(folder), timed.text, calls * timed.steps)
    return Profile(head=head, px=px, step_s=step_s, operations=operations)
