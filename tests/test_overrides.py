"""Fields set otherwise: another experiment under another name, or one line that says what to write."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from records_maker import experiment, sweep, write_folder

from gapbench import cli
from gapbench.experiment import Experiment, Reported, grid
from gapbench.factories import Factory, factory_of
from gapbench.models.registry import BACKBONES, HEADS
from gapbench.overrides import LONGEST_NAME, Overridden, override
from gapbench.records import load_experiment, load_records
from gapbench.report.tables import parameters_table
from gapbench.spec import Backbone, Recipe, Task, UserError
from gapbench.sweep import declares

DECLARED = experiment(seeds=2, sizes=(8, 12), tuned_on="rates", tuned={"flatten": 1e-2, "gap": 2e-2})
MODULE = """
from flax import nnx
from gapbench.models.backbones import Plain


class Deep(nnx.Module):
    def __init__(self, backbone, image_channels, rngs):
        self.net = Plain(backbone, image_channels, rngs)

    def __call__(self, x, train):
        return self.net(x, train)


class Spread(nnx.Module):
    def __init__(self, channels, feature_px, classes, argument, rngs):
        self.dense = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x, drop):
        return self.dense(drop(x.std(axis=(1, 2))))


number = 3
"""


def with_set(*settings: str, declared: Experiment = DECLARED, factories: Sequence[Factory] = ()) -> Overridden:
    return override(declared, "made_up", settings, factories)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: it holds an experiment's file, and modules with nets of its user's."""
    (tmp_path / "own_nets.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("1 / 0\n")
    (tmp_path / "own_lacking.py").write_text("import nowhere_at_all\n")
    (tmp_path / "made_up.py").write_text(
        "from gapbench.experiment import Experiment\n"
        f"EXPERIMENT = Experiment.model_validate_json('''{experiment(seeds=1).model_dump_json()}''')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    before = dict(HEADS), dict(BACKBONES)
    yield tmp_path
    for registry, old in zip((HEADS, BACKBONES), before, strict=True):
        registry.clear()
        registry.update(old)


def test_every_run_has_the_fields_that_are_set_and_keeps_all_others() -> None:
    changed = with_set("recipe.batch=8", "backbone.norm=group", "task.val_images=20").experiment
    for old, new in zip(DECLARED.runs, changed.runs, strict=True):
        assert (new.recipe.batch, new.backbone.norm, new.task.val_images) == (8, "group", 20)
        assert new.row == old.row | {"batch": 8, "norm": "group", "val_images": 20}
    kept = {"pair", "family", "targets", "train_losses", "axis", "pilot_seeds"}
    assert changed.model_dump(include=kept) == DECLARED.model_dump(include=kept)
    assert changed.question == (
        "Is a made-up effect found? With backbone.norm=group, recipe.batch=8, task.val_images=20."
    )


def test_the_name_tells_the_values_in_one_order_and_one_spelling() -> None:
    assert with_set("recipe.peak_lr=0.05").name == "made_up+recipe.peak_lr=0.05"
    assert with_set("recipe.peak_lr=5e-2").name == "made_up+recipe.peak_lr=0.05"
    assert with_set("task.px=10", "recipe.batch=8").name == with_set("recipe.batch=8", "task.px=10").name
    assert with_set("task.dataset=folder:a/b").name == "made_up+task.dataset=folder_a_b"


def test_a_long_name_is_cut_and_still_tells_values_apart() -> None:
    long = [with_set(f"task.dataset={'x' * 200}", f"task.val_images={n}").name for n in (10, 20)]
    assert [len(name) for name in long] == [LONGEST_NAME] * 2
    assert long[0] != long[1]


def test_a_field_that_the_experiment_varies_merges_its_cells() -> None:
    changed, _, notes = with_set("task.px=10")
    assert [(spec.task.px, spec.head, spec.seed) for spec in changed.runs] == [
        (10, head, seed) for head in ("flatten", "gap") for seed in (0, 1)
    ]
    assert notes == ("8 runs become 4: the experiment varies what is set here",)


def test_the_tuned_regime_stays_for_another_task_alone() -> None:
    assert with_set("task.px=10").experiment.tuned == DECLARED.tuned
    for setting in ("recipe.peak_lr=0.05", "recipe.steps=50", "backbone.width=8", "head=gmp", "task.dataset=mnist5k"):
        changed, _, notes = with_set(setting)
        assert (changed.tuned, changed.tuned_on) == ({}, "")
        assert notes == ("without the tuned regime: its rates were chosen for other nets, recipes or data",)
    assert with_set("recipe.steps=50", declared=experiment()).notes == ()


def test_what_a_source_reported_is_said_of_the_original_alone() -> None:
    reported = Reported(source="Somebody", differs="Much.", test_error={"gap": 0.2})
    declared = DECLARED.model_copy(update={"reported": reported})
    assert with_set("head=gmp", declared=declared).experiment.reported is None


def test_a_head_is_set_in_the_arm_under_test_alone() -> None:
    changed = with_set("head=ladder:2").experiment
    assert changed.pair == ("flatten", "ladder:2")
    assert [spec.head for spec in changed.runs] == ["flatten", "flatten", "ladder:2", "ladder:2"] * 2


def test_dropout_is_set_in_both_arms_and_the_pair_is_named_after_it() -> None:
    changed = with_set("recipe.dropout=0.5").experiment
    assert changed.pair == ("flatten, dropout 0.5", "gap, dropout 0.5")


def test_a_pair_that_differs_in_what_is_set_is_refused() -> None:
    declared = Experiment(
        question="Does dropout help?",
        runs=grid(
            task=Task(dataset="digits", px=8, train_images=100),
            backbone=Backbone(width=4, stages=1),
            head="gap",
            recipe=[Recipe(peak_lr=1e-2, batch=16, steps=20, eval_every=5, dropout=p) for p in (0.0, 0.5)],
            seed=range(2),
        ),
        pair=("gap", "gap, dropout 0.5"),
        targets=(0.5,),
        train_losses=(0.5,),
    )
    told = "--set recipe.dropout=0.1: no pair is left, for gap and gap, dropout 0.5 are then both gap, dropout 0.1"
    with pytest.raises(UserError, match=f"^{told}$"):
        with_set("recipe.dropout=0.1", declared=declared)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("recipe.peak_r=1",), "--set recipe.peak_r=1: no field 'recipe.peak_r'; did you mean 'recipe.peak_lr'?"),
        (("px=20",), "--set px=20: no field 'px'; did you mean 'task.px'?"),
        (("seed=3",), "--set seed=3: no field 'seed'; known: head, task.dataset, task.px, "),
        (("recipe.peak_lr",), "--set recipe.peak_lr: give FIELD=VALUE, such as recipe.peak_lr=0.05"),
        (("recipe.peak_lr=",), "--set recipe.peak_lr=: give FIELD=VALUE, such as recipe.peak_lr=0.05"),
        (("task.px=8", "task.px=9"), "--set task.px=9: task.px is set to 8 already; leave one out"),
        (("recipe.peak_lr=fast",), "recipe.peak_lr: Input should be a valid number"),
        (("recipe.peak_lr=-1",), "recipe.peak_lr: Input should be greater than 0"),
        (("recipe.peak_lr=nan",), "recipe.peak_lr: Input should be"),
        (("task.px=8.5",), "task.px: Input should be a valid integer"),
        (("recipe.optimizer=adam",), "recipe.optimizer: Input should be 'adamw' or 'sgd'"),
        (("backbone.stages=4",), "use px >= 16 or fewer stages"),
        (("head=flatten",), "no pair is left, for flatten and gap are then both flatten"),
        (("head=Gap",), "head: String should match pattern"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(
    here: Path, refused: Callable[[list[str]], str], settings: tuple[str, ...], message: str
) -> None:
    before = sorted(here.iterdir())
    assert message in refused(["run", "made_up.py", "--set", *settings])
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "nowhere:f"], "--backbone nowhere:f: no module 'nowhere' in "),
        (["--backbone", "own_nets.deep:f"], "--backbone own_nets.deep:f: "),
        (["--head", "own_lacking:f"], "--head own_lacking:f: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (["--head", "own_broken:f"], "--head own_broken:f: ZeroDivisionError: division by zero"),
        (["--backbone", "own_nets:Deap"], "unknown name in own_nets 'Deap': did you mean 'Deep'?"),
        (["--backbone", "own_nets:number"], "of type int, not a class or function that makes a backbone"),
        (["--head", "gmp"], "--head gmp: give MODULE:FACTORY; --set head=NAME takes one that has a name"),
        (["--backbone", "own_nets:Deep", "--set", "backbone.kind=plain"], "backbone.kind is set to plain already"),
    ],
)
def test_a_factory_that_cannot_be_imported_is_one_line(
    here: Path, refused: Callable[[list[str]], str], arguments: list[str], message: str
) -> None:
    assert message in refused(["run", "made_up.py", *arguments])
    assert not (here / "results").exists()


