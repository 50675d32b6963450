"""What a step's seconds go to: read from a program's text and a trace, and shown beside the race."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from test_race import made_up

from gapbench.operations import FORWARD, INPUT, KERNEL, Operation, Profile, read_instructions, read_operations
from gapbench.race import load_race, write_race
from gapbench.report import make_report
from gapbench.report.profile import explain, operations_frame
from gapbench.report.race import speed_block

TEXT = """
ENTRY %main {
  %x = f32[64,28,28,16]{3,2,1,0} parameter(0)
  %k = f32[3,3,16,32]{3,2,1,0} parameter(1)
  %t.1 = f32[3,3,32,16]{3,2,1,0} fusion(%k), kind=kLoop, calls=%c, metadata={op_name="jit(f)/transpose(jvp())/t"}
  %conv.1 = f32[64,28,28,32]{3,2,1,0} convolution(%x, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(f)/jvp()/conv"}
  %conv.2 = f32[64,28,28,16]{3,2,1,0} convolution(%conv.1, %t.1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(f)/transpose(jvp())/conv"}
  %copy.3 = f32[28,28,64,32]{3,2,1,0} copy(%conv.1)
  %conv.3 = f32[16,3,3,32]{3,2,1,0} convolution(%y, %copy.3), window={size=28x28 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  %conv.5 = f32[64,32,32,24]{3,2,1,0} convolution(%x, %k5), window={size=5x5 pad=2_2x2_2}, dim_labels=b01f_01io->b01f
  %k5 = f32[5,5,16,24]{3,2,1,0} parameter(3)
  %conv.6 = f32[16,5,5,24]{3,2,1,0} convolution(%y, %copy.6), window={size=32x32 pad=2_2x2_2}, dim_labels=b01f_01io->b01f
  %copy.6 = f32[32,32,64,24]{3,2,1,0} copy(%conv.5)
  %conv.4 = f32[64,28,28,8]{3,2,1,0} convolution(%x, %one), dim_labels=b01f_01io->b01f
  %one = f32[1,1,16,8]{3,2,1,0} parameter(2)
  %ynn_fusion = f32[64]{0} fusion(%x), kind=kCustom
  %maximum_fusion = f32[64]{0} fusion(%x), kind=kLoop
  %loop = (f32[], s32[]) while(%p), body=%b
  %cudnn.5 = (f32[64,28,28,16]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), custom_call_target="__cudnn$convForward"
  ROOT %while.2 = f32[2]{0} while(%p), body=%b
}
"""  # noqa: E501 - as XLA prints it
FLOPS = 2.0 * 64 * 28 * 28 * 9 * 16 * 32


def write_trace(folder: Path, events: list[tuple[str, float]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = [{"ph": "X", "name": name, "dur": dur, "args": {"hlo_op": name}} for name, dur in events]
    made += [{"ph": "M", "name": "process_name", "args": {"name": "host"}}, {"ph": "X", "name": "python", "dur": 9.0}]
    with gzip.open(folder / "a.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": made}, file)


def test_convolutions_are_told_apart_by_direction_with_their_flops() -> None:
    found = read_instructions(TEXT)
    assert found["conv.1"] == (FORWARD, "28 px 16→32", FLOPS)
    assert found["conv.2"] == (INPUT, "28 px 16→32", FLOPS)  # the layer's own order, not the operands'
    assert found["conv.3"] == (KERNEL, "28 px 16→32", FLOPS)
    assert [found[name][:2] for name in ("conv.5", "conv.6")] == [(FORWARD, "32 px 16→24"), (KERNEL, "32 px 16→24")]
    assert found["conv.4"] == (FORWARD, "28 px 16→8", 2.0 * 64 * 28 * 28 * 16 * 8)  # 1×1: XLA prints no window
    kinds = {name: found[name].kind for name in ("t.1", "copy.3", "ynn_fusion", "maximum_fusion")}
    assert kinds == {
        "t.1": "elementwise and pool",
        "copy.3": "layout",
        "ynn_fusion": "products and sums",
        "maximum_fusion": "elementwise and pool",
    }
    assert found["cudnn.5"].kind == "convolution"
    assert found["loop"].kind == found["while.2"].kind == ""  # or what they call would count twice


def test_seconds_are_summed_by_kind_and_divided_by_the_steps(tmp_path: Path) -> None:
    write_trace(tmp_path / "deep", [("conv.1", 30.0), ("conv.1", 10.0), ("copy.3", 4.0), ("other", 2.0)])
    write_trace(tmp_path / "again", [("loop", 99.0)])
    assert read_operations(tmp_path, TEXT, steps=2) == (
        Operation(kind=FORWARD, shape="28 px 16→32", seconds=20e-6, flops=FLOPS),
        Operation(kind="layout", seconds=2e-6),
        Operation(kind="not in the program's text", seconds=1e-6),
    )


# Of 10 ms, 4 + 2 are convolutions of 1e6 FLOP in all; the peak of a core is 5e8 FLOP/s, so that 2 ms would do.
OPERATIONS = (
    {"kind": FORWARD, "shape": "14 px 1→4", "seconds": 4e-3, "flops": 6e5},
    {"kind": KERNEL, "shape": "14 px 1→4", "seconds": 2e-3, "flops": 4e5},
    {"kind": "layout", "seconds": 3e-3},
)


def with_profiles() -> Any:
    profiles = [Profile(head=head, px=14, step_s=1e-2, operations=OPERATIONS) for head in ("flatten", "gap")]
    return made_up(profiles=profiles)


def test_the_frame_has_means_over_heads_and_what_lies_between_the_operations() -> None:
    frame = operations_frame(with_profiles())
    assert frame["kind"].tolist() == [FORWARD, "layout", KERNEL, "between operations"]
    assert frame["seconds"].tolist() == pytest.approx([4e-3, 3e-3, 2e-3, 1e-3])
    assert frame["share"].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert frame["of_matmul_peak"].dropna().tolist() == pytest.approx([0.3, 0.4])


def test_the_sentence_says_what_each_half_would_gain() -> None:
    text = explain(with_profiles())
    assert "60.00 % of the time, at 33.33 % of the matmul peak" in text
    assert "rest free, training would be 1.67 times" in text
    assert "at the peak, 1.67 times" in text  # 10 / (10 - 6 + 2)


def test_the_report_and_the_readme_show_the_profile_where_there_is_one(tmp_path: Path) -> None:
    write_race(tmp_path, with_profiles())
    assert load_race(tmp_path) == with_profiles()
    _, files = make_report(tmp_path)
    assert {"tables/operations.csv", "figures/operations.png"} <= files.keys()
    assert "| 14   | convolution, forward" in files["tables/operations.md"].decode()
    assert "convolutions at matmul peak" in files["figures/operations.svg"].decode()
    assert make_report(tmp_path)[1] == files
    assert "[By operation](results/published/speed/tables/operations.md)" in speed_block([with_profiles()])
    assert "By operation" not in speed_block([made_up()])
