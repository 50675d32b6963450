"""The runs of a pair share data, subset, initial backbone and order bit for bit; twins break each and are refused."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from gapbench import cells, train
from gapbench.data import Dataset, load, split
from gapbench.keys import STREAMS, generator_for, key_for
from gapbench.models.classifier import Classifier, init_classifier
from gapbench.models.registry import BACKBONES, HEADS
from gapbench.records import Record, check_pairs
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError

HASHES = ("data", "subset", "backbone", "order")


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    """optax mixes integer step counters with floats, which the strict promotion of conftest refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def spec_of(head: str, seed: int = 0, px: int = 8, augment: Any = "none") -> RunSpec:
    return RunSpec(
        task=Task(dataset="digits", px=px, train_images=40, val_images=20),
        backbone=Backbone(width=4, stages=1),
        head=head,
        recipe=Recipe(
            optimizer="sgd", peak_lr=0.01, batch=8, steps=7, eval_every=7, schedule="constant", augment=augment
        ),
        seed=seed,
    )


def run(head: str, seed: int = 0, augment: Any = "none") -> Record:
    record, _ = cells.train_record(spec_of(head, seed, augment=augment))
    assert record.status == "ok", record.reason
    return record


@pytest.fixture(scope="module")
def pair() -> dict[str, Record]:
    """Trained as a sweep does."""
    with jax.numpy_dtype_promotion("standard"):
        return {head: run(head) for head in ("flatten", "gap")}


def refused(records: list[Record], name: str) -> None:
    """`check_pairs` refuses in both orders, and names this hash, no other, and both runs."""
    for order in (records, records[::-1]):
        with pytest.raises(UserError, match=f"are no pair: {name} differ; delete both") as raised:
            check_pairs(order)
        assert all(record.run_id in str(raised.value) for record in records)


def test_the_runs_of_a_pair_carry_the_same_four_hashes(pair: dict[str, Record]) -> None:
    flatten, gap = pair["flatten"], pair["gap"]
    assert tuple(flatten.pairing) == HASHES
    assert flatten.pairing == gap.pairing
    assert flatten.pair_id == gap.pair_id
    assert flatten.final["test"].loss != gap.final["test"].loss  # they are two runs
    check_pairs([flatten, gap])


