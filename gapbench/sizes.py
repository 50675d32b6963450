"""A net that was built for one size on images of another: which heads take them, and what adapts those that do not.

    none         the net as it is; GAP's answer, and refused by a head with a weight a position
    resize       the image resized back to the size the net was built for
    pool         the feature map averaged over a grid of the side it was built for (`grid_pool`)
    interpolate  flatten's weights, an image of H'×W' each, resized to the map and divided by how many more there are

Batch statistics belong to a size, too (Touvron et al. 2019, arXiv 1906.06423): `own` are those of the training size,
`new` were estimated again on training images of the test size.
"""

import functools
import time
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from gapbench.data import load
from gapbench.data.sizing import resize
from gapbench.data.splits import Split, Splits, part_of
from gapbench.evaluate import count_logits, evaluate
from gapbench.maps import Read
from gapbench.models.classifier import Classifier, Moments, normalise
from gapbench.models.dropout import keep_all
from gapbench.models.heads import Flatten, grid_pool
from gapbench.nets import Net, Variables
from gapbench.spec import RunSpec, UserError

Adapter = Literal["none", "resize", "pool", "interpolate"]
Images = UInt8[np.ndarray, "_N _H _W _C"]  # _: two of one signature may differ
EVALUATED = {"val": 200, "test": 500}  # images of each split, the same for every size
ESTIMATED = 500  # training images for batch statistics


def adapters(net: Net, px: int) -> list[Adapter]:
    """Those by which a net takes images of px×px, and `none` where it needs none."""
    return [adapter for adapter in get_args(Adapter) if not why_not(net, px, adapter)]


def why_not(net: Net, px: int, adapter: Adapter) -> str:
    """Why a net cannot take images of this size with this adapter; empty where it can."""
    spec = net.spec
    own = spec.backbone.feature_px(spec.task.px)
    if adapter == "resize":
        return ""
    model: Classifier = nnx.merge(net.graph, *net.variables)
    side = side_of(model.backbone, px, net.image_channels)
    if side < 1:
        return f"images of {px} px leave no feature map after {spec.backbone.stages} stages"
    if adapter == "pool":
        return f"head {spec.head!r} takes a map of any side" if adapts(model.head, spec, own + 1) else ""
    if adapter == "interpolate":
        return "" if isinstance(model.head, Flatten) else f"head {spec.head!r} has no weight a position to interpolate"
    if adapts(model.head, spec, side):
        return ""
    return (
        f"head {spec.head!r} was built for {spec.task.px} px, a map of {own}×{own}, and {px} px make it {side}×{side}"
    )


def side_of(backbone: nnx.Module, px: int, image_channels: int) -> int:
    """H' of the last feature map, by the backbone itself: one of a user's own may round an odd size up."""
    images = jax.ShapeDtypeStruct((1, px, px, image_channels), jnp.float32)
    try:
        return int(jax.eval_shape(lambda x: backbone(x, False), images).shape[1])  # type: ignore[operator]
    except Exception:  # as in `adapts`
        return 0


def adapts(head: nnx.Module, spec: RunSpec, side: int) -> bool:
    """Whether a head takes a map of this side; its shapes decide, and nothing is computed."""
    maps = jax.ShapeDtypeStruct((1, side, side, spec.backbone.channels), jnp.float32)
    try:
        jax.eval_shape(lambda x: head(x, keep_all), maps)  # type: ignore[operator]
    except Exception:  # whatever a head of a user's own raises; a product of unequal shapes, TypeError
        return False
    return True


def check_size(net: Net, px: int, adapter: Adapter) -> None:
    """Raise UserError where a net cannot take such images: it names the head, the size it was built for, the mend."""
    if reason := why_not(net, px, adapter):
        others = ", ".join(each for each in adapters(net, px) if each != adapter)
        raise UserError(f"{reason}; adapters that can: {others}")


def reader(spec: RunSpec, head: Any, adapter: Adapter) -> Read:
    """What the head makes of a backbone's maps [B, H, W, C] of whatever size: logits [B, K]."""
    own = spec.backbone.feature_px(spec.task.px)
    if adapter == "pool":
        return lambda maps: head(grid_pool(maps, own), keep_all)
    if adapter == "interpolate":
        return lambda maps: interpolated(head, maps, own)
    return lambda maps: head(maps, keep_all)


def logits_at(spec: RunSpec, model: Classifier, images: Array, moments: Moments, adapter: Adapter) -> Array:
    """Logits [B, K] of images [B, px, px, C] of whatever size; those of `resize` come resized."""
    maps = model.backbone(normalise(images, moments), False)  # type: ignore[operator]
    return reader(spec, model.head, adapter)(maps).astype(jnp.float32)


