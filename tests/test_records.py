"""Records: whole or absent, never replaced, and refused by name when anything about them is wrong."""

import errno
import getpass
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from gapbench import cli
from gapbench.experiment import Experiment, grid
from gapbench.records import (
    Record,
    load_folder,
    load_record,
    load_records,
    provenance,
    remove_parts,
    write_record,
    write_text,
)
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError

RUNS = grid(
    task=Task(dataset="digits", px=8, train_images=100),
    backbone=Backbone(width=4, stages=1),
    head=("flatten", "gap"),
    recipe=Recipe(peak_lr=3e-3, batch=8, steps=2, eval_every=1),
    seed=(0, 1),
)
EXPERIMENT = Experiment(question="q", runs=RUNS, family=("C2",), targets=(0.5,), train_losses=(0.3,))
SPLITS = ("train", "val", "test")


def raw(spec: RunSpec = RUNS[0], **changes: Any) -> dict[str, Any]:
    """A complete record as JSON gives it; a field set to None is left out."""
    fields = {
        "schema": 2,
        "run_id": spec.run_id,
        "pair_id": spec.pair_id,
        "spec": spec.model_dump(),
        "status": "ok",
        "curve": {
            "step": [step for step in (0, 1, 2) for _ in SPLITS],
            "split": [*SPLITS] * 3,
            "loss": [2.3, 2.4, 1 / 3, 0.1 + 0.2, 1e-12, 5.0, 0.7, 0.8, 0.9],
            "accuracy": [0.1, 0.0, 1 / 7, 0.5, 0.5, 0.5, 1.0, 0.9, 0.8],
        },
        "final": {name: {"loss": 0.7, "accuracy": 1 / 3} for name in SPLITS},
        "pairing": {"data": "a", "subset": "b", "backbone": "c", "order": "d"},
        "parameters": {"backbone": 188, "head": 650},
        "image_channels": 1,
        "classes": 10,
        "provenance": {"gapbench": "0.1.0", "packages": {"jax": "0.12.0"}, "commit": None},
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def record(spec: RunSpec = RUNS[0], **changes: Any) -> Record:
    return Record.model_validate(raw(spec, **changes))


def failed(spec: RunSpec) -> Record:
    return record(spec, status="failed", reason="RuntimeError: on purpose", curve=None, final=None, pairing=None)


def path_of(folder: Path, spec: RunSpec = RUNS[0]) -> Path:
    return folder / "records" / f"{spec.run_id}.json"


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_record_is_written_and_read_back_equal_to_the_last_bit(tmp_path: Path) -> None:
    for written in (record(), failed(RUNS[1])):
        write_record(tmp_path, written, {"train_s": 0.1 + 0.2})
        assert load_record(path_of(tmp_path, written.spec)) == written
    assert json.loads((tmp_path / "timing" / f"{RUNS[0].run_id}.json").read_text()) == {"train_s": 0.1 + 0.2}
    assert "train_s" not in path_of(tmp_path).read_text()  # times differ between two equal runs
    assert load_records(tmp_path) == ([record(), failed(RUNS[1])], [])


def test_a_record_is_one_line_a_field(tmp_path: Path) -> None:
    write_record(tmp_path, record(), {})
    lines = path_of(tmp_path).read_text().splitlines()
    assert lines[0] == "{"
    assert [line.split('"')[1] for line in lines[1:-1]] == list(record().model_dump(by_alias=True))


def test_a_record_that_exists_is_never_replaced(tmp_path: Path) -> None:
    write_record(tmp_path, failed(RUNS[0]), {"train_s": 1.0})
    before = {name: (tmp_path / name).read_bytes() for name in everything(tmp_path)}
    write_record(tmp_path, record(), {"train_s": 2.0})
    assert {name: (tmp_path / name).read_bytes() for name in everything(tmp_path)} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n"schema": 2,\n"run_id": "dig', "not readable as JSON"),
        ("", "not readable as JSON"),
        ("\x00\x00", "not readable as JSON"),
        ("[1, 2]", "not readable as JSON|schema None"),
        (json.dumps(raw(schema=1)), "schema 1, this gapbench reads 2"),
        (json.dumps({name: value for name, value in raw().items() if name != "schema"}), "schema None"),
    ],
)
def test_a_file_that_is_no_record_is_named_with_the_mend(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        load_record(path)
    assert str(raised.value).startswith(str(path))
    assert "delete it and run" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_named_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"not readable as JSON .* delete it and run"):
        load_record(path)


def longer(curve: dict[str, list[Any]], column: str) -> dict[str, list[Any]]:
    return {name: [*values, values[-1]] if name == column else values for name, values in curve.items()}


def changed(curve: dict[str, list[Any]], column: str, value: Any) -> dict[str, list[Any]]:
    return curve | {column: [value, *curve[column][1:]]}


