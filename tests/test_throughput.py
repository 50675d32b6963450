"""The timing of a pair: fair order, every sample kept, memory's end told, and a file that needs no JAX."""

import itertools
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from gapbench import stopwatch, throughput
from gapbench.grids import Cell, Grid, closed_form, spec_at
from gapbench.operations import FORWARD, INPUT, KERNEL, Profile
from gapbench.peaks import measure_peaks
from gapbench.power import SampledPower, energy_of
from gapbench.programs import compile_head
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError
from gapbench.stopwatch import Timed, interleave, warm_up
from gapbench.throughput import time_device, write_profile
from gapbench.timings import (
    Peaks,
    Throughput,
    TimingRow,
    block_ratios,
    load_throughput,
    merge,
    needed_bytes,
    write_throughput,
)

PAIR = ("flatten", "gap")
SPEC = RunSpec(
    task=Task(dataset="digits", px=8, train_images=100),
    backbone=Backbone(width=4, stages=1),
    head="gap",
    recipe=Recipe(optimizer="sgd", schedule="constant", peak_lr=1e-3, batch=8, steps=10, eval_every=10, warmup_steps=1),
    seed=0,
)
SHAPE = (1, 10)  # channels, classes
PEAKS = Peaks(matmul_flops_per_s={"float32": 5e10}, copy_bytes_per_s=1e10)


def row(head: str, samples_s: tuple[float, ...], **fields: Any) -> TimingRow:
    cell = {"px": 8, "batch": 8, "phase": "infer", "status": "ok", "calls_per_sample": 1}
    return TimingRow(**{**cell, "head": head, "samples_s": samples_s, **fields})


