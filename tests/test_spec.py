"""What a spec accepts and what it is called: identities that never move, and refusals that name the field."""

import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError, choose, digest, validate

TASK = Task(dataset="digits", px=8, train_images=100)
RECIPE = Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=32, warmup_steps=16)
SPEC = RunSpec(task=TASK, backbone=Backbone(), head="gap", recipe=RECIPE, seed=3)
MOVED = (
    "identities moved: published records no longer belong to their specs. If a field of the spec was changed on"
    " purpose, raise records.SCHEMA, publish again, and only then update this id"
)


def raw(**changes: Any) -> dict[str, Any]:
    """SPEC as a dict, with dotted fields changed: raw(task__px=3)."""
    value = SPEC.model_dump()
    for path, new in changes.items():
        *parents, field = path.split("__")
        part = value
        for parent in parents:
            part = part[parent]
        part[field] = new
    return value


def experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "question": "q",
        "runs": grid(task=TASK, backbone=Backbone(), head=("flatten", "gap"), recipe=RECIPE, seed=range(2)),
        "family": ("C2",),
        "targets": (0.5,),
        "train_losses": (0.3,),
    }
    return validate(Experiment, fields | changes, "experiment")


def test_ids_are_those_of_the_published_records() -> None:
    assert SPEC.run_id == "digits-8px-plain-gap-s03-6103c635", MOVED
    assert SPEC.pair_id == "9ac3f3a1", MOVED
    relu = SPEC.model_copy(update={"head": "gap_conv:relu"})
    assert relu.run_id == "digits-8px-plain-gap_conv_relu-s03-ec0c802a", MOVED  # no colon: it is a file's name


def test_a_default_that_is_written_out_and_a_whole_number_for_a_fraction_change_no_id() -> None:
    spelled = raw(backbone={"kind": "plain", "width": 16, "stages": 2, "norm": "none", "padding": "zero"})
    assert validate(RunSpec, spelled, "spec").run_id == SPEC.run_id
    whole, fraction = (validate(RunSpec, raw(recipe__peak_lr=lr), "spec") for lr in (1, 1.0))
    assert whole.run_id == fraction.run_id


class LaterTask(Task):
    crop_px: int = 0


class LaterRecipe(Recipe):
    smoothing: float | None = None


class LaterSpec(RunSpec):
    """A RunSpec of the future."""

    task: LaterTask
    recipe: LaterRecipe
    note: str = ""


def test_a_field_that_is_added_later_moves_no_id_until_it_leaves_its_default() -> None:
    later = validate(LaterSpec, SPEC.model_dump(), "spec")
    assert (later.run_id, later.pair_id) == (SPEC.run_id, SPEC.pair_id)
    cropped, smoothed = (
        validate(LaterSpec, raw() | {part: getattr(later, part).model_copy(update=change)}, "spec")
        for part, change in (("task", {"crop_px": 6}), ("recipe", {"smoothing": 0.1}))
    )
    assert len({SPEC.run_id, cropped.run_id, smoothed.run_id}) == 3
    assert cropped.pair_id != SPEC.pair_id == smoothed.pair_id


def test_a_repeat_is_the_same_pair_and_program_under_another_id() -> None:
    again = validate(RunSpec, raw(repeat=1), "spec")
    assert again.run_id != SPEC.run_id
    assert again.run_id.startswith("digits-8px-plain-gap-s03-")
    assert (again.pair_id, again.program) == (SPEC.pair_id, SPEC.program)
    assert (SPEC.row["repeat"], again.row["repeat"]) == (0, 1)


