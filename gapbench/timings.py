"""What a timing of both heads leaves: one JSON file an environment. No JAX here: `gapbench.throughput` measures."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from gapbench.records import load_json, write_text
from gapbench.spec import Backbone, Declaration, PositiveInt, Recipe

Phase = Literal["train", "infer"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class TimingRow(Declaration):
    """One head in one phase at one input size and batch; what memory ended too early to measure is None."""

    px: PositiveInt
    batch: PositiveInt
    head: str
    phase: Phase  # train: a whole train step; infer: logits in eval mode
    precision: Literal["float32"] = "float32"  # of the arrays; the matmul precision stands in the provenance
    status: Literal["ok", "out_of_memory"]
    reason: str = ""  # why the status is not ok
    trace_s: Positive | None = None  # Python to jaxpr, with cold caches
    lower_s: Positive | None = None  # jaxpr to StableHLO
    compile_s: Positive | None = None  # StableHLO to machine code, without the persistent cache
    calls_per_sample: Count = 0  # a sample is the mean of so many calls; the same for both heads
    samples_s: tuple[Positive, ...] = ()  # seconds a call, all of them, in order: two a block of A B B A
    flops: PositiveInt | None = None  # of one call in closed form, training as three forward passes; None if unknown
    xla_flops: Positive | None = None  # of one call as XLA counts it, elementwise operations included
    argument_bytes: Count | None = None
    output_bytes: Count | None = None
    temp_bytes: Count | None = None
    alias_bytes: Count | None = None  # of the output that lies in donated arguments

    @model_validator(mode="after")
    def _is_whole(self) -> "TimingRow":
        ok = self.status == "ok"
        if not ok == bool(self.samples_s) == bool(self.calls_per_sample) == (not self.reason):
            raise ValueError("samples_s and no reason must be given when the status is ok, and only then")
        if len(self.samples_s) % 2:
            raise ValueError("samples_s: a block has two samples a head, so their number is even")
        return self

    @property
    def images_per_s(self) -> Float[np.ndarray, "N"]:
        """Of every sample: batch / seconds."""
        return self.batch / np.asarray(self.samples_s, dtype=np.float64)


class Peaks(Declaration):
    """What the device reached in the same process, the best of several."""

    matmul_flops_per_s: Positive  # float32 arrays, at the matmul precision of the provenance
    copy_bytes_per_s: Positive  # read plus written


class Throughput(Declaration):
    """Every timing of one environment."""

    schema_: Literal[2] = Field(default=2, alias="schema")
    provenance: dict[str, Any]
    pair: tuple[str, str]  # the reference head and the head under test
    backbone: Backbone
    recipe: Recipe  # whose batch each row replaces
    image_channels: PositiveInt
    classes: PositiveInt
    peaks: Peaks
    rows: tuple[TimingRow, ...]


def file_name(provenance: dict[str, Any]) -> str:
    """Device, number of devices and JAX version: `gpu-nvidia-h100-80gb-hbm3-x1-jax0.12.0.json`."""
    device = re.sub(r"[^a-z0-9]+", "-", f"{provenance['platform']} {provenance['device']}".lower()).strip("-")
    return f"{device}-x{provenance['devices']}-jax{provenance['packages']['jax']}.json"


def block_ratios(reference: TimingRow, treatment: TimingRow) -> Float[np.ndarray, "N"]:
    """Images per second of the treatment over those of the reference, one ratio an A B B A block.

    ratio = (a_1 + a_2) / (b_1 + b_2), in seconds: a steady drift of the machine cancels inside a block.
    Raises ValueError unless both rows were measured, in one cell.
    """
    cells = {(row.px, row.batch, row.phase, row.precision, len(row.samples_s)) for row in (reference, treatment)}
    if len(cells) > 1 or not reference.samples_s:
        raise ValueError(f"no pair: the cells {sorted(cells)} differ or have no samples")
    reference_s, treatment_s = (np.reshape(row.samples_s, (-1, 2)).mean(axis=1) for row in (reference, treatment))
    return np.asarray(reference_s / treatment_s)


def write_throughput(out: Path, result: Throughput) -> Path:
    """Write `throughput/` and the environment's file name, one row a line; a rerun there replaces its file."""
    fields = result.model_dump(mode="json", by_alias=True)
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in fields.pop("rows"))
    lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in fields.items()]
    path = out / "throughput" / file_name(result.provenance)
    write_text(path, "{\n" + ",\n".join([*lines, f'"rows": [\n{rows}\n]']) + "\n}\n")
    return path


def load_throughput(out: Path) -> list[Throughput]:
    """Every environment's file below `out`, in the order of their names; UserError names a broken one and the mend."""
    mend = "delete it and run gapbench time again"
    return [load_json(Throughput, path, mend) for path in sorted((out / "throughput").glob("*.json"))]
