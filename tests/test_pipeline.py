"""From an experiment's file to verdicts, as a user goes: run, status, time, report, compare, verify."""

import json
from pathlib import Path

import pytest

from gapbench.cli import main

pytestmark = pytest.mark.usefixtures("sketched")
EXPERIMENT = """
from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does the whole way work?",
    runs=grid(
        task=[Task(dataset="digits", px=px, train_images=200, val_images=100) for px in (8, 12)],
        backbone=Backbone(width=4, stages=1),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=0.02, batch=20, steps=24, eval_every=8),
        seed=range(3),
    ),
    family=("C2", "C5"),
    targets=(0.5, 0.2),
    train_losses=(2.0, 1.0),
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, run in full through the command line."""
    home = tmp_path_factory.mktemp("pipeline")
    (home / "tiny.py").write_text(EXPERIMENT)
    assert main(["run", str(home / "tiny.py"), "--out", str(home / "tiny"), "--workers", "2"]) == 0
    return home / "tiny"


def test_the_report_of_a_fresh_run_holds_every_file_and_judges_every_claim(folder: Path) -> None:
    assert main(["report", str(folder)]) == 0
    cards = json.loads((folder / "claims.json").read_text())
    assert {(card["claim"], card["px"]) for card in cards} == {
        (c, px) for c in ("C1", "C2", "C5") for px in (8, 12, None)
    }
    assert {path.suffix for path in (folder / "tables").iterdir()} == {".csv", ".md", ".tex"}
    assert len(list((folder / "figures").iterdir())) == 2 * 6  # png and svg; no throughput
    assert main(["report", str(folder), "--check"]) == 0


def test_a_changed_record_changes_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    path = sorted((folder / "records").glob("*gap*.json"))[0]
    original = path.read_text()
    record = json.loads(original)
    record["final"]["test"]["accuracy"] /= 2
    path.write_text(json.dumps(record))
    try:
        assert main(["report", str(folder), "--check"]) == 1
        assert "tables/overfitting.csv" in capsys.readouterr().err
    finally:
        path.write_text(original)


def test_a_run_compares_equal_with_itself_and_its_records_verify(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(folder), "--published", str(folder)]) == 0
    assert "12 of 12 made with the same versions and processor are identical" in capsys.readouterr().out
    assert main(["verify", str(sorted((folder / "records").glob("*.json"))[0])]) == 0
    assert capsys.readouterr().out.startswith("identical: digits-12px")


def test_a_forged_record_does_not_verify(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(sorted((folder / "records").glob("*.json"))[0].read_text())
    record["curve"]["loss"][-1] += 1e-6
    (tmp_path / "forged.json").write_text(json.dumps(record))
    assert main(["verify", str(tmp_path / "forged.json")]) == 1
    assert "this must not be" in capsys.readouterr().out


def test_status_counts_done_and_missing_cells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = str(folder.parent / "tiny.py")
    assert main(["status", experiment, "--out", str(folder)]) == 0
    assert "digits 8 px shared flatten: 3 ok" in capsys.readouterr().out
    assert main(["status", experiment, "--out", str(folder / "nowhere")]) == 0
    assert "3 missing" in capsys.readouterr().out
