"""How fast is the same sweep trained in other ways? Every rival from the same weights and batches, interleaved.

    make bench-rivals                    # about 20 min on two cores; writes results/reproduced/speed

First 20 losses of every cell must agree with gapbench's to 1e-4; only an entry whose do is timed. On an accelerator
(`make accelerator`), gapbench trains as fleets; there float32 is float32 in every entry, not the TF32 that JAX and
PyTorch would take for it, and entries in bfloat16 have a tolerance of their own.
"""

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from cell import Cell, write_cell

from gapbench.counts import count_net
from gapbench.data import batches, load, split
from gapbench.progress import watch_cells
from gapbench.race import REFERENCE, Entry, Race, write_race
from gapbench.records import provenance
from gapbench.spec import Precision, RunSpec, UserError, validate
from gapbench.sweep import find_experiment
from gapbench.train import init_state
from gapbench.weights import export_weights
from gapbench.worker import KEEP_MEMORY, WORKER_ENV, usable_cores

HERE = Path(__file__).parent
CHECKED_STEPS, TOLERANCE = 20, 1e-4
# Training is chaotic: at the sweep's own rate of 0.003, another order of the same float32 sums grows to a difference of
# 5e-3 in 20 losses (flatten, 28 px). At this one it stays below 3e-6, where 1 % more of the rate gives 2e-4 or more.
PEAK_LR = 1e-4
# Eight times what rounding makes of them on a CPU (28 px, gapbench and PyTorch alike). Too wide to see a wrong rate,
# narrow enough to see other weights or batches; that the rates are the same, the float32 entries of each rival show.
BFLOAT16_TOLERANCE = 5e-3
SCAN_STEPS = 2  # a convolution in a scan is so slow on a CPU that a sample of full length would take minutes
LEAST_ROUNDS = 3  # whatever the time budget


def gentle(spec: RunSpec) -> RunSpec:
    """The same run at `PEAK_LR`, which costs the same time."""
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"peak_lr": PEAK_LR})})


def export_cell(spec: RunSpec, folder: Path) -> Cell:
    """The weights that `spec` starts from, its images, and the order of its batches."""
    data = load(spec.task.dataset, spec.task.px)
    drawn, recipe = split(data, spec.task, spec.seed), spec.recipe
    name, classes = f"{spec.task.px}px-{spec.head}-s{spec.seed}", len(data.class_names)
    order = batches(spec.task.train_images, recipe.batch, recipe.steps, spec.seed)
    weights = folder / f"{name}.npz"
    export_weights(init_state(spec, data.train_images.shape[-1], classes)[1].params, weights)
    images, labels = drawn.train.images, drawn.train.labels
    cell = Cell(name, spec.model_dump(), classes, weights, images, labels, order, drawn.mean, drawn.std)
    write_cell(folder, cell)
    return cell


