"""A spec to a net: backbone and head, each from its own random stream."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from gapbench.keys import key_for
from gapbench.models.dropout import drop, keep_all
from gapbench.models.registry import ARGUMENTS, BACKBONES, HEADS, anything
from gapbench.spec import RunSpec, UserError, choose

Moments = tuple[Float[Array, "C"], Float[Array, "C"]]  # mean and standard deviation of the training pixels, by channel
Shape = tuple[int, ...]
Shapes = tuple[Shape | None, Shape | None]  # of a feature map and of an image's logits


def normalise(images: UInt8[Array, "B H W C"], moments: Moments) -> Float[Array, "B H W C"]:
    """(x / 255 - mean) / std by channel, in float32."""
    mean, std = moments
    scaled = images.astype(jnp.float32) / 255.0
    return (scaled - mean[None, None, None]) / std[None, None, None]


class Classifier(nnx.Module):
    """logits = head(backbone(x)), in float32 whatever the precision inside."""

    def __init__(
        self, backbone: nnx.Module, head: nnx.Module, backbone_dropout: float = 0.0, shapes: Shapes = (None, None)
    ):
        self.backbone, self.head, self.backbone_dropout, self.shapes = backbone, head, backbone_dropout, shapes

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        train: bool = False,
        dropout: tuple[Float[Array, ""], jax.Array] | None = None,
        backbone_key: jax.Array | None = None,
    ) -> Float[Array, "B K"]:
        """In training `dropout` is the head's rate and key, and `backbone_key` that of a backbone with dropout.

        Raises UserError where the backbone or the head returns another shape than the spec says.
        """
        drop_input = partial(drop, rate=dropout[0], key=dropout[1]) if dropout else keep_all
        keys = (backbone_key,) if self.backbone_dropout and train else ()
        maps = check_shape("backbone", self.backbone(x, train, *keys), self.shapes[0])  # type: ignore[operator]
        logits = check_shape("head", self.head(maps, drop_input), self.shapes[1])  # type: ignore[operator]
        return logits.astype(jnp.float32)


def check_shape(part: str, values: jax.Array, shape: Shape | None) -> jax.Array:
    """`values` [B, *shape]; raises UserError where they are not. It costs nothing in a compiled program."""
    if shape is not None and values.shape[1:] != shape:
        found, due = (f"[B, {', '.join(map(str, one))}]" for one in (values.shape[1:], shape))
        raise UserError(f"the {part} returns {found} where the spec and the data say {due}: mend its __call__")
    return values


def check_names(spec: RunSpec) -> None:
    """Raise UserError, with the nearest name, for an unknown backbone, head or head argument."""
    choose("backbone", spec.backbone.kind, BACKBONES)
    name, _, argument = spec.head.partition(":")
    choose("head", name, HEADS)
    try:
        ARGUMENTS.get(name, anything)(argument, spec.backbone.feature_px(spec.task.px))
    except ValueError as error:
        raise UserError(f"head {spec.head!r}: {name} {error}") from error


def init_classifier(spec: RunSpec, image_channels: int, classes: int) -> Classifier:
    """The net of `spec` at its initial weights.

    Backbone and head draw from separate streams, so two specs that differ in the head alone start from the same
    backbone, bit for bit. Raises UserError where `check_names` does.
    """
    check_names(spec)
    name, _, argument = spec.head.partition(":")
    backbone_rngs, head_rngs = (nnx.Rngs(key_for(spec.seed, part)) for part in ("backbone", "head"))
    backbone = BACKBONES[spec.backbone.kind](spec.backbone, image_channels, backbone_rngs)
    feature_px = spec.backbone.feature_px(spec.task.px)
    head = HEADS[name](spec.backbone.channels, feature_px, classes, argument, head_rngs)
    shapes = ((feature_px, feature_px, spec.backbone.channels), (classes,))
    model = Classifier(backbone, head, spec.backbone.dropout, shapes)
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "dtype"):  # convolutions, dense layers and norms compute in it; norms reduce in float32
            module.dtype = jnp.dtype(spec.recipe.precision)
    return model
