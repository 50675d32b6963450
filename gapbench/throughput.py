"""How fast are the two heads on the device present? On a CPU the caller pins the process before JAX is imported."""

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from gapbench.counts import count_backbone, count_spec_head
from gapbench.keys import key_for
from gapbench.models.classifier import Moments, normalise
from gapbench.records import provenance
from gapbench.spec import RunSpec, UserError, validate
from gapbench.timings import Peaks, Phase, Throughput, TimingRow
from gapbench.train import Constants, init_state, make_hyper, train_step

WARM_UP_CALLS, WARM_UP_S = 3, 0.2  # both must be reached
SAMPLE_S = 0.002  # shorter calls are averaged up to about this time: the clock and the dispatch are noisy below
MEMORY = ("argument", "output", "temp", "alias")

Shape = tuple[int, int]  # channels of the images, number of classes


@dataclass
class Timed:
    """A compiled program whose call takes what the last one left, as training does."""

    program: Callable[[Any], tuple[Any, Any]]  # carry -> new carry (the old may be donated), output
    carry: Any  # the train state, or the variables of inference
    clock: Callable[[], float] = time.perf_counter

    def call(self, n: int = 1) -> float:
        """Mean seconds of n calls dispatched one after another, from the first dispatch to the last result."""
        outputs = []
        start = self.clock()
        for _ in range(n):
            self.carry, output = self.program(self.carry)
            outputs.append(output)
        jax.block_until_ready((self.carry, outputs))
        return (self.clock() - start) / n


def warm_up(head: Timed) -> float:
    """Call until both minima are reached; the seconds of the fastest call."""
    calls: list[float] = []
    while len(calls) < WARM_UP_CALLS or sum(calls) < WARM_UP_S:
        calls.append(head.call())
    return min(calls)


def interleave(heads: Sequence[Timed], samples: int) -> tuple[int, tuple[list[float], list[float]]]:
    """Calls a sample, and both heads' seconds a call, sampled A B B A until each has `samples` or one more."""
    calls = max(1, math.ceil(SAMPLE_S / min([warm_up(head) for head in heads])))
    seconds: tuple[list[float], list[float]] = ([], [])
    for which in (0, 1, 1, 0) * math.ceil(samples / 2):
        seconds[which].append(heads[which].call(calls))
    return calls, seconds


@contextlib.contextmanager
def no_compile_cache() -> Iterator[None]:
    """Without the persistent cache, which may hold the program of one head and not of the other."""
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX reads the setting once, and again only after a reset
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def compile_head(spec: RunSpec, phase: Phase, shape: Shape) -> tuple[Timed, dict[str, Any]]:
    """One head's program on uniform pixels, and its row's compile times, FLOPs and bytes (None where XLA is silent).

    A first trace is not timed: JAX keeps those of its own small functions, and the first head would pay for both.
    """
    graph, state = init_state(spec, *shape)
    (channels, classes), rng = shape, np.random.default_rng(spec.seed)
    batch, px = spec.recipe.batch, spec.task.px
    images = jnp.asarray(rng.integers(0, 256, (batch, px, px, channels), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, classes, batch, dtype=np.int32))
    moments = (jnp.full(channels, 0.5), jnp.full(channels, 0.29))  # of uniform pixels

    def infer(variables: Any, images: jax.Array, moments: Moments) -> Any:
        return nnx.merge(graph, *variables)(normalise(images, moments), train=False)

    step: Any = infer
    carry: Any = (state.params, state.stats)
    rest: Any = (images, moments)
    if train := phase == "train":
        step, carry = functools.partial(train_step, graph, spec.recipe), state
        rest = (images, labels, Constants(moments, key_for(spec.seed, "dropout"), make_hyper(spec.recipe)))
    jit = functools.partial(jax.jit, donate_argnums=0 if train else None)
    jit(functools.partial(step)).trace(carry, *rest)
    with no_compile_cache():
        start = time.perf_counter()
        traced, traced_at = jit(step).trace(carry, *rest), time.perf_counter()
        lowered, lowered_at = traced.lower(), time.perf_counter()
        compiled, compiled_at = lowered.compile(), time.perf_counter()
    costs = lowered.cost_analysis() or compiled.cost_analysis() or {}
    fields = {
        "trace_s": traced_at - start,
        "lower_s": lowered_at - traced_at,
        "compile_s": compiled_at - lowered_at,
        "xla_flops": flops if (flops := costs.get("flops", 0)) > 0 else None,
        **{f"{name}_bytes": getattr(compiled.memory_analysis(), f"{name}_size_in_bytes", None) for name in MEMORY},
    }
    return Timed(lambda old: compiled(old, *rest) if train else (old, compiled(old, *rest)), carry), fields