CURVE, FINAL = raw()["curve"], raw()["final"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 3}, "sead: Extra inputs are not permitted"),
        ({"provenance": None}, "provenance: Field required"),
        ({"status": "fine"}, "status: Input should be"),
        ({"run_id": RUNS[1].run_id}, "does not belong to the spec"),
        ({"final": None}, "final: must have every split when the status is ok"),
        ({"final": {"test": FINAL["test"]}}, "final: must have every split when the status is ok"),
        ({"status": "failed"}, "final: must have every split when the status is ok, and none otherwise"),
        ({"curve": longer(CURVE, "step")}, "curve: the columns step, split, loss and accuracy differ in length"),
        ({"curve": longer(CURVE, "accuracy")}, "curve: the columns step, split, loss and accuracy differ in length"),
        ({"curve": {name: values[:6] for name, values in CURVE.items()}}, "curve: ends before the last step"),
        ({"curve": changed(CURVE, "loss", float("nan"))}, "curve.loss.0: Input should be a finite number"),
        ({"curve": changed(CURVE, "loss", float("inf"))}, "curve.loss.0: Input should be a finite number"),
        ({"curve": changed(CURVE, "accuracy", 10.0)}, "curve.accuracy.0: Input should be less than or equal to 1"),
        ({"curve": changed(CURVE, "split", "probe")}, "curve.split.0: Input should be 'train', 'val' or 'test'"),
        ({"final": FINAL | {"test": {"loss": 0.1, "accuracy": float("nan")}}}, "final.test.accuracy: "),
        ({"final": FINAL | {"test": {"loss": float("nan"), "accuracy": 0.5}}}, "final.test.loss: "),
    ],
)
def test_a_record_with_a_wrong_field_is_refused_by_file_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = path_of(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps(raw(**changes)))
    with pytest.raises(UserError, match=message) as raised:
        load_record(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert load_records(tmp_path) == ([], [str(raised.value)])


def test_a_spec_that_was_edited_no_longer_has_its_run_id(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    write_record(tmp_path, record(), {})
    path.write_text(path.read_text().replace('"peak_lr": 0.003', '"peak_lr": 0.004'))
    with pytest.raises(UserError, match="does not belong to the spec"):
        load_record(path)


def test_provenance_is_no_part_of_the_result() -> None:
    assert record().result == record(provenance={"device": "another"}).result
    assert record().result != record(final=FINAL | {"test": {"loss": 0.7000000000000001, "accuracy": 1 / 3}}).result


def full_disk(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(UserError, match="No space left on device; free space or permission there") as raised:
        write_text(tmp_path / "records" / "a.json", "content")
    assert str(tmp_path / "records" / "a.json") in str(raised.value)
    assert everything(tmp_path) == []


def test_a_disk_that_fills_while_writing_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["a.json"]


def test_a_target_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*/file/.*; free space or permission"):
        write_record(tmp_path / "file", record(), {})
    assert everything(tmp_path) == ["file"]


def test_a_file_is_flushed_to_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "a.json", "content")
    assert calls == ["fsync", "replace"]
    assert (tmp_path / "a.json").read_text() == "content"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".experiment.json.12.part", "records/.a.json.12.part", "timing/.a.json.12.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half a fi")
    for name in ("experiment.json", "records/a.json", "records/party.part"):
        (tmp_path / name).write_text("whole")
    remove_parts(tmp_path)
    assert everything(tmp_path) == ["experiment.json", "records/a.json", "records/party.part"]


def test_provenance_says_what_ran_and_neither_where_nor_who() -> None:
    found = provenance()
    text = json.dumps(found).lower()
    for name in (platform.node(), getpass.getuser()):
        if len(name) > 3:  # a shorter one may be part of a word
            assert name.lower() not in text
    assert str(Path.home()).lower() not in text
    assert found["python"] == platform.python_version()
    assert set(found["packages"]) == {"jax", "jaxlib", "flax", "optax", "numpy"}
    assert found["xla_flags"] == os.environ["XLA_FLAGS"]
    assert found["platform"] == "cpu"
    assert found["device"] != "cpu"  # JAX's name for every processor


def stored(folder: Path) -> Path:
    """A folder with two good records, a truncated one, and one run missing."""
    write_text(folder / "experiment.json", EXPERIMENT.model_dump_json())
    write_record(folder, record(RUNS[0]), {})
    write_record(folder, failed(RUNS[1]), {})
    write_record(folder, record(RUNS[2]), {})
    broken = path_of(folder, RUNS[2])
    broken.write_text(broken.read_text()[:-40])
    return broken


def test_status_goes_on_with_a_corrupt_record_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = stored(tmp_path / "out")
    path = tmp_path / "experiment.py"
    path.write_text(
        "from gapbench.experiment import Experiment\n"
        f"EXPERIMENT = Experiment.model_validate_json({EXPERIMENT.model_dump_json()!r})\n"
    )
    assert cli.main(["status", str(path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "digits 8 px shared flatten: 1 ok, 1 failed",
        "digits 8 px shared gap: 2 missing",
    ]
    assert said.err.startswith(f"broken: {broken}: not readable as JSON")
    assert said.err.endswith("delete it and run the experiment again\n")
    broken.unlink()
    assert cli.main(["status", str(path), "--out", str(tmp_path / "out")]) == 0


def test_a_folder_with_a_broken_record_is_not_analysed(tmp_path: Path) -> None:
    broken = stored(tmp_path)
    with pytest.raises(UserError, match=f"{broken.name}: not readable as JSON"):
        load_folder(tmp_path)
    broken.unlink()
    assert load_folder(tmp_path) == (EXPERIMENT, [record(RUNS[0]), failed(RUNS[1])])


def test_records_of_runs_that_are_not_declared_are_passed_over(tmp_path: Path) -> None:
    stored(tmp_path).unlink()
    write_record(tmp_path, record(RUNS[0].model_copy(update={"seed": 9})), {})
    assert load_folder(tmp_path)[1] == [record(RUNS[0]), failed(RUNS[1])]


def test_a_folder_without_a_declaration_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"experiment\.json is missing\): gapbench run EXPERIMENT makes one"):
        load_folder(tmp_path)
