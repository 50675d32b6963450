"""How well score maps find objects whose place is known: NumPy and SciPy alone, one number an image.

Semantics are those of the evaluation of weakly supervised localisation by Choe et al. 2020 (arXiv 2001.07437): a map is
laid over the image (bilinear, half-pixel centres), min-max normalised image by image, and thresholded strictly above τ.
A box is top, left, bottom, right with both ends inside, so that its area is (bottom - top + 1) · (right - left + 1).
Components touch at sides or corners. A map without any contrast finds nothing. Three things differ from theirs: a
component's size is its pixels, not the area within its contour; τ is one of 19, not of 1000; and it is chosen on other
images than those that are judged, where they take the one that is best on these.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage
from sklearn.metrics import average_precision_score

from gapbench.data.canvas import boxes_of

Maps = Float[np.ndarray, "N px px"]
Masks = UInt8[np.ndarray, "N px px"]
Boxes = Int[np.ndarray, "N O 4"]  # an image with fewer objects than another repeats its first
THRESHOLDS = np.arange(0.05, 1, 0.05)  # τ
OVERLAPS = (0.3, 0.5, 0.7)  # δ: the intersection over union that counts as found
TOLERANCES = {"pointing": 0.0, "pointing_15": 15 / 224}  # of the pointing game, in sides of the image
TOGETHER = np.zeros((3, 3, 3), bool)  # which pixels of a stack of images touch: the eight around, of the same image
TOGETHER[1] = True


def enlarge(maps: Float[np.ndarray, "N h h"], px: int, stride: int, start: int) -> Maps:
    """Each position over the stride × stride pixels it was pooled from, the first of which is at `start`.

    Bilinear, with the half-pixel centres that image libraries have. Beyond the outer centres, and so where pooling left
    pixels out, a map is constant: a maximum at an edge is shared by stride / 2 pixels or more.
    """
    over = stretch(maps, maps.shape[1] * stride)[:, : px - start, : px - start]
    rest = (start, px - start - over.shape[1])
    return np.pad(over, ((0, 0), rest, rest), mode="edge")


def stretch(maps: Float[np.ndarray, "N h h"], px: int) -> Maps:
    """Bilinear to px × px, whatever the ratio."""
    zoom = px / maps.shape[1]
    return np.asarray(ndimage.zoom(maps, (1, zoom, zoom), order=1, mode="nearest", grid_mode=True))


def normalise(maps: Maps) -> Maps:
    """Of each image (m - min) / (max - min); zeros where a map is constant."""
    low, high = (end(maps, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def ground_truth(masks: Masks) -> Boxes:
    """Every object's box."""
    found = [boxes_of(mask) for mask in masks]
    most = max(map(len, found))
    return np.stack([np.concatenate([boxes, boxes[:1].repeat(most - len(boxes), axis=0)]) for boxes in found])


def pointing_game(maps: Maps, boxes: Boxes, tolerance: float) -> Float[np.ndarray, "N"]:
    """Whether the maximum lies in a box, or within tolerance · px of one (Zhang et al. 2016, arXiv 1608.00507).

    Where several pixels share the maximum, the share of them that do: a constant map scores as a blind guess.
    """
    px = maps.shape[1]
    at = np.arange(px)
    outside = [
        np.maximum(np.maximum(boxes[..., low, None] - at, at - boxes[..., high, None]), 0)
        for low, high in ((0, 2), (1, 3))
    ]
    distance = np.hypot(outside[0][..., :, None], outside[1][..., None, :]).min(axis=1)
    best = maps == maps.max(axis=(1, 2), keepdims=True)
    return np.asarray((best & (distance <= tolerance * px)).sum(axis=(1, 2)) / best.sum(axis=(1, 2)))


