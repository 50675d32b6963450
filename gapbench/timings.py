"""What a timing of both heads leaves: one JSON file an environment. No JAX here: `gapbench.throughput` measures."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from gapbench.grids import Cell, Phase
from gapbench.records import load_json, write_fields
from gapbench.spec import Backbone, Declaration, PositiveInt, Precision, Recipe

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
MEMORY = ("argument", "output", "temp", "alias")  # what XLA's memory analysis tells
SHAPE = ("replicas", "px", "c_in", "c_out", "precision")  # of a fleet's convolutions, whatever the batch
SLOW_DOWN = 0.05  # by which the canary may change before the table warns


def say_spent(budget_s: float) -> str:
    """Why a row is skipped; to hundredths, as the microseconds before the first cell are taken off its share."""
    return f"the time budget of {round(budget_s, 2):g} s was spent"


def needed_bytes(fields: Mapping[str, Any]) -> int:
    """Arguments, outputs and temporaries of a row, donated memory counted once; 0 where XLA does not say."""
    argument, output, temp, alias = (fields.get(f"{name}_bytes") or 0 for name in MEMORY)
    return int(argument + output + temp - alias)


class Samples(Declaration):
    """Seconds of one compiled program, or why there are none."""

    status: Literal["ok", "out_of_memory", "skipped"]  # skipped: no time was left, or a smaller batch did not fit
    reason: str = ""  # why the status is not ok
    calls_per_sample: Count = 0  # a sample is the mean of so many calls; the same for all that were interleaved
    samples_s: tuple[Positive, ...] = ()  # all of them, in order: two a block of A B B A

    @model_validator(mode="after")
    def _is_whole(self) -> "Samples":
        ok = self.status == "ok"
        if not ok == bool(self.samples_s) == bool(self.calls_per_sample) == (not self.reason):
            raise ValueError("samples_s and no reason must be given when the status is ok, and only then")
        if len(self.samples_s) % 2:
            raise ValueError("samples_s: a block has two samples a head, so their number is even")
        return self


class TimingRow(Samples):
    """One head in one cell and process. Seconds, FLOPs and Joules are of one step of the whole fleet; None: unknown."""

    px: PositiveInt
    batch: PositiveInt
    precision: Precision = "float32"  # the matmul precision of float32 stands in the provenance
    fleet: PositiveInt = 1
    phase: Phase
    head: str
    process: Count = 0  # a fresh interpreter each
    steps_per_call: PositiveInt = 1  # a call scans so many steps; every sample is divided by it
    trace_s: Positive | None = None  # Python to jaxpr, with cold caches
    lower_s: Positive | None = None  # jaxpr to StableHLO
    compile_s: Positive | None = None  # StableHLO to machine code, without the persistent cache
    flops: PositiveInt | None = None  # in closed form, training as three forward passes
    xla_flops: Positive | None = None  # as XLA counts them, elementwise operations included, a scan's body once
    xla_bytes: Positive | None = None  # that the compiled program's operations access; 0 for a library's kernel
    argument_bytes: Count | None = None
    output_bytes: Count | None = None
    temp_bytes: Count | None = None
    alias_bytes: Count | None = None  # of the output that lies in donated arguments
    peak_bytes: Positive | None = None  # the device's own peak; None also where an earlier program's was higher
    energy_j: Positive | None = None  # of the device, over calls of its own after the samples

    @property
    def cell(self) -> Cell:
        """All but head and process."""
        return Cell(self.px, self.batch, self.precision, self.fleet, self.phase)

    @property
    def images(self) -> int:
        """A step's."""
        return self.batch * self.fleet

    @property
    def images_per_s(self) -> Float[np.ndarray, "N"]:
        """Of every sample: batch · fleet / seconds."""
        return self.images / np.asarray(self.samples_s, dtype=np.float64)

    @property
    def moved_bytes(self) -> float | None:
        """Between memory and processor, at the least: XLA's count, or what the program holds, where that is more.

        XLA counts what fused operations access and nothing for a library's kernel, such as a GPU's convolution.
        """
        both = [float(count) for count in (self.xla_bytes, self.predicted_bytes) if count]
        return max(both) if both else None

    @property
    def predicted_bytes(self) -> int | None:
        """Arguments, outputs and temporaries, donated memory counted once: what the program holds at its peak."""
        fields = self.model_dump(include={f"{name}_bytes" for name in MEMORY})
        return None if None in fields.values() else needed_bytes(fields)


class Peaks(Declaration):
    """What the device reached in one of the processes, the best of several."""

    process: Count = 0
    matmul_flops_per_s: dict[Precision, Positive]  # float32 at the matmul precision of the provenance
    copy_bytes_per_s: Positive  # read plus written