def test_a_spec_read_back_from_its_json_is_the_same_spec() -> None:
    assert validate(RunSpec, SPEC.model_dump_json(), "spec") == SPEC
    assert validate(RunSpec, SPEC.model_dump_json(), "spec").run_id == SPEC.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"task__dataset": "mnist5k"},
        {"task__px": 9},
        {"task__train_images": 101},
        {"task__val_images": 501},
        {"backbone__width": 8},
        {"backbone__stages": 1},
        {"backbone__norm": "batch"},
        {"backbone__padding": "circular"},
        {"backbone__dropout": 0.5},
        {"seed": 4},
    ],
)
def test_every_field_outside_head_and_recipe_moves_both_ids(change: dict[str, Any]) -> None:
    other = validate(RunSpec, raw(**change), "spec")
    assert other.run_id != SPEC.run_id
    assert other.pair_id != SPEC.pair_id


@pytest.mark.parametrize("change", [{"head": "flatten"}, {"recipe__steps": 321}, {"recipe__dropout": 0.5}])
def test_head_and_recipe_move_the_run_id_and_leave_the_pair(change: dict[str, Any]) -> None:
    other = validate(RunSpec, raw(**change), "spec")
    assert other.run_id != SPEC.run_id
    assert other.pair_id == SPEC.pair_id


def test_ids_are_equal_in_processes_whose_string_hashes_differ() -> None:
    code = (
        "import sys; from gapbench.spec import RunSpec;"
        "spec = RunSpec.model_validate_json(sys.argv[1]); print(spec.run_id, spec.pair_id, hash('gap'))"
    )
    seen = []
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, SPEC.model_dump_json()],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.append(done.stdout.split())
    assert seen[0][:2] == seen[1][:2] == [SPEC.run_id, SPEC.pair_id]
    assert seen[0][2] != seen[1][2]  # the salt did act


def test_a_digest_knows_values_and_not_the_order_of_fields() -> None:
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0})
    # sha256 of the two bytes [] begins with 4f53cda1
    assert digest([]) == "4f53cda1"


def test_a_spec_is_read_without_jax() -> None:
    code = "import gapbench.spec, gapbench.sweep, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_grid_is_every_combination_with_the_last_field_fastest() -> None:
    tasks = [TASK.model_copy(update={"px": px}) for px in (8, 12)]
    runs = grid(task=tasks, backbone=Backbone(), head=("flatten", "gap"), recipe=RECIPE, seed=range(2))
    assert [(r.task.px, r.head, r.seed) for r in runs] == [
        (px, head, seed) for px in (8, 12) for head in ("flatten", "gap") for seed in (0, 1)
    ]
    assert len({r.run_id for r in runs}) == 8
    assert len({r.pair_id for r in runs}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task__px": 3}, "task.px: Input should be greater than or equal to 4"),
        ({"task__train_images": 0}, "task.train_images: "),
        ({"backbone__norm": "layer"}, "backbone.norm: Input should be 'none', 'batch' or 'group'"),
        ({"recipe__dropout": 1.0}, "recipe.dropout: Input should be less than 1"),
        ({"recipe__peak_lr": 0}, "recipe.peak_lr: Input should be greater than 0"),
        ({"recipe__head_lr": 0}, "recipe.head_lr: Input should be greater than 0"),
        ({"recipe__head_weight_decay": -1}, "recipe.head_weight_decay: Input should be greater than or equal to 0"),
        ({"recipe__augment": "flip"}, "recipe.augment: Input should be 'none' or 'shift'"),
        ({"recipe__weight_decay": float("nan")}, "recipe.weight_decay: "),
        ({"head": "Gap"}, "head: String should match pattern"),
        ({"seed": -1}, "seed: "),
        ({"seed": 0.5}, "seed: "),
        ({"repeat": -1}, "repeat: "),
        ({"task__pixels": 8}, "task.pixels: Extra inputs are not permitted"),
        ({"heads": "gap"}, "heads: Extra inputs are not permitted"),
        ({"recipe__warmup_steps": 320}, r"recipe: warmup_steps \(320\) must be below steps \(320\)"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^here: {message}") as raised:
        validate(RunSpec, raw(**change), "here")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("field", ["peak_lr", "weight_decay"])
def test_an_infinite_value_is_refused_in_one_line_that_names_the_field(field: str) -> None:
    with pytest.raises(UserError, match=field):
        validate(RunSpec, raw(**{f"recipe__{field}": float("inf")}), "here")


def test_a_grid_with_a_misspelt_field_names_the_one_it_misses() -> None:
    with pytest.raises(UserError, match=r"^grid: seed: Field required$"):
        grid(task=TASK, backbone=Backbone(), head="gap", recipe=RECIPE, seeds=range(2))


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.seed = 4


@pytest.mark.parametrize(
    ("stages", "padding", "smallest"),
    [
        (3, "zero", 8),  # 8 -> 4 -> 2 -> 1; 7 -> 3 -> 1 -> 0
        (1, "valid", 6),  # (6 - 4) // 2 = 1
        (2, "valid", 16),  # (16 - 4) // 2 = 6, (6 - 4) // 2 = 1; 15 -> 5 -> 0
        (3, "valid", 36),  # (36 - 4) // 2 = 16; 35 -> 15
    ],
)
def test_an_input_that_is_too_small_is_told_the_smallest_that_fits(stages: int, padding: str, smallest: int) -> None:
    fields = {"backbone__stages": stages, "backbone__padding": padding}
    with pytest.raises(UserError, match=f"use px >= {smallest} or fewer stages"):
        validate(RunSpec, raw(task__px=smallest - 1, **fields), "spec")
    fits = validate(RunSpec, raw(task__px=smallest, **fields), "spec")
    assert fits.backbone.feature_px(smallest) == 1


def test_warm_up_may_take_all_but_the_last_step() -> None:
    assert validate(RunSpec, raw(recipe__warmup_steps=319), "spec").recipe.warmup_steps == 319


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(10, 4, (0, 4, 8, 10)), (8, 4, (0, 4, 8)), (3, 5, (0, 3)), (2, 1, (0, 1, 2))],
)
def test_the_evaluation_grid_begins_at_zero_and_ends_once_at_the_last_step(
    steps: int, every: int, expected: tuple[int, ...]
) -> None:
    assert Recipe(peak_lr=1, batch=1, steps=steps, eval_every=every).eval_steps == expected


