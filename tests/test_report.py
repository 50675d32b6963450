"""A report is a function of its records: the same bytes anywhere, honest about what is missing, and checked."""

import base64
import hashlib
import html
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from records_maker import by_head, curves, experiment, record, sweep, throughput, wobble, write_folder

from gapbench import cli, report
from gapbench.analysis import stats
from gapbench.analysis.claims import CLAIMS
from gapbench.analysis.evidence import Evidence, load_evidence
from gapbench.analysis.frames import timing_frame
from gapbench.records import Fleet, Record, load_records
from gapbench.report import build_files, differing, draw_files, make_report, write_files
from gapbench.report.figures import make_figures
from gapbench.report.page import CAPTIONS, render_page
from gapbench.report.readme import fill_blocks
from gapbench.report.table import Table, number
from gapbench.report.tables import make_tables
from gapbench.spec import Experiment, UserError

DECLARED = experiment(seeds=4, sizes=(8, 12))
EFFECT = by_head(
    lambda s: curves(20 + 10 * (s % 2), 0.2 + 0.01 * wobble(s, 7), 0.70 + 0.01 * wobble(s, 1)),
    lambda s: curves(50 + 10 * (s % 2) if s < 3 else None, 0.1 + 0.01 * wobble(s, 3), 0.75 + 0.01 * wobble(s, 9)),
)
TABLES = ["claims", "parameters", "overfitting", "convergence", "throughput", "efficiency"]
Figures = dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep, and its timing."""
    path = tmp_path_factory.mktemp("published") / "made_up"
    return write_folder(
        path, DECLARED, sweep(DECLARED, EFFECT), throughput(DECLARED, [1.2, 1.3, 1.4, 1.25], [1.1, 1.2, 1.3, 1.2])
    )


@pytest.fixture(scope="module")
def evidence(folder: Path) -> Evidence:
    return load_evidence(folder)


@pytest.fixture(scope="module")
def figures(evidence: Evidence) -> Figures:
    return make_figures(evidence)


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    return make_report(folder)[1]


@pytest.fixture(scope="module")
def tables(evidence: Evidence) -> dict[str, Table]:
    return {table.name: table for table in make_tables(evidence)}


@pytest.fixture(scope="module")
def page(files: dict[str, bytes]) -> str:
    return files["index.html"].decode()


@pytest.fixture
def drawn_once(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and resamples are slow, and tested above: the commands below get the drawn figures, and fewer samples."""
    monkeypatch.setattr(report, "make_figures", lambda _: figures)
    monkeypatch.setattr(stats, "RESAMPLES", 999)