def test_a_factory_has_a_name_that_specs_and_files_take() -> None:
    assert Factory(part="backbone", place="My.nets_2:ResNet").name == "my_nets_2_resnet"
    assert factory_of("head", None) is None


def test_an_own_backbone_and_head_train_in_a_folder_of_their_own_and_are_verified(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "recipe.steps=4", "recipe.eval_every=2"]
    own = ["--backbone", "own_nets:Deep", "--head", "own_nets:Spread"]
    assert cli.main(["run", "made_up.py", *own, *settings, "--workers", "1"]) == 0
    (folder,) = (here / "results" / "reproduced").iterdir()
    kind = "backbone.kind=own_nets_deep+head=own_nets_spread"
    assert folder.name == f"made_up+{kind}+recipe.eval_every=2+recipe.steps=4"
    records, _ = load_records(folder)
    assert [(record.spec.head, record.status) for record in records] == [("flatten", "ok"), ("own_nets_spread", "ok")]
    assert {record.spec.backbone.kind for record in records} == {"own_nets_deep"}
    # (4·4·4 + 1)·10 and (4 + 1)·10; both convolutions have 40 + 148, counted on the net that was built
    assert [record.parameters for record in records] == [{"backbone": 188, "head": n} for n in (650, 50)]
    capsys.readouterr()
    assert cli.main(["status", str(folder)]) == 0
    assert capsys.readouterr().out == "digits 8 px shared flatten: 1 ok\ndigits 8 px shared own_nets_spread: 1 ok\n"
    path = folder / "records" / f"{records[1].run_id}.json"
    assert cli.main(["verify", str(path)]) == 0
    assert capsys.readouterr().out == f"identical: {records[1].run_id}\n"