def test_the_intervals_of_the_evaluation_grid_grow_by_the_declared_factor() -> None:
    grid = Recipe(peak_lr=1, batch=1, steps=40, eval_every=4, eval_growth=1.5).eval_steps
    assert grid == (0, 4, 10, 19, 32, 40)  # 4, 6, 9, 13.5 -> 32.5 rounds to even, 20.25 would pass the end


def test_an_experiment_of_pairs_is_accepted_and_read_back_whole() -> None:
    made = experiment(pilot_seeds=(100,))
    assert validate(Experiment, made.model_dump_json(), "experiment") == made
    assert [run.seed for run in made.pilot.runs] == [100, 100]
    assert [run.head for run in made.pilot.runs] == ["flatten", "gap"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": ()}, "runs: give at least one"),
        ({"runs": (SPEC, SPEC)}, "each cell, arm and seed once"),
        ({"runs": (SPEC,)}, "runs: no run is the arm flatten named in pair"),
        ({"pair": ("flatten", "gmp")}, "runs: no run is the arm gmp named in pair"),
        (
            {"runs": (SPEC, validate(RunSpec, raw(head="flatten", recipe__peak_lr=1e-3), "spec"))},
            "has no other half: of flatten and gap one has another peak_lr;",
        ),
        (
            {"runs": (SPEC, validate(RunSpec, raw(head="flatten", recipe__steps=100), "spec"))},
            "has no other half: of flatten and gap one has another steps;",
        ),
        (
            {"runs": (SPEC, validate(RunSpec, raw(head="flatten", seed=4), "spec"))},
            "has no other half: of flatten and gap one has another seed;",
        ),
        ({"tuned": {"flatten": 1e-3}, "tuned_on": "learning_rate"}, "tuned: no peak_lr for gap"),
        ({"tuned": {"flatten": 1e-3, "gap": 1e-2}}, "tuned and tuned_on: give both or neither"),
        ({"targets": ()}, "targets and train_losses: give at least one each"),
        ({"train_losses": ()}, "targets and train_losses: give at least one each"),
        ({"targets": (80,)}, "targets.0: Input should be less than 1"),
        ({"train_losses": (0.0,)}, "train_losses.0: Input should be greater than 0"),
        ({"pilot_seeds": (7, 1)}, "pilot_seeds: 1 is also a seed of the runs"),
        ({"piolt_seeds": (7,)}, "piolt_seeds: Extra inputs are not permitted"),
    ],
)
def test_an_experiment_that_breaks_a_rule_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        experiment(**change)
    assert "\n" not in str(raised.value)