def test_a_second_report_in_the_same_process_has_the_same_bytes(
    evidence: Evidence, figures: Figures, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draw_files(figures).items() <= files.items()  # drawn a second time
    monkeypatch.setattr(report, "make_figures", lambda _: figures)
    assert build_files(evidence) == files


def test_a_report_by_another_process_elsewhere_has_the_same_bytes_and_starts_no_jax(
    folder: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import hashlib, json, sys; from pathlib import Path; import gapbench.report as report\n"
        "files = report.make_report(Path(sys.argv[1]))[1]\n"
        "assert 'jax' not in sys.modules, 'a report started JAX'\n"
        "print(json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()}))"
    )
    surroundings = os.environ | {"PYTHONHASHSEED": "4321", "TZ": "Asia/Tokyo", "COLUMNS": "40"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=tmp_path, env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_every_table_and_figure_is_there_in_every_form(files: dict[str, bytes]) -> None:
    named = {f"tables/{name}.{kind}" for name in TABLES for kind in ("csv", "md", "tex")}
    drawn = {f"figures/{name}.{kind}" for name in CAPTIONS for kind in ("png", "svg")}
    assert set(files) == named | drawn | {"claims.json", "index.html"}


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_figure_is_wide_enough_and_tells_no_date_or_version(name: str, figures: Figures) -> None:
    png, svg = figures[name]["png"], figures[name]["svg"]
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert 800 <= width <= 1600
    assert width / 4 < height < width
    for mark in (b"tIME", b"Software", b"Creation Time"):
        assert mark not in png
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not root.findall(".//{http://purl.org/dc/elements/1.1/}date")
    assert b"Matplotlib v" not in svg


def test_the_figures_of_other_records_are_others(figures: Figures, tmp_path: Path) -> None:
    swapped = sweep(DECLARED, by_head(lambda s: EFFECT(DECLARED.runs[4 + s]), lambda s: EFFECT(DECLARED.runs[s])))
    other = make_figures(load_evidence(write_folder(tmp_path, DECLARED, swapped)))
    assert all(other[name]["svg"] != figures[name]["svg"] for name in CAPTIONS)


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
    [(1234567, "1,234,567"), (3.14159, "3.14"), (0.0012345, "0.00123"), (123.4, "123"), (0.0, "0.00"), (None, "–")],
)
def test_numbers_are_rounded_to_three_digits_without_an_exponent(value: Any, text: str) -> None:
    assert number(value) == text


def test_the_tables_say_what_was_done(tables: dict[str, Table]) -> None:
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


def test_claims_json_holds_every_card(files: dict[str, bytes], evidence: Evidence) -> None:
    rows = json.loads(files["claims.json"])
    assert [(row["claim"], row["px"], row["outcome"]) for row in rows] == [
        (card.claim, card.px, card.outcome) for card in evidence.cards
    ]
    for row, card in zip(rows, evidence.cards, strict=True):
        assert (row["estimate"] is None) == (card.px is None)
        assert row["px"] is None or row["estimate"] == pytest.approx(card.estimate, rel=1e-5)


def test_the_page_needs_no_network_and_fits_a_phone(page: str) -> None:
    assert '<meta name="viewport" content="width=device-width' in page
    assert "://" not in page
    links = re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?([^"'\s>]+)""", page)
    assert len(links) >= len(CAPTIONS)
    assert all(link.startswith(("data:image/", "#", "tables/", "figures/", "claims.json")) for link in links)
    for encoded in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page):
        svg = base64.b64decode(encoded).decode()
        outside = {url for url in re.findall(r"https?://[\w./]+", svg) if "w3.org" not in url and "purl.org" not in url}
        assert not {url for url in outside if f'href="{url}' in svg or f"url({url}" in svg}


def test_the_page_shows_every_claim_table_and_figure(page: str, evidence: Evidence, tables: dict[str, Table]) -> None:
    for claim, declared in CLAIMS.items():
        whole = next(card for card in evidence.cards if card.claim == claim and card.px is None)
        section = page.split(f'id="{claim}"')[1].split("</section>")[0]
        assert html.escape(declared.title) in section
        assert whole.outcome in section.split("</h3>")[0]
        assert html.escape(declared.rule) in section
        assert "8 px" in section
        assert "12 px" in section
    for table in tables.values():
        shown = page.split(f'id="table-{table.name}"')[1].split("</table>")[0]
        for text in [*table.columns, *(cell for row in table.shown for cell in row)]:
            assert f">{html.escape(text)}</" in shown.replace("&#39;", "&#x27;").replace("&#34;", "&quot;")
    for name in CAPTIONS:
        assert f'id="{name}"' in page
    assert '<p class="warn">' not in page


def incomplete() -> list[Record]:
    """Of 16 runs two were not run, one failed and one diverged."""
    records = sweep(DECLARED, EFFECT)
    records[5] = record(DECLARED.runs[5], status="failed", upto=-1)
    records[14] = record(DECLARED.runs[14], status="diverged", upto=40)
    return [made for i, made in enumerate(records) if i not in (2, 9)]


def test_an_incomplete_sweep_is_said_in_the_captions_and_on_the_page(figures: Figures, tmp_path: Path) -> None:
    evidence = load_evidence(write_folder(tmp_path, DECLARED, incomplete()))
    said = "INCOMPLETE: 2 of 16 runs have no record. Not ok: 1 diverged, 1 failed."
    tables = make_tables(evidence)
    assert [table.name for table in tables if said in table.caption] == ["claims", "overfitting", "convergence"]
    warning = render_page(evidence, tables, figures).split('<p class="warn">')[1].split("</p>")[0]
    assert warning == said
    counts = next(table for table in tables if table.name == "overfitting").raw
    # at 8 px the pairs of seeds 1 and 2 are broken; at 12 px that of seed 1, and that of seed 2 at the last step
    errors = counts[counts["measure"] == "test_error"]
    assert errors[["px", "n", "pairs_left_out"]].to_numpy().tolist() == [[8, 2, 2], [12, 2, 2]]
    assert next(table for table in tables if table.name == "throughput").caption.endswith("gapbench time makes them.")


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
    folder = write_folder(tmp_path, DECLARED, sweep(DECLARED, EFFECT), throughput(DECLARED, [1.2] * 8, **timed))
    _, files = make_report(folder)
    assert told in files["tables/throughput.md"].decode()


def test_a_quiet_timing_of_an_accelerator_by_several_processes_warns_of_nothing(tmp_path: Path) -> None:
    timed = throughput(DECLARED, [1.2] * 8, [1.2] * 8, platform="gpu", last_s=0.0205)
    folder = write_folder(tmp_path, DECLARED, sweep(DECLARED, EFFECT), timed)
    _, files = make_report(folder)
    table = files["tables/throughput.md"].decode()
    assert not any(word in table for word in ("SLOW-DOWN", "no accelerator", "too narrow"))


def some(kept: Iterable[int], declared: Experiment = DECLARED) -> list[Record]:
    return [record(declared.runs[i], EFFECT(declared.runs[i])) for i in kept]


def check_stopped(folder: Path, kept: list[int]) -> None:
    """The report says how much is missing, and decides nothing where there is no pair."""
    evidence, files = make_report(folder)
    assert f"INCOMPLETE: {16 - len(kept)} of 16" in files["index.html"].decode()
    assert len(evidence.records) == len(kept)
    assert {card.outcome for card in evidence.cards if card.claim != "C1" and card.px == 12} <= {"undecided"}


@pytest.mark.parametrize(
    "kept", [pytest.param([0], id="one run"), pytest.param([*range(8), *range(8, 12)], id="one head at one size")]
)
def test_a_sweep_that_was_stopped_early_has_a_report(kept: list[int], tmp_path: Path) -> None:
    check_stopped(write_folder(tmp_path, DECLARED, some(kept)), kept)


@pytest.mark.parametrize("kept", [pytest.param([0, 1, 2, 3], id="one head"), pytest.param([0, 4], id="one pair")])
def test_a_sweep_without_two_pairs_has_tables_and_a_page(kept: list[int], drawn_once: None, tmp_path: Path) -> None:
    check_stopped(write_folder(tmp_path, DECLARED, some(kept)), kept)


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


def copy_of(folder: Path, tmp_path: Path) -> Path:
    """The records and timing of a folder, elsewhere under the same name."""
    target = tmp_path / folder.name
    for path in sorted(folder.rglob("*.json")):
        (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    return target


def test_the_check_passes_after_a_report_and_names_what_differs_from_its_records(
    folder: Path, files: dict[str, bytes], drawn_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(folder, tmp_path)
    assert cli.main(["report", str(copy), "--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(files)
    assert cli.main(["report", str(copy)]) == 0
    assert cli.main(["report", str(copy), "--check"]) == 0
    assert capsys.readouterr().err == ""

    changed, missing, stale = copy / "tables" / "claims.csv", copy / "index.html", copy / "figures" / "old.png"
    content = bytearray(changed.read_bytes())
    content[100] ^= 1
    changed.write_bytes(content)
    missing.unlink()
    stale.write_bytes(b"")
    assert cli.main(["report", str(copy), "--check"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(any(str(path) in line for line in lines) for path in (changed, missing, stale))
    assert (changed.read_bytes(), missing.exists()) == (bytes(content), False)  # a check writes nothing


def test_a_report_leaves_equal_files_alone(files: dict[str, bytes], tmp_path: Path) -> None:
    write_files(tmp_path, files)
    stamps = {name: (tmp_path / name).stat().st_ino for name in files}
    (tmp_path / "index.html").write_bytes(b"old")
    write_files(tmp_path, files)
    assert differing(tmp_path, files) == []
    moved = [name for name in files if (tmp_path / name).stat().st_ino != stamps[name]]
    assert set(moved) <= {"index.html"}


def test_a_file_that_nothing_makes_is_named_by_the_check_and_never_deleted(
    folder: Path, drawn_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(folder, tmp_path)
    (copy / "figures").mkdir()
    (copy / "figures" / "old.png").write_bytes(b"")
    assert cli.main(["report", str(copy)]) == 0
    assert cli.main(["report", str(copy), "--check"]) == 1
    assert "old.png" in capsys.readouterr().err
    (copy / "figures" / "old.png").unlink()  # as the check says
    assert cli.main(["report", str(copy), "--check"]) == 0


def test_a_report_goes_where_out_says_and_is_checked_there(folder: Path, drawn_once: None, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "records")
    assert cli.main(["report", str(copy), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "made_up" / "index.html").is_file()
    assert not (copy / "index.html").exists()
    assert cli.main(["report", str(copy), "--out", str(tmp_path / "out"), "--check"]) == 0


def test_a_report_does_not_depend_on_how_its_folder_is_spelt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_evidence(Path(".")).name == load_evidence(folder).name == "made_up"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that exits with 2."""
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_corrupt_record_is_named_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(folder, tmp_path)
    path = copy / "records" / f"{DECLARED.runs[3].run_id}.json"
    path.write_text(path.read_text()[:-20])
    assert str(path) in refused(["report", str(copy)], capsys)


def test_a_corrupt_timing_of_a_run_is_named_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_of(folder, tmp_path)
    path = copy / "timing" / f"{DECLARED.runs[3].run_id}.json"
    path.write_text("{")
    assert str(path) in refused(["report", str(copy)], capsys)


def test_the_times_of_runs_may_be_missing(folder: Path, drawn_once: None, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path)
    for path in (copy / "timing").glob("*.json"):
        path.unlink()
    rows = pd.read_csv(io.BytesIO(make_report(copy)[1]["tables/convergence.csv"]))
    assert rows["gap_train_s"].isna().all()
    assert rows["gap_images"].notna().all()


def test_the_seconds_that_a_fleet_shared_are_no_run_s_own(folder: Path) -> None:
    records = load_records(folder)[0]
    fleet = Fleet(replicas=8, width=8, devices=1, resumed=False)
    frame = timing_frame(folder, [records[0].model_copy(update={"fleet": fleet}), records[1]])
    assert frame["train_s"].isna().tolist() == [True, False]
    assert frame["train_s"][1] == 5.0


def test_unequal_pairs_are_refused_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = sweep(DECLARED, EFFECT)
    other = {**records[0].pairing, "order": "another"}
    records[0] = record(DECLARED.runs[0], pairing=other)
    line = refused(["report", str(write_folder(tmp_path, DECLARED, records))], capsys)
    assert records[0].run_id in line
    assert records[4].run_id in line
    assert "order differ" in line


def test_a_folder_without_trained_runs_is_refused_with_the_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no records in" in refused(["report", str(tmp_path / "nowhere")], capsys)
    empty = write_folder(tmp_path / "empty", DECLARED, [])
    assert "gapbench run empty" in refused(["report", str(empty)], capsys)
    failed = write_folder(tmp_path / "failed", DECLARED, [record(DECLARED.runs[0], status="failed", upto=-1)])
    assert "no run has been trained" in refused(["report", str(failed)], capsys)


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
    assert verdicts.splitlines()[0] == "| claim | verdict | made_up |"
    assert [line.split()[1] for line in verdicts.splitlines()[2:]] == [f"**{claim}**" for claim in CLAIMS]
    c1 = next(card for card in evidence.cards if (card.claim, card.px) == ("C1", 8))
    assert f"8 px ✓ {c1.estimate:.3g} exact, n=1" in verdicts
    assert "`made_up`: 16 runs, 4 seeds, 100 training images of digits, 100 steps of 16; test processor" in new


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
    folder: Path, drawn_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, path = copy_of(folder, tmp_path), tmp_path / "README.md"
    path.write_text(README)
    assert cli.main(["report", str(copy), "--readme", str(path)]) == 0
    assert cli.main(["report", str(copy), "--readme", str(path), "--check"]) == 0
    path.write_text(path.read_text().replace("16 runs", "17 runs"))
    capsys.readouterr()
    assert cli.main(["report", str(copy), "--readme", str(path), "--check"]) == 1
    assert str(path) in capsys.readouterr().err


def test_numbers_that_vary_are_never_called_exact(tmp_path: Path) -> None:
    same = by_head(lambda _: curves(20, 0.2), lambda _: curves(40, 0.1))  # every seed alike: intervals without width
    evidence = load_evidence(write_folder(tmp_path, DECLARED, sweep(DECLARED, same)))
    shown = {card.claim: card.interval for card in evidence.cards if card.px == 8}
    assert shown == {"C1": "exact", "C2": "[-10.00, -10.00]", "C5": "[2, 2]"}
