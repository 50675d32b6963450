"""Replicas of one program are the runs they would have been alone, together, split, sharded, or killed and resumed."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapbench import cluster, fleet, replicas
from gapbench.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from gapbench.cluster import initialize_cluster
from gapbench.data import Dataset, batches, load, split
from gapbench.fleet import Clock, Setting, Voice, find_checkpoint, judge, take_runs, train_fleet
from gapbench.models.heads import Gap
from gapbench.models.registry import ARGUMENTS, HEADS, nothing
from gapbench.records import Fleet
from gapbench.replicas import Part, Program, Sums, compile_fitting, enlist, make_mesh, make_resident, widths
from gapbench.spec import Backbone, RunSpec
from gapbench.train import Trained, empty_curve, train_run

sys.path.insert(0, str(Path(__file__).parent))
from fleet_apart import STEPS, specs_of

Crew = list[tuple[RunSpec, Trained, Fleet]]
SCRIPT = Path(__file__).with_name("fleet_apart.py")
# Convolutions grouped over replicas sum in another order: 1e-7 a term, which AdamW's first steps amplify where a
# gradient is near zero. 6e-7 was measured after 12 steps; a summed gradient or another key moves weights by 1e-2.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Standard promotion (optax mixes integers and floats), and a folder for data and compiled programs."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setenv("GAPBENCH_CACHE", str(folder))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))  # for the processes started here
        jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
        yield
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", 8)


@pytest.fixture(scope="module")
def alone(digits: Dataset) -> list[Trained]:
    return [train_run(spec, digits) for spec in specs_of()]


@pytest.fixture(scope="module")
def together(digits: Dataset) -> Crew:
    (crew,) = train_fleet(specs_of(), digits)
    return crew


def check_alike(crew: Crew, alone: list[Trained]) -> None:
    """The same hashes, and the same numbers up to rounding."""
    assert len(crew) == len(alone)
    for (_, run, _), one in zip(crew, alone, strict=True):
        assert (run.pairing, run.parameters, run.reason) == (one.pairing, one.parameters, one.reason)
        assert (run.curve["step"], run.curve["split"]) == (one.curve["step"], one.curve["split"])
        np.testing.assert_allclose(run.curve["loss"], one.curve["loss"], **ROUNDING)
        np.testing.assert_allclose(run.curve["accuracy"], one.curve["accuracy"], atol=1 / 20)  # one image of the fewest
        for part in ("step", "backbone", "head"):
            np.testing.assert_allclose(run.gradients[part], one.gradients[part], **ROUNDING)
        assert run.final.keys() == one.final.keys()
        for name, score in one.final.items():
            np.testing.assert_allclose(run.final[name].loss, score.loss, **ROUNDING)
        for ours, theirs in zip(*map(jax.tree.leaves, (run.state, one.state)), strict=True):
            np.testing.assert_allclose(ours, theirs, **ROUNDING)


def check_same(crew: Crew, other: Crew) -> None:
    """The same bits."""
    for (_, a, _), (_, b, _) in zip(crew, other, strict=True):
        assert (a.reason, a.curve, a.final, a.pairing) == (b.reason, b.curve, b.final, b.pairing)
        for ours, theirs in zip(*map(jax.tree.leaves, (a.state, b.state)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_replicas_are_the_runs_they_would_have_been_alone(together: Crew, alone: list[Trained]) -> None:
    check_alike(together, alone)
    assert together[0][2] == Fleet(replicas=6, width=6, devices=len(jax.devices()), resumed=False)
    assert together[0][1].timing["replicas"] == 6
    losses = {run.final["test"].loss for _, run, _ in together}
    assert len(losses) == 6  # seeds and hyperparameters differ


def test_replicas_with_augmentation_and_decays_of_their_own_are_the_runs_they_would_have_been_alone(
    digits: Dataset,
) -> None:
    plain = specs_of(seeds=[0, 1], hypers=[(0.01, 0.3, 0.1)], augment="shift", head_lr=0.5)
    decayed = specs_of(seeds=[0], hypers=[(0.01, 0.3, 0.1)], augment="shift", head_lr=0.5, head_weight_decay=0.9)
    (crew,) = train_fleet([*plain, *decayed], digits)
    check_alike(crew, [train_run(spec, digits) for spec in (*plain, *decayed)])
    assert len({run.final["test"].loss for _, run, _ in crew}) == 3


def test_replicas_of_network_in_network_with_dropout_inside_are_the_runs_they_would_have_been_alone(
    digits: Dataset,
) -> None:
    backbone = Backbone(kind="nin", width=6, dropout=0.5)
    specs = [spec.model_copy(update={"backbone": backbone}) for spec in specs_of(seeds=[0], head="flatten_conv:relu")]
    (crew,) = train_fleet(specs, digits)
    check_alike(crew, [train_run(spec, digits) for spec in specs])


# Heads with parameters of other shapes than a dense layer's, and products with a constant.
@pytest.mark.parametrize("head", ["gem", "ladder:3", "flatten_lowrank"])
def test_replicas_of_other_heads_are_the_runs_they_would_have_been_alone(head: str, digits: Dataset) -> None:
    specs = specs_of(seeds=[3], head=head)
    (crew,) = train_fleet(specs, digits)
    check_alike(crew, [train_run(spec, digits) for spec in specs])


def test_one_key_for_all_replicas_is_noticed(
    digits: Dataset, alone: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = enlist(specs_of()[0], digits).inputs.constants.keys

    def sabotaged(spec: RunSpec, dataset: Dataset) -> Any:
        one = enlist(spec, dataset)
        constants = one.inputs.constants._replace(keys=shared)
        return one._replace(inputs=one.inputs._replace(constants=constants))

    monkeypatch.setattr(fleet, "enlist", sabotaged)
    (crew,) = train_fleet(specs_of(), digits)
    check_alike(crew[:2], alone[:2])  # those of the seed whose key it is
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_alike(crew, alone)


def test_one_program_is_compiled_for_segments_of_every_length(
    digits: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        list(train_fleet(specs_of(seeds=[7], hypers=[(0.01, 0.3, 0.0)]), digits))  # segments of 0, 5, 5 and 2 steps
    assert len([m for m in caplog.messages if "Finished XLA compilation of jit(advance)" in m]) == 1


def test_a_fleet_that_does_not_fit_is_split_and_the_split_is_recorded(digits: Dataset, together: Crew) -> None:
    crews = list(train_fleet(specs_of(), digits, width=4))
    assert [len(crew) for crew in crews] == [4, 2]  # the second is filled up with copies of its last run
    assert [spec for crew in crews for spec, _, _ in crew] == specs_of()
    assert crews[1][0][2] == Fleet(replicas=6, width=4, devices=len(jax.devices()), resumed=False)
    assert crews[1][0][1].timing["replicas"] == 2
    check_alike([run for crew in crews for run in crew], [run for _, run, _ in together])


def test_the_width_is_the_largest_whose_program_fits(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(widths(10, 1)) == [10, 5, 4, 3, 2, 1]
    assert list(widths(10, 4)) == [12, 8, 4]
    tried = []

    def compiled(spec: Any, dataset: Any, resident: Any, mesh: Any, width: int) -> Program:
        tried.append(width)
        if width > 8:
            raise RuntimeError("RESOURCE_EXHAUSTED: the compiler says so itself")
        return Program(lambda: None, width, 100 + 10 * width, 0.0)

    monkeypatch.setattr(replicas, "compile_width", compiled)
    spec, mesh = specs_of()[0], make_mesh(jax.devices()[:1])
    resident = make_resident(digits, mesh)

    def fitting(free: int | None) -> tuple[int, list[int]]:
        tried.clear()
        return compile_fitting(spec, digits, resident, mesh, 10, free).width, list(tried)

    assert fitting(None) == (5, [10, 5])
    assert fitting(150) == (5, [10, 5])
    assert fitting(149) == (4, [10, 5, 4])
    assert fitting(110) == (1, [10, 5, 3, 2, 1])  # 5 * 110 / 150 = 3.7, 3 * 110 / 130 = 2.5, 2 * 110 / 120 = 1.8
    assert fitting(0) == (1, [10, 5, 1])  # nothing fits: the narrowest is tried


def test_a_wider_program_takes_more_memory_by_the_compiler_s_account(digits: Dataset) -> None:
    mesh = make_mesh(jax.devices()[:1])
    resident, spec = make_resident(digits, mesh), specs_of()[0]
    narrow, wide = (replicas.compile_width(spec, digits, resident, mesh, width) for width in (1, 6))
    one = enlist(spec, digits)
    each = sum(leaf.nbytes for leaf in jax.tree.leaves((one.state, one.inputs)))
    data = sum(part.nbytes for part in resident)
    assert narrow.bytes > data + each
    assert wide.bytes > narrow.bytes + 5 * each


def test_a_crew_that_runs_out_of_memory_is_halved_and_nothing_is_lost(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(spec: Any, dataset: Any, resident: Any, mesh: Any, limit: int, free: Any) -> Program:
        return Program(lambda: None, limit, 0, 0.0)

    def trained(program: Program, crew: list[RunSpec], *rest: Any) -> tuple[list[str], bool]:
        if program.width > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory while trying to allocate")
        return [spec.run_id for spec in crew], False

    notes: list[str] = []
    monkeypatch.setattr(fleet, "compile_fitting", compiled)
    monkeypatch.setattr(fleet, "train_crew", trained)
    one = jax.devices()[:1]
    crews = list(train_fleet(specs_of(), digits, devices=one, voice=Voice(note=notes.append)))
    assert [[run for _, run, _ in crew] for crew in crews] == [[s.run_id] for s in specs_of()]  # 6 -> 3 -> 1
    assert notes == [f"out of memory: gap at 8 px goes on {n} runs at a time" for n in (3, 1)]


def test_specs_of_two_programs_are_no_fleet(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="a fleet is one program"):
        next(train_fleet([*specs_of(), *specs_of(batch=4)], digits))


def test_the_device_gathers_the_batches_that_the_host_would_send(digits: Dataset) -> None:
    spec = specs_of(seeds=[1])[0]
    order = enlist(spec, digits).inputs.order
    resident = make_resident(digits, make_mesh(jax.devices()[:1]))
    images, labels = jax.jit(lambda data, order: (data.images[order], data.labels[order]))(resident, order)
    host = split(digits, spec.task, spec.seed).train
    index = batches(32, 8, STEPS, spec.seed)
    np.testing.assert_array_equal(images, host.images[index])
    np.testing.assert_array_equal(labels, host.labels[index])


def test_every_image_of_a_split_is_evaluated_once(digits: Dataset) -> None:
    spec = specs_of(seeds=[1])[0]
    one, splits = enlist(spec, digits), split(digits, spec.task, spec.seed)
    images = np.concatenate([digits.train_images, digits.test_images])
    assert [part.name for part in one.curve] == [part.name for part in one.whole] == ["train", "val", "test"]
    for parts, named in ((one.curve, splits.curve), (one.whole, splits.whole)):
        for part in parts:
            counted = np.asarray(one.inputs.chunks[part.rows])[np.asarray(one.inputs.counts[part.rows])]
            assert part.images == len(counted) == len(named[part.name].labels)
            np.testing.assert_array_equal(images[counted], named[part.name].images)
    rows = [part.rows for part in (*one.curve, *one.whole)]
    assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])]
    assert rows[-1].stop == len(one.inputs.chunks)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a process with four devices saves."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    out = tmp_path_factory.mktemp("sharded") / "sharded.npz"
    done = subprocess.run(
        [sys.executable, SCRIPT, "shard", out], env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(out)


@pytest.mark.parametrize("head", ["gap", "gap_conv"])
def test_four_devices_train_the_same_runs_and_exchange_nothing_but_the_results(
    head: str, sharded: Any, digits: Dataset, together: Crew, alone: list[Trained]
) -> None:
    if head == "gap_conv":
        (together,) = train_fleet(specs_of(head=head), digits)
        alone = [train_run(spec, digits) for spec in specs_of(head=head)]
    assert (int(sharded[f"{head}-width"]), int(sharded[f"{head}-devices"])) == (8, 4)  # six, and two copies
    # lost, losses, correct and norms, gathered for the host; a gathered activation would be trained on every device
    assert sharded[f"{head}-collectives"].tolist() == ["all-gather"] * 4
    for i, ((_, run, _), one) in enumerate(zip(together, alone, strict=True)):
        np.testing.assert_allclose(sharded[f"{head}-{i}-loss"], one.curve["loss"], **ROUNDING)
        for j, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(run.state)):
            np.testing.assert_allclose(sharded[f"{head}-{i}-{j}"], leaf, **ROUNDING, err_msg=jax.tree_util.keystr(path))


def test_biases_that_start_at_zero_get_the_gradient_of_their_own_replica_alone(
    together: Crew, alone: list[Trained], digits: Dataset
) -> None:
    for (spec, run, _), one in zip(together, alone, strict=True):
        start = enlist(spec, digits).state.params
        biases = [
            path for path, _ in jax.tree_util.tree_leaves_with_path(start) if "bias" in jax.tree_util.keystr(path)
        ]
        assert len(biases) == 3
        ours, theirs, zero = (
            dict(jax.tree_util.tree_leaves_with_path(p)) for p in (run.state.params, one.state.params, start)
        )
        for path in biases:
            assert not np.any(zero[path])
            assert np.abs(theirs[path]).max() > 1e-2
            np.testing.assert_allclose(ours[path], theirs[path], **ROUNDING)


def test_a_replica_that_diverges_is_reported_as_alone_and_disturbs_no_other(digits: Dataset) -> None:
    specs = specs_of(hypers=[(0.01, 0.0, 0.0), (1e30, 0.0, 0.0)], seeds=[0, 1], optimizer="sgd")
    (crew,) = train_fleet(specs, digits)
    reasons = [run.reason for _, run, _ in crew]
    assert reasons == ["", "the training loss or its gradient is not finite at step 2"] * 2
    calm = [(spec, run._replace(state=()), f) for spec, run, f in crew]  # the weights of the diverged are nan
    check_alike(calm, [train_run(spec, digits)._replace(state=()) for spec in specs])
    assert crew[1][1].final == {}
    assert crew[1][1].curve["step"] == [0, 0, 0]


def test_a_gradient_of_nan_ends_a_run_whose_loss_stays_finite(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spread(Gap):  # the standard deviation of one position is 0, and its gradient nan
        def __call__(self, x: Any, drop: Any) -> Any:
            return self.dense(drop(jnp.nan_to_num(jnp.std(x[:, :1, :1], axis=(1, 2)))))

    monkeypatch.setitem(HEADS, "spread", Spread)
    monkeypatch.setitem(ARGUMENTS, "spread", nothing)
    spec, _ = specs_of(head="spread", seeds=[0])
    (crew,) = train_fleet([spec], digits)
    for trained in (train_run(spec, digits), crew[0][1]):
        assert trained.reason == "the training loss or its gradient is not finite at step 1"
        assert trained.final == {}


def test_an_evaluation_is_read_by_replica_and_a_loss_that_is_not_finite_ends_a_run_there() -> None:
    curve, whole = [Part("val", 4, slice(0, 2))], [Part("test", 2, slice(2, 3))]
    losses = np.array([[1.0, 3.0, 1.0], [np.inf, 0.0, 0.0], [1.0, 0.0, np.nan], [1.0, 1.0, 1.0], [9.0, 9.0, 9.0]])
    correct = np.array([[1, 2, 1]] * 5)
    sums = Sums(np.array([0, 0, 0, 3, 0]), losses.astype(np.float32), correct, np.zeros((5, 2)))
    clock = Clock(
        "", list("abcde"), [empty_curve() for _ in range(5)], [{}] * 5, [{}] * 5, ["", "", "", "", "earlier"], step=5
    )
    judge(clock, sums, curve, whole)
    assert clock.reasons == [
        "",
        "an evaluated loss is not finite at step 5",
        "an evaluated loss is not finite at step 5",  # in the whole split: the curve keeps its part
        "the training loss or its gradient is not finite at step 3",
        "earlier",
    ]
    row = {"step": [5], "split": ["val"], "loss": [1.0], "accuracy": [0.75]}  # (1 + 3) / 4 and (1 + 2) / 4
    assert clock.curves[0] == row
    assert [c["step"] for c in clock.curves] == [[5], [], [5], [], []]
    assert clock.finals == [{"test": [0.5, 0.5]}, {}, {}, {}, {}]


def test_a_killed_fleet_goes_on_from_its_checkpoint_to_the_same_bits(
    digits: Dataset, together: Crew, tmp_path: Path
) -> None:
    if len(jax.devices()) > 1:
        pytest.skip("the killed process has one device")
    killed = subprocess.run([sys.executable, SCRIPT, "kill", tmp_path / "all"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = (tmp_path / "all").iterdir()
    saved = load_checkpoint(folder)
    assert saved is not None
    assert (saved.clock["step"], saved.clock["points"]) == (5, 2)
    notes, ticks = [], []
    voice = Voice(notes.append, lambda *tick: ticks.append(tick))
    fleets = train_fleet(specs_of(), digits, checkpoints=tmp_path / "all", voice=voice)
    crew = next(fleets)
    check_same(crew, together)
    assert [f.resumed for _, _, f in crew] == [True] * 6
    assert notes == ["going on from step 5 of 6 runs of gap"]
    assert ticks == [(10, STEPS, 6), (10, STEPS, 6), (12, STEPS, 6), (12, STEPS, 6)]
    assert folder.is_dir()  # while the caller may not have written the records yet
    assert list(fleets) == []
    assert not (tmp_path / "all").exists()


def checkpoint_of(specs: list[RunSpec], identity: str = "mine") -> Checkpoint:
    """A made-up one: replica r has weights r and step 3."""
    n = len(specs)
    clock = Clock(
        identity, [spec.run_id for spec in specs], [empty_curve() for _ in specs], [{}] * n, [{}] * n, [""] * n, 3
    )
    leaves = [np.arange(n, dtype=np.float32)[:, None] + np.zeros((n, 2000), np.float32) for _ in range(12)]
    return Checkpoint(leaves, vars(clock))


def setting_of(folder: Path, digits: Dataset, notes: list[str]) -> Setting:
    mesh = make_mesh(jax.devices()[:1])
    return Setting(digits, make_resident(digits, mesh), mesh, "mine", folder, 0.0, Voice(note=notes.append))


def test_a_checkpoint_comes_back_bit_for_bit_and_replaces_the_one_before(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    specs = specs_of()
    saved = checkpoint_of(specs)
    saved.clock["curves"][0]["loss"] = [0.1 + 0.2, 1e-300]
    save_checkpoint(tmp_path / "c", 1, checkpoint_of(specs[:2]))
    save_checkpoint(tmp_path / "c", 4, saved)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded is not None
    assert loaded.clock == json.loads(json.dumps(saved.clock)) == saved.clock
    for ours, theirs in zip(loaded.leaves, saved.leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert [path.name for path in (tmp_path / "c").iterdir() if path.name.isdigit()] == ["4"]


@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "edit", "another's"])
def test_a_broken_checkpoint_is_named_and_never_gone_on_from(harm: str, digits: Dataset, tmp_path: Path) -> None:
    folder, notes = tmp_path / "c", []
    save_checkpoint(folder, 4, checkpoint_of(specs_of()))
    data = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = data.read_bytes()
    if harm == "flip":
        middle = len(content) // 2
        data.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif harm == "cut":
        data.write_bytes(content[: len(content) // 2])
    elif harm == "delete":
        data.unlink()
    elif harm == "edit":  # readable, and wrong
        rest = folder / "4" / "rest" / "metadata"
        text = rest.read_text()
        assert text.count('"step": 3') == 1
        rest.write_text(text.replace('"step": 3', '"step": 4'))
    else:
        (folder / "4" / "rest" / "metadata").write_text('{"epoch": 3}')
    assert find_checkpoint(setting_of(folder, digits, notes), specs_of()) is None
    assert len(notes) == 1
    assert notes[0].startswith(f"starting anew: the checkpoint in {folder} ")
    assert "cannot be read" in notes[0] or "is not what was saved" in notes[0]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("identity", "seeds", "why"),
    [
        ("theirs", (0, 1), "was left by other code, versions, devices or data"),
        ("mine", (5,), "holds none of these runs"),
    ],
)
def test_a_foreign_checkpoint_is_not_gone_on_from(
    identity: str, seeds: tuple[int, ...], why: str, digits: Dataset, tmp_path: Path
) -> None:
    folder, notes = tmp_path / "c", []
    save_checkpoint(folder, 4, checkpoint_of(specs_of(), identity))
    assert find_checkpoint(setting_of(folder, digits, notes), specs_of(seeds=seeds)) is None
    assert notes == [f"starting anew: the checkpoint in {folder} {why}"]
    notes.clear()
    assert find_checkpoint(setting_of(folder, digits, notes), specs_of()) is None
    assert notes == []  # it is gone


def test_runs_whose_records_were_written_before_the_crash_are_left_out(digits: Dataset, tmp_path: Path) -> None:
    specs = specs_of()
    saved = checkpoint_of(specs)
    saved.clock["reasons"] = list("abcdef")
    clock, leaves = take_runs(saved, [specs[4].run_id, specs[1].run_id])
    assert (clock.runs, clock.reasons, clock.step) == ([specs[4].run_id, specs[1].run_id], ["e", "b"], 3)
    np.testing.assert_array_equal(leaves[0][:, 0], [4.0, 1.0])


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """No launcher's variables, and an `initialize` that counts its calls and finds no cluster."""
    calls: list[str] = []

    def initialize() -> None:
        calls.append("initialize")
        if not any(count in os.environ for count in cluster.LAUNCHERS):
            raise ValueError("coordinator_address should be defined.")

    for pair in cluster.LAUNCHERS.items():
        for name in pair:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    initialize_cluster.cache_clear()
    yield calls
    initialize_cluster.cache_clear()


def test_without_a_cluster_there_is_one_process(launcher: list[str]) -> None:
    assert initialize_cluster() is False
    assert initialize_cluster() is False
    assert launcher == ["initialize"]  # once a process
    assert cluster.launched_as() is None
    assert not cluster.is_follower()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, (2, 4)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, (0, 2)),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "1"}, (1, 3)),
    ],
)
def test_a_launcher_s_cluster_is_joined_and_its_first_process_leads(
    variables: dict[str, str], place: tuple[int, int], launcher: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cluster.launched_as() == place
    assert cluster.is_follower() == (place[0] > 0)
    assert initialize_cluster() is True
    assert launcher == ["initialize"]


def test_a_process_launched_alone_keeps_every_device(launcher: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert initialize_cluster() is False
    assert launcher == []


def test_a_cluster_that_cannot_be_joined_is_an_error(launcher: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(jax.distributed, "initialize", broken)
    with pytest.raises(ValueError, match="coordinator_address"):
        initialize_cluster()