def interpolated(head: Flatten, maps: Float[Array, "B H W C"], own: int) -> Float[Array, "B K"]:
    """W'·vec(x) + b, W' the kernel's own×own images resized to H×W, times own² / (H·W): constant maps keep logits.

    Bilinear with half-pixel centres, no antialiasing.
    """
    batch, height, width, channels = maps.shape
    kernel = head.dense.kernel[...].reshape(own, own, channels, -1)
    resized = jax.image.resize(kernel, (height, width, *kernel.shape[2:]), "linear", antialias=False)
    resized = resized.reshape(height * width * channels, -1) * (own**2 / (height * width))
    assert head.dense.bias is not None
    return maps.reshape(batch, -1) @ resized.astype(maps.dtype) + head.dense.bias[...].astype(maps.dtype)[None]


@functools.lru_cache(maxsize=256)
def compile_count(graph: nnx.GraphDef, shape: RunSpec, adapter: Adapter) -> Any:
    """`count_batch` of a net with an adapter."""

    def count(
        variables: Variables,
        moments: Moments,
        images: UInt8[Array, "B H W C"],
        labels: Int[Array, "B"],
        counts: Bool[Array, "B"],
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        model = nnx.merge(graph, *variables)
        return count_logits(logits_at(shape, model, images, moments, adapter), labels, counts)

    return jax.jit(count)


@functools.lru_cache(maxsize=64)
def compile_statistics(graph: nnx.GraphDef) -> Any:
    """The batch statistics of a batch, in place of the running ones."""

    def statistics(variables: Variables, moments: Moments, images: UInt8[Array, "B H W C"]) -> Any:
        model = nnx.merge(graph, *variables, copy=True)
        for _, module in nnx.iter_modules(model):
            if isinstance(module, nnx.BatchNorm):
                module.momentum = 0.0
        model.backbone(normalise(images, moments), True)
        return nnx.state(model, nnx.Not(nnx.Param))

    return jax.jit(statistics)


def pad(images: Images, px: int) -> Images:
    """The images in the middle of a black canvas."""
    before = (px - images.shape[1]) // 2
    after = px - images.shape[1] - before
    return np.pad(images, ((0, 0), (before, after), (before, after), (0, 0)))


def resized_part(net: Net, part: Split, px: int, test: bool) -> Images:
    """The same images of the data set, made at another size from what they are."""
    dataset = load(net.spec.task.dataset, px)
    return (dataset.test_images if test else dataset.train_images)[part.places]


def audit_sizes(net: Net, splits: Splits, sizes: tuple[int, ...]) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """Loss and accuracy at every size: the image resized to it or padded, for each adapter, with either statistics.

    Padded images are not smaller than the training size. Returned beside it: seconds an image, by px and adapter.
    """
    spec, own_px = net.spec, net.spec.task.px
    generator = np.random.default_rng(0)
    parts = {"val": part_of(splits.val, EVALUATED["val"], generator)}
    parts["test"] = part_of(splits.test, EVALUATED["test"], generator)
    train = part_of(splits.train, ESTIMATED, generator)
    columns = ("fit", "px", "adapter", "statistics", "split", "loss", "accuracy")
    table: dict[str, list[Any]] = {name: [] for name in columns}
    timing = {}
    tested = sorted({*sizes, own_px})
    fits = [("resized", px) for px in tested] + [("padded", px) for px in tested if px > own_px]
    for fit, px in fits:

        def at_size(part: Split, test: bool, fit: str = fit, px: int = px) -> Images:
            return resized_part(net, part, px, test) if fit == "resized" else pad(part.images, px)

        images = {name: at_size(part, name == "test") for name, part in parts.items()}
        statistics = {"own": net.variables}
        if spec.backbone.norm == "batch" and px != own_px:
            estimate = compile_statistics(net.graph)(net.variables, net.moments, at_size(train, False))
            statistics["new"] = (net.variables[0], estimate)
        for adapter in adapters(net, px) if px != own_px else ["none"]:
            count = compile_count(net.graph, spec.program, adapter)
            for which, variables in statistics.items():
                if adapter == "resize" and which == "new":
                    continue  # the net sees its own size
                counted = functools.partial(count, variables, net.moments)
                for name, part in parts.items():
                    start = time.perf_counter()
                    seen = resize(images[name], own_px) if adapter == "resize" else images[name]
                    score = evaluate(counted, seen, part.labels)
                    if (fit, which, name) == ("resized", "own", "test"):
                        timing[f"image_s_{px}_{adapter}"] = (time.perf_counter() - start) / len(part.labels)
                    for column, value in zip(columns, (fit, px, adapter, which, name, *score), strict=True):
                        table[column].append(value)
    return table, timing
