"""The README's generated blocks: filled from the evidence, nothing else touched, and checked."""

import re
from pathlib import Path

import pytest

from gapbench import cli
from gapbench.analysis.evidence import Evidence
from gapbench.report.readme import fill_blocks
from gapbench.spec import UserError

README = """# Title

Prose before.

<!-- generated: verdicts -->
old
<!-- end -->

Prose between: 50 % \\1.

<!-- generated: conditions -->
<!-- end -->
Prose after.
"""


def test_the_generated_blocks_are_filled_and_nothing_else_changes(evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(README)
    assert fill_blocks(path, [evidence], write=True) == [str(path)]
    new = path.read_text()
    blocks = re.compile(r"(?<=-->\n).*?(?=<!-- end)", re.DOTALL)
    assert blocks.sub("", new) == blocks.sub("", README)
    verdicts = new.split("verdicts -->\n")[1].split("<!-- end")[0]
    assert verdicts.splitlines()[0] == "| claim | verdict | why |"
    assert [line.split()[1] for line in verdicts.splitlines()[2:]] == ["**C1**", "**C2**", "**C5**", "**C6**"]
    assert "| ✓ **supported** | 2 supported of 2 cells of digits |" in verdicts  # C1
    seconds = evidence.timing[["compile_s", "train_s", "eval_s"]].to_numpy().sum()
    assert seconds > 0
    row = next(line for line in new.splitlines() if line.startswith("| [`made_up`]")).split(" | ")
    question = evidence.experiment.question
    assert row[1:] == [question, "16, 4", "100 of digits, 100 of 16", f"{seconds / 60:.2g} |"]
    assert "\n\nTrained on: test processor, jax" in new


def test_an_unchanged_readme_is_not_rewritten_and_a_check_writes_nothing(evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(README)
    assert fill_blocks(path, [evidence], write=False) == [str(path)]
    assert path.read_text() == README
    fill_blocks(path, [evidence], write=True)
    inode = path.stat().st_ino
    assert fill_blocks(path, [evidence], write=True) == []
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- generated: verdict -->\n<!-- end -->\n", "unknown block 'verdict'"),
        ("<!-- generated: the-verdicts -->\n<!-- end -->\n", "the-verdicts"),
        ("no block here\n", "no generated block"),
        ("<!-- generated: verdicts -->\nProse.\n<!-- generated: conditions -->\n<!-- end -->\n", "verdicts"),
    ],
)
def test_a_block_that_is_unknown_or_never_ends_is_refused(
    text: str, message: str, evidence: Evidence, tmp_path: Path
) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        fill_blocks(path, [evidence], write=True)
    assert path.read_text() == text


def test_the_command_fills_and_checks_a_readme(
    sweep_copy: Path, drawn_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "README.md"
    path.write_text(README)
    assert cli.main(["report", str(sweep_copy), "--readme", str(path)]) == 0
    assert cli.main(["report", str(sweep_copy), "--readme", str(path), "--check"]) == 0
    path.write_text(path.read_text().replace("| 16, 4 |", "| 17, 4 |"))
    capsys.readouterr()
    assert cli.main(["report", str(sweep_copy), "--readme", str(path), "--check"]) == 1
    assert str(path) in capsys.readouterr().err
