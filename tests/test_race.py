"""The race: its record refuses what is not whole, and its table, figure and block in the README are exact."""

import json
from pathlib import Path
from typing import Any

import pytest
from records_maker import PROVENANCE

from gapbench import cli
from gapbench.race import FILE, Entry, Race, load_race, write_race
from gapbench.report import make_report
from gapbench.report.race import race_frame, speed_block
from gapbench.report.readme import fill_blocks
from gapbench.spec import Backbone, Recipe, UserError

# A made-up race: 2 heads, 2 sizes, 2 seeds, batches of 10 and 5 steps are 400 images a sample.
FIELDS: dict[str, Any] = {
    "provenance": PROVENANCE,
    "dataset": "mnist5k",
    "heads": ("flatten", "gap"),
    "sizes_px": (14, 28),
    "seeds": (0, 1),
    "backbone": Backbone(width=4, stages=1),
    "recipe": Recipe(peak_lr=1e-2, batch=10, steps=100, eval_every=10),
    "flops_per_image": 1e6,
    "checked_steps": 20,
    "tolerance": 1e-4,
    "peaks": ((5e8, 4e8), (5e8, 5e8), (4e8, 5e8)),  # FLOP/s: at best 1e9 / 1e6 = 1,000 images a second
}


def entry(rival: str, name: str, samples_s: tuple[float, ...], **fields: Any) -> dict[str, Any]:
    timed = {"status": "ok", "loss_difference": 1e-6, "samples_s": samples_s}
    return {"rival": rival, "name": name, "processes": 2, "threads": 1, "steps": 5, **timed, **fields}


ENTRIES = (
    entry("scan Flax", "scan Flax", (10.0, 10.0, 10.0), processes=1, threads=2, steps=1),  # 80 images: 8 a second
    entry("PyTorch", "PyTorch eager", (2.0, 1.6, 2.0), versions={"torch": "9.9"}),  # 200, 250, 200 a second
    entry("PyTorch", "PyTorch compile", (), status="failed", reason="no compiler_found", loss_difference=None),
    entry("gapbench", "gapbench", (1.0, 1.0, 0.8)),  # 400, 400, 500 a second
)


def made_up(**fields: Any) -> Race:
    return Race(**{**FIELDS, "entries": ENTRIES, **fields})


def test_images_limit_and_ratios_follow_from_the_samples() -> None:
    race = made_up()
    scan, eager, _, ours = race.entries
    assert race.images_per_s(ours).tolist() == [400.0, 400.0, 500.0]
    assert race.images_per_s(scan).tolist() == [8.0, 8.0, 8.0]
    assert race.ratios(eager).tolist() == [2.0, 1.6, 2.5]
    assert race.limit_images_per_s == 1000.0
    rows = race_frame(race)
    assert rows["name"].tolist() == ["gapbench", "PyTorch eager", "scan Flax", "PyTorch compile"]
    assert rows.loc[1, ["estimate", "low", "high", "n"]].tolist() == [2.0, 1.6, 2.5, 3]
    assert rows.loc[0, ["estimate", "of_matmul_peak"]].tolist() == [1.0, 0.4]


@pytest.mark.parametrize(
    ("which", "changed", "message"),
    [
        (1, {"samples_s": (2.0, 1.6)}, "a round has one sample of each"),
        (1, {"loss_difference": 2e-4}, "loss_difference of PyTorch eager is above"),
        (1, {"loss_difference": None}, "given when the status is ok"),
        (1, {"reason": "but why"}, "given when the status is ok"),
        (2, {"reason": ""}, "given when the status is ok"),
        (3, {"status": "failed", "reason": "?", "samples_s": (), "loss_difference": None}, "gapbench is not among"),
        (0, {"samples_s": (10.0, -1.0, 10.0)}, "greater than 0"),
        (0, {"speed": 3}, "Extra inputs"),
    ],
)
def test_a_race_that_is_not_whole_is_refused(which: int, changed: dict[str, Any], message: str) -> None:
    entries = [{**each, **changed} if i == which else each for i, each in enumerate(ENTRIES)]
    with pytest.raises(ValueError, match=message):
        made_up(entries=entries)


FLEETS = (
    entry("textbook Flax", "textbook Flax, float32", (2.0, 2.0, 2.0)),  # 200 images a second
    entry("PyTorch", "PyTorch compile, bfloat16", (1.0, 1.0, 1.0), precision="bfloat16", tolerance=5e-3),  # 400
    entry("gapbench", "gapbench fleet, float32", (0.4, 0.2, 0.2)),  # 1,000, 2,000, 2,000
    entry(
        "gapbench",
        "gapbench fleet, bfloat16",
        (0.1, 0.1, 0.1),
        precision="bfloat16",
        loss_difference=4e-3,
        tolerance=5e-3,
    ),
)