class Canary(Declaration):
    """The first cell of a process, timed first and again last: median seconds a step, summed over the heads."""

    process: Count = 0
    first_s: Positive
    last_s: Positive

    @property
    def slow_down_s(self) -> float:
        """Seconds a step that the device lost from the first to the last timing."""
        return self.last_s - self.first_s

    @property
    def slow_down(self) -> float:
        """As a fraction of the first timing; the table warns beyond SLOW_DOWN either way."""
        return self.slow_down_s / self.first_s


class Throughput(Declaration):
    """Every timing of one environment."""

    schema_: Literal[2] = Field(default=2, alias="schema")
    provenance: dict[str, Any]
    pair: tuple[str, str]  # the reference head and the head under test
    backbone: Backbone
    recipe: Recipe  # whose batch and precision each row replaces
    image_channels: PositiveInt
    classes: PositiveInt
    power: str = ""  # what energy_j was read from; empty where nothing reports power
    peaks: tuple[Peaks, ...]  # one a process
    canaries: tuple[Canary, ...] = ()  # one a process that timed anything
    rows: tuple[TimingRow, ...]


class ConvolutionRow(Samples):
    """One way of computing a fleet's 3×3 convolutions: forward and both gradients."""

    px: PositiveInt
    c_in: PositiveInt
    c_out: PositiveInt
    batch: PositiveInt
    replicas: PositiveInt
    precision: Precision
    method: str  # a name in gapbench.models.convolution.METHODS

    @property
    def shape(self) -> dict[str, Any]:
        """What `choose_method` looks up, by the names of its table."""
        return {name: getattr(self, name) for name in SHAPE}


class Convolutions(Declaration):
    """Every timing of the ways of convolving, of one environment."""

    schema_: Literal[2] = Field(default=2, alias="schema")
    provenance: dict[str, Any]
    device_kind: str  # JAX's name, the table's key
    rows: tuple[ConvolutionRow, ...]


def merge(parts: Sequence[Throughput]) -> Throughput:
    """The timings of several processes as one."""
    joined = {name: sum((getattr(part, name) for part in parts), ()) for name in ("peaks", "canaries", "rows")}
    return parts[0].model_copy(update=joined)


def file_name(provenance: dict[str, Any]) -> str:
    """Device, number of devices and JAX version: `gpu-nvidia-h100-80gb-hbm3-x1-jax0.12.0.json`."""
    device = re.sub(r"[^a-z0-9]+", "-", f"{provenance['platform']} {provenance['device']}".lower()).strip("-")
    return f"{device}-x{provenance['devices']}-jax{provenance['packages']['jax']}.json"


def block_ratios(reference: TimingRow, treatment: TimingRow) -> Float[np.ndarray, "N"]:
    """Images per second of the treatment over those of the reference, one ratio an A B B A block.

    ratio = (a_1 + a_2) / (b_1 + b_2), in seconds: a steady drift of the machine cancels inside a block.
    Raises ValueError unless both rows were measured, in one cell of one process.
    """
    cells = {(row.cell, row.process, len(row.samples_s)) for row in (reference, treatment)}
    if len(cells) > 1 or not reference.samples_s:
        raise ValueError(f"no pair: the cells {sorted(cells)} differ or have no samples")
    reference_s, treatment_s = (np.reshape(row.samples_s, (-1, 2)).mean(axis=1) for row in (reference, treatment))
    return np.asarray(reference_s / treatment_s)


def timing_file(out: Path, kind: type, provenance: dict[str, Any]) -> Path:
    """Where an environment's `Throughput` or `Convolutions` stands below `out`."""
    return out / "throughput" / (PREFIX[kind] + file_name(provenance))


def write_throughput(out: Path, result: Throughput | Convolutions) -> Path:
    """Write `throughput/` and the environment's file name, one row a line; a rerun there replaces its file."""
    path = timing_file(out, type(result), result.provenance)
    write_fields(path, result.model_dump(mode="json", by_alias=True), by_row=["rows"])
    return path


PREFIX: dict[type, str] = {Throughput: "", Convolutions: "convolutions-"}


def load_throughput(out: Path) -> list[Throughput]:
    """Every environment's file below `out`, in the order of their names; UserError names a broken one and the mend."""
    folder = out / "throughput"
    paths = sorted(set(folder.glob("*.json")) - set(folder.glob(f"{PREFIX[Convolutions]}*")))
    return [load_json(Throughput, path, "delete it and run gapbench time again") for path in paths]
