"""How fast are the two heads on the device present? Timing of a pair, interleaved, every sample kept.

The schema and the files are in `gapbench.timings`, which needs no JAX. Before JAX is imported on a CPU, the caller
pins the process (`gapbench.sweep.pin_process`).
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import Array, Float, Int, UInt8

from gapbench.counts import count_backbone, count_spec_head
from gapbench.evaluate import Moments, normalise
from gapbench.keys import key_for
from gapbench.records import provenance
from gapbench.spec import RunSpec, UserError, validate
from gapbench.timings import Peaks, Phase, Throughput, TimingRow
from gapbench.train import init_state, make_optimizer, train_step

WARM_UP_CALLS, WARM_UP_S = 3, 0.2  # both must be reached
SAMPLE_S = 0.002  # shorter calls are averaged up to about this time: the clock and the dispatch are noisy below
PEAK_REPEATS = 5
MEMORY = ("argument", "output", "temp", "alias")

# JAX leaves these untyped.
config: Any = jax.config
block: Callable[[Any], Any] = jax.block_until_ready

Clock = Callable[[], float]
Progress = Callable[[str], None]


class Inputs(NamedTuple):
    """One batch on the device, the same for both heads and every call."""

    images: UInt8[Array, "B H W C"]
    labels: Int[Array, "B"]
    moments: Moments
    key: jax.Array  # of the dropout


def random_inputs(spec: RunSpec, image_channels: int, classes: int) -> Inputs:
    """Uniform pixels and labels: the time of a call does not depend on what is in the images."""
    rng = np.random.default_rng(spec.seed)
    shape = (spec.recipe.batch, spec.task.px, spec.task.px, image_channels)
    images = jnp.asarray(rng.integers(0, 256, shape, dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, classes, shape[:1], dtype=np.int32))
    moments = (jnp.full(image_channels, 0.5), jnp.full(image_channels, 0.29))  # of uniform pixels
    return Inputs(images, labels, moments, key_for(spec.seed, "dropout"))


@dataclasses.dataclass
class Timed:
    """A compiled program whose call takes what the last one left, as training does."""

    program: Callable[[Any], tuple[Any, Any]]  # carry -> new carry (the old may be donated), output
    carry: Any  # the train state, or the variables of inference

    def call(self, n: int, clock: Clock) -> float:
        """Mean seconds of n calls dispatched one after another, from the first dispatch to the last result."""
        outputs = []
        start = clock()
        for _ in range(n):
            self.carry, output = self.program(self.carry)
            outputs.append(output)
        block((self.carry, outputs))
        return (clock() - start) / n


def infer(
    graph: Any, variables: tuple[Any, Any], images: UInt8[Array, "B H W C"], moments: Moments
) -> Float[Array, "B K"]:
    """Logits in eval mode."""
    return cast(jax.Array, nnx.merge(graph, *variables)(normalise(images, moments), train=False))


@contextlib.contextmanager
def no_compile_cache() -> Iterator[None]:
    """Without the persistent cache, which may hold the program of one head and not of the other."""
    enabled = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX reads the setting once, and again only after a reset
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def compile_head(
    spec: RunSpec, phase: Phase, inputs: Inputs, image_channels: int, classes: int
) -> tuple[Timed, dict[str, Any]]:
    """One head's program of a phase, and the fields of its row that are known before the first call.

    Trace, lower and compile are timed apart. The function is traced once before: JAX keeps the traces of its own
    small functions, and the first head would pay for those of both.
    """
    graph, state = init_state(spec, image_channels, classes)
    images, labels, moments, key = inputs
    function: Callable[..., Any] = functools.partial(infer, graph)
    carry: Any = (state.params, state.stats)
    rest: tuple[Any, ...] = (images, moments)
    if phase == "train":
        function = functools.partial(train_step, graph, make_optimizer(spec.recipe))
        carry, rest = state, (images, labels, moments, key)
    donated = 0 if phase == "train" else None

    jax.jit(functools.partial(function), donate_argnums=donated).trace(carry, *rest)
    with no_compile_cache():
        times = [time.perf_counter()]
        traced = jax.jit(function, donate_argnums=donated).trace(carry, *rest)
        times.append(time.perf_counter())
        lowered = traced.lower()
        times.append(time.perf_counter())
        compiled = lowered.compile()
        times.append(time.perf_counter())
    fields = {
        **dict(zip(("trace_s", "lower_s", "compile_s"), np.diff(times).tolist(), strict=True)),
        "xla_flops": xla_flops(lowered) or xla_flops(compiled),
        **memory_fields(compiled),
    }
    if phase == "train":
        return Timed(lambda state: compiled(state, *rest), carry), fields
    return Timed(lambda variables: (variables, compiled(variables, *rest)), carry), fields


def xla_flops(stage: jax.stages.Lowered | jax.stages.Compiled) -> float | None:
    """XLA's own count; None on a backend that has none."""
    try:
        costs = stage.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    return float((costs or {}).get("flops", 0.0)) or None


