"""A report is a function of its records: the same bytes anywhere, of whatever records there are, and checked."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from records_maker import DECLARED, EFFECT, experiment, record, sweep, write_folder

from gapbench import cli
from gapbench.analysis.evidence import Evidence, load_evidence
from gapbench.report import differing, make_report, write_files
from gapbench.report.table import Table


def test_a_second_report_in_the_same_process_has_the_same_bytes(
    sweep_folder: Path, report_files: dict[str, bytes]
) -> None:
    assert make_report(sweep_folder)[1] == report_files


def test_a_report_by_another_process_elsewhere_has_the_same_bytes_and_starts_no_jax(
    sweep_folder: Path, report_files: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import hashlib, json, sys; from pathlib import Path; import gapbench.report as report\n"
        "files = report.make_report(Path(sys.argv[1]))[1]\n"
        "assert 'jax' not in sys.modules, 'a report started JAX'\n"
        "print(json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()}))"
    )
    surroundings = os.environ | {"PYTHONHASHSEED": "4321", "TZ": "Asia/Tokyo", "COLUMNS": "40"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(sweep_folder)], cwd=tmp_path, env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    here = {name: hashlib.sha256(content).hexdigest() for name, content in report_files.items()}
    assert json.loads(done.stdout) == here


def test_every_table_and_figure_is_there_in_every_form(
    report_files: dict[str, bytes], tables: dict[str, Table], figures: dict[str, dict[str, bytes]]
) -> None:
    named = {f"tables/{name}.{kind}" for name in tables for kind in ("csv", "md", "tex")}
    drawn = {f"figures/{name}.{kind}" for name in figures for kind in ("png", "svg")}
    assert set(report_files) == named | drawn | {"claims.json", "index.html"}


def test_claims_json_holds_every_card(report_files: dict[str, bytes], evidence: Evidence) -> None:
    rows = json.loads(report_files["claims.json"])
    assert [(row["claim"], row["px"], row["outcome"]) for row in rows] == [
        (card.claim, card.px, card.outcome) for card in evidence.cards
    ]
    for row, card in zip(rows, evidence.cards, strict=True):
        assert (row["estimate"] is None) == (card.px is None)
        assert row["px"] is None or row["estimate"] == pytest.approx(card.estimate, rel=1e-5)


def check_stopped(folder: Path, kept: list[int]) -> None:
    """The report of these runs alone says how much is missing, and decides nothing where there are no two pairs."""
    records = sweep(DECLARED, EFFECT)
    evidence, files = make_report(write_folder(folder, DECLARED, [records[i] for i in kept]))
    assert f"INCOMPLETE: {16 - len(kept)} of 16" in files["index.html"].decode()
    assert len(evidence.records) == len(kept)
    px = DECLARED.runs[kept[-1]].task.px
    assert {card.outcome for card in evidence.cards if card.claim != "C1" and card.px == px} == {"undecided"}


@pytest.mark.parametrize(
    "kept", [pytest.param([0], id="one run"), pytest.param([*range(12)], id="one head at one size")]
)
def test_a_sweep_that_was_stopped_early_has_a_report(kept: list[int], sketched: None, tmp_path: Path) -> None:
    check_stopped(tmp_path, kept)


@pytest.mark.parametrize("kept", [pytest.param([0, 1, 2, 3], id="one head"), pytest.param([0, 4], id="one pair")])
def test_a_sweep_without_two_pairs_has_tables_and_a_page(kept: list[int], drawn_once: None, tmp_path: Path) -> None:
    check_stopped(tmp_path, kept)


def test_a_sweep_in_which_every_run_diverged_has_a_report(drawn_once: None, tmp_path: Path) -> None:
    records = sweep(DECLARED, status="diverged", upto=0)
    files = make_report(write_folder(tmp_path, DECLARED, records))[1]
    assert "Not ok: 16 diverged." in files["index.html"].decode()


def test_a_head_without_closed_form_has_a_report(drawn_once: None, tmp_path: Path) -> None:
    declared = experiment(seeds=2, heads=("gap", "mine"), pair=("gap", "mine"))
    evidence, files = make_report(write_folder(tmp_path, declared, sweep(declared)))
    assert "77" in files["tables/parameters.csv"].decode()
    assert {card.claim for card in evidence.cards} == {"C1", "C2", "C5"}


def test_a_third_head_in_the_experiment_has_a_report(drawn_once: None, tmp_path: Path) -> None:
    declared = experiment(seeds=2, heads=("flatten", "gap", "gmp"))
    files = make_report(write_folder(tmp_path, declared, sweep(declared)))[1]
    assert files["tables/parameters.csv"].decode().count("gmp") == 1


def test_the_check_passes_after_a_report_and_names_what_differs_from_its_records(
    sweep_copy: Path, report_files: dict[str, bytes], drawn_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", str(sweep_copy), "--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(report_files)
    assert cli.main(["report", str(sweep_copy)]) == 0
    assert cli.main(["report", str(sweep_copy), "--check"]) == 0
    assert capsys.readouterr().err == ""

    names = ("tables/claims.csv", "index.html", "figures/old.png")
    changed, missing, stale = (sweep_copy / name for name in names)
    content = bytearray(changed.read_bytes())
    content[100] ^= 1
    changed.write_bytes(content)
    missing.unlink()
    stale.write_bytes(b"")
    assert cli.main(["report", str(sweep_copy), "--check"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(any(str(path) in line for line in lines) for path in (changed, missing, stale))
    assert (changed.read_bytes(), missing.exists()) == (bytes(content), False)  # a check writes nothing


def test_a_report_leaves_equal_files_alone(report_files: dict[str, bytes], tmp_path: Path) -> None:
    write_files(tmp_path, report_files)
    stamps = {name: (tmp_path / name).stat().st_ino for name in report_files}
    (tmp_path / "index.html").write_bytes(b"old")
    write_files(tmp_path, report_files)
    assert differing(tmp_path, report_files) == []
    moved = [name for name in report_files if (tmp_path / name).stat().st_ino != stamps[name]]
    assert set(moved) <= {"index.html"}


def test_a_file_that_nothing_makes_is_named_by_the_check_and_never_deleted(
    sweep_copy: Path, drawn_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep_copy / "figures").mkdir()
    (sweep_copy / "figures" / "old.png").write_bytes(b"")
    assert cli.main(["report", str(sweep_copy)]) == 0
    assert cli.main(["report", str(sweep_copy), "--check"]) == 1
    assert "old.png" in capsys.readouterr().err
    (sweep_copy / "figures" / "old.png").unlink()  # as the check says
    assert cli.main(["report", str(sweep_copy), "--check"]) == 0


def test_a_report_goes_where_out_says_and_is_checked_there(sweep_copy: Path, drawn_once: None, tmp_path: Path) -> None:
    assert cli.main(["report", str(sweep_copy), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "made_up" / "index.html").is_file()
    assert not (sweep_copy / "index.html").exists()
    assert cli.main(["report", str(sweep_copy), "--out", str(tmp_path / "out"), "--check"]) == 0


def test_a_report_does_not_depend_on_how_its_folder_is_spelt(
    sweep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep_folder)
    assert load_evidence(Path(".")).name == load_evidence(sweep_folder).name == "made_up"


def test_a_corrupt_record_is_named_in_one_line(sweep_copy: Path, refused: Callable[[list[str]], str]) -> None:
    path = sweep_copy / "records" / f"{DECLARED.runs[3].run_id}.json"
    path.write_text(path.read_text()[:-20])
    assert str(path) in refused(["report", str(sweep_copy)])


def test_a_corrupt_timing_of_a_run_is_named_in_one_line(sweep_copy: Path, refused: Callable[[list[str]], str]) -> None:
    path = sweep_copy / "timing" / f"{DECLARED.runs[3].run_id}.json"
    path.write_text("{")
    assert str(path) in refused(["report", str(sweep_copy)])


def test_unequal_pairs_are_refused_and_named(tmp_path: Path, refused: Callable[[list[str]], str]) -> None:
    records = sweep(DECLARED, EFFECT)
    other = {**records[0].pairing, "order": "another"}
    records[0] = record(DECLARED.runs[0], pairing=other)
    line = refused(["report", str(write_folder(tmp_path, DECLARED, records))])
    assert records[0].run_id in line
    assert records[4].run_id in line
    assert "order differ" in line


def test_a_folder_without_trained_runs_is_refused_with_the_mend(
    tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    assert "no records in" in refused(["report", str(tmp_path / "nowhere")])
    empty = write_folder(tmp_path / "empty", DECLARED, [])
    assert "gapbench run empty" in refused(["report", str(empty)])
    failed = write_folder(tmp_path / "failed", DECLARED, [record(DECLARED.runs[0], status="failed", upto=-1)])
    assert "no run has been trained" in refused(["report", str(failed)])