def overlap(a: Int[np.ndarray, "... 4"], b: Int[np.ndarray, "... 4"]) -> Float[np.ndarray, "..."]:
    """Intersection over union of boxes, both ends inside."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.maximum(high - low + 1, 0).prod(axis=-1)
    each = [(box[..., 2:] - box[..., :2] + 1).prod(axis=-1) for box in (a, b)]
    return np.asarray(both / (each[0] + each[1] - both))


class BoxOverlap(NamedTuple):
    """The best overlap with an object, 0 where nothing lies above the threshold."""

    largest: Float[np.ndarray, "N"]  # of the box around the largest component: version 1 of MaxBoxAcc
    every: Float[np.ndarray, "N"]  # of the best of the boxes around all components: version 2


def box_overlap(maps: Maps, boxes: Boxes, threshold: float) -> BoxOverlap:
    """Of normalised maps at one τ. Of components that are equally large the first, line by line, counts."""
    labels, n = ndimage.label(maps > threshold, structure=TOGETHER)
    found = BoxOverlap(np.zeros(len(maps)), np.zeros(len(maps)))
    if not n:
        return found
    slices = ndimage.find_objects(labels)
    image = np.array([i.start for i, _, _ in slices])
    own = np.array([(y.start, x.start, y.stop - 1, x.stop - 1) for _, y, x in slices])
    best = overlap(own[:, None], boxes[image]).max(axis=1)
    np.maximum.at(found.every, image, best)
    area = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    order = np.lexsort((-np.arange(n), area))  # the last of an image is its largest, and of equal ones the first
    found.largest[image[order]] = best[order]
    return found


class Thresholds(NamedTuple):
    """τ for each δ, by which components count."""

    largest: tuple[float, ...]
    every: tuple[float, ...]


def choose_thresholds(maps: Maps, boxes: Boxes) -> Thresholds:
    """For each δ the τ at which most images are found; of equal ones the lowest."""
    overlaps = [box_overlap(maps, boxes, float(threshold)) for threshold in THRESHOLDS]

    def best(values: Sequence[Float[np.ndarray, "N"]]) -> tuple[float, ...]:
        counts = [[int((value >= delta).sum()) for value in values] for delta in OVERLAPS]
        return tuple(float(THRESHOLDS[int(np.argmax(count))]) for count in counts)

    return Thresholds(best([o.largest for o in overlaps]), best([o.every for o in overlaps]))


def pixel_precision(maps: Maps, masks: Bool[np.ndarray, "N px px"]) -> float:
    """PxAP: average precision of all pixels of all images together, a normalised map against the objects' pixels."""
    return float(average_precision_score(masks.ravel(), maps.ravel()))


def score_maps(maps: Maps, masks: Masks, thresholds: Thresholds) -> dict[str, Float[np.ndarray, "N"]]:
    """Of normalised maps, image by image: whether each metric finds an object; `precision` is of one image's pixels.

    box_largest_δ and box_all_δ for each δ in percent; `box`, the mean of the latter over δ, is MaxBoxAcc V2, and
    box_largest_50 is V1.
    """
    boxes = ground_truth(masks)
    scores = {name: pointing_game(maps, boxes, tolerance) for name, tolerance in TOLERANCES.items()}
    at = {t: box_overlap(maps, boxes, t) for t in {*thresholds.largest, *thresholds.every}}
    for i, delta in enumerate(OVERLAPS):
        largest, every = at[thresholds.largest[i]].largest, at[thresholds.every[i]].every
        scores[f"box_largest_{delta:.0%}".rstrip("%")] = (largest >= delta).astype(float)
        scores[f"box_all_{delta:.0%}".rstrip("%")] = (every >= delta).astype(float)
    scores["box"] = np.mean([values for name, values in scores.items() if name.startswith("box_all")], axis=0)
    pairs = zip(masks > 0, maps, strict=True)
    scores["precision"] = np.array([average_precision_score(mask.ravel(), one.ravel()) for mask, one in pairs])
    return scores


def centre_maps(n: int, px: int) -> Maps:
    """The baseline that looks at nothing: above any τ lies a box around the centre."""
    away = np.abs(np.arange(px) - (px - 1) / 2)
    return np.broadcast_to(-np.maximum.outer(away, away), (n, px, px)).copy()
