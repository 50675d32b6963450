"""From a trained net to its record's audits, and back to a net: the whole way once, on digits, and its exact facts."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

from gapbench import audits
from gapbench.audits import SHARES, audit_maps, erase
from gapbench.cells import train_record
from gapbench.data import Dataset, Split, canvas, load, split
from gapbench.evaluate import count_batch, evaluate
from gapbench.localisation import choose_thresholds, enlarge, ground_truth, normalise, score_maps
from gapbench.models.classifier import init_classifier
from gapbench.nets import Net, Variables, folder_of, keep_net, load_net, logits_of
from gapbench.records import Record
from gapbench.report.maps import decode
from gapbench.shifts import audit_shifts
from gapbench.spec import Audit, Backbone, Recipe, RunSpec, Task, UserError
from gapbench.sweep import check_runnable

NAME = canvas("digits", scale=(0.9, 1.0))


def spec_of(head: str = "gap", dataset: str = NAME, audit: Audit | None = None, **backbone: object) -> RunSpec:
    return RunSpec(
        task=Task(dataset=dataset, px=16, train_images=100, val_images=40, curve_images=20),
        backbone=Backbone(width=4, stages=1, **backbone),  # type: ignore[arg-type]
        head=head,
        recipe=Recipe(peak_lr=1e-2, batch=20, steps=4, eval_every=2),
        seed=0,
        audit=audit or Audit(),
    )


def trained(spec: RunSpec, out: Path | None = None) -> tuple[Record, dict[str, float]]:
    with jax.numpy_dtype_promotion("standard"):  # which optax's schedule needs
        return train_record(spec, out)


def untrained(spec: RunSpec, dataset: Dataset) -> Net:
    splits = split(dataset, spec.task, spec.seed)
    _, params, stats = nnx.split(init_classifier(spec, 1, len(dataset.class_names)), nnx.Param, ...)
    return Net(spec, (params, stats), (jnp.asarray(splits.mean), jnp.asarray(splits.std)), dataset.class_names)


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """A few dozen images tell what hundreds do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, images in {"CHOOSING": 40, "JUDGED": 80, "ERASED": 40}.items():
            patch.setattr(audits, name, images)
        yield


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, dict[str, float], Path]:
    """One run that is asked everything."""
    out = tmp_path_factory.mktemp("out")
    asked = Audit(maps=True, shifts=(1, 2))
    record, timing = trained(spec_of(norm="batch", audit=asked), out)
    return record, timing, out


def test_a_record_holds_every_answer(audited: tuple[Record, dict[str, float], Path]) -> None:
    record, timing, _ = audited
    assert record.status == "ok", record.reason
    assert set(record.audits) == {"maps", "images", "erasing", "gallery", "shifts"}
    maps = record.audits["maps"]
    assert set(maps["map"]) == {"evidence", "contrast", "gradcam", "initial", "intensity", "centre"}
    assert all(0 <= float(value) <= 1 for value in maps["value"])
    assert record.audits["shifts"]["shift"] == (0, 1, 2)
    assert timing["audit_s"] > 0
    assert Record.model_validate_json(record.model_dump_json(by_alias=True)) == record


def test_a_run_that_is_asked_for_other_sizes_has_them_in_its_record_and_their_times_beside_it() -> None:
    record, timing = trained(spec_of(dataset="digits", audit=Audit(sizes=(12, 21))))
    assert record.status == "ok", record.reason
    assert set(record.audits) == {"sizes"}
    assert set(record.audits["sizes"]["px"]) == {12, 16, 21}
    assert timing["image_s_21_none"] > 0


def test_the_mean_over_images_is_what_the_table_says(audited: tuple[Record, dict[str, float], Path]) -> None:
    told = audited[0].audits
    means = {row[:2]: row[2] for row in zip(*told["maps"].values(), strict=True)}
    for metric in ("pointing", "pointing_15", "box_largest_50", "box", "precision"):
        assert np.mean(np.array(told["images"][metric], float)) == pytest.approx(means["evidence", metric])


def bright_net(head: str, name: str) -> Net:
    """Every weight one, so that evidence for any class is what is bright around; class 0 then is likelier."""
    spec = spec_of(head, name)
    net = untrained(spec, load(name, 16))
    params = jax.tree.map(jnp.ones_like, net.variables[0])
    kernel = params["head"]["dense"]["kernel"]
    kernel[...] = kernel[...].at[:, 1:].set(0.5) / kernel.shape[0]
    for conv in params["backbone"]["convs"].values():
        conv["bias"][...] = jnp.zeros_like(conv["bias"][...])
        conv["kernel"][...] = conv["kernel"][...] / conv["kernel"][...].size
    return net._replace(variables=(params, net.variables[1]), moments=(jnp.zeros(1), jnp.ones(1)))


