"""The example that the README and a notebook show: it runs from anywhere, in a process that knows nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

from gapbench.records import load_records

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "your_own.py"
DATA = """
from sklearn.datasets import load_digits
from gapbench.data import register_dataset


@register_dataset("squared")
def squared():
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) ** 2).clip(0, 255).astype("uint8")
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


"""


def gapbench(folder: Path, *words: str) -> str:
    """What a fresh process in that folder prints; it must succeed, and without a word on stderr."""
    settings = {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    command = [sys.executable, "-m", "gapbench.cli", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **settings})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_head_backbone_and_data_of_one_s_own_train_and_are_reported_outside_the_repository(tmp_path: Path) -> None:
    """A notebook runs the example as it is; here it has a data set of its own, too."""
    text = EXAMPLE.read_text()
    own = text.replace("EXPERIMENT =", f"{DATA}EXPERIMENT =").replace('"digits"', '"squared"')
    (tmp_path / "own.py").write_text(own)
    told = gapbench(tmp_path, "run", "own.py", "--only", "seed == 0")
    assert told.startswith("own: 0 done, 4 to train -> results/reproduced/own\n")
    records, broken = load_records(tmp_path / "results" / "reproduced" / "own")
    assert broken == []
    assert [record.status for record in records] == ["ok"] * 4
    assert {(record.spec.task.dataset, record.spec.backbone.kind) for record in records} == {("squared", "strided")}
    # gap: (32 + 1)·10, mean_max: (2·32 + 1)·10; strided, 3×3: (9·1 + 1)·16 + (9·16 + 1)·32 = 160 + 4,640
    counted = {(record.spec.head, record.parameters["head"]) for record in records}
    assert counted == {("gap", 330), ("mean_max", 650)}
    assert {record.parameters["backbone"] for record in records} == {4800}
    assert all(record.final["train"].accuracy > 0.3 for record in records)  # chance is 0.1
    told = gapbench(tmp_path, "report", "own")
    assert "C1 mean_max needs fewer parameters, whatever the input size: refuted" in told


def test_the_readme_shows_the_example_as_it_is() -> None:
    assert f"```python\n{EXAMPLE.read_text()}```\n" in (ROOT / "README.md").read_text()
