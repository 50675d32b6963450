"""The rivals compute what gapbench computes, and a race of them keeps every sample and every reason."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapbench.race import Race
from gapbench.spec import Backbone, Recipe, RunSpec, Task
from gapbench.sweep import ROOT

sys.path.insert(0, str(ROOT / "rivals"))
import bench

TORCH = Path(os.environ.get("RIVALS_PYTHON", ROOT / ".venv-rivals/bin/python"))
STEPS = 20
RECIPE = Recipe(peak_lr=1e-3, batch=16, steps=STEPS, eval_every=STEPS, warmup_steps=4)
CORE = [min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0]
needs_torch = pytest.mark.skipif(not TORCH.exists(), reason="no PyTorch: make bench-rivals installs it")


def spec_of(head: str, seed: int) -> RunSpec:
    task, backbone = Task(dataset="digits", px=8, train_images=100), Backbone(width=4, stages=2)
    return RunSpec(task=task, backbone=backbone, head=head, recipe=RECIPE, seed=seed)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[bench.Cell]:
    """Two seeds of one head and one of the other, exported."""
    folder = tmp_path_factory.mktemp("cells")
    return [bench.export_cell(spec_of(*what), folder) for what in (("flatten", 0), ("flatten", 1), ("gap", 0))]


def watch(entrant: bench.Entrant) -> Any:
    entrant.send(train=STEPS, watch=True)
    return entrant.losses()


def losses_of(way: str, cells: list[bench.Cell], python: Path = Path(sys.executable)) -> Any:
    """The losses of every cell, by a process of `serve.py`, as the bench asks for them."""
    entrant = bench.Entrant("rival", "rival", way, 1, 1, STEPS, python)
    try:
        entrant.start(cells, cells[0].weights.parent, CORE, subprocess.DEVNULL)
        entrant.wait()
        first = watch(entrant)
        assert entrant.train() > 0
        assert watch(entrant) == first  # again from the initial weights
    finally:
        entrant.stop()
    return first


@pytest.fixture(scope="module")
def by_gapbench(cells: list[bench.Cell]) -> Any:
    """Its losses; those named `changed` start from one weight that is another."""
    cell = cells[2]
    changed = cell._replace(name="changed", weights=cell.weights.with_name("changed.npz"))
    arrays = cell.arrays
    arrays["backbone/convs/0/kernel"][0, 0, 0, 0] += 0.01
    np.savez(changed.weights, **arrays)
    bench.write_cell(cell.weights.parent, changed)
    return losses_of("gapbench_rival", [*cells, changed])


@pytest.fixture(scope="module")
def reference(by_gapbench: Any) -> Any:
    return {name: losses for name, losses in by_gapbench.items() if name != "changed"}


@pytest.mark.rehearsal
@pytest.mark.parametrize("way", ["textbook_flax", "scan_flax"])
def test_a_rival_in_flax_has_the_losses_of_gapbench(way: str, cells: list[bench.Cell], reference: Any) -> None:
    losses = losses_of(way, cells)
    assert {name: len(own) for name, own in losses.items()} == {cell.name: STEPS for cell in cells}
    assert bench.largest_difference(losses, reference) <= bench.TOLERANCE


@pytest.mark.rehearsal
def test_a_fleet_has_the_losses_of_gapbench_and_sees_a_changed_weight(
    cells: list[bench.Cell], by_gapbench: Any
) -> None:
    losses = losses_of("fleet_rival", [cells[2], cells[2]._replace(name="changed")])
    assert bench.largest_difference(losses, {name: by_gapbench[name] for name in losses}) <= bench.TOLERANCE


@pytest.mark.rehearsal
def test_the_tolerance_of_bfloat16_tells_one_seed_from_another(cells: list[bench.Cell], reference: Any) -> None:
    one, other = ({"flatten": reference[cell.name]} for cell in cells[:2])
    assert bench.largest_difference(one, other) > bench.BFLOAT16_TOLERANCE


@pytest.mark.rehearsal
@needs_torch
def test_pytorch_in_bfloat16_stays_within_the_tolerance(cells: list[bench.Cell], reference: Any) -> None:
    losses = losses_of("torch_rival:eager:cpu:bfloat16", cells, TORCH)
    assert 1e-6 < bench.largest_difference(losses, reference) <= bench.BFLOAT16_TOLERANCE


@pytest.mark.rehearsal
@needs_torch
def test_pytorch_has_the_losses_of_gapbench(cells: list[bench.Cell], reference: Any) -> None:
    assert bench.largest_difference(losses_of("torch_rival:eager", cells, TORCH), reference) <= bench.TOLERANCE


@pytest.mark.rehearsal
def test_the_losses_are_those_of_training(reference: Any) -> None:
    for own in reference.values():
        assert np.mean(own[-5:]) < 0.99 * np.mean(own[:5])  # 20 equal losses would prove nothing
    assert len({tuple(own) for own in reference.values()}) == 3


@pytest.mark.rehearsal
def test_a_changed_weight_fails_the_comparison(cells: list[bench.Cell], by_gapbench: Any) -> None:
    name = cells[2].name
    changed, own = {name: by_gapbench["changed"]}, {name: by_gapbench[name]}
    assert bench.largest_difference(changed, own) > bench.TOLERANCE


@pytest.mark.parametrize("losses", [{"a": [1.0, np.nan]}, {"b": [1.0, 2.0]}, {}])
def test_a_loss_that_is_missing_or_no_number_is_infinitely_different(losses: Any) -> None:
    assert bench.largest_difference(losses, {"a": [1.0, 2.0]}) == float("inf")


def test_the_largest_relative_difference_is_found() -> None:
    assert bench.largest_difference({"a": [1.0, 2.2], "b": [3.0, 4.0]}, {"a": [1.0, 2.0], "b": [3.0, 4.0]}) == (
        pytest.approx(0.1)
    )


def test_what_goes_wrong_in_a_rival_becomes_its_reason(cells: list[bench.Cell]) -> None:
    entrant = bench.Entrant("rival", "rival", "no_such_rival", 1, 1, STEPS)
    try:
        entrant.attempt(entrant.start, cells, cells[0].weights.parent, CORE, subprocess.DEVNULL)
        entrant.attempt(entrant.wait)
    finally:
        entrant.stop()
    assert (entrant.status, entrant.reason) == ("failed", "ModuleNotFoundError: No module named 'no_such_rival'")
    assert entrant.entry.status == "failed"
    assert entrant.attempt(entrant.train) is None  # and is left alone from then on


FAKE = """
import numpy as np
PACKAGES = ("numpy",)
def load(cells, way="right"):
    calls = []
    def train(steps, watch):
        assert watch == (steps == 20)
        calls.append(steps)
        if way == "dies" and len(calls) > 2:
            raise MemoryError("no room left")
        return np.full((len(cells), steps), 2.0004 if way == "wrong" else 2.0)
    return train