@pytest.mark.parametrize("head", ["gap", "flatten"])
def test_evidence_of_a_net_that_sees_brightness_lies_on_the_only_bright_thing(head: str) -> None:
    name = canvas("digits", scale=(0.5, 0.6), clutter="none")
    net, dataset = bright_net(head, name), load(name, 16)
    told = audit_maps(net, dataset, split(dataset, net.spec.task, 0))
    assert np.mean(told["images"]["pointing"]) > 0.9
    means = {row[:2]: row[2] for row in zip(*told["maps"].values(), strict=True)}
    assert means["centre", "pointing"] < 0.5
    assert means["evidence", "pixels"] > 2 * means["centre", "pixels"]


def evidence_by_hand(net: Net, variables: Variables, part: Split) -> np.ndarray:
    """Of flatten: what each position adds to the logit of the image's own class, over the image and normalised."""
    model = nnx.merge(net.graph, *variables)
    maps = np.asarray(model.backbone(jnp.asarray(part.images, jnp.float32) / 255, False))
    kernel = np.asarray(model.head.dense.kernel[...]).reshape(*maps.shape[1:], -1)
    own = np.einsum("bhwc,hwck->bhwk", maps, kernel)[np.arange(len(part.labels)), :, :, part.labels]
    return normalise(enlarge(own, 16, 2, 0))


def test_scores_are_of_an_image_s_own_class_by_thresholds_of_other_images_beside_the_initial_weights() -> None:
    name = canvas("digits", scale=(0.5, 0.8))
    net, dataset = untrained(spec_of("flatten", name), load(name, 16)), load(name, 16)
    other = untrained(net.spec.model_copy(update={"seed": 1}), dataset)  # in place of trained weights
    net = net._replace(variables=other.variables, moments=(jnp.zeros(1), jnp.ones(1)))
    splits = split(dataset, net.spec.task, 0)
    told = audit_maps(net, dataset, splits)["maps"]
    means = {row[:2]: row[2] for row in zip(*told.values(), strict=True)}
    val, test = audits.judged(splits.val, 40), audits.judged(splits.test, 80)
    assert dataset.train_masks is not None
    assert dataset.test_masks is not None
    masks = dataset.train_masks[val.places], dataset.test_masks[test.places]
    for which, variables in (("evidence", net.variables), ("initial", net.initial)):
        choosing, judging = (evidence_by_hand(net, variables, part) for part in (val, test))
        thresholds = choose_thresholds(choosing, ground_truth(masks[0]))
        assert thresholds != choose_thresholds(judging, ground_truth(masks[1]))  # or it would not matter which
        for metric, values in score_maps(judging, masks[1], thresholds).items():
            assert means[which, metric] == pytest.approx(values.mean(), abs=0.02), (which, metric)  # ties by rounding


