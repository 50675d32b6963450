"""What the seconds of a step go to, operation by operation: a trace of steps, read with the text of their program.

No JAX here: `gapbench.throughput.profile` makes one.
"""

import gzip
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from gapbench.spec import Declaration, PositiveInt
from gapbench.timings import Positive

# One line of an optimized HLO module: %name = f32[64,28,28,16]{...} opcode(%operand, ...), attributes
# or, with several results, %name = (f32[64]{...}, u8[0]{0}) opcode(...
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?:\w+\[(?P<shape>[\d,]*)\]\S*|\(.*?\)) (?P<opcode>[\w-]+)\((?P<rest>.*)"
)
WINDOW = re.compile(r"window=\{size=(\d+)x(\d+)")
LABELS = re.compile(r"dim_labels=\w+_(\w+)->(\w+)")
CONTROL = {"while", "conditional", "call"}  # their seconds are those of what they call
FORWARD, INPUT, KERNEL = "convolution, forward", "convolution, input's gradient", "convolution, kernel's gradient"


class Operation(Declaration):
    """One kind of operation in one step."""

    kind: str  # those of convolutions are above, the others in `read_instructions`
    shape: str = ""  # of a convolution: `28 px 16→32`
    seconds: Annotated[float, Field(ge=0)]  # a step
    flops: Annotated[float, Field(ge=0)] = 0.0  # of the convolutions, from their shapes; 0: not counted


class Profile(Declaration):
    """One training step of one net."""

    head: str
    px: PositiveInt
    step_s: Positive  # without the profiler, dispatched one after another
    operations: tuple[Operation, ...]


class Instruction(NamedTuple):
    """What the program's text says of one operation."""

    kind: str
    shape: str = ""
    flops: float = 0.0


def read_convolution(line: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> Instruction:
    """Kind, shape and 2 · outputs · window · contracted channels of a two-dimensional convolution."""
    window, ((kernel_labels, out_labels),) = WINDOW.search(line["rest"]), LABELS.findall(line["rest"])
    height, width = map(int, window.groups()) if window else (1, 1)
    out = dict(zip(out_labels, shapes[line["name"]], strict=True))
    contracted = shapes[re.findall(r"%([\w.-]+)", line["rest"])[1]][kernel_labels.index("i")]
    flops = 2.0 * math.prod(out.values()) * height * width * contracted
    if height > out["0"]:  # slides the output's gradient over the input; a map no larger than its kernel looks alike
        return Instruction(KERNEL, f"{height} px {out['b']}→{out['f']}", flops)
    if "transpose(" in line["rest"]:
        return Instruction(INPUT, f"{out['0']} px {out['f']}→{contracted}", flops)
    return Instruction(FORWARD, f"{out['0']} px {contracted}→{out['f']}", flops)


def read_instructions(text: str) -> dict[str, Instruction]:
    """Every operation of an optimized HLO module by name; those that only call others have no kind."""
    lines = [match.groupdict() for line in text.splitlines() if (match := INSTRUCTION.match(line))]
    shapes = {line["name"]: tuple(map(int, filter(None, (line["shape"] or "").split(",")))) for line in lines}
    found = {}
    for line in lines:
        name, opcode = line["name"], line["opcode"]
        if opcode == "convolution":
            found[name] = read_convolution(line, shapes)
        elif "$conv" in line["rest"]:  # cuDNN's
            found[name] = Instruction("convolution")
        elif opcode == "dot" or "gemm" in line["rest"] or name.startswith("ynn"):  # XLA's library of both
            found[name] = Instruction("products and sums")
        elif name.startswith(("copy", "transpose", "bitcast")):
            found[name] = Instruction("layout")
        else:
            found[name] = Instruction("" if opcode in CONTROL else "elementwise and pool")
    return found


def read_trace(folder: Path) -> dict[str, float]:
    """Total seconds of every operation in the traces below a folder, by its name in the program's text."""
    seconds: dict[str, float] = defaultdict(float)
    for path in folder.rglob("*.trace.json.gz"):
        with gzip.open(path) as file:
            for event in json.load(file)["traceEvents"]:
                if name := event.get("args", {}).get("hlo_op"):
                    seconds[name] += event["dur"] / 1e6
    return seconds


def read_operations(folder: Path, text: str, steps: int) -> tuple[Operation, ...]:
    """Mean seconds a step by kind and shape, the longest first, from traces of so many steps of one program."""
    instructions, found = read_instructions(text), dict[tuple[str, str], dict[str, float]]()
    for name, seconds in read_trace(folder).items():
        kind, shape, flops = instructions.get(name, Instruction("not in the program's text"))
        if kind:
            total = found.setdefault((kind, shape), {"seconds": 0.0, "flops": 0.0})
            total["seconds"] += seconds / steps
            total["flops"] += flops
    operations = (Operation(kind=kind, shape=shape, **total) for (kind, shape), total in found.items())
    return tuple(sorted(operations, key=lambda operation: -operation.seconds))
