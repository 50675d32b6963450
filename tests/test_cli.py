"""The command: help with examples, the article's numbers, and errors of one line with an exit code."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from records_maker import experiment, record, sweep, write_folder

from gapbench import cli
from gapbench.analysis.evidence import Evidence
from gapbench.report.power import power_table
from gapbench.spec import UserError

DECLARED = experiment(seeds=2)
NUMBERS_OF_TIME = ("px", "batch", "fleet", "samples", "processes")
ALONE = [name for name in cli.COMMANDS if name != "data"]  # data has commands of its own


def exit_code(arguments: list[str]) -> int:
    """Of a command that the parser itself ends."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are not wrapped to the terminal of whoever runs the tests."""
    monkeypatch.setenv("COLUMNS", "160")


@pytest.mark.parametrize("command", [*ALONE, *(f"data {name}" for name in cli.DATA_COMMANDS)])
def test_the_help_of_every_command_has_an_example_on_a_line_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code([*command.split(), "--help"]) == 0
    lines = [line.strip().removeprefix("$ ") for line in capsys.readouterr().out.splitlines()]
    examples = [line for line in lines if line.startswith(f"gapbench {command}")]
    assert examples
    assert all(line.count("gapbench ") == 1 for line in examples)


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, commands in (([], cli.COMMANDS), (["data"], cli.DATA_COMMANDS)):
        assert exit_code([*arguments, "--help"]) == 0
        told = capsys.readouterr().out
        assert all(f"• {command} " in told for command in commands)


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        [],
        ["data"],
        ["data", "frobnicate"],
        ["report", "--frobnicate"],
        ["params", "--channels", "many"],
        ["compare"],
        ["status"],
    ],
)
def test_what_cannot_be_parsed_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_overview_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "from gapbench.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(time.process_time(), *({'jax', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
        for _ in range(3)
    ]
    assert [loaded for _, *loaded in told] == [[]] * 3
    assert min(float(seconds) for seconds, *_ in told) < 1.2  # of processor time, so that a busy machine passes


def cells(text: str, head: str) -> list[str]:
    """The row of a head in the table of `params`."""
    row = next(line for line in text.splitlines() if line.split("│")[1:2] and line.split("│")[1].strip() == head)
    return [cell.strip() for cell in row.split("│")[1:-1]]


def test_params_counts_the_articles_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params"]) == 0
    told = capsys.readouterr().out
    # (10·10·32 + 1)·2 = 6,402 against (32 + 1)·2 = 66: 97 times; 2·3200·2 = 12,800 against 3,200 + 2·32·2 = 3,328
    assert cells(told, "flatten")[:4] == ["flatten", "6,402", "1.00", "12,800"]
    assert cells(told, "gap")[:4] == ["gap", "66", "97.00", "3,328"]
    assert cli.main(["params", "--channels", "32", "--feature-px", "10", "--classes", "2"]) == 0
    assert capsys.readouterr().out == told


def test_params_of_a_record_counts_its_whole_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path, DECLARED, sweep(DECLARED))
    path = folder / "records" / f"{DECLARED.runs[0].run_id}.json"
    assert cli.main(["params", "--spec", str(path), "--classes", "10"]) == 0
    told = capsys.readouterr().out
    # 188 of the backbone, and (4·4·4 + 1)·10 or (4 + 1)·10
    assert cells(told, "flatten")[1] == "838"
    assert cells(told, "gap")[1] == "238"


def test_params_of_a_record_takes_its_classes_from_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path, DECLARED, [record(DECLARED.runs[0])])
    assert cli.main(["params", "--spec", str(folder / "records" / f"{DECLARED.runs[0].run_id}.json")]) == 0
    assert cells(capsys.readouterr().out, "flatten")[1] == "838"


def test_params_of_a_bare_spec_counts_its_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.json"
    path.write_text(DECLARED.runs[0].model_dump_json())
    assert cli.main(["params", "--spec", str(path), "--classes", "3", "--image-channels", "3"]) == 0
    # (9·3 + 1)·4 + 148 = 260 and (4·4·4 + 1)·3 = 195
    assert cells(capsys.readouterr().out, "flatten")[1] == "455"