def test_an_erased_pixel_has_the_mean_colour_of_the_training_images() -> None:
    dataset = load(NAME, 16)
    net = untrained(spec_of(), dataset)._replace(moments=(jnp.full(1, 0.4), jnp.ones(1)))
    test = split(dataset, net.spec.task, 0).test
    table = erase(net, test, {"evidence": test.images[..., 0].astype(float)})
    blank, black = (softmax(logits_of(net, np.full((1, 16, 16, 1), level, np.uint8)), axis=1)[0] for level in (102, 0))
    own = test.labels[np.arange(40) * len(test.labels) // 40]
    assert table["share"][10] == 1.0
    assert table["probability"][10] == pytest.approx(float(blank[own].mean()), rel=1e-5)  # 102 = 0.4 · 255
    assert table["probability"][10] != pytest.approx(float(black[own].mean()), rel=1e-3)


def test_what_is_erased_first_is_what_the_order_puts_first() -> None:
    name = canvas("digits", scale=(0.9, 1.0), clutter="none")
    net, dataset = bright_net("gap", name), load(name, 16)
    test = split(dataset, net.spec.task, 0).test
    test = test._replace(labels=np.zeros_like(test.labels))
    bright = test.images[..., 0].astype(float)
    table = erase(net, test, {"evidence": bright, "reverse": -bright})
    rows = {(order, way, share): value for order, way, share, value in zip(*table.values(), strict=True)}
    assert rows["evidence", "deletion", 0.5] < rows["reverse", "deletion", 0.5]
    assert rows["evidence", "insertion", 0.5] > rows["reverse", "insertion", 0.5]
    blank = rows["evidence", "deletion", 1.0]
    assert rows["evidence", "deletion", 0.5] == pytest.approx(blank, abs=1e-4)  # more than half of it is black
    assert rows["evidence", "deletion", 0.0] > blank + 1e-4


def test_erasing_begins_whole_and_ends_blank_and_showing_the_reverse(
    audited: tuple[Record, dict[str, float], Path],
) -> None:
    table = audited[0].audits["erasing"]
    rows = list(zip(*table.values(), strict=True))
    at = {(order, way, share): value for order, way, share, value in rows}
    for order in ("evidence", "initial"):
        assert at[order, "deletion", 0.0] == at[order, "insertion", 1.0]
        assert at[order, "deletion", 1.0] == at[order, "insertion", 0.0]
    assert len(rows) == 4 * len(SHARES)


def test_the_gallery_is_the_first_image_of_each_class_with_its_map(
    audited: tuple[Record, dict[str, float], Path],
) -> None:
    gallery = audited[0].audits["gallery"]
    assert gallery["label"] == tuple(range(8))
    dataset = load(NAME, 16)
    for place, text in zip(gallery["place"], gallery["image"], strict=True):
        np.testing.assert_array_equal(decode(str(text), "u1", 16, 16, 1), dataset.test_images[int(place)])
    assert decode(str(gallery["evidence"][0]), "<f4", 8, 8).shape == (8, 8)


def test_the_kept_net_is_the_one_that_was_scored(audited: tuple[Record, dict[str, float], Path]) -> None:
    record, _, out = audited
    folder = folder_of(out / "records" / f"{record.run_id}.json")
    net = load_net(folder, record.spec)
    assert net is not None
    test = split(load(NAME, 16), record.spec.task, 0).test
    count = functools.partial(jax.jit(functools.partial(count_batch, net.graph)), net.variables, net.moments)
    assert evaluate(count, test.images, test.labels) == (record.final["test"].loss, record.final["test"].accuracy)


def test_a_net_is_kept_whole_and_loaded_as_the_same_run_alone(tmp_path: Path) -> None:
    dataset = load(NAME, 16)
    net, other = untrained(spec_of("gap"), dataset), spec_of("flatten")
    assert load_net(tmp_path / "none", net.spec) is None
    keep_net(tmp_path / "net", net)
    loaded = load_net(tmp_path / "net", net.spec)
    assert loaded is not None
    kernel = loaded.variables[0]["head"]["dense"]["kernel"][...]
    np.testing.assert_array_equal(kernel, net.variables[0]["head"]["dense"]["kernel"][...])
    with pytest.raises(UserError, match=f"holds {net.spec.run_id}; delete it"):
        load_net(tmp_path / "net", other)
    shutil.rmtree(next((tmp_path / "net").glob("*/leaves")))
    with pytest.raises(UserError, match="delete it, and the net is trained again"):
        load_net(tmp_path / "net", net.spec)


def test_answers_depend_on_the_spec_alone() -> None:
    spec = spec_of("flatten", audit=Audit(maps=True, shifts=(2,)))
    one, again = (trained(spec)[0] for _ in range(2))
    assert one.result == again.result


def test_circular_padding_and_gap_do_not_see_a_shift_by_their_stride() -> None:
    dataset = load(NAME, 16)
    test = split(dataset, spec_of().task, 0).test
    net = untrained(spec_of("gap", padding="circular"), dataset)
    table = audit_shifts(net, dataset, test, (1, 2, 4))
    assert table["consistency"][2:] == [1.0, 1.0]
    assert table["consistency"][1] < 1
    flatten = audit_shifts(untrained(spec_of("flatten", padding="circular"), dataset), dataset, test, (2,))
    assert flatten["consistency"][1] < 1


def test_images_whose_object_a_shift_would_cut_are_left_out() -> None:
    dataset = load(NAME, 16)
    test = split(dataset, spec_of().task, 0).test
    table = audit_shifts(untrained(spec_of(), dataset), dataset, test, (3,))
    assert dataset.test_masks is not None
    free = (dataset.test_masks[:, -3:] == 0).all(axis=(1, 2)) & (dataset.test_masks[:, :, -3:] == 0).all(axis=(1, 2))
    assert table["images"] == [len(test.labels), int(free.sum())]
    assert 0 < free.sum() < len(test.labels)


def test_maps_of_images_without_known_places_are_refused_before_anything_is_trained() -> None:
    spec = spec_of(dataset="digits", audit=Audit(maps=True))
    with pytest.raises(
        UserError, match=r"audit.maps: digits does not say where its objects are; make it canvas\('digits'\)"
    ):
        check_runnable([spec])


@pytest.mark.parametrize(
    ("dataset", "audit", "told"),
    [
        ("digits", Audit(shifts=(2, 16)), "audit.shifts: 16 px leaves no object whole on 16 px; give smaller ones"),
        (NAME, Audit(shifts=(15,)), "audit.shifts: 15 px leaves no object whole"),
        (NAME, Audit(sizes=(20,)), "audit.sizes: a canvas of another size is another picture; ask it of images"),
    ],
)
def test_what_the_data_cannot_answer_is_refused_before_anything_is_trained(
    dataset: str, audit: Audit, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        check_runnable([spec_of(dataset=dataset, audit=audit)])


def test_a_kept_net_whose_head_has_changed_since_is_refused(tmp_path: Path) -> None:
    dataset = load(NAME, 16)
    net = untrained(spec_of("flatten"), dataset)
    keep_net(tmp_path / "net", net._replace(variables=untrained(spec_of("gap"), dataset).variables))
    with pytest.raises(UserError, match="of another net than 'flatten' is now; delete it"):
        load_net(tmp_path / "net", net.spec)
