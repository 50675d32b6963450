"""`make accelerator` without one: it refuses, its rehearsal goes through every part, and no part stops another."""

import fcntl
import os
import subprocess
import sys
import tarfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_race import FLEETS, entry, made_up

from gapbench.models.convolution import TABLE
from gapbench.race import Race, load_race, write_race
from gapbench.records import load_folder
from gapbench.report import make_report
from gapbench.sweep import ROOT, find_experiment
from gapbench.timings import load_throughput

sys.path.insert(0, str(ROOT / "rivals"))
import accelerator
import bench
import images

PARTS = ["images", "convolution table", "race", "sweep rehearsal", "timing grid"]


def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, on a CPU."""
    words = [sys.executable, str(ROOT / "rivals/accelerator.py"), *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, **options)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["accelerator.py", *arguments])
    return accelerator.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "sees no accelerator: install jax[cuda13]"), (["--budget-s", "0"], "--budget-s 0: must be above 0")],
)
def test_it_refuses_in_one_line_before_it_writes_anything(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = call(*arguments, "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ("mlxtend", "orbax-checkpoint", "tyro")  # no part needs the first
    monkeypatch.setattr(accelerator, "is_installed", lambda name: name not in gone)
    assert run_main(monkeypatch) == 2
    expected = f"{sys.executable} lacks orbax-checkpoint tyro: {sys.executable} -m pip install orbax-checkpoint tyro"
    assert capsys.readouterr().err == f"accelerator: {expected}\n"


def test_what_is_installed_is_found_by_the_name_in_pyproject() -> None:
    assert accelerator.is_installed("orbax-checkpoint")
    assert not accelerator.is_installed("no-such-package-anywhere")


@pytest.mark.rehearsal
def test_the_rehearsal_goes_through_every_part(tmp_path: Path) -> None:
    done, out = call("--rehearse", "--out", str(tmp_path / "out"), cwd=tmp_path), tmp_path / "out/rehearsal"
    assert done.returncode == 0, done.stderr
    check_files(out, done.stdout)
    check_race(load_race(out))
    check_archive(out / "rehearsal.tar.gz", tmp_path / "unpacked")


def check_files(out: Path, told: str) -> None:
    """Few and small ones, of which one claims no bar; the package's table is left alone."""
    names = {str(path.relative_to(out.parent)) for path in out.parent.rglob("*") if path.is_file()}
    files = ("rehearsal.tar.gz", "rivals.json", "rivals.log", "summary.txt")
    assert names == {f"rehearsal/{name}" for name in files}
    assert max((out / name).stat().st_size for name in files) < 1 << 20
    summary = (out / "summary.txt").read_text()
    assert [line.partition(":")[0] for line in summary.splitlines()[: len(PARTS)]] == PARTS
    assert summary in told
    assert "a rehearsal: it shows that every part works, and measures nothing" in summary
    assert not any(word in summary for word in ("met  ", "missed  ", "not measured", "publish"))
    changed = subprocess.run(["git", "status", "--porcelain", "--", str(TABLE)], cwd=ROOT, capture_output=True)
    assert changed.stdout == b""


def check_race(race: Race) -> None:
    """It is one of fleets, in both precisions."""
    ours = [entry for entry in race.entries if entry.rival == "gapbench"]
    assert [(e.name, e.status, e.tolerance) for e in ours] == [
        ("gapbench fleet, float32", "ok", None),
        ("gapbench fleet, bfloat16", "ok", bench.BFLOAT16_TOLERANCE),
    ]
    assert race.entries[0].status == "ok"  # textbook Flax
    assert ours[0].loss_difference == 0.0
    assert ours[1].loss_difference > 1e-6  # it did compute in bfloat16
    assert race.provenance["precision"] == "highest"