def test_an_entry_is_compared_with_the_reference_of_its_precision_or_with_none() -> None:
    race = made_up(entries=FLEETS)
    assert race.ratios(race.entries[0]).tolist() == [5.0, 10.0, 10.0]
    assert race.ratios(race.entries[1]).tolist() == [10.0, 10.0, 10.0]
    failed = entry("gapbench", "-", (), status="failed", reason="?", loss_difference=None, precision="bfloat16")
    alone = made_up(entries=[*FLEETS[:3], failed])
    assert alone.ratios(alone.entries[1]).tolist() == []
    row = race_frame(alone).set_index("name").loc["PyTorch compile, bfloat16"]
    assert row["images_per_s_median"] == 400
    assert row[["estimate", "low", "high", "n"]].isna().all()


def test_a_race_on_an_accelerator_is_reported_as_one(tmp_path: Path) -> None:
    race = made_up(entries=FLEETS, provenance=PROVENANCE | {"platform": "gpu", "device": "NVIDIA X"})
    write_race(tmp_path, race)
    table = make_report(tmp_path)[1]["tables/rivals.md"].decode()
    assert "; one NVIDIA X, jax" in table
    assert "agreed to 0.0001 relative (0.005 in bfloat16), at a peak" in table
    assert "what the device reached in a float32 matmul" in table
    frame = race_frame(race).set_index("name")
    assert frame["of_matmul_peak"].isna().tolist() == [True, False, True, False]  # the peak is one of float32
    block = speed_block([race])
    assert "results/published/speed_accelerator/figures" in block
    assert "| **gapbench fleet, bfloat16** (the best of 2) | 2 × 1 | 4,000 | – |" in block
    assert "gapbench reaches 200.00 % of the device's matmul peak" in block


def test_a_race_is_read_back_as_it_was_and_a_broken_one_is_named(tmp_path: Path) -> None:
    race = made_up()
    path = write_race(tmp_path, race)
    assert load_race(tmp_path) == race
    assert len(path.read_text().splitlines()) == 1 + len(FIELDS) + len(ENTRIES) + 6  # schema; brackets of both lists
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match=rf"{FILE}: not readable.*make bench-rivals"):
        load_race(tmp_path)


def test_the_report_of_a_race_is_a_table_and_a_figure_of_the_same_bytes_every_time(tmp_path: Path) -> None:
    write_race(tmp_path, made_up())
    _, files = make_report(tmp_path)
    tables = {f"tables/rivals.{kind}" for kind in ("csv", "md", "tex")}
    assert set(files) == tables | {"figures/rivals.png", "figures/rivals.svg"}
    assert make_report(tmp_path)[1] == files
    assert set(make_report(tmp_path, plots=True)[1]) == set(files) - tables
    svg, table = (files[name].decode() for name in ("figures/rivals.svg", "tables/rivals.md"))
    for text in ("200 (gapbench: × 2.00 [1.60, 2.50])", "failed", "limit: matmul peak", "PyTorch eager, 2 × 1"):
        assert text in svg
    for text in (
        "| failed: no compiler_found |",
        "2.00 [1.60, 2.50]",
        "40.00 %",
        "torch 9.9",
        "1,000 images per second",
    ):
        assert text in table


def test_another_sample_gives_other_bytes(tmp_path: Path) -> None:
    write_race(tmp_path, made_up())
    _, files = make_report(tmp_path)
    changed = [{**each, "samples_s": (9.0, 10.0, 10.0)} if i == 0 else each for i, each in enumerate(ENTRIES)]
    write_race(tmp_path, made_up(entries=changed))
    other = make_report(tmp_path)[1]
    assert {name for name in files if files[name] == other[name]} <= {"tables/rivals.md", "tables/rivals.tex"}


def test_the_command_reports_and_checks_a_race(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_race(tmp_path, made_up())
    assert cli.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "speed: PyTorch eager, 2 × 1: 200 images/s, gapbench / this 2.00 [1.60, 2.50]" in printed
    assert "PyTorch compile, 2 × 1: – images/s, gapbench / this – (failed: no compiler_found)" in printed
    assert cli.main(["report", str(tmp_path), "--check"]) == 0
    (tmp_path / "tables/rivals.csv").write_text("")
    assert cli.main(["report", str(tmp_path), "--check"]) == 1


def test_the_readme_shows_each_rival_at_its_best(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("<!-- generated: speed -->\n<!-- end -->\n")
    fill_blocks(path, [], write=True)
    assert "Not measured yet: `make bench-rivals`" in path.read_text()
    fill_blocks(path, [made_up()], write=True)
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    assert lines[1:] == [
        "| **gapbench** | 2 × 1 | 400 | – |",
        "| PyTorch eager (the best of 2) | 2 × 1 | 200 | 2.00 [1.60, 2.50] |",
        "| scan Flax | 1 × 2 | 8.00 | 50.0 [50.0, 62.5] |",
    ]
    nothing = entry("PyTorch", "PyTorch eager", (), status="not_installed", reason="none", loss_difference=None)
    assert "| PyTorch eager | 2 × 1 | not installed | – |" in speed_block([made_up(entries=[nothing, ENTRIES[3]])])


def test_an_entry_keeps_every_sample() -> None:
    assert json.loads(Entry(**ENTRIES[1]).model_dump_json())["samples_s"] == [2.0, 1.6, 2.0]
