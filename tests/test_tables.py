"""Tables in three forms: raw values in CSV, rounded ones in Markdown and LaTeX, and captions that warn."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from records_maker import DECLARED, EFFECT, by_head, curves, sweep, throughput, write_folder

from gapbench.analysis.evidence import load_evidence
from gapbench.analysis.frames import timing_frame
from gapbench.records import Fleet, load_records
from gapbench.report.table import Table, number
from gapbench.report.tables import make_tables
from gapbench.timings import Throughput

TABLES = ["claims", "parameters", "overfitting", "convergence", "gradients", "power", "throughput", "efficiency"]


def table_of(folder: Path, name: str) -> Table:
    return next(table for table in make_tables(load_evidence(folder)) if table.name == name)


def throughput_caption(folder: Path, timed: Throughput) -> str:
    return table_of(write_folder(folder, DECLARED, sweep(DECLARED, EFFECT), timed), "throughput").caption


@pytest.mark.parametrize("name", TABLES)
def test_csv_holds_the_raw_values(name: str, tables: dict[str, Table]) -> None:
    raw = tables[name].raw.drop(columns="card", errors="ignore").replace("", pd.NA)
    read = pd.read_csv(io.StringIO(tables[name].csv))
    assert list(read.columns) == list(raw.columns)
    assert len(read) == len(raw) > 0
    for column in raw.columns:
        pd.testing.assert_series_equal(  # six digits are kept
            read[column].convert_dtypes(), raw[column].convert_dtypes(), check_dtype=False, rtol=1e-5
        )


@pytest.mark.parametrize("name", TABLES)
def test_markdown_has_a_cell_for_every_column_and_the_caption_below(name: str, tables: dict[str, Table]) -> None:
    table = tables[name]
    body, caption = table.markdown.split("\n\n")
    lines = body.splitlines()
    assert len(lines) == 2 + len(table.raw)
    assert {line.count("|") for line in lines} == {len(table.columns) + 1}
    assert caption == f"*{table.caption}*\n"


@pytest.mark.parametrize("name", TABLES)
def test_latex_has_booktabs_rules_and_nothing_that_latex_would_read_as_a_command(
    name: str, tables: dict[str, Table]
) -> None:
    table = tables[name]
    latex = table.latex
    assert [latex.count(f"\\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    rows = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(rows) == len(table.raw)
    assert all(len(re.findall(r"(?<!\\)&", row)) == len(table.columns) - 1 and row.endswith(r"\\") for row in rows)
    text = "\n".join([*rows, *re.findall(r"\\caption\{.*", latex)])
    assert re.findall(r"(?<!\\)[%_#$]", text) == []


def test_latex_escapes_percent_and_underscore_in_heading_cell_and_caption() -> None:
    table = Table("t", "90 % of out_of_memory", pd.DataFrame({"a": ["50 % a_b"]}), {"x_y %": lambda r: r["a"]})
    for escaped in (r"90 \% of out\_of\_memory", r"50 \% a\_b", r"x\_y \%"):
        assert escaped in table.latex


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (3.14159, "3.14"),
        (0.0012345, "0.00123"),
        (123.4, "123"),
        (99.96, "100"),
        (0.0, "0.00"),
        (None, "–"),
    ],
)
def test_numbers_are_rounded_to_three_digits_without_an_exponent(value: Any, text: str) -> None:
    assert number(value) == text


def test_numbers_that_vary_are_never_called_exact(tmp_path: Path) -> None:
    same = by_head(lambda _: curves(20, 0.2), lambda _: curves(40, 0.1))  # every seed alike: intervals without width
    evidence = load_evidence(write_folder(tmp_path, DECLARED, sweep(DECLARED, same)))
    shown = {card.claim: card.interval for card in evidence.cards if card.px == 8}
    assert shown == {"C1": "exact", "C2": "[-10.00, -10.00]", "C5": "[2, 2]"}


def test_the_tables_say_what_was_done(tables: dict[str, Table]) -> None:
    assert list(tables) == TABLES
    for name in ("claims", "overfitting", "convergence"):
        caption = tables[name].caption
        assert "Shared regime" in caption
        assert "4 seeds" in caption
        assert "test processor, jax 1.2.3" in caption
        assert "INCOMPLETE" not in caption
    reached = [row for row in tables["convergence"].raw.to_dict("records") if row["target"] == 0.9]
    assert [(row["flatten_reached"], row["gap_reached"]) for row in reached] == [("4/4", "3/4")] * 2
    # gap reaches 0.9 at 50, 60, 50 and never: (50 + 60 + 50 + 100) / 4; the images are those of batch 16
    assert [(row["gap_mean"], row["gap_images"]) for row in reached] == [(65.0, 65.0 * 16)] * 2


def test_the_parameter_table_starts_with_the_articles_example(tables: dict[str, Table]) -> None:
    rows = tables["parameters"].raw.to_dict("records")
    # (10·10·32 + 1)·2 and (32 + 1)·2; then (4·4·4 + 1)·10, (4 + 1)·10 beside 188 of the backbone
    assert [(row["head"], row["head_parameters"]) for row in rows[:2]] == [("flatten", 6402), ("gap", 66)]
    assert rows[1]["head_ratio"] == pytest.approx(97.0)
    assert [(row["head_parameters"], row["total_parameters"]) for row in rows[2:4]] == [(650, 838), (50, 238)]


@pytest.mark.parametrize(
    ("timed", "told"),
    [
        ({}, "CPU rows only: no accelerator was measured."),
        ({}, "Some cells are of one process: their intervals are too narrow."),
        ({"last_s": 0.022}, "SLOW-DOWN on test processor: timed again at the end, the first cell took +10 % time."),
        ({"last_s": 0.018}, "SLOW-DOWN on test processor: timed again at the end, the first cell took -10 % time."),
    ],
)
def test_the_throughput_table_warns_of_what_a_reader_must_know_first(
    tmp_path: Path, timed: dict[str, Any], told: str
) -> None:
    assert told in throughput_caption(tmp_path, throughput(DECLARED, [1.2] * 8, **timed))


def test_a_quiet_timing_of_an_accelerator_by_several_processes_warns_of_nothing(tmp_path: Path) -> None:
    timed = throughput(DECLARED, [1.2] * 8, [1.2] * 8, platform="gpu", last_s=0.0205)
    caption = throughput_caption(tmp_path, timed)
    assert caption.startswith("Throughput")
    assert not any(word in caption for word in ("SLOW-DOWN", "no accelerator", "too narrow"))


def test_the_times_of_runs_may_be_missing(sweep_copy: Path) -> None:
    for path in (sweep_copy / "timing").glob("*.json"):
        path.unlink()
    rows = table_of(sweep_copy, "convergence").raw
    assert rows["gap_train_s"].isna().all()
    assert rows["gap_images"].notna().all()


def test_the_seconds_that_a_fleet_shared_are_no_run_s_own(sweep_folder: Path) -> None:
    records = load_records(sweep_folder)[0]
    fleet = Fleet(replicas=8, width=8, devices=1, resumed=False)
    frame = timing_frame(sweep_folder, [records[0].model_copy(update={"fleet": fleet}), records[1]])
    assert frame["train_s"].isna().tolist() == [True, False]
    assert frame["train_s"][1] == 5.0
