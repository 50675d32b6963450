"""The sweep, through the command: what is missing is trained, once, to the same bytes, and a failure is a record."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gapbench import cli
from gapbench.analysis.compare import comparable
from gapbench.experiment import Experiment
from gapbench.records import Fleet, Record, load_records, write_record
from gapbench.spec import UserError, validate
from gapbench.sweep import News, cell_states, find_experiment, lock_folder, missing_runs, run_sweep, select

sys.path.insert(0, str(Path(__file__).parent))
from kill_and_resume import check_equal, kill_until_done, records_of, write_experiment

BROKEN_HEAD = """
from flax import nnx
from gapbench.models import register_head
from gapbench.models.heads import Gap


@register_head("broken")
class Broken(Gap):
    def __call__(self, x, drop):
        raise RuntimeError("broken on purpose\\nwith a second line")
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One compilation cache for all sweeps of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("GAPBENCH_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, two seeds, eight steps."""
    return write_experiment(tmp_path_factory.mktemp("experiment") / "tiny.py", seeds=2, steps=8)


@pytest.fixture(scope="module")
def trained(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that experiment, run with two workers."""
    out = tmp_path_factory.mktemp("trained") / "out"
    assert cli.main(["run", str(file), "--out", str(out), "--workers", "2"]) == 0
    return out


def edited(file: Path, folder: Path, old: str, new: str, before: str = "") -> Path:
    text = file.read_text()
    assert old in text
    path = folder / "edited.py"
    path.write_text(before + text.replace(old, new))
    return path


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_a_sweep_leaves_one_good_record_a_cell_and_its_declaration(file: Path, trained: Path) -> None:
    _, experiment = find_experiment(str(file))
    records, broken = load_records(trained)
    assert broken == []
    assert {record.run_id for record in records} == {spec.run_id for spec in experiment.runs}
    assert [record.status for record in records] == ["ok"] * 4
    assert validate(Experiment, (trained / "experiment.json").read_text(), "") == experiment
    assert {path.name for path in (trained / "timing").iterdir()} == set(records_of(trained))
    assert len({record.final["test"].loss for record in records}) == 4  # heads and seeds differ
    flags = records[0].provenance["xla_flags"].split()
    assert "--xla_cpu_multi_thread_eigen=false" in flags


def test_a_second_run_trains_nothing(file: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(trained)
    assert cli.main(["run", str(file), "--out", str(trained), "--workers", "2"]) == 0
    assert "4 done, 0 to train" in capsys.readouterr().out
    after = files_of(trained)
    for name in before:
        assert after[name][0] == before[name][0]
        if name != "experiment.json":
            assert after[name][1] == before[name][1], f"{name} was written again"


def test_a_run_that_is_killed_and_resumed_leaves_the_same_bytes(file: Path, trained: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("leftover processes are found in /proc")
    out = tmp_path / "killed"
    kill_until_done(file, out, tmp_path / "log", kills=2, whole_s=4.0, rng=np.random.default_rng(1))
    assert check_equal(trained, out) == 4


def test_one_worker_trains_only_what_is_missing_to_the_same_bytes_as_two(
    file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, experiment = find_experiment(str(file))
    for record in load_records(trained)[0][:3]:
        write_record(tmp_path, record, {"train_s": -1.0})
    kept = files_of(tmp_path)
    last = load_records(trained)[0][3]
    half = tmp_path / "records" / f".{last.run_id}.json.1.part"
    half.write_text("half a fi")
    assert [spec.run_id for spec in missing_runs(experiment, tmp_path)] == [last.run_id]
    assert cli.main(["run", str(file), "--out", str(tmp_path), "--workers", "1"]) == 0
    assert "3 done, 1 to train" in capsys.readouterr().out
    assert not half.exists()
    assert records_of(tmp_path) == records_of(trained)
    assert {name: files_of(tmp_path)[name] for name in kept} == kept


def test_a_head_that_raises_is_a_record_with_its_reason_and_the_others_go_on(
    file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = edited(file, tmp_path, '("flatten", "gap")', '("broken", "flatten", "gap")', before=BROKEN_HEAD)
    out = tmp_path / "out"
    arguments = ["run", str(own), "--out", str(out), "--workers", "1", "--only", "seed == 0"]
    assert cli.main(arguments) == 1
    records = {record.spec.head: record for record in load_records(out)[0]}
    assert {head: record.status for head, record in records.items()} == {
        "broken": "failed",
        "flatten": "ok",
        "gap": "ok",
    }
    assert records["broken"].reason == "RuntimeError: broken on purpose"
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"{records['broken'].run_id} failed: RuntimeError: broken on purpose"
    assert err.splitlines()[1].startswith("1 failed: delete their records in ")
    for head in ("flatten", "gap"):
        name = f"{records[head].run_id}.json"
        assert records_of(out)[name] == records_of(trained)[name]


def test_a_fleet_leaves_the_records_of_the_step_by_step_driver_up_to_rounding(
    file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["run", str(file), "--out", str(out), "--driver", "fleet"]) == 0
    assert "4/4 " in capsys.readouterr().out
    ours, theirs = (load_records(folder)[0] for folder in (out, trained))
    assert [record.run_id for record in ours] == [record.run_id for record in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.pairing, a.parameters, a.curve.step) == (b.pairing, b.parameters, b.curve.step)
        np.testing.assert_allclose(a.curve.loss, b.curve.loss, rtol=1e-5)  # float32, summed in another order
        assert a.fleet == Fleet(replicas=2, width=2, devices=1, resumed=False)
        assert b.fleet is None
        assert not comparable(a, b)
    seconds = [json.loads((out / "timing" / f"{record.run_id}.json").read_text()) for record in ours]
    assert [times["replicas"] for times in seconds] == [2] * 4
    assert sorted(path.name for path in out.iterdir()) == ["experiment.json", "records", "timing"]
    before = files_of(out)
    assert cli.main(["run", str(file), "--out", str(out), "--driver", "fleet"]) == 0
    assert files_of(out) == before


def test_a_fleet_tells_where_it_is_while_it_trains(file: Path, tmp_path: Path) -> None:
    path, experiment = find_experiment(str(file))
    todo = missing_runs(experiment, tmp_path, 'head == "gap"')
    told = list(run_sweep(path, experiment, todo, tmp_path, 1, "fleet"))
    texts = [item.text for item in told if isinstance(item, News)]
    assert texts[0] == "gap 8 px: compiling for 2 runs"
    assert texts[1:] == [f"gap 8 px: step {step} of 8, 2 runs" for step in (0, 4, 4, 8, 8)]
    assert [item.share for item in told if isinstance(item, News)] == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert [item.run_id for item in told if isinstance(item, Record)] == [spec.run_id for spec in todo]


def test_a_head_that_raises_fails_its_own_fleet_alone(file: Path, tmp_path: Path) -> None:
    own = edited(file, tmp_path, '("flatten", "gap")', '("broken", "flatten", "gap")', before=BROKEN_HEAD)
    out = tmp_path / "out"
    arguments = ["run", str(own), "--out", str(out), "--driver", "fleet", "--only", "head != 'flatten'"]
    assert cli.main(arguments) == 1
    records = [(record.spec.head, record.status, record.reason) for record in load_records(out)[0]]
    assert records == [("broken", "failed", "RuntimeError: broken on purpose")] * 2 + [("gap", "ok", "")] * 2
    assert not (out / "checkpoints").exists()


def test_a_process_that_follows_in_a_cluster_writes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, experiment = find_experiment(str(file))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with lock_folder(tmp_path):  # which the first process holds
        assert list(run_sweep(path, experiment, list(experiment.runs), tmp_path, 1, "auto")) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('("flatten", "gap")', '("flatten", "gap", "gapp")', "unknown head 'gapp': did you mean 'gap'?"),
        ('("flatten", "gap")', '("flatten", "gap", "gap_conv:rely")', "gap_conv takes only :relu"),
        ("width=4", 'kind="plian", width=4', "unknown backbone 'plian': did you mean 'plain'?"),
        ("train_images=100", "train_images=1400", "digits has 1437 training images; lower one"),
        ("train_images=100", "train_images=9", "digits has 10 classes; use at least that"),
        ('"digits"', '"digist"', "did you mean digits?"),
        ('"digits"', '"folder:nowhere"', "folder:nowhere"),
        ("stages=1", "stages=4", "use px >= 16 or fewer stages"),
        ("steps=8", "stesp=8", "steps: Field required"),
        ("targets=(0.5,)", "targets=(50,)", "targets"),
        ("EXPERIMENT = ", "EXPERMENT = ", "declares no EXPERIMENT = Experiment(...)"),
    ],
)
def test_a_mistake_in_the_declaration_is_one_line_before_anything_is_trained(
    file: Path, tmp_path: Path, refused: Callable[[list[str]], str], old: str, new: str, message: str
) -> None:
    own, out = edited(file, tmp_path, old, new), tmp_path / "out"
    assert message in refused(["run", str(own), "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize(("text", "message"), [("EXPERIMENT = (\n", "edited.py"), ("import nowhere\n", "nowhere")])
def test_a_file_that_python_cannot_run_is_one_line(
    tmp_path: Path, refused: Callable[[list[str]], str], text: str, message: str
) -> None:
    path = tmp_path / "edited.py"
    path.write_text(text)
    assert message in refused(["status", str(path)])


def test_a_second_run_in_a_folder_is_refused_while_the_first_holds_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock_folder(tmp_path):
        assert cli.main(["run", str(file), "--out", str(tmp_path), "--workers", "1"]) == 2
        assert f"another gapbench run is writing to {tmp_path}" in capsys.readouterr().err
        assert files_of(tmp_path) == {}
    with lock_folder(tmp_path):  # and it is free again
        pass


def test_a_folder_that_cannot_be_made_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert cli.main(["run", str(file), "--out", str(tmp_path / "taken"), "--workers", "1"]) == 2
    err = capsys.readouterr().err
    assert f"cannot write to {tmp_path / 'taken'}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("flag", ["seeds", "workers"])
def test_a_number_below_one_is_refused(file: Path, refused: Callable[[list[str]], str], flag: str) -> None:
    assert refused(["run", str(file), f"--{flag}", "0"]) == f"gapbench: --{flag} 0: must be at least 1\n"


def test_states_are_those_of_the_declared_runs_alone(file: Path, trained: Path, tmp_path: Path) -> None:
    _, experiment = find_experiment(str(file))
    more = experiment.with_seeds(range(3))
    states, broken = cell_states(more, trained)
    assert broken == []
    assert [states[spec.run_id] for spec in more.runs] == ["ok", "ok", "missing"] * 2
    fewer = experiment.with_seeds([1])
    assert set(cell_states(fewer, trained)[0]) == {spec.run_id for spec in fewer.runs}
    assert set(cell_states(experiment, tmp_path / "nowhere")[0].values()) == {"missing"}


def test_missing_runs_come_in_pairs_with_the_largest_images_first(file: Path, trained: Path, tmp_path: Path) -> None:
    own = edited(file, tmp_path, "task=Task(", "task=[Task(dataset='digits', px=12, train_images=100), Task(")
    own.write_text(own.read_text().replace("val_images=50)", "val_images=50)]"))
    _, experiment = find_experiment(str(own))
    todo = missing_runs(experiment, tmp_path / "nowhere")
    assert [(spec.task.px, spec.seed, spec.head) for spec in todo] == [
        (px, seed, head) for px in (12, 8) for seed in (0, 1) for head in ("flatten", "gap")
    ]
    assert [spec.task.px for spec in missing_runs(experiment, trained)] == [12] * 4  # those of 8 px are there
    assert len(missing_runs(experiment, trained, "px == 12 and seed == 1")) == 2


def test_a_broken_record_stops_the_run_before_it_starts(file: Path, trained: Path, tmp_path: Path) -> None:
    _, experiment = find_experiment(str(file))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON .* delete it"):
        missing_runs(experiment, tmp_path)


def test_a_selection_keeps_the_runs_for_which_it_holds(file: Path) -> None:
    runs = find_experiment(str(file))[1].runs
    assert select(runs, None) == list(runs)
    kept = select(runs, 'head == "gap" and seed == 1')
    assert [(spec.head, spec.seed) for spec in kept] == [("gap", 1)]
    assert select(runs, "peak_lr < 0.01") == list(runs)


@pytest.mark.parametrize("only", ["sede == 1", "head ==", "px", "seed + 1", "head > 3", "1 / 0"])
def test_a_selection_that_is_none_is_refused_with_the_fields_that_vary(file: Path, only: str) -> None:
    runs = find_experiment(str(file))[1].runs
    with pytest.raises(UserError, match=r"--only '.*': .*the fields that vary are head, seed") as raised:
        select(runs, only)
    assert "\n" not in str(raised.value)


def test_a_selection_that_holds_for_no_run_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"^--only 'seed == 7': no run matches$"):
        select(find_experiment(str(file))[1].runs, "seed == 7")


def test_an_experiment_is_found_by_name_from_anywhere_and_by_path(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(file.read_text())
    monkeypatch.chdir(tmp_path)
    assert find_experiment("size_sweep")[0].name == "size_sweep.py"
    assert find_experiment("mine") == (Path("experiments/mine.py"), find_experiment(str(file))[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("size_swep", "unknown experiment 'size_swep': did you mean 'size_sweep'?"),
        ("qqq", "or a path to a .py file"),
        ("nowhere.py", "unknown experiment 'nowhere.py'"),
    ],
)
def test_an_unknown_experiment_is_refused_with_the_nearest_name(name: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        find_experiment(name)
    assert message in str(raised.value)