def result(**provenance: Any) -> Throughput:
    source = {"platform": "cpu", "device": "AMD EPYC family 25 model 1 avx2", "devices": 1} | provenance
    return Throughput(
        schema=2,
        provenance={**source, "packages": {"jax": "0.12.0.1"}},
        pair=PAIR,
        backbone=SPEC.backbone,
        recipe=SPEC.recipe,
        image_channels=1,
        classes=10,
        peaks=(PEAKS,),
        rows=(
            row("flatten", (0.1 + 0.2, 1 / 3)),
            row("gap", (), status="out_of_memory", reason="full", calls_per_sample=0),
        ),
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up by count alone."""
    monkeypatch.setattr(stopwatch, "WARM_UP_S", 0.0)


class FakeDevice:
    """Two heads whose calls take given seconds on a clock of their own."""

    def __init__(self, **call_s: float):
        self.now, self.order = 0.0, ""
        self.heads = tuple(Timed(self.program(name, seconds), 0, self.clock) for name, seconds in call_s.items())

    def program(self, name: str, seconds: float) -> Any:
        def call(carry: int) -> tuple[int, tuple[()]]:
            self.now += seconds
            self.order += name
            return carry + 1, ()

        return call

    def clock(self) -> float:
        return self.now


def test_the_calls_go_a_b_b_a_and_every_sample_is_kept(quick: None) -> None:
    device = FakeDevice(a=0.5, b=0.25)
    calls, seconds = interleave(device.heads, samples=5)
    assert device.order == "aaa" + "bbb" + "abba" * 3  # 5 samples a head need three blocks of two
    assert calls == 1
    assert seconds == ([0.5] * 6, [0.25] * 6)


def test_short_calls_are_averaged_over_equally_many_calls_of_both_heads(quick: None) -> None:
    device = FakeDevice(a=2**-9, b=2**-11)  # 0.002 s / 2**-11 s = 4.1, so five calls a sample
    calls, seconds = interleave(device.heads, samples=2)
    assert calls == 5
    assert device.order == "aaabbb" + "aaaaabbbbbbbbbbaaaaa"
    assert seconds == ([2**-9] * 2, [2**-11] * 2)


@pytest.mark.parametrize(("call_s", "expected"), [(1.0, 3), (0.0625, 4)])
def test_the_warm_up_reaches_its_count_and_its_time(call_s: float, expected: int) -> None:
    device = FakeDevice(a=call_s)
    assert warm_up(device.heads[0]) == call_s
    assert device.heads[0].carry == expected  # 0.0625 · 3 = 0.1875 < 0.2


def test_block_ratios_pair_the_samples_of_each_block() -> None:
    flatten, gap = row("flatten", (1.0, 3.0, 2.0, 2.0)), row("gap", (1.0, 1.0, 3.0, 5.0))
    # (1 + 3) / (1 + 1) = 2 and (2 + 2) / (3 + 5) = 0.5; over all samples at once it would be 8 / 10
    np.testing.assert_array_equal(block_ratios(flatten, gap), [2.0, 0.5])
    np.testing.assert_array_equal(gap.images_per_s, [8.0, 8.0, 8 / 3, 8 / 5])


@pytest.mark.parametrize(
    "other", [{"batch": 16}, {"phase": "train"}, {"px": 16}, {"fleet": 2}, {"process": 1}, {"samples_s": (1.0, 1.0)}]
)
def test_block_ratios_refuse_rows_of_two_cells(other: dict[str, Any]) -> None:
    samples = other.get("samples_s", (1.0, 1.0, 1.0, 1.0))
    fields = {name: value for name, value in other.items() if name != "samples_s"}
    with pytest.raises(ValueError, match="no pair"):
        block_ratios(row("flatten", (1.0, 1.0, 1.0, 1.0)), row("gap", samples, **fields))


def test_a_row_cannot_drop_half_a_block_or_be_ok_without_samples() -> None:
    with pytest.raises(ValueError, match="even"):
        row("gap", (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="must be given when the status is ok"):
        row("gap", ())
    with pytest.raises(ValueError, match="greater than 0"):
        row("gap", (0.0, 1.0))


PROGRAMS: dict[tuple[str, str], tuple[Timed, dict[str, Any]]] = {}
TOLD: list[str] = []


@pytest.fixture(scope="module")
def timed() -> Throughput:
    """Both heads in both phases at batch 16; the four programs stay in PROGRAMS for the tests of the sweep."""

    def keep(spec: RunSpec, cell: Cell, shape: tuple[int, int]) -> tuple[Timed, dict[str, Any]]:
        return PROGRAMS.setdefault((spec.head, cell.phase), compile_head(spec, cell, shape))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "WARM_UP_S", 0.0)
        patch.setattr(throughput, "measure_peaks", lambda *_: PEAKS)
        patch.setattr(throughput, "compile_head", keep)
        return time_device(SPEC, PAIR, Grid([8], [16]), SHAPE, samples=3, progress=TOLD.append)


@pytest.fixture
def rows(timed: Throughput) -> tuple[TimingRow, ...]:
    return timed.rows


@pytest.fixture
def compiled(timed: Throughput, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of batch 16 stand for those of every size and batch, so that a sweep compiles nothing."""
    monkeypatch.setattr(throughput, "measure_peaks", lambda *_: PEAKS)
    monkeypatch.setattr(throughput, "compile_head", lambda spec, cell, shape: PROGRAMS[spec.head, cell.phase])


def test_both_heads_are_timed_in_both_phases_with_their_compile_times_and_memory(rows: tuple[TimingRow, ...]) -> None:
    assert [(r.phase, r.head, r.status) for r in rows] == [(p, h, "ok") for p in ("train", "infer") for h in PAIR]
    assert TOLD == [
        "peaks of the device: matmul and copy",
        "8px, batch 16, float32, train: flatten and gap",
        "8px, batch 16, float32, infer: flatten and gap",
        "the first cell again",
    ]
    assert all(len(r.samples_s) == 4 for r in rows)
    assert all(min(r.trace_s or 0, r.lower_s or 0, r.compile_s or 0) > 0 for r in rows)
    for a, b in (rows[:2], rows[2:]):
        assert a.calls_per_sample == b.calls_per_sample
    # images: 16·8·8 bytes; parameters with gap: 40 + 148 + 50 = 238 floats; two moments of the pixels
    assert rows[3].argument_bytes == 16 * 64 + 238 * 4 + 2 * 4
    assert rows[3].output_bytes == 16 * 10 * 4
    assert (rows[1].alias_bytes or 0) >= 2 * 238 * 4  # the parameters and their momentum are donated


def test_closed_form_flops_are_those_counted_by_hand_and_near_those_of_xla(rows: tuple[TimingRow, ...]) -> None:
    # convolutions on 8×8: 2·9·(1·4 + 4·4)·64 = 23,040; the pooled map is 4×4×4
    # flatten: 2·64·10 = 1,280; gap: 64 + 2·4·10 = 144; batch 16; training three times
    assert [r.flops for r in rows] == [16 * n * (23_040 + head) for n in (3, 1) for head in (1_280, 144)]
    for timed in rows[2:]:
        # XLA leaves out what falls on the padding (-16 % at 8×8) and adds biases, pooling and ReLUs
        assert timed.flops is not None
        assert timed.xla_flops is not None
        assert 0.8 < timed.flops / timed.xla_flops < 1.3


def test_donated_memory_is_needed_once() -> None:
    fields = {"argument_bytes": 10, "output_bytes": 6, "temp_bytes": 3, "alias_bytes": 4}
    assert needed_bytes(fields) == 15  # 10 + 6 + 3 - 4
    assert needed_bytes({}) == 0


def test_a_batch_that_does_not_fit_is_a_row_and_larger_ones_are_not_tried(
    compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(throughput, "free_memory", lambda: 1.0)
    rows = time_device(SPEC, PAIR, Grid([8, 10], [2, 4], phase=["infer"]), SHAPE, progress=told.append).rows
    tried, left = [r for r in rows if r.batch == 2], [r for r in rows if r.batch == 4]
    assert (
        [(r.px, r.head) for r in tried] == [(r.px, r.head) for r in left] == [(px, h) for px in (8, 10) for h in PAIR]
    )
    assert {r.status for r in tried} == {"out_of_memory"}
    assert all("1 are free" in r.reason and r.samples_s == () for r in tried), [r.reason for r in tried]
    assert {(r.status, r.reason) for r in left} == {("skipped", "batch 2 did not fit")}
    assert len(told) == 1 + 2


def test_inference_goes_on_where_only_training_is_out_of_memory(
    rows: tuple[TimingRow, ...], compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, infer = (sum(needed_bytes(r.model_dump()) for r in part) for part in (rows[:2], rows[2:]))
    assert infer < train - 1
    monkeypatch.setattr(throughput, "free_memory", lambda: train - 1)
    swept = time_device(SPEC, PAIR, Grid([8], [16, 32]), SHAPE, samples=2).rows
    assert {(r.batch, r.phase): r.status for r in swept} == {
        (16, "train"): "out_of_memory",
        (16, "infer"): "ok",
        (32, "train"): "skipped",
        (32, "infer"): "ok",
    }
    assert swept[0].reason == f"both heads together need {train} bytes, {train - 1} are free"


@pytest.mark.parametrize("error", [MemoryError("full"), throughput.jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9")])
def test_a_device_that_runs_out_in_a_call_gives_rows_with_its_reason(
    error: Exception, compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(throughput, "interleave", fail)
    rows = time_device(SPEC, PAIR, Grid([8], [2, 4], phase=["infer"]), SHAPE).rows
    assert [(r.batch, r.status) for r in rows] == [(2, "out_of_memory")] * 2 + [(4, "skipped")] * 2
    assert str(error) in rows[0].reason


def test_another_error_of_the_device_is_not_taken_for_full_memory(
    compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise throughput.jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(throughput, "interleave", fail)
    with pytest.raises(throughput.jax.errors.JaxRuntimeError, match="broken"):
        time_device(SPEC, PAIR, Grid([8], [2], phase=["infer"]), SHAPE)


def test_every_timed_training_call_is_a_step_that_moves_the_parameters(
    compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed, _ = PROGRAMS["gap", "train"]
    before = np.array(timed.carry.params["head"]["dense"]["kernel"][...])  # a copy: the buffer is donated
    steps, ticks = int(timed.carry.step), itertools.count()
    monkeypatch.setattr(timed, "clock", lambda: float(next(ticks)))
    interleave((timed, FakeDevice(other=1.0).heads[0]), samples=4)
    assert int(timed.carry.step) == steps + 3 + 4  # warm-up and samples
    assert np.abs(np.array(timed.carry.params["head"]["dense"]["kernel"][...]) - before).max() > 1e-4


def test_compile_times_are_measured_without_the_persistent_cache(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = throughput.jax.config
    old = config.jax_compilation_cache_dir, config.jax_persistent_cache_min_compile_time_secs
    config.update("jax_compilation_cache_dir", str(tmp_path))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    stopwatch.compilation_cache.reset_cache()
    try:
        with stopwatch.no_compile_cache():
            throughput.jax.jit(lambda x: x * 3.0)(1.0)
        assert list(tmp_path.iterdir()) == []
        throughput.jax.jit(lambda x: x * 5.0)(1.0)
        assert list(tmp_path.iterdir()) != []  # and the cache is back afterwards
    finally:
        config.update("jax_compilation_cache_dir", old[0])
        config.update("jax_persistent_cache_min_compile_time_secs", old[1])
        stopwatch.compilation_cache.reset_cache()


def test_a_size_too_small_for_the_backbone_is_refused_with_the_mend() -> None:
    deep = SPEC.model_copy(update={"backbone": Backbone(width=4, stages=3)})
    with pytest.raises(UserError, match="use px >= 8"):
        time_device(deep, PAIR, Grid([8, 4], [2]), SHAPE)


def test_peaks_are_those_of_a_computer_in_each_precision(quick: None) -> None:
    measured = measure_peaks(("float32", "bfloat16"), process=2)
    assert measured.process == 2
    assert list(measured.matmul_flops_per_s) == ["float32", "bfloat16"]
    assert all(1e8 < rate < 1e16 for rate in measured.matmul_flops_per_s.values())
    assert 1e8 < measured.copy_bytes_per_s < 1e14


def test_a_grid_follows_every_axis_alone_before_it_combines_two() -> None:
    cells = Grid([28, 14], [64, 256], ["float32", "bfloat16"], [1, 8], ["train"]).cells
    assert len(set(cells)) == len(cells) == 2**4
    assert cells[0] == Cell(28, 64, "float32", 1, "train")
    alone = [Cell(14, 64, "float32", 1, "train"), Cell(28, 256, "float32", 1, "train")]
    alone += [Cell(28, 64, "bfloat16", 1, "train"), Cell(28, 64, "float32", 8, "train")]
    assert set(cells[1:5]) == set(alone)


def test_a_fleet_counts_the_images_and_the_flops_of_all_its_replicas(quick: None) -> None:
    cell = Cell(8, 4, "bfloat16", 3, "train")
    spec = spec_at(SPEC, cell, "gap")
    assert (spec.recipe.batch, spec.recipe.precision) == (4, "bfloat16")
    fleet, fields = compile_head(spec, cell, SHAPE)
    # three replicas of batch 4, three passes; 23,040 + 144 FLOPs an image as above; kept in two bytes instead of four
    assert closed_form(spec, cell, SHAPE)[0] == 3 * 3 * 4 * (23_040 + 144)
    assert fields["steps_per_call"] == 1  # on a CPU
    before = np.array(fleet.carry.params["head"]["dense"]["kernel"][...])
    assert before.shape == (3, 4, 10)
    fleet.call(2)  # the first step of the warm-up has a rate of zero
    after = np.array(fleet.carry.params["head"]["dense"]["kernel"][...])
    assert fleet.carry.step.tolist() == [2, 2, 2]
    assert after.dtype == np.float32
    assert np.abs(after - before).max() > 1e-5


def test_when_the_time_is_spent_the_rest_is_skipped_and_says_so(compiled: None) -> None:
    timed = time_device(SPEC, PAIR, Grid([8], [2, 4]), SHAPE, samples=2, budget_s=0.0)
    assert [r.status for r in timed.rows] == ["skipped"] * 8
    assert {r.reason for r in timed.rows} == {"the time budget of 0 s was spent"}
    assert timed.canaries == ()


def test_the_canary_times_the_first_cell_again(compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    medians_s = iter([(0.01, 0.03), (1.0, 1.0), (0.02, 0.04)])  # the first cell, the second, the first again
    monkeypatch.setattr(throughput, "interleave", lambda heads, samples: (1, tuple([s, s] for s in next(medians_s))))
    (canary,) = time_device(SPEC, PAIR, Grid([8], [16]), SHAPE, samples=2).canaries
    assert canary.slow_down_s == pytest.approx(0.02)  # 0.02 + 0.04 - (0.01 + 0.03)
    assert canary.slow_down == pytest.approx(0.5)


def test_memory_that_the_device_reports_stands_beside_the_predicted(
    compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = {"bytes_in_use": 100, "peak_bytes_in_use": iter([500, 900, 900, 900])}  # one new peak, then none
    monkeypatch.setattr(
        throughput, "memory_stat", lambda name: stats[name] if name == "bytes_in_use" else next(stats[name])
    )
    rows = time_device(SPEC, PAIR, Grid([8], [16], phase=["train"]), SHAPE, samples=2).rows
    assert [r.peak_bytes for r in rows] == [800, None]
    assert all(r.predicted_bytes == needed_bytes(r.model_dump()) for r in rows)


def test_energy_is_what_a_counter_moves_in_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapbench.power.ENERGY_S", 0.01)
    spent = [0.0]

    def call() -> None:
        spent[0] += 2.5

    assert energy_of(call, lambda: spent[0]) == pytest.approx(2.5)
    assert energy_of(call, lambda: 7.0) is None


def test_sampled_watts_become_joules() -> None:
    power = SampledPower(lambda: 100.0)
    start = time.perf_counter()
    time.sleep(0.3)
    power.close()
    assert power() == pytest.approx(100 * (time.perf_counter() - start), rel=0.5)


def test_a_profile_finds_the_operations_of_the_compiled_program(tmp_path: Any) -> None:
    cell = Cell(8, 4, "float32", 1, "train")
    head, _ = compile_head(SPEC, cell, SHAPE)
    write_profile({"gap": head}, cell, tmp_path, calls=2)
    (fields,) = json.loads((tmp_path / "operations.json").read_text())
    assert Cell(**{name: fields.pop(name) for name in cell._fields if name != "px"}, px=fields["px"]) == cell
    profile = Profile(**fields)
    assert all(operation.seconds > 0 for operation in profile.operations)
    flops = {kind: sum(o.flops for o in profile.operations if o.kind == kind) for kind in (FORWARD, INPUT, KERNEL)}
    first, second = (2.0 * 4 * 8 * 8 * 9 * c_in * 4 for c_in in (1, 4))  # the first layer's forward pass is planes
    assert flops == {FORWARD: second, INPUT: second, KERNEL: first + second}


def test_processes_are_merged_row_by_row() -> None:
    first, second = result(), result()
    both = merge([first, second])
    assert both.rows == first.rows + second.rows
    assert len(both.peaks) == 2


def test_a_timing_of_the_device_is_written_and_read_back_whole(timed: Throughput, tmp_path: Any) -> None:
    path = write_throughput(tmp_path, timed)
    assert path.name.endswith(f"-x{len(throughput.jax.devices())}-jax{timed.provenance['packages']['jax']}.json")
    assert load_throughput(tmp_path) == [timed]


def test_a_rerun_replaces_the_file_of_its_environment_and_no_other(tmp_path: Any) -> None:
    first = write_throughput(tmp_path, result())
    assert first == tmp_path / "throughput" / "cpu-amd-epyc-family-25-model-1-avx2-x1-jax0.12.0.1.json"
    other = result(platform="gpu", device="NVIDIA H100 80GB HBM3", devices=4)
    assert write_throughput(tmp_path, other).name == "gpu-nvidia-h100-80gb-hbm3-x4-jax0.12.0.1.json"
    faster = result().model_copy(
        update={"peaks": (Peaks(matmul_flops_per_s={"float32": 6e10}, copy_bytes_per_s=1e10),)}
    )
    assert write_throughput(tmp_path, faster) == first
    assert load_throughput(tmp_path) == [faster, other]
    assert len([line for line in first.read_text().splitlines() if '"samples_s"' in line]) == 2  # one row a line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("}\n]\n}\n", "", "not readable as JSON"),
        ('"schema": 2', '"schema": 1', "schema 1"),
        ('"px": 8', '"px": 0', "rows.0.px"),
        ('"schema": 2,', "", "schema None"),
    ],
)
def test_a_corrupt_file_is_refused_by_name_with_the_mend(tmp_path: Any, old: str, new: str, message: str) -> None:
    path = write_throughput(tmp_path, result())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as raised:
        load_throughput(tmp_path)
    assert path.name in str(raised.value)
    assert str(raised.value).endswith("delete it and run gapbench time again")


def test_timings_are_read_without_jax() -> None:
    code = "import gapbench.timings, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
