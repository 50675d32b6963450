"""Kill a sweep again and again, resume it each time, and compare its records with those of an undisturbed one.

    python tests/kill_and_resume.py [KILLS]

Only the parent process is killed, with SIGKILL; its workers have to go by themselves. Linux alone: the leftover
processes of a run are found in /proc, by a mark in their environment.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MARK = "GAPBENCH_KILL_MARK"
GRACE_S = 20.0  # for a killed sweep's processes to end, on a busy machine
CELLS = 8  # of the script; the short form in test_sweep.py has fewer
EXPERIMENT = """
from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does a kill change a byte?",
    runs=grid(
        task=Task(dataset="digits", px=8, train_images=100, val_images=50),
        backbone=Backbone(width=4, stages=1),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=16, steps={steps}, eval_every=4),
        seed=range({seeds}),
    ),
    family=("C2",),
    targets=(0.5,),
    train_losses=(0.3,),
)
"""


def write_experiment(path: Path, seeds: int, steps: int) -> Path:
    path.write_text(EXPERIMENT.format(seeds=seeds, steps=steps))
    return path


def start(experiment: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """`gapbench run` with two workers, every process of it marked with its folder."""
    command = [sys.executable, "-m", "gapbench.cli", "run", str(experiment), "--out", str(out), "--workers", "2"]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, MARK: str(out)})


def run_whole(experiment: Path, out: Path, log: Path) -> float:
    """Seconds of an undisturbed run."""
    begin = time.monotonic()
    code = start(experiment, out, log).wait()
    assert code == 0, f"gapbench run ended with {code}: {log.read_text()}"
    return time.monotonic() - begin


def leftovers(out: Path) -> list[int]:
    """Living processes of the run in this folder."""
    mark, found = f"{MARK}={out}\0".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() + b"\0":
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def wait_until_gone(out: Path, seconds: float = GRACE_S) -> float:
    """Seconds until no process of the run is left."""
    begin = time.monotonic()
    while left := leftovers(out):
        waited = time.monotonic() - begin
        assert waited < seconds, f"processes {left} of a killed sweep live on after {waited:.0f} s"
        time.sleep(0.05)
    return time.monotonic() - begin


def records_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "records").glob("*"))}


def unequal_fields(ours: bytes, theirs: bytes) -> dict[str, list[str]]:
    """The lines of a record, one a field, in which two records differ; the ends of long ones."""
    lines = (text.decode().splitlines() for text in (ours, theirs))
    return {a.split(":")[0]: [a[-300:], b[-300:]] for a, b in zip(*lines, strict=True) if a != b}


def kill_until_done(
    experiment: Path, out: Path, log: Path, kills: int, whole_s: float, rng: np.random.Generator
) -> int:
    """Run into `out`, killed at most `kills` times at random moments and resumed each time; returns the kills."""
    done = 0
    while done < kills:
        before = len(records_of(out))
        begin, process = time.monotonic(), start(experiment, out, log)
        moment = float(rng.uniform(0, whole_s))
        if done % 2:  # half of the kills fall among the writing of records: shortly after the next one
            while process.poll() is None and len(records_of(out)) == before:
                time.sleep(0.005)
            moment = time.monotonic() - begin + float(rng.uniform(0, 0.1 * whole_s))
        try:
            code = process.wait(timeout=begin + moment - time.monotonic())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            gone = wait_until_gone(out)
            done += 1
            after, parts = len(records_of(out)), len(list(out.rglob("*.part")))
            print(f"killed after {moment:5.2f} s: {before} -> {after} records, {parts} parts, all gone in {gone:.1f} s")
            continue
        assert code == 0, f"gapbench run ended with {code}: {log.read_text()}"
        break
    run_whole(experiment, out, log)  # to the end, or a second time over a whole folder, which must change nothing
    return done


def check_equal(reference: Path, out: Path) -> int:
    """Equal names and bytes of all records, nothing half written, nobody left; returns the number of records."""
    ours, theirs = records_of(out), records_of(reference)
    assert sorted(ours) == sorted(theirs), f"other records: {sorted(set(ours) ^ set(theirs))}"
    different = {name: unequal_fields(ours[name], theirs[name]) for name in theirs if ours[name] != theirs[name]}
    assert not different, f"other bytes in {different}"
    assert sorted(path.name for path in (out / "timing").iterdir()) == sorted(theirs)
    assert list(out.rglob("*.part")) == []
    wait_until_gone(out)
    return len(theirs)


def main(kills: int) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GAPBENCH_CACHE"] = str(folder / "cache")
        log, reference = folder / "log", folder / "undisturbed"
        experiment = write_experiment(folder / "experiment.py", seeds=CELLS // 2, steps=400)
        run_whole(experiment, folder / "warm", log)  # fills the compilation cache, as a resumed run finds it
        whole_s = run_whole(experiment, reference, log)
        assert records_of(folder / "warm") == records_of(reference), "two undisturbed runs differ"
        print(f"undisturbed: {len(records_of(reference))} records in {whole_s:.1f} s")
        done, rounds = 0, 0
        while done < kills:
            out = folder / f"killed{rounds}"
            done += kill_until_done(experiment, out, log, kills - done, whole_s, rng)
            records = check_equal(reference, out)
            rounds += 1
        print(f"{done} kills over {rounds} folders: all {records} records equal the undisturbed ones, byte by byte")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 20)
