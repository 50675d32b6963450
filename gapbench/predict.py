"""A trained net on images of your own: its classes, and where in the image the evidence for the first of them lies."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image

from gapbench.data.sizing import square
from gapbench.localisation import enlarge, normalise, stretch
from gapbench.maps import bias, evidence, parts_of
from gapbench.models.classifier import Classifier
from gapbench.models.classifier import normalise as normalise_images
from gapbench.nets import Net
from gapbench.records import write_bytes
from gapbench.sizes import Adapter, check_size, reader

Pixels = UInt8[np.ndarray, "_H _W _C"]
OPACITY = 0.6  # of the map over the image, where its evidence is highest
LEAST_PX = 256  # side of an overlay: smaller images are shown enlarged by a whole number


class Prediction(NamedTuple):
    """What a net says of one image."""

    probabilities: dict[str, float]  # by class, the likeliest first
    evidence: Float[np.ndarray, "px px"]  # for the likeliest class, over the image as the net saw it
    logit: float  # of that class
    rest: float  # of the logit, what neither the map nor the bias holds: rounding alone, of a head of one layer


def predict(net: Net, image: Pixels, adapter: Adapter) -> Prediction:
    """Of the centre square of an image: at the size the net was trained at (`resize`), else at its own.

    Raises:
      UserError: a size that the head cannot take.
    """
    px = net.spec.task.px if adapter == "resize" else min(image.shape[:2])
    check_size(net, px, adapter)
    model: Classifier = nnx.merge(net.graph, *net.variables)
    batch = normalise_images(jnp.asarray(square(image, px))[None], net.moments)
    maps = model.backbone(batch, False).astype(jnp.float32)  # type: ignore[operator]
    read = reader(net.spec, model.head, adapter)
    if adapter in ("none", "resize"):
        maps_of, read = parts_of(model.head)
        maps = maps_of(maps)
    logits = np.asarray(read(maps)[0], float)
    exponents = np.exp(logits - logits.max())
    likely = np.argsort(-exponents, kind="stable")
    probabilities = {net.class_names[k]: float(exponents[k] / exponents.sum()) for k in likely}
    one = jnp.eye(len(logits), dtype=jnp.float32)[int(likely[0])][None]
    backbone = net.spec.backbone
    found = np.asarray(evidence(read, maps, one), float)
    logit = float(logits[likely[0]])
    rest = logit - float(bias(read, maps)[0, likely[0]]) - float(found.sum())
    return Prediction(probabilities, enlarge(found, px, backbone.stride, backbone.start)[0], logit, rest)


def overlay(image: Pixels, found: Float[np.ndarray, "px px"]) -> UInt8[np.ndarray, "_H _H 3"]:
    """The centre square of an image, enlarged where it is small, and over it the evidence, dark to bright."""
    side = min(image.shape[:2])
    times = -(-LEAST_PX // side)
    below = np.broadcast_to(square(image, side), (side, side, 3)).repeat(times, axis=0).repeat(times, axis=1)
    heat = normalise(stretch(found[None], side * times))[0]
    share = OPACITY * heat[..., None]
    mixed = (1 - share) * below + share * 255 * colormaps["inferno"](heat)[..., :3]
    return np.asarray(np.rint(mixed), np.uint8)


def write_overlay(path: Path, image: Pixels, found: Float[np.ndarray, "px px"]) -> None:
    """As PNG, whole or not at all."""
    content = BytesIO()
    Image.fromarray(overlay(image, found)).save(content, format="PNG")
    write_bytes(path, content.getvalue())