def measure_peak():
    return 1e9
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Entrants that train nothing: gapbench in two processes, after others in the given ways."""
    (tmp_path / "fake_rival.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ours = bench.Entrant("gapbench", "gapbench", "fake_rival", 2, 1, 5)
    return lambda *ways: [*(bench.Entrant("PyTorch", way, f"fake_rival:{way}", 1, 2, 5) for way in ways), ours]


def run_race(entrants: list[bench.Entrant], rounds: int = 3, **options: Any) -> Race:
    specs = [spec_of(head, seed) for head in ("flatten", "gap") for seed in (0, 1)]
    return bench.race(specs, entrants, CORE * 2, rounds, subprocess.DEVNULL, **options)


def test_a_race_keeps_every_sample_and_the_reason_of_an_entry_that_fails_midway(fakes: Any) -> None:
    race = run_race(fakes("right", "dies"))
    assert [(e.name, e.status, len(e.samples_s)) for e in race.entries] == [
        ("right", "ok", 3),
        ("dies", "failed", 0),  # its third call was the first sample
        ("gapbench", "ok", 3),
    ]
    assert race.entries[1].reason == "MemoryError: no room left"
    assert race.entries[0].loss_difference == 0.0
    assert race.entries[0].versions == {"numpy": np.__version__}
    assert race.peaks == ((1e9, 1e9),) * 3
    assert (race.heads, race.sizes_px, race.seeds) == (("flatten", "gap"), (8,), (0, 1))


def test_a_rival_that_computes_something_else_is_not_timed(fakes: Any) -> None:
    entrants = fakes("right", "wrong")
    entries = run_race(entrants).entries
    assert [(e.status, e.reason, len(e.samples_s)) for e in entries] == [
        ("ok", "", 3),
        ("failed", "computes something else: its losses differ by 0.0002", 0),
        ("ok", "", 3),
    ]
    assert all(worker.process.poll() is not None for entrant in entrants for worker in entrant.workers)


def test_a_tolerance_of_its_own_is_kept_with_the_entry(fakes: Any) -> None:
    entrants = fakes("wrong")
    entrants[0].tolerance, entrants[0].precision = 1e-3, "bfloat16"
    entry = run_race(entrants).entries[0]
    assert (entry.status, entry.tolerance, entry.precision) == ("ok", 1e-3, "bfloat16")
    assert entry.loss_difference == pytest.approx(2e-4)


def test_a_spent_budget_leaves_the_least_rounds(fakes: Any) -> None:
    assert [len(entry.samples_s) for entry in run_race(fakes("right"), 9, budget_s=0.0).entries] == [3, 3]


def test_on_an_accelerator_float32_is_exact_and_bfloat16_has_its_tolerance(tmp_path: Path) -> None:
    entrants = bench.make_accelerator_entrants(tmp_path / "python", 64, cores=16, device="cuda")
    assert [(e.way, e.steps, e.threads) for e in entrants] == [
        ("textbook_flax", 64, 16),
        ("torch_rival:eager:cuda:float32", 64, 16),
        ("torch_rival:compile:cuda:bfloat16", 64, 16),
        ("torch_rival:graphs:cuda:bfloat16", 64, 16),
        ("fleet_rival:float32", 64, 16),
        ("fleet_rival:bfloat16", 64, 16),
    ]
    for entrant in entrants:
        exact = entrant.precision == "float32"
        assert entrant.way.endswith("bfloat16") != exact
        assert entrant.tolerance == (None if exact else bench.BFLOAT16_TOLERANCE)
        if "torch" not in entrant.way:
            assert entrant.environment == ({"JAX_DEFAULT_MATMUL_PRECISION": "highest"} if exact else {})
    assert [e.status for e in entrants] == ["ok", *["not_installed"] * 3, "ok", "ok"]


@pytest.mark.rehearsal
def test_the_reference_has_the_flags_of_a_sweep_s_worker_and_measures_a_peak_as_either_number() -> None:
    code = (
        "import gapbench_rival, os; assert os.environ['XLA_FLAGS'] == gapbench_rival.xla_flags()\n"
        "import fleet_rival\n"
        "for way in (gapbench_rival, fleet_rival):\n"
        "    peak = way.measure_peak(); assert isinstance(peak, float) and peak > 1e8, peak"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "rivals", check=True)


def test_without_pytorch_its_entries_say_so(tmp_path: Path) -> None:
    entrants = bench.make_entrants(tmp_path / "nowhere", 64, cores=2)
    missing = [entrant for entrant in entrants if entrant.status == "not_installed"]
    assert [(e.name, e.processes, e.threads) for e in missing] == [
        (f"PyTorch {way}", *placed) for way in ("eager", "compile") for placed in ((1, 2), (2, 1))
    ]
    assert all("make bench-rivals" in entrant.entry.reason for entrant in missing)


def test_the_library_imports_no_rival() -> None:
    imports = re.compile(r"^\s*(?:import|from) (\w+)", re.MULTILINE)
    imported = {name for path in (ROOT / "gapbench").rglob("*.py") for name in imports.findall(path.read_text())}
    assert "jax" in imported
    assert not imported & {"torch", "rivals", *(path.stem for path in (ROOT / "rivals").glob("*.py"))}