def test_the_tables_show_a_dash_for_the_closed_form_of_a_net_of_ones_own(tmp_path: Path) -> None:
    from gapbench.analysis.evidence import load_evidence

    own = with_set(declared=experiment(seeds=2), factories=[Factory(part="head", place="nets:Mine")]).experiment
    table = parameters_table(load_evidence(write_folder(tmp_path, own, sweep(own))))
    rows = {row[2]: dict(zip(table.columns, row, strict=True)) for row in table.shown}
    assert rows["nets_mine"]["head parameters"] == "77"
    assert rows["nets_mine"]["MFLOP an image"] == "–"


@pytest.mark.parametrize("trained", [True, False])
def test_the_folder_of_another_declaration_is_refused_and_stays_as_it_is(
    here: Path, refused: Callable[[list[str]], str], trained: bool
) -> None:
    plain = experiment(seeds=1)
    folder = write_folder(here / "plain", plain, sweep(plain) if trained else [])
    before = (folder / "experiment.json").read_bytes()
    told = refused(["run", "made_up.py", "--set", "recipe.peak_lr=0.05", "--out", "plain"])
    assert told == "gapbench: plain: holds an experiment of other runs; delete it, or choose another --out\n"
    assert (folder / "experiment.json").read_bytes() == before


def test_a_folder_takes_more_seeds_and_cells_but_no_others(tmp_path: Path) -> None:
    small, large = experiment(seeds=2), experiment(seeds=3, sizes=(8, 12))
    assert not declares(tmp_path, small)
    write_folder(tmp_path, small, sweep(small))
    assert declares(tmp_path, small)
    assert declares(tmp_path, experiment(seeds=1))
    assert not declares(tmp_path, large)
    write_folder(tmp_path, large, [])
    assert declares(tmp_path, small)
    with pytest.raises(UserError, match="holds an experiment of other runs"):
        declares(tmp_path, experiment(seeds=2, sizes=(12, 16)))
    with pytest.raises(UserError, match="its runs were made under other family, pair, targets, train_losses"):
        declares(tmp_path, experiment(seeds=2, targets=(0.7,)))


def test_the_same_runs_from_another_factory_are_another_experiment(tmp_path: Path) -> None:
    one, other = (
        with_set(factories=[Factory(part="head", place=place)]).experiment for place in ("nets:Mine", "nets:mine")
    )
    assert one.runs == other.runs
    write_folder(tmp_path, one, [])
    assert load_experiment(tmp_path) == one
    with pytest.raises(UserError, match="holds an experiment of other runs"):
        declares(tmp_path, other)


def test_a_declaration_of_before_factories_is_still_read(tmp_path: Path) -> None:
    plain = experiment(seeds=1)
    write_folder(tmp_path, plain, [])
    fields = json.loads((tmp_path / "experiment.json").read_text())
    del fields["factories"]
    (tmp_path / "experiment.json").write_text(json.dumps(fields))
    assert load_experiment(tmp_path) == plain


def test_an_experiment_that_is_published_under_no_name_is_compared_with_a_folder_that_is_given(
    here: Path, refused: Callable[[list[str]], str]
) -> None:
    plain = experiment(seeds=1)
    write_folder(here / "plain+x", plain, sweep(plain))
    told = refused(["compare", "plain+x"])
    assert told == "gapbench: nothing is published as plain+x to compare with: give --published FOLDER\n"