def memory_fields(compiled: jax.stages.Compiled) -> dict[str, int]:
    """The row's bytes as XLA planned them; empty on a backend that does not say."""
    try:
        stats = compiled.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return {}
    return {} if stats is None else {f"{name}_bytes": getattr(stats, f"{name}_size_in_bytes") for name in MEMORY}


def needed_bytes(fields: dict[str, Any]) -> int:
    """Arguments, outputs and temporaries of a row, donated memory counted once; 0 where XLA does not say."""
    argument, output, temp, alias = (fields.get(f"{name}_bytes", 0) for name in MEMORY)
    return int(argument + output + temp - alias)


def closed_form_flops(spec: RunSpec, phase: Phase, image_channels: int, classes: int) -> int | None:
    """batch · (backbone + head) for inference, by the usual rule three times that for training.

    The rule counts one pass for the gradient of the weights and one for that of the inputs. None for a head or
    backbone of the user's own that has no closed form.
    """
    try:
        forward = (count_backbone(spec, image_channels) + count_spec_head(spec, classes)).flops
    except UserError:
        return None
    return forward * spec.recipe.batch * {"infer": 1, "train": 3}[phase]


def warm_up(head: Timed, clock: Clock = time.perf_counter) -> float:
    """Call until both minima are reached; the seconds of the fastest call."""
    calls: list[float] = []
    while len(calls) < WARM_UP_CALLS or sum(calls) < WARM_UP_S:
        calls.append(head.call(1, clock))
    return min(calls)


def interleave(
    heads: tuple[Timed, Timed], samples: int, clock: Clock = time.perf_counter
) -> tuple[int, tuple[list[float], list[float]]]:
    """Warm up, then sample A B B A until each head has `samples` (rounded up to whole blocks).

    Returns the calls a sample, and the seconds a call of every sample of both heads.
    """
    fastest = min(warm_up(head, clock) for head in heads)
    calls = max(1, math.ceil(SAMPLE_S / fastest))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(math.ceil(samples / 2)):
        for which in (0, 1, 1, 0):
            seconds[which].append(heads[which].call(calls, clock))
    return calls, seconds