@pytest.mark.parametrize("flag", ["--channels", "--feature-px", "--classes", "--image-channels"])
def test_params_refuses_counts_below_one(flag: str, tmp_path: Path, refused: Callable[[list[str]], str]) -> None:
    path = tmp_path / "spec.json"
    path.write_text(DECLARED.runs[0].model_dump_json())
    assert f"{flag} 0: must be at least 1" in refused(["params", flag, "0", "--spec", str(path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable JSON file"),
        ("[]", "spec.json"),
        ('{"spec": {"task": {"dataset": "digits", "px": 2, "train_images": 1}}}', "task.px"),
    ],
)
def test_params_refuses_a_file_that_is_no_spec(
    text: str, message: str, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    assert message in refused(["params", "--spec", str(path)])
    assert str(path) in refused(["params", "--spec", str(path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "size_swep"], "did you mean 'size_sweep'?"),
        (["run", "size_sweep", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["run", "size_sweep", "--seeds", "101"], "--seeds: seed 100 is one on which learning_rate chose the rates: "),
        (["run", "size_sweep", "--workers", "-1"], "--workers -1: must be at least 1"),
        (["status", "nothing_like_it"], "known: "),
        *((["time", f"--{flag}", "0"], f"--{flag} 0: must be at least 1") for flag in NUMBERS_OF_TIME),
        (["time", "--budget-s", "0"], "--budget-s 0: must be above 0"),
        (["time", "--budget-s", "nan"], "--budget-s nan: must be above 0"),
        (["time", "--write-table"], "--write-table: goes with --convolutions"),
        (["time", "--convolutions", "--profile", "trace"], "--profile: traces the heads, so leave out --convolutions"),
        (["time", "--px", "28", "2"], "--px 2: "),
        (["report"], "report"),
        (["report", "nowhere"], "no records in 'nowhere'"),
        *(
            (["power", "nowhere", "--margin", m], f"--margin {m}: a fraction above 0")
            for m in ("0", "-0.1", "2", "nan")
        ),
        (["power", "nowhere"], "no records in 'nowhere'"),
        (["compare", "nowhere"], "experiment.json is missing"),
        (["verify", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[list[str]], str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(arguments)
    assert list(tmp_path.iterdir()) == []


def test_power_prints_the_table_of_the_margin_that_is_asked_for(
    sweep_folder: Path, evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["power", str(sweep_folder), "--margin", "0.002"]) == 0
    table = power_table(evidence, 0.002)
    assert capsys.readouterr().out == table.markdown
    assert {row[list(table.columns).index("margin, points")] for row in table.shown} == {"0.2"}
    assert cli.main(["power", str(sweep_folder)]) == 0
    assert capsys.readouterr().out == power_table(evidence).markdown


def test_a_traceback_comes_only_with_debug(refused: Callable[[list[str]], str]) -> None:
    assert refused(["params", "--channels", "0"]).startswith("gapbench: --channels 0")
    for arguments in (["params", "--channels", "0", "--debug"], ["--debug", "params", "--channels", "0"]):
        with pytest.raises(UserError, match="--channels 0"):
            cli.main(arguments)


def test_status_counts_done_failed_and_missing_runs_and_names_broken_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = tmp_path / "made_up.py"
    declaration.write_text(
        "from gapbench.experiment import Experiment\n"
        f"EXPERIMENT = Experiment.model_validate_json('''{DECLARED.model_dump_json()}''')\n"
    )
    flatten, gap = DECLARED.runs[:2], DECLARED.runs[2:]
    records = [record(flatten[0]), record(flatten[1]), record(gap[0], status="failed", upto=-1)]
    folder = write_folder(tmp_path / "out", DECLARED, records)
    assert cli.main(["status", str(declaration), "--out", str(folder)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["digits 8 px shared flatten: 2 ok", "digits 8 px shared gap: 1 failed, 1 missing"]

    broken = folder / "records" / f"{flatten[1].run_id}.json"
    broken.write_text("{")
    assert cli.main(["status", str(declaration), "--out", str(folder)]) == 1
    told = capsys.readouterr()
    assert "1 ok, 1 missing" in told.out
    assert str(broken) in told.err