def needed_bytes(fields: dict[str, Any]) -> int:
    """Arguments, outputs and temporaries of a row, donated memory counted once; 0 where XLA does not say."""
    argument, output, temp, alias = (fields.get(f"{name}_bytes") or 0 for name in MEMORY)
    return int(argument + output + temp - alias)


def free_memory() -> float:
    """Bytes that the device, or on a CPU the system, can still give; infinite where neither says."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats["bytes_in_use"])
    with contextlib.suppress(OSError, IndexError):
        return 1024.0 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    return math.inf


def time_cell(specs: Sequence[RunSpec], phase: Phase, samples: int, shape: Shape) -> list[TimingRow]:
    """One row a head; both are `out_of_memory` when the two do not fit together or the device says so."""
    rows: list[dict[str, Any]] = []
    for spec in specs:
        rows.append({"px": spec.task.px, "batch": spec.recipe.batch, "head": spec.head, "phase": phase})
        with contextlib.suppress(UserError):  # a head or backbone of the user's own may have no closed form
            forward = (count_backbone(spec, shape[0]) + count_spec_head(spec, shape[1])).flops
            passes = {"infer": 1, "train": 3}[phase]  # the gradients of the weights and of the inputs are one each
            rows[-1]["flops"] = passes * spec.recipe.batch * forward
    free, heads = free_memory(), []
    try:
        for spec, row in zip(specs, rows, strict=True):
            head, fields = compile_head(spec, phase, shape)
            heads.append(head)
            row.update(fields)
        if (needed := sum(map(needed_bytes, rows))) > free:
            raise MemoryError(f"both heads together need {needed} bytes, {free:.0f} are free")
        calls, seconds = interleave(heads, samples)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        return [TimingRow(**row, status="out_of_memory", reason=reason) for row in rows]
    both = zip(rows, seconds, strict=True)
    return [TimingRow(**row, status="ok", calls_per_sample=calls, samples_s=tuple(all_s)) for row, all_s in both]


def measure_peaks() -> Peaks:
    """The device's own rates: a float32 matmul of n×n (2·n³ operations), and a copy of 256 MiB, read and written."""
    n = 1024 if jax.devices()[0].platform == "cpu" else 8192
    square, numbers = jnp.ones((n, n)), jnp.ones(2**26)
    # into a donated buffer: into fresh memory, a CPU would time the kernel's page faults instead
    copy = jax.jit(lambda source, target: jnp.copy(source), donate_argnums=1, keep_unused=True)
    product = Timed(lambda carry: (carry, jnp.matmul(square, square)), ())
    copied = Timed(lambda target: (copy(numbers, target), ()), jnp.zeros(2**26))
    matmul_s, copy_s = (min(warm_up(timed), warm_up(timed)) for timed in (product, copied))  # the first compiles
    return Peaks(matmul_flops_per_s=2 * n**3 / matmul_s, copy_bytes_per_s=2 * numbers.nbytes / copy_s)


def time_device(
    spec: RunSpec,
    pair: tuple[str, str],
    sizes: Sequence[int],
    batches: Sequence[int],
    *,
    image_channels: int,
    classes: int,
    phases: Sequence[Phase] = ("train", "infer"),
    samples: int = 30,
    progress: Callable[[str], None] = lambda _: None,
) -> Throughput:
    """The peaks, then both heads at every size from the smallest batch up until memory ends; may raise UserError."""
    cells = []
    for px, batch in itertools.product(sizes, sorted(batches)):
        fields = spec.model_dump()
        fields["task"]["px"], fields["recipe"]["batch"] = px, batch
        cells.append([validate(RunSpec, {**fields, "head": head}, "time") for head in pair])
    progress("peaks of the device: matmul and copy")
    peaks = measure_peaks()
    rows, ended = list[TimingRow](), set[tuple[int, Phase]]()
    for specs, phase in itertools.product(cells, phases):
        px, batch = specs[0].task.px, specs[0].recipe.batch
        if (px, phase) not in ended:
            progress(f"{px}px, batch {batch}, {phase}: {' and '.join(pair)}")
            rows += time_cell(specs, phase, samples, (image_channels, classes))
            if rows[-1].status == "out_of_memory":
                ended.add((px, phase))
    return Throughput(
        provenance=provenance(),
        pair=pair,
        backbone=spec.backbone,
        recipe=spec.recipe,
        image_channels=image_channels,
        classes=classes,
        peaks=peaks,
        rows=tuple(rows),
    )