def free_memory() -> int | None:
    """Bytes that the device, or on a CPU the system, can still give; None where neither says."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats["bytes_in_use"])
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def time_phase(
    specs: Sequence[RunSpec], phase: Phase, samples: int, image_channels: int, classes: int, free_bytes: int | None
) -> list[TimingRow]:
    """One row a head; both are `out_of_memory` when the two do not fit together or the device says so."""
    fields: list[dict[str, Any]] = [
        {
            "px": spec.task.px,
            "batch": spec.recipe.batch,
            "head": spec.head,
            "phase": phase,
            "flops": closed_form_flops(spec, phase, image_channels, classes),
        }
        for spec in specs
    ]

    def out_of_memory(reason: str) -> list[TimingRow]:
        return [TimingRow(**row, status="out_of_memory", reason=reason) for row in fields]

    free = free_memory() if free_bytes is None else free_bytes
    try:
        inputs, heads = random_inputs(specs[0], image_channels, classes), []
        for spec, row in zip(specs, fields, strict=True):
            timed, known = compile_head(spec, phase, inputs, image_channels, classes)
            heads.append(timed)
            row.update(known)
        needed = sum(needed_bytes(row) for row in fields)
        if free is not None and needed > free:
            return out_of_memory(f"both heads together need {needed} bytes, {free} are free")
        calls, seconds = interleave((heads[0], heads[1]), samples)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return out_of_memory(f"{type(error).__name__}: {error}".splitlines()[0])
    rows = zip(fields, seconds, strict=True)
    return [TimingRow(**row, status="ok", calls_per_sample=calls, samples_s=tuple(all_s)) for row, all_s in rows]


class Options(TypedDict, total=False):
    """What `time_pair`, `time_sweep` and `time_device` all take."""

    phases: Sequence[Phase]  # both, unless given
    samples: int  # a head, at least; 30 unless given
    free_bytes: int | None  # stands in for the free memory of the device
    progress: Progress | None  # called with a short text before each cell


def time_pair(
    spec: RunSpec,
    pair: tuple[str, str],
    px: int,
    batch: int,
    phases: Sequence[Phase] = ("train", "infer"),
    samples: int = 30,
    *,
    image_channels: int,
    classes: int,
    free_bytes: int | None = None,
    progress: Progress | None = None,
) -> list[TimingRow]:
    """Two rows a phase, the reference head's first; `spec` gives all but head, size and batch.

    Raises:
      UserError: an unknown head, or a size the backbone cannot take.
    """
    fields = spec.model_dump()
    fields["task"]["px"], fields["recipe"]["batch"] = px, batch
    specs = [validate(RunSpec, {**fields, "head": head}, "time") for head in pair]
    rows = []
    for phase in phases:
        if progress is not None:
            progress(f"{px}px, batch {batch}, {phase}: {' and '.join(pair)}")
        rows += time_phase(specs, phase, samples, image_channels, classes, free_bytes)
    return rows


def time_sweep(
    spec: RunSpec,
    pair: tuple[str, str],
    sizes: Sequence[int],
    batches: Sequence[int],
    *,
    image_channels: int,
    classes: int,
    **options: Unpack[Options],
) -> list[TimingRow]:
    """`time_pair` at every size, from the smallest batch up; a phase that ran out of memory ends at that size."""
    rows = []
    for px in sizes:
        phases = list(options.get("phases", ("train", "infer")))
        for batch in sorted(batches):
            cell: Options = {**options, "phases": phases}
            timed = time_pair(spec, pair, px, batch, image_channels=image_channels, classes=classes, **cell)
            ended = {row.phase for row in timed if row.status == "out_of_memory"}
            phases = [phase for phase in phases if phase not in ended]
            rows += timed
    return rows


def measure_peaks() -> Peaks:
    """The device's own rates: a float32 matmul of n×n (2·n³ operations), and a copy of 256 MiB, read and written.

    The copy goes into a donated buffer: into fresh memory, a CPU would time the kernel's page faults instead.
    """
    n = 1024 if jax.devices()[0].platform == "cpu" else 8192
    square, numbers = jnp.ones((n, n)), jnp.ones(2**26)
    matmul = jax.jit(jnp.matmul)
    copy = jax.jit(lambda source, target: jnp.copy(source), donate_argnums=1, keep_unused=True)
    product = Timed(lambda carry: (carry, matmul(square, square)), ())
    copied = Timed(lambda target: (copy(numbers, target), ()), jnp.zeros(2**26))
    best = []
    for timed in (product, copied):
        warm_up(timed)
        best.append(min(timed.call(1, time.perf_counter) for _ in range(PEAK_REPEATS)))
    return Peaks(matmul_flops_per_s=2 * n**3 / best[0], copy_bytes_per_s=2 * numbers.nbytes / best[1])


def time_device(
    spec: RunSpec,
    pair: tuple[str, str],
    sizes: Sequence[int],
    batches: Sequence[int],
    *,
    image_channels: int,
    classes: int,
    **options: Unpack[Options],
) -> Throughput:
    """The peaks and the whole sweep on the device present, ready for `gapbench.timings.write_throughput`."""
    if (progress := options.get("progress")) is not None:
        progress("peaks of the device: matmul and copy")
    peaks = measure_peaks()
    rows = time_sweep(spec, pair, sizes, batches, image_channels=image_channels, classes=classes, **options)
    return Throughput(
        schema=1,
        provenance=provenance(),
        pair=pair,
        backbone=spec.backbone,
        recipe=spec.recipe,
        image_channels=image_channels,
        classes=classes,
        peaks=peaks,
        rows=tuple(rows),
    )