def test_runs_that_differ_in_another_field_are_cells_of_their_own() -> None:
    recipe = RECIPE.model_copy(update={"warmup_steps": 0})
    fields = {"task": TASK, "backbone": Backbone(), "head": ("flatten", "gap"), "seed": range(2)}
    made = experiment(runs=grid(recipe=(RECIPE, recipe), **fields))
    assert made.factors == ("warmup_steps",)
    assert [cell.label for cell in made.cells] == [
        f"{TASK.px} px, warmup_steps {RECIPE.warmup_steps}",
        f"{TASK.px} px, warmup_steps 0",
    ]
    assert [len(specs) for specs in made.cells.values()] == [4, 4]


def test_the_tuned_regime_has_each_heads_own_rate_and_is_otherwise_equal() -> None:
    made = experiment(tuned={"flatten": RECIPE.peak_lr, "gap": 0.5}, tuned_on="learning_rate")
    shared, tuned = made.regimes["shared"], made.regimes["tuned"]
    assert {(spec.head, spec.recipe.peak_lr) for spec in tuned} == {("flatten", RECIPE.peak_lr), ("gap", 0.5)}
    assert [spec.with_recipe(peak_lr=RECIPE.peak_lr) for spec in tuned] == list(shared)
    assert [cell.regime for cell in made.cells] == ["shared", "tuned"]
    flatten = [spec for spec in shared if spec.head == "flatten"]
    assert len(made.all_runs) == 2 * len(shared) - len(flatten)  # flatten's own rate is the shared one: trained once


def test_a_recipe_that_acts_on_the_head_alone_is_an_arm_and_not_a_cell() -> None:
    recipes = (RECIPE, RECIPE.model_copy(update={"dropout": 0.5}))
    fields = {"task": TASK, "backbone": Backbone(), "head": ("flatten", "gap"), "seed": range(2)}
    made = experiment(runs=grid(recipe=recipes, **fields))
    assert set(made.arms) == {"flatten", "flatten, dropout 0.5", "gap", "gap, dropout 0.5"}
    assert len(made.cells) == 1


def test_other_seeds_give_the_same_cells() -> None:
    runs = experiment().with_seeds((5, 6, 7)).runs
    assert [(run.head, run.seed) for run in runs] == [(head, seed) for head in ("flatten", "gap") for seed in (5, 6, 7)]


def test_other_seeds_are_refused_where_one_is_a_pilot_seed() -> None:
    with pytest.raises(UserError, match="pilot_seeds: 5 is also a seed of the runs"):
        experiment(pilot_seeds=(5,)).with_seeds(range(6))


def test_a_negative_pilot_seed_is_refused() -> None:
    with pytest.raises(UserError, match="pilot_seeds"):
        experiment(pilot_seeds=(-1,))


def test_a_pilot_without_seeds_is_refused() -> None:
    with pytest.raises(UserError, match="declares no pilot_seeds"):
        _ = experiment().pilot


def test_an_unknown_name_is_refused_with_the_nearest_or_with_all() -> None:
    with pytest.raises(UserError, match=r"^unknown head 'flaten': did you mean 'flatten'\?$"):
        choose("head", "flaten", {"gap": 1, "flatten": 2})
    with pytest.raises(UserError, match=r"^unknown head 'xyz': known: flatten, gap$"):
        choose("head", "xyz", {"gap": 1, "flatten": 2})
    choose("head", "gap", ["gap"])