def check_archive(path: Path, place: Path) -> None:
    """Unpacked, it is a folder that can be reported, and names no user."""
    with tarfile.open(path) as archive:
        assert {(member.uid, member.uname) for member in archive} == {(0, "")}
        archive.extractall(place, filter="data")
    experiment, records = load_folder(place / "rehearsal")
    assert experiment == find_experiment(str(ROOT / "rivals/rehearsal.py"))[1]
    assert {record.run_id for record in records} == {spec.run_id for spec in experiment.runs}
    assert {record.fleet.width for record in records if record.fleet} == {2}
    assert len(list((place / "rehearsal/throughput").glob("convolutions-*.json"))) == 1
    (timed,) = load_throughput(place / "rehearsal")
    assert {(row.fleet, row.status) for row in timed.rows} == {(1, "ok"), (2, "ok")}
    assert {"index.html", "claims.json"} <= set(make_report(place / "rehearsal")[1])


class FakeParts:
    """Parts that take all the time they may; those named fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: str) -> None:
        self.now, self.failing, self.limits = 1000.0, failing, dict[str, float]()
        monkeypatch.setattr(accelerator, "run_part", self.run)
        monkeypatch.setattr(accelerator, "time", types.SimpleNamespace(monotonic=lambda: self.now))

    def run(self, words: list[str], limit_s: float) -> str:
        name = " ".join(words)
        self.limits[name], self.now = limit_s, self.now + max(limit_s, 0)
        return "failed with exit code 3" if any(part in name for part in self.failing) else ""

    def limit_of(self, part: str) -> float:
        return next(limit for name, limit in self.limits.items() if part in name)


def test_a_part_that_fails_says_so_and_leaves_the_others_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    parts = FakeParts(monkeypatch, "--convolutions", "bench.py")
    assert run_main(monkeypatch, "--rehearse", "--out", str(tmp_path)) == 1
    assert len(parts.limits) == len(PARTS)
    assert capsys.readouterr().err.splitlines() == [
        f"accelerator: {name}: failed with exit code 3; the other parts go on" for name in ("convolution table", "race")
    ]
    assert "race: 180 s, failed with exit code 3" in (tmp_path / "rehearsal/summary.txt").read_text()


def test_however_long_the_parts_take_all_get_their_share_of_eight_minutes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = FakeParts(monkeypatch)
    session = accelerator.Session(480.0)
    accelerator.run_all(accelerator.FULL, session, tmp_path, tmp_path / "work")
    sweeps = [parts.limit_of(f"run {name}") for name in accelerator.FULL.sweeps]
    assert sum(parts.limits.values()) <= 480
    assert sweeps[0] == pytest.approx(sweeps[1])
    assert 100 < sum(sweeps) <= 300
    assert parts.limit_of("--fleet 1 32") == pytest.approx(accelerator.LEAST_GRID_S - accelerator.GRACE_S)


def test_time_that_a_part_leaves_goes_to_the_sweeps_up_to_their_bar_and_then_to_the_grid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = FakeParts(monkeypatch)
    monkeypatch.setattr(accelerator, "run_part", lambda words, limit_s: parts.limits.update({" ".join(words): limit_s}))
    accelerator.run_all(accelerator.FULL, accelerator.Session(480.0), tmp_path, tmp_path / "work")
    assert [parts.limit_of(f"run {name}") for name in accelerator.FULL.sweeps] == [150.0, 300.0]
    assert parts.limit_of("--fleet 1 32") == 480.0 - accelerator.GRACE_S
    assert next(name for name in parts.limits if "--fleet 1 32" in name).endswith("--budget-s 435")


STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
TIDY = """
import pathlib, sys, time
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text("finished what was begun")
"""


def test_what_a_part_leaves_running_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hold = f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    hold += "; time.sleep(60)"
    start = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hold!r}], stdout=subprocess.PIPE)"
    assert accelerator.run_part(["-c", f"{start}; p.stdout.readline()"], 30.0) == ""
    begin = time.monotonic()
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # once its holder is gone
    assert time.monotonic() - begin < 30


def test_a_part_beyond_its_limit_may_finish_what_it_began_and_is_killed_if_it_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accelerator.run_part(["-c", TIDY, str(tmp_path / "left")], 1.0).startswith("stopped after 1 s")
    assert (tmp_path / "left").read_text() == "finished what was begun"
    monkeypatch.setattr(accelerator, "GRACE_S", 0.2)
    assert accelerator.run_part(["-c", STUBBORN], 0.5).startswith("stopped after 0 s")


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, ""), (2, "skipped, for the reason in its own line"), (3, "failed with exit code 3")],
)
def test_an_exit_code_becomes_a_reason(code: int, reason: str) -> None:
    assert accelerator.run_part(["-c", f"raise SystemExit({code})"], 30.0) == reason
    assert accelerator.run_part(["-c", "never"], 0.0) == "not started, no time was left"


def test_a_data_set_that_is_not_here_is_named_with_the_mend_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GAPBENCH_CACHE", str(tmp_path))
    text = (ROOT / "rivals/rehearsal.py").read_text()
    (tmp_path / "absent.py").write_text(text.replace('"digits"', '"folder:absent"'))
    assert images.main([str(tmp_path / "absent.py"), str(ROOT / "rivals/rehearsal.py")]) == 1
    assert capsys.readouterr().err == (
        "folder:absent: not here: `gapbench data add absent PATH`, or put absent or absent.zip into GAPBENCH_DATA\n"
    )
    assert [path.name[:10] for path in (tmp_path / "resized").iterdir()] == ["digits-8px"]


def bars_of(tmp_path: Path, entries: Any) -> list[str]:
    write_race(tmp_path, made_up(entries=entries))
    return accelerator.race_bars(tmp_path)


def test_the_race_s_bars_compare_like_with_like(tmp_path: Path) -> None:
    assert accelerator.race_bars(tmp_path) == [
        "not measured  a fleet trains at least 10 times the images/s of textbook Flax in float32: there is no race",
        "not measured  a fleet trains at least 3 times the images/s of PyTorch in bfloat16: there is no race",
    ]
    flax, torch = bars_of(tmp_path, FLEETS)
    assert flax.startswith("met  ")
    assert flax.endswith("Flax in float32: 10 [5, 10] of textbook Flax, float32 (2 replicas)")
    assert torch.startswith("met  ")
    faster = entry("PyTorch", "PyTorch graphs", (0.2, 0.2, 0.2), precision="bfloat16")  # half the fleet's
    flax, torch = bars_of(tmp_path, [entry("textbook Flax", "textbook", (1.0, 1.0, 1.0)), faster, *FLEETS[1:]])
    assert flax.startswith("missed  ")
    assert torch.startswith("missed  ")
    assert torch.endswith("PyTorch in bfloat16: 2 [2, 2] of PyTorch graphs (2 replicas)")
    failed = FLEETS[1] | {"status": "failed", "reason": "no torch", "samples_s": (), "loss_difference": None}
    assert bars_of(tmp_path, [FLEETS[0], failed, *FLEETS[2:]])[1].endswith("PyTorch in bfloat16: no torch")


@pytest.mark.parametrize(
    ("seconds", "before", "done", "expected"),
    [(100.0, 0, 160, "met  "), (200.0, 0, 160, "missed  "), (100.0, 0, 159, "missed  "), (9.0, 3, 160, "not measured")],
)
def test_the_sweeps_bar_asks_for_every_run_in_this_call(
    seconds: float, before: int, done: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([before, before, done, done])
    monkeypatch.setattr(accelerator, "count_done", lambda name, folder: next(counts))
    run: Callable[..., float] = lambda *given: seconds  # noqa: E731
    session = types.SimpleNamespace(run=run, left_s=480.0)
    plan = accelerator.FULL
    line = accelerator.run_sweeps(plan, session, tmp_path, [tmp_path / name for name in plan.sweeps])
    assert line.startswith(expected)
    assert f"{2 * done} of 320 runs" in line


def test_the_full_plan_names_what_issue_and_readme_ask_for() -> None:
    words = accelerator.FULL.grid.split()
    assert {"14", "112", "64", "8192", "float32", "bfloat16", "1"} <= set(words)
    for name in accelerator.FULL.sweeps:
        runs = find_experiment(name)[1].runs
        assert {spec.task.px for spec in runs} == {16, 24, 32, 48}
        assert {spec.seed for spec in runs} == set(range(20))
