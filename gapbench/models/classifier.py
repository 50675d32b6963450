"""A spec to a net: backbone, dropout, head, each from its own random stream."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from gapbench.keys import key_for
from gapbench.models.backbones import BACKBONES
from gapbench.models.heads import ARGUMENTS, HEADS
from gapbench.spec import RunSpec, UserError, choose


class Classifier(nnx.Module):
    """logits = head(dropout(backbone(x)))."""

    def __init__(self, backbone: nnx.Module, head: nnx.Module, dropout: float):
        self.backbone, self.head = backbone, head
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, x: Float[Array, "B H W C"], train: bool = False, key: jax.Array | None = None
    ) -> Float[Array, "B K"]:
        """`key` drives the dropout and is needed only in training with a rate above zero."""
        features = self.backbone(x, train)  # type: ignore[operator]
        return self.head(self.dropout(features, deterministic=not train, rngs=key))  # type: ignore[operator]


def check_names(spec: RunSpec) -> None:
    """Raise UserError, with the nearest name, for an unknown backbone, head or head argument."""
    choose("backbone", spec.backbone.kind, BACKBONES)
    name, _, argument = spec.head.partition(":")
    choose("head", name, HEADS)
    if argument and argument not in ARGUMENTS.get(name, (argument,) if name not in _BUILT_IN else ()):
        allowed = ARGUMENTS.get(name)
        raise UserError(
            f"head {spec.head!r}: {name} takes {'only :' + ', :'.join(allowed) if allowed else 'no argument'}"
        )


_BUILT_IN = frozenset(HEADS)


def init_classifier(spec: RunSpec, image_channels: int, classes: int) -> Classifier:
    """The net of `spec` at its initial weights.

    Backbone and head draw from separate streams, so two specs that differ in the head alone start from the same
    backbone, bit for bit.
    """
    name, _, argument = spec.head.partition(":")
    backbone_rngs, head_rngs = (nnx.Rngs(key_for(spec.seed, part)) for part in ("backbone", "head"))
    backbone = BACKBONES[spec.backbone.kind](spec.backbone, image_channels, backbone_rngs)
    feature_px = spec.backbone.feature_px(spec.task.px)
    head = HEADS[name](spec.backbone.channels, feature_px, classes, argument, head_rngs)
    return Classifier(backbone, head, spec.recipe.dropout)
