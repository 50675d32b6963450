"""The command `gapbench time`: what each flag leaves on disk, and what it leaves alone."""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from kill_and_resume import write_experiment

from gapbench import cli, processes, stopwatch, sweep, throughput
from gapbench.models import convolution
from gapbench.models.convolution import METHODS, measured
from gapbench.stopwatch import Timed
from gapbench.timings import Convolutions, Peaks, TimingRow, load_throughput

PUBLISHED_TABLE = convolution.TABLE


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An experiment on 8×8 digits, batch 16; and a cache of its own for the processes that time it."""
    folder = tmp_path_factory.mktemp("experiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPBENCH_CACHE", str(folder / "cache"))
        yield write_experiment(folder / "tiny.py", seeds=1, steps=4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All is done in this process, on heads that compute nothing, and the table is the test's own."""

    def call(function: Any, *arguments: Any, pin: bool = True) -> Any:
        return function(*arguments)

    def peaks(precisions: Any, process: int) -> Peaks:
        return Peaks(process=process, matmul_flops_per_s={"float32": 1e10}, copy_bytes_per_s=1e10)

    def compile_head(*arguments: Any) -> tuple[Timed, dict[str, Any]]:
        return Timed(lambda carry: (carry, ()), ()), {}

    for module in (sweep, processes):
        monkeypatch.setattr(module, "in_fresh_process", call)
    monkeypatch.setattr(stopwatch, "WARM_UP_S", 0.0)
    monkeypatch.setattr(stopwatch, "SAMPLE_S", 0.0)
    monkeypatch.setattr(throughput, "measure_peaks", peaks)
    monkeypatch.setattr(throughput, "compile_head", compile_head)
    monkeypatch.setattr(convolution, "TABLE", tmp_path / "convolution.json")
    measured.cache_clear()
    yield
    measured.cache_clear()


def time_tiny(file: Path, out: Path, *flags: str) -> None:
    assert cli.main(["time", str(file), "--out", str(out), "--samples", "2", *flags]) == 0


def rows_of(out: Path) -> tuple[TimingRow, ...]:
    (timed,) = load_throughput(out)
    return timed.rows


def files_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Content and time of every file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.rehearsal
def test_a_fresh_process_times_the_experiment_s_own_shape_and_once_does_not_repeat_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--processes", "1", "--once")
    time_tiny(file, tmp_path, *flags)
    (path,) = files = files_of(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert [(r.px, r.batch, r.precision, r.fleet, r.phase, r.head, r.status) for r in rows_of(tmp_path)] == [
        (8, 16, "float32", 1, phase, head, "ok") for phase in ("train", "infer") for head in ("flatten", "gap")
    ]
    time_tiny(file, tmp_path, *flags)
    assert capsys.readouterr().out == f"timed already: {path}\n"
    assert files_of(tmp_path) == files


def test_each_process_times_every_combination_of_the_flags_values_once(file: Path, tmp_path: Path, here: None) -> None:
    axes = {"px": ("10", "8"), "batch": ("2", "4"), "precision": ("bfloat16", "float32"), "fleet": ("1", "3")}
    flags = [word for name, values in axes.items() for word in (f"--{name}", *values, values[0])]
    time_tiny(file, tmp_path, *flags, "--processes", "2")
    timed = [
        (str(r.px), str(r.batch), r.precision, str(r.fleet), r.phase, r.head, r.process) for r in rows_of(tmp_path)
    ]
    assert sorted(timed) == sorted(itertools.product(*axes.values(), ("train", "infer"), ("flatten", "gap"), (0, 1)))
    assert timed[0] == ("10", "2", "bfloat16", "1", "train", "flatten", 0)  # the first values first
    assert {(r.status, len(r.samples_s)) for r in rows_of(tmp_path)} == {("ok", 2)}


def test_cells_beyond_the_budget_are_skipped_and_say_so(
    file: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # a second passes from cell to cell
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    time_tiny(file, tmp_path, "--batch", "2", "4", "--processes", "1", "--budget-s", "1.5")
    rows = rows_of(tmp_path)
    assert [(r.batch, r.phase, r.status) for r in rows[::2]] == [
        (2, "train", "ok"),
        (2, "infer", "skipped"),
        (4, "train", "skipped"),
        (4, "infer", "skipped"),
    ]
    assert {r.reason for r in rows[2:]} == {"the time budget of 1.5 s was spent"}


def test_processes_for_which_no_time_is_left_skip_every_cell(file: Path, tmp_path: Path, here: None) -> None:
    time_tiny(file, tmp_path, "--processes", "2", "--budget-s", "1e-9")
    assert {(r.process, r.status, r.reason) for r in rows_of(tmp_path)} == {
        (process, "skipped", "the time budget of 0 s was spent") for process in (0, 1)
    }


def test_a_profile_is_one_trace_of_both_heads_and_their_operations(file: Path, tmp_path: Path, here: None) -> None:
    folder = tmp_path / "profile"
    time_tiny(file, tmp_path / "out", "--processes", "2", "--profile", str(folder))  # the first process alone
    (trace,) = folder.rglob("perfetto_trace.json.gz")
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert {"flatten", "gap"} <= names
    assert [path.stat().st_size > 0 for path in folder.rglob("*.xplane.pb")] == [True]  # TensorBoard
    profiles = json.loads((folder / "operations.json").read_text())
    assert [(profile["head"], profile["phase"]) for profile in profiles] == [("flatten", "train"), ("gap", "train")]


def test_a_stopped_timing_writes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "in_fresh_process", stop)
    assert cli.main(["time", str(file), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "stopped: nothing was written\n"
    assert files_of(tmp_path) == {}


WAYS = ("--convolutions", "--px", "6", "--batch", "2", "--fleet", "2", "--once")


@pytest.mark.rehearsal
def test_the_ways_of_convolving_are_timed_into_a_file_of_their_own_and_not_into_the_table(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = PUBLISHED_TABLE.read_bytes() if PUBLISHED_TABLE.is_file() else b""
    time_tiny(file, tmp_path, *WAYS)
    (path,) = files = files_of(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert path.name.startswith("convolutions-")
    timed = Convolutions.model_validate_json(path.read_bytes())
    assert [(r.px, r.c_in, r.c_out, r.batch, r.replicas, r.method, r.status) for r in timed.rows] == [
        (6, c_in, 4, 2, 2, method, "ok") for c_in in (1, 4) for method in METHODS
    ]
    assert load_throughput(tmp_path) == []
    assert (PUBLISHED_TABLE.read_bytes() if PUBLISHED_TABLE.is_file() else b"") == table
    time_tiny(file, tmp_path, *WAYS)
    assert capsys.readouterr().out == f"timed already: {path}\n"
    assert files_of(tmp_path) == files


def test_write_table_gives_the_models_their_methods_and_once_times_no_device_that_is_in_the_table(
    file: Path, tmp_path: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    time_tiny(file, tmp_path, *WAYS, "--write-table")
    (rows,) = json.loads(convolution.TABLE.read_text()).values()
    assert measured() == {jax.devices()[0].device_kind: rows}
    assert [(row["px"], row["c_in"], row["c_out"], row["replicas"]) for row in rows] == [(6, 1, 4, 2), (6, 4, 4, 2)]
    assert {row["method"] for row in rows} <= set(METHODS)
    files = files_of(tmp_path)
    assert len(files) == 2  # the timing, and the table
    capsys.readouterr()
    time_tiny(file, tmp_path, *WAYS, "--write-table")
    assert capsys.readouterr().out == "timed already: the table has every shape on this kind of device\n"
    assert files_of(tmp_path) == files
