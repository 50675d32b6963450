"""What a spec's `audit` asks of a trained net, answered as tables for its record; here, how well its maps localise."""

import base64
import time
from typing import Any

import numpy as np
from jaxtyping import UInt8
from scipy.special import softmax

from gapbench.data import Dataset, load, split
from gapbench.data.canvas import boxes_of, is_canvas
from gapbench.data.splits import Split, Splits, part_of
from gapbench.localisation import (
    Maps,
    centre_maps,
    choose_thresholds,
    enlarge,
    ground_truth,
    normalise,
    pixel_precision,
    score_maps,
)
from gapbench.maps import Explained, explain
from gapbench.nets import Net, logits_of
from gapbench.shifts import audit_shifts, stays_whole
from gapbench.sizes import audit_sizes
from gapbench.spec import Audit, RunSpec, UserError

Columns = dict[str, list[Any]]
CHOOSING, JUDGED, ERASED = 200, 400, 200  # images: of validation for τ; of test for the scores; of those for the curves
SHARES = np.linspace(0, 1, 11)  # of the pixels that are erased, or shown
GALLERY_SEED, GALLERY = 0, 8  # whose record holds maps; of how many classes
IMAGE_METRICS = ("pointing", "pointing_15", "box_largest_50", "box", "precision")  # what is kept image by image


def audit_net(net: Net, dataset: Dataset, splits: Splits) -> tuple[dict[str, Columns], dict[str, float]]:
    """The tables of all that is asked, and its seconds; the spec passed `check_audit`."""
    asked, tables, timing = net.spec.audit, dict[str, Columns](), dict[str, float]()
    start = time.perf_counter()
    if asked.maps:
        tables |= audit_maps(net, dataset, splits)
    if asked.sizes:
        tables["sizes"], timing = audit_sizes(net, splits, asked.sizes)
    if asked.shifts:
        tables["shifts"] = audit_shifts(net, dataset, judged(splits.test, JUDGED), asked.shifts)
    return tables, {**timing, "audit_s": time.perf_counter() - start} if asked != Audit() else {}


def check_audit(spec: RunSpec) -> None:
    """Raise UserError, before anything is trained, where the data cannot answer what is asked."""
    asked, task = spec.audit, spec.task
    if asked.maps and not is_canvas(task.dataset):
        told = f"{task.dataset} does not say where its objects are"
        raise UserError(f"audit.maps: {told}; make it canvas({task.dataset!r})")
    if asked.sizes and is_canvas(task.dataset):
        raise UserError("audit.sizes: a canvas of another size is another picture; ask it of images")
    for px in asked.sizes:
        load(task.dataset, px)
    if not asked.shifts:
        return
    dataset = load(task.dataset, task.px)
    test = judged(split(dataset, task, spec.seed).test, JUDGED)
    for shift in asked.shifts:
        if shift >= task.px or not stays_whole(dataset, test, shift).any():
            raise UserError(f"audit.shifts: {shift} px leaves no object whole on {task.px} px; give smaller ones")


def judged(part: Split, n: int) -> Split:
    """At most n images, the same whatever the seed of the run where the split is."""
    return part_of(part, n, np.random.default_rng(0))


