"""What is published is whole, and was made by the declared experiments. Its derived bytes: make check."""

from pathlib import Path

import pytest

from gapbench.analysis.evidence import load_evidence
from gapbench.analysis.tuning import derive_rules, tuning_frame
from gapbench.counts import count_backbone, count_spec_head
from gapbench.race import load_race
from gapbench.records import load_folder
from gapbench.sweep import ROOT, find_experiment

HEADLINES = ("size_sweep", "fashion_mnist")
ROOM = ROOT / "results" / "published"
NAMES = sorted(path.parent.name for path in ROOM.glob("*/experiment.json"))
PUBLISHED = {name: ROOM / name for name in NAMES}
TUNED = tuple(name for name in (*HEADLINES, "nin", "maps", "place", "centred", "test_size_batch_norm") if name in NAMES)
SPEED = ROOM / "speed"


def test_the_headlines_and_what_they_were_tuned_on_are_published() -> None:
    tuned_on = {find_experiment(name)[1].tuned_on for name in HEADLINES}
    assert set(HEADLINES) | tuned_on <= set(NAMES)
    assert "" not in tuned_on


@pytest.mark.parametrize("name", NAMES)
def test_every_declared_run_is_published_and_none_failed(name: str) -> None:
    _, declared = find_experiment(name)
    experiment, records = load_folder(PUBLISHED[name])
    assert experiment == declared  # edited since? Then run it again: gapbench run NAME --out results/published/NAME
    assert {record.run_id for record in records} == {spec.run_id for spec in declared.all_runs}
    assert {record.status for record in records} <= {"ok", "diverged"}  # which is a result
    fewest = 5 if declared.axis == "peak_lr" else 10  # a rate is chosen by a rule and no interval
    assert len({spec.seed for spec in declared.runs}) >= {"size_sweep": 20}.get(name, fewest)


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


@pytest.mark.parametrize("name", TUNED)
def test_rates_primary_target_and_train_loss_follow_from_the_tuning_runs_on_other_seeds(name: str) -> None:
    _, declared = find_experiment(name)
    tuning = load_evidence(PUBLISHED[declared.tuned_on])
    rules = derive_rules(tuning.measures, tuning.experiment, declared.runs[0].recipe.peak_lr)
    assert rules == (declared.tuned, declared.targets[0], declared.train_losses[0])
    assert not tuning_frame(tuning.measures, tuning.experiment)["at_edge"].any()  # else a better rate may lie outside


def test_every_tuned_rate_is_that_of_the_experiment_it_names() -> None:
    chosen = {declared.tuned_on: declared.tuned for _, declared in map(find_experiment, TUNED)}
    for name in NAMES:
        declared = find_experiment(name)[1]
        assert declared.tuned == (chosen[declared.tuned_on] if declared.tuned_on else {})
        if declared.tuned_on:
            tuning = find_experiment(declared.tuned_on)[1]
            assert not {spec.seed for spec in tuning.runs} & {spec.seed for spec in declared.runs}


def test_the_published_race_is_of_one_committed_version_and_every_way_was_timed() -> None:
    race = load_race(SPEED)
    assert race.provenance["dirty"] is False
    timed = [entry for entry in race.entries if entry.status == "ok"]
    assert {entry.rival for entry in timed} == {"textbook Flax", "scan Flax", "PyTorch", "gapbench"}
    assert min(len(entry.samples_s) for entry in timed) >= 6


def test_the_readme_names_only_files_that_exist() -> None:
    import re

    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / Path(link)).exists()] == []
