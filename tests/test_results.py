"""What is published: whole, made by the declared experiments, and every derived byte a function of the records."""

import math
from pathlib import Path

import pytest

from gapbench.analysis.evidence import load_evidence
from gapbench.counts import count_backbone, count_spec_head
from gapbench.race import load_race
from gapbench.records import load_folder
from gapbench.report import differing, make_report
from gapbench.report.readme import fill_blocks
from gapbench.sweep import ROOT, find_experiment

NAMES = ("size_sweep", "fashion_mnist")
PUBLISHED = {name: ROOT / "results" / "published" / name for name in NAMES}
SPEED = ROOT / "results" / "published" / "speed"


@pytest.mark.parametrize("name", NAMES)
def test_every_declared_run_is_published_and_none_failed(name: str) -> None:
    _, declared = find_experiment(name)
    experiment, records = load_folder(PUBLISHED[name])
    assert experiment == declared  # edited since? Then run it again: gapbench run NAME --out results/published/NAME
    assert {record.run_id for record in records} == {spec.run_id for spec in declared.runs}
    assert {record.status for record in records} == {"ok"}
    assert len({spec.seed for spec in declared.runs}) >= 10  # pairs, for a published table


@pytest.mark.parametrize("name", NAMES)
def test_published_records_come_from_one_committed_version_of_the_code(name: str) -> None:
    _, records = load_folder(PUBLISHED[name])
    assert {record.provenance["dirty"] for record in records} == {False}
    assert len({str(record.provenance) for record in records}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_nets_that_were_built_have_the_parameters_of_the_closed_form(name: str) -> None:
    _, records = load_folder(PUBLISHED[name])
    for record in records:
        assert record.parameters["head"] == count_spec_head(record.spec, record.classes).parameters
        assert record.parameters["backbone"] == count_backbone(record.spec, record.image_channels).parameters


@pytest.mark.parametrize("name", NAMES)
def test_primary_target_and_train_loss_follow_from_the_pilot(name: str) -> None:
    _, declared = find_experiment(name)
    pilot = load_evidence(PUBLISHED[name] / "pilot")
    assert {spec.seed for spec in pilot.experiment.runs} == set(declared.pilot_seeds)
    cells = pilot.measures.groupby(["px", "head"])
    weakest = cells["best_val_accuracy"].median().min()
    assert declared.targets[0] == math.floor(100 * weakest) / 100
    assert declared.train_losses[0] == math.ceil(10 * pilot.measures["train_loss_final"].max()) / 10


@pytest.mark.parametrize("name", NAMES)
def test_every_derived_file_is_rebuilt_byte_for_byte(name: str) -> None:
    _, files = make_report(PUBLISHED[name])
    assert differing(PUBLISHED[name], files) == []  # otherwise: make report


def test_the_published_race_is_of_one_committed_version_and_every_way_was_timed() -> None:
    race = load_race(SPEED)
    assert race.provenance["dirty"] is False
    timed = [entry for entry in race.entries if entry.status == "ok"]
    assert {entry.rival for entry in timed} == {"textbook Flax", "scan Flax", "PyTorch", "gapbench"}
    assert min(len(entry.samples_s) for entry in timed) >= 6
    assert differing(SPEED, make_report(SPEED)[1]) == []  # otherwise: make report


def test_every_generated_block_of_the_readme_is_rebuilt_byte_for_byte() -> None:
    found = [*(load_evidence(PUBLISHED[name]) for name in sorted(NAMES)), load_race(SPEED)]
    assert fill_blocks(ROOT / "README.md", found, write=False) == []  # otherwise: make report


def test_the_readme_names_only_files_that_exist() -> None:
    import re

    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / Path(link)).exists()] == []