def audit_maps(net: Net, dataset: Dataset, splits: Splits) -> dict[str, Columns]:
    """`maps`: the mean of every metric for every map and baseline, each image's own class shown (GT-known);
    `images`: the scores of the evidence map, image by image; `erasing`: deletion and insertion; `gallery`.
    """
    assert dataset.train_masks is not None
    assert dataset.test_masks is not None
    val, test = judged(splits.val, CHOOSING), judged(splits.test, JUDGED)
    masks = (dataset.train_masks[val.places], dataset.test_masks[test.places])
    explained = [explain(net.graph, net.variables, net.moments, part) for part in (val, test)]
    initial = [explain(net.graph, net.initial, net.moments, part).evidence for part in (val, test)]
    px, backbone = dataset.px, net.spec.backbone

    def over(maps: np.ndarray) -> Maps:
        return enlarge(maps.astype(float), px, backbone.stride, backbone.start)

    raw = {
        name: [over(np.asarray(getattr(part, name))) for part in explained]
        for name in ("evidence", "contrast", "gradcam")
    }
    raw["initial"] = [over(np.asarray(part)) for part in initial]
    raw["intensity"] = [part.images.mean(axis=-1) for part in (val, test)]
    raw["centre"] = [centre_maps(len(part.labels), px) for part in (val, test)]
    boxes = ground_truth(masks[0])
    table: Columns = {"map": [], "metric": [], "value": []}
    own = dict[str, np.ndarray]()
    for name, parts in raw.items():
        choosing, judging = map(normalise, parts)
        scores = score_maps(judging, masks[1], choose_thresholds(choosing, boxes))
        own = scores if name == "evidence" else own
        means = {metric: float(values.mean()) for metric, values in scores.items()}
        for metric, value in {**means, "pixels": pixel_precision(judging, masks[1] > 0)}.items():
            for column, cell in zip(table.values(), (name, metric, value), strict=True):
                column.append(cell)
    predicted = explained[1].logits.argmax(axis=1)
    images: Columns = {"place": test.places.tolist(), "correct": (predicted == test.labels).astype(int).tolist()}
    images |= {metric: own[metric].tolist() for metric in IMAGE_METRICS}
    orders = {"evidence": raw["evidence"][1], "initial": raw["initial"][1]}
    tables = {"maps": table, "images": images, "erasing": erase(net, test, orders)}
    if net.spec.seed == GALLERY_SEED:
        tables["gallery"] = make_gallery(test, masks[1], explained[1], predicted)
    return tables


def erase(net: Net, test: Split, orders: dict[str, Maps]) -> Columns:
    """The mean probability of each image's class while its pixels are erased, or shown, those of most evidence first.

    Erased is a pixel that has the mean colour of the training images (Petsiuk et al. 2018, arXiv 1806.07421). The order
    of the same net's initial weights is the control.
    """
    n = min(len(test.labels), ERASED)
    part = np.arange(n) * len(test.labels) // n  # evenly, for the classes may stand in order
    images, labels = test.images[part], test.labels[part]
    blank = np.rint(255 * np.asarray(net.moments[0])).astype(np.uint8)
    table: Columns = {"order": [], "way": [], "share": [], "probability": []}
    for name, maps in orders.items():
        flat = maps[part].reshape(len(part), -1)
        rank = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1).reshape(images.shape[:3])
        for way in ("deletion", "insertion"):
            for share in SHARES:
                first = (rank < round(share * flat.shape[1]))[..., None]
                seen = np.where(first == (way == "insertion"), images, blank)
                shares = softmax(logits_of(net, seen).astype(float), axis=1)
                probability = float(shares[np.arange(len(labels)), labels].mean())
                for column, cell in zip(table.values(), (name, way, float(share), probability), strict=True):
                    column.append(cell)
    return table


def make_gallery(test: Split, masks: UInt8[np.ndarray, "N px px"], explained: Explained, predicted: Any) -> Columns:
    """Of each of the first eight classes the first judged image, whatever the net says of it: pixels, box and map."""
    chosen = [int(np.flatnonzero(test.labels == label)[0]) for label in np.unique(test.labels)[:GALLERY]]
    boxes = [boxes_of(masks[i])[0] for i in chosen]
    return {
        "place": test.places[chosen].tolist(),
        "label": test.labels[chosen].tolist(),
        "predicted": np.asarray(predicted)[chosen].tolist(),
        **{name: [int(box[i]) for box in boxes] for i, name in enumerate(("top", "left", "bottom", "right"))},
        "image": [encode(test.images[i]) for i in chosen],  # uint8 [px, px, C]
        "evidence": [encode(np.asarray(explained.evidence[i], "<f4")) for i in chosen],  # [H', W']
    }


def encode(values: np.ndarray) -> str:
    """The bytes of an array as text."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