def test_the_initial_backbones_of_a_pair_are_equal_bit_for_bit_and_those_of_two_seeds_are_not() -> None:
    def backbone(head: str, seed: int) -> list[np.ndarray]:
        state = nnx.state(init_classifier(spec_of(head, seed), 1, 10).backbone, nnx.Param)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

    reference = backbone("flatten", 0)
    for head in ("gap", "gap_conv", "gmp", "gap_mlp", "ladder_tiled:3", "flatten_lowrank"):
        for ours, theirs in zip(backbone(head, 0), reference, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    kernels = [(a, b) for a, b in zip(backbone("flatten", 1), reference, strict=True) if a.ndim == 4]
    assert all(np.abs(a - b).max() > 0.1 for a, b in kernels)


def from_one_stream(head_first: bool) -> Callable[..., Classifier]:
    """`init_classifier` with the classic mistake: head and backbone draw in turn from the same stream."""

    def sabotaged(spec: RunSpec, image_channels: int, classes: int) -> Classifier:
        rngs = nnx.Rngs(key_for(spec.seed, "backbone"))

        def head() -> Any:
            return HEADS[spec.head](spec.backbone.channels, spec.backbone.feature_px(spec.task.px), classes, "", rngs)

        if head_first and spec.head != "flatten":  # as if only this head drew numbers of its own
            first = head()
            return Classifier(BACKBONES["plain"](spec.backbone, image_channels, rngs), first)
        backbone = BACKBONES["plain"](spec.backbone, image_channels, rngs)
        return Classifier(backbone, head())

    return sabotaged


def test_a_head_that_draws_from_the_backbone_s_stream_before_it_breaks_the_pair(
    pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "init_classifier", from_one_stream(head_first=True))
    refused([pair["flatten"], run("gap")], "backbone")


def test_a_head_that_draws_after_the_backbone_does_not_move_it(
    pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "init_classifier", from_one_stream(head_first=False))
    after = run("gap")
    check_pairs([pair["flatten"], after])
    assert after.final["test"] != pair["gap"].final["test"]  # although its own start is another


class Own(BACKBONES["plain"]):  # type: ignore[misc]
    """A backbone of one's own, at first."""


def test_a_backbone_of_one_s_own_whose_code_was_edited_between_the_halves_breaks_the_pair(
    pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "plain", Own)
    first, edited = run("flatten"), inspect.getsource(Own).replace("at first", "later")
    check_pairs([first, run("gap")])
    assert "backbone_code" not in pair["flatten"].pairing
    monkeypatch.setattr(inspect, "getsource", lambda _: edited)
    refused([first, run("gap")], "backbone_code")


def test_another_batch_order_breaks_the_pair(pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = train.batches
    monkeypatch.setattr(train, "batches", lambda n, batch, steps, seed: honest(n, batch, steps, seed + 1))
    refused([pair["flatten"], run("gap")], "order")


def test_other_augmentations_break_the_pair_and_none_is_compared_with_any(
    pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    flatten, gap = (run(head, augment="shift") for head in ("flatten", "gap"))
    assert tuple(gap.pairing) == (*HASHES, "augment")
    assert gap.final["test"] != pair["gap"].final["test"]
    assert gap.pairing["augment"] != run("gap", 1, "shift").pairing["augment"]
    check_pairs([pair["gap"], flatten, pair["flatten"], gap])
    honest = train.make_constants
    monkeypatch.setattr(
        train, "make_constants", lambda spec, m: honest(spec.model_copy(update={"seed": spec.seed + 1}), m)
    )
    refused([flatten, run("gap", augment="shift")], "augment")


def test_another_training_subset_breaks_the_pair(pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "split", lambda dataset, task, seed: split(dataset, task, seed + 1))
    refused([pair["flatten"], run("gap")], "subset")


def test_another_version_of_the_data_breaks_the_pair(pair: dict[str, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    def other(name: str, px: int) -> Dataset:
        dataset = load(name, px)
        return Dataset(**{**vars(dataset), "fingerprint": "0" * 16})

    monkeypatch.setattr("gapbench.data.load", other)
    refused([pair["flatten"], run("gap")], "data, subset")


def test_the_subset_and_the_order_do_not_know_the_head_and_do_know_the_seed() -> None:
    dataset = load("digits", 8)
    splits = [split(dataset, spec_of(head, seed).task, seed) for head, seed in (("flatten", 0), ("gap", 0), ("gap", 1))]
    np.testing.assert_array_equal(splits[0].train.images, splits[1].train.images)
    assert splits[0].subset_hash == splits[1].subset_hash != splits[2].subset_hash
    orders = [train.batches(40, 8, 7, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()


def test_runs_of_different_pairs_are_not_compared(pair: dict[str, Record]) -> None:
    other = run("gap", seed=1)
    assert {name for name in HASHES if other.pairing[name] != pair["gap"].pairing[name]} == {
        "subset",
        "backbone",
        "order",
    }
    check_pairs([pair["flatten"], other, pair["gap"]])


def test_a_run_that_failed_before_it_had_hashes_does_not_block_the_pair_nor_hide_an_unequal_one(
    pair: dict[str, Record],
) -> None:
    relu, gmp = (
        Record.model_validate(
            {
                "schema": 2,
                "run_id": spec.run_id,
                "pair_id": spec.pair_id,
                "spec": spec,
                "status": "failed",
                "reason": "RuntimeError: on purpose",
                "provenance": {},
            }
        )
        for spec in (spec_of("gap_conv:relu"), spec_of("gmp"))
    )
    check_pairs([relu, pair["flatten"], gmp, pair["gap"]])
    broken = pair["gap"].model_copy(update={"pairing": pair["gap"].pairing | {"order": "0" * 16}})
    with pytest.raises(UserError, match="order differ"):
        check_pairs([relu, pair["flatten"], gmp, broken])


def test_runs_of_other_lengths_have_an_order_of_their_own(pair: dict[str, Record]) -> None:
    def longer(record: Record, order: str) -> Record:
        spec = record.spec.with_recipe(steps=2 * record.spec.recipe.steps)
        named = {"run_id": spec.run_id, "pair_id": spec.pair_id, "pairing": record.pairing | {"order": order}}
        return record.model_copy(update={"spec": spec, **named})

    flatten, gap = (longer(pair[head], "1" * 16) for head in ("flatten", "gap"))
    assert flatten.pair_id == pair["flatten"].pair_id
    check_pairs([pair["flatten"], flatten, gap, pair["gap"]])
    with pytest.raises(UserError, match=f"{flatten.run_id} and {gap.run_id} are no pair: order differ"):
        check_pairs([pair["flatten"], flatten, longer(pair["gap"], "2" * 16), pair["gap"]])


def test_a_record_that_claims_another_pair_is_refused(pair: dict[str, Record]) -> None:
    stray = pair["gap"].model_copy(update={"pair_id": "00000000"})
    with pytest.raises(UserError, match=f"{stray.run_id}: pair_id does not belong to its spec"):
        check_pairs([pair["flatten"], stray])


def test_streams_are_folded_by_name_so_their_order_of_use_does_not_matter() -> None:
    forward = {name: key_for(7, name) for name in STREAMS}
    backward = {name: key_for(7, name) for name in reversed(STREAMS)}
    data = {name: tuple(jax.random.key_data(key).tolist()) for name, key in forward.items()}
    assert data == {name: tuple(jax.random.key_data(key).tolist()) for name, key in backward.items()}
    assert len(set(data.values())) == len(STREAMS)
    draws = {name: generator_for(7, name).integers(2**62) for name in STREAMS}
    assert len(set(draws.values())) == len(STREAMS)
    assert draws["order"] == generator_for(7, "order").integers(2**62) != generator_for(8, "order").integers(2**62)


@pytest.mark.parametrize("stream_of", [key_for, generator_for])
def test_a_misspelt_stream_is_refused(stream_of: Callable[[int, str], Any]) -> None:
    with pytest.raises(ValueError, match="unknown stream 'ordre'"):
        stream_of(0, "ordre")