@dataclass
class Worker:
    """A process of `serve.py`, and the two pipes to it."""

    process: subprocess.Popen[str]

    def send(self, **command: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: its last answer says why
            print(json.dumps(command), file=self.process.stdin, flush=True)

    def receive(self) -> Any:
        """Its next answer; raises RuntimeError with its reason where it failed."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with exit code {self.process.wait()}"}
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


@dataclass
class Entrant:
    """One way to train, while it runs; `way` names its file and what the file should do."""

    rival: str
    name: str
    way: str
    processes: int
    threads: int
    steps: int
    python: Path = Path(sys.executable)
    precision: Precision = "float32"
    tolerance: float | None = None  # None: TOLERANCE
    environment: dict[str, str] = field(default_factory=dict)  # of its processes, beside this one's own
    status: str = "ok"
    reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    loss_difference: float | None = None
    samples_s: list[float] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def start(self, cells: list[Cell], folder: Path, cores: list[int], log: Any) -> None:
        """Its processes, each on cores of its own and with every n-th seed, so that all have as many of every size.

        They load while others are started; `wait` for them before the first command.
        """
        seeds = sorted({cell.spec["seed"] for cell in cells})
        for i in range(self.processes):
            own = cores[i * self.threads : (i + 1) * self.threads]
            mine = [cell.name for cell in cells if seeds.index(cell.spec["seed"]) % self.processes == i]
            arguments = [self.way, str(folder), "--cores", ",".join(map(str, own)), "--cells", ",".join(mine)]
            surroundings = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")} | self.environment
            process = subprocess.Popen(
                [str(self.python), str(HERE / "serve.py"), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=surroundings,
            )
            self.workers.append(Worker(process))

    def wait(self) -> None:
        """Until all its processes have loaded."""
        for answer in self.receive():
            self.versions |= answer

    def send(self, **command: Any) -> None:
        """To all its processes, which work at the same time."""
        for worker in self.workers:
            worker.send(**command)

    def receive(self) -> list[Any]:
        """The answers of all its processes."""
        return [worker.receive() for worker in self.workers]

    def losses(self) -> dict[str, list[float]]:
        """Of every cell, by name, after a command to train."""
        return {name: losses for answer in self.receive() for name, losses in answer.items()}

    def train(self) -> float:
        """Seconds from the command to the last answer."""
        start = time.perf_counter()
        self.send(train=self.steps, watch=False)
        self.receive()
        return time.perf_counter() - start

    def time(self) -> None:
        """Add one sample."""
        self.samples_s.append(self.train())

    def attempt(self, work: Callable[..., Any], *given: Any) -> Any:
        """Do it, unless this entrant failed before; a failure becomes its status."""
        if self.status != "ok":
            return None
        try:
            return work(*given)
        except RuntimeError as error:
            self.fail(str(error))
            return None

    def fail(self, reason: str) -> None:
        """It is out of the race."""
        self.status, self.reason, self.loss_difference, self.samples_s = "failed", reason, None, []

    def stop(self) -> None:
        """End its processes, whatever they do."""
        for worker in self.workers:
            worker.process.terminate()
            worker.process.communicate()

    @property
    def entry(self) -> Entry:
        """What is kept of it."""
        return Entry(**{name: getattr(self, name) for name in Entry.model_fields})


def placed(entrant: Entrant) -> str:
    """Processes × threads of each."""
    return f"{entrant.processes} × {entrant.threads}"


def make_entrants(torch_python: Path, steps: int, cores: int) -> list[Entrant]:
    """Every way; those of PyTorch say so where it is not installed.

    PyTorch is to be at its best, and gets the memory settings of gapbench's workers; Flax is as its users run it.
    """
    entrants = [
        Entrant("textbook Flax", "textbook Flax", "textbook_flax", 1, cores, steps),
        Entrant("scan Flax", "scan Flax", "scan_flax", 1, cores, min(SCAN_STEPS, steps)),
        *(
            Entrant(
                "PyTorch",
                f"PyTorch {way}",
                f"torch_rival:{way}",
                processes,
                cores // processes,
                steps,
                torch_python,
                environment=KEEP_MEMORY,
            )
            for way in ("eager", "compile")
            for processes in dict.fromkeys((1, cores))
        ),
        Entrant(REFERENCE, REFERENCE, "gapbench_rival", cores, 1, steps, environment=WORKER_ENV),
    ]
    return [mark_missing(entrant) for entrant in entrants]


def mark_missing(entrant: Entrant) -> Entrant:
    """The same, which says so where its interpreter is not there."""
    if not entrant.python.exists():
        entrant.status, entrant.reason = "not_installed", "its environment is missing: make bench-rivals makes it"
    return entrant


def make_accelerator_entrants(torch_python: Path, steps: int, cores: int, device: str) -> list[Entrant]:
    """Fleets, and what they are compared with on the same device (by PyTorch's name); PyTorch may be missing."""
    exact = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    entrants = [Entrant("textbook Flax", "textbook Flax, float32", "textbook_flax", 1, cores, steps, environment=exact)]
    ways: tuple[tuple[str, Precision], ...] = (("eager", "float32"), ("compile", "bfloat16"), ("graphs", "bfloat16"))
    for way, precision in ways:
        name, file = f"PyTorch {way}, {precision}", f"torch_rival:{way}:{device}:{precision}"
        entrants.append(Entrant("PyTorch", name, file, 1, cores, steps, torch_python, precision))
    fleets: tuple[tuple[Precision, dict[str, str]], ...] = (("float32", exact), ("bfloat16", {}))
    for precision, environment in fleets:
        name, file = f"{REFERENCE} fleet, {precision}", f"fleet_rival:{precision}"
        entrants.append(Entrant(REFERENCE, name, file, 1, cores, steps, precision=precision, environment=environment))
    for entrant in entrants:
        entrant.tolerance = BFLOAT16_TOLERANCE if entrant.precision == "bfloat16" else None
    return [mark_missing(entrant) for entrant in entrants]


def largest_difference(losses: dict[str, list[float]], reference: dict[str, list[float]]) -> float:
    """max |a - b| / |b| over all cells and steps; infinite where a cell is missing or a loss is not a number."""
    if losses.keys() != reference.keys():
        return float("inf")
    a, b = (np.array([each[name] for name in sorted(each)]) for each in (losses, reference))
    difference = np.abs(a - b) / np.abs(b)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def check_losses(entrants: list[Entrant], progress: Callable[[str], None]) -> None:
    """Every entrant's first losses against gapbench's; one that computes something else is out of the race.

    All compile and train at the same time: nothing is timed yet.
    """
    for entrant in entrants:
        entrant.attempt(lambda entrant=entrant: entrant.send(train=CHECKED_STEPS, watch=True))
    expected: dict[str, list[float]] = {}
    for entrant in sorted(entrants, key=lambda entrant: entrant.rival != REFERENCE):  # gapbench first
        progress(f"compare {CHECKED_STEPS} losses: {entrant.name}, {placed(entrant)}")
        losses = entrant.attempt(entrant.losses)
        expected = expected or losses
        if losses is not None:
            difference = entrant.loss_difference = largest_difference(losses, expected)
            if not difference <= (entrant.tolerance or TOLERANCE):
                entrant.fail(f"computes something else: its losses differ by {difference:.2g}")


@contextlib.contextmanager
def started(entrants: list[Entrant], cells: list[Cell], folder: Path, cores: list[int], log: Any) -> Iterator[None]:
    """All processes run at once, and wait; they end with the block, however that ends."""
    try:
        for entrant in entrants:
            entrant.attempt(entrant.start, cells, folder, cores, log)
        for entrant in entrants:
            entrant.attempt(entrant.wait)
        yield
    finally:
        for entrant in entrants:
            entrant.stop()


def race(
    specs: list[RunSpec],
    entrants: list[Entrant],
    cores: list[int],
    rounds: int,
    log: Any,
    budget_s: float = math.inf,
) -> Race:
    """Check, warm up every shape, then profile, then sample in rounds, with the matmul peak once in each.

    After `LEAST_ROUNDS`, no round begins that would end beyond `budget_s`, as long as the last ones took.
    """
    begin = time.perf_counter()
    source, peaks = provenance(), []  # of the code as it is now
    reference = next(entrant for entrant in entrants if entrant.rival == REFERENCE)
    with tempfile.TemporaryDirectory() as scratch, watch_cells(2 + (rounds + 2) * len(entrants)) as progress:
        progress("export weights and batches")
        cells = [export_cell(spec, Path(scratch)) for spec in specs]
        with started(entrants, cells, Path(scratch), cores, log):
            check_losses(entrants, progress)
            for entrant in entrants:
                progress(f"warm up: {entrant.name}, {placed(entrant)}")
                entrant.attempt(entrant.train)
            progress(f"profile: {reference.name}")
            reference.send(profile=True)
            profiles, first = reference.receive()[0], time.perf_counter()
            for i in range(rounds):
                now = time.perf_counter()
                if i >= LEAST_ROUNDS and now - begin + (now - first) / i > budget_s:
                    break
                reference.send(peak=True)
                peaks.append(tuple(reference.receive()))
                for entrant in entrants[:: -1 if i % 2 else 1]:
                    progress(f"round {i + 1} of {rounds}: {entrant.name}, {placed(entrant)}")
                    entrant.attempt(entrant.time)
    counts = [count_net(spec, cells[0].images.shape[-1], cells[0].classes) for spec in specs]
    fields = {
        "provenance": source,
        "dataset": specs[0].task.dataset,
        "heads": tuple(dict.fromkeys(spec.head for spec in specs)),
        "sizes_px": tuple(dict.fromkeys(spec.task.px for spec in specs)),
        "seeds": tuple(dict.fromkeys(spec.seed for spec in specs)),
        "backbone": specs[0].backbone,
        "recipe": specs[0].recipe,
        "flops_per_image": float(np.mean([3 * count.flops for count in counts if count])),
        "checked_steps": CHECKED_STEPS,
        "tolerance": TOLERANCE,
        "peaks": tuple(peaks),
        "profiles": profiles,
        "entries": tuple(entrant.entry for entrant in entrants),
    }
    return validate(Race, fields, "the race")


def share_device() -> str:
    """PyTorch's name of JAX's default device, of whose memory no process here takes more than it needs."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # before JAX starts a device; the entrants inherit it
    jax.config.update("jax_default_matmul_precision", "highest")  # for the provenance: that of the float32 entries
    return {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())


def main() -> int:
    """Exit 2, with one line, for bad input, and 1 where gapbench itself fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="size_sweep", help="whose nets, data and recipe")
    parser.add_argument("--px", type=int, nargs="+", default=[14, 28])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=64, help="of each cell in a sample")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--accelerator", action="store_true", help="fleets against others on JAX's default device")
    parser.add_argument("--budget-s", type=float, default=math.inf, help="fewer rounds, but 3, where they take longer")
    parser.add_argument("--out", type=Path, default=Path("results/reproduced/speed"))
    parser.add_argument("--torch-python", type=Path, default=HERE.parent / ".venv-rivals/bin/python")
    given = parser.parse_args()
    cores = usable_cores() if given.accelerator else usable_cores()[:2]
    try:
        runs = find_experiment(given.experiment)[1].with_seeds(range(given.seeds)).runs
        specs = [gentle(spec) for spec in runs if spec.task.px in given.px]
        if not specs or given.rounds < 1 or not 1 <= given.steps <= specs[0].recipe.steps:
            raise UserError("no such size in the experiment, no round, or more steps than its recipe has")
        if given.accelerator:
            entrants = make_accelerator_entrants(given.torch_python, given.steps, len(cores), share_device())
        else:
            entrants = make_entrants(given.torch_python, given.steps, len(cores))
        given.out.mkdir(parents=True, exist_ok=True)
        with open(given.out / "rivals.log", "w") as log:
            print(write_race(given.out, race(specs, entrants, cores, given.rounds, log, given.budget_s)))
    except (UserError, RuntimeError) as error:
        print(f"bench-rivals: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("bench-rivals: stopped, nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
