"""Heads and backbones by name: ours, and those that an experiment's file registers beside them.

@register_head("mine")
class Mine(nnx.Module): ...
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

from flax import nnx

from gapbench.spec import Backbone, UserError

HeadMaker = Callable[[int, int, int, str, nnx.Rngs], nnx.Module]  # from C, H', K, what follows the colon, and a stream
BackboneMaker = Callable[[Backbone, int, nnx.Rngs], nnx.Module]  # from its spec, the images' channels, and a stream
Rule = Callable[[str, int], object]  # of what follows a head's colon, and H'; raises ValueError: what the head takes
MakerT = TypeVar("MakerT", bound=Callable[..., nnx.Module])


def anything(argument: str, feature_px: int) -> None:
    """A head of one's own looks at its argument itself."""


def nothing(argument: str, feature_px: int) -> None:
    """`gap`, never `gap:x`."""
    if argument:
        raise ValueError("takes no argument")


def perhaps_relu(argument: str, feature_px: int) -> None:
    """`gap_conv`, or `gap_conv:relu`."""
    if argument not in ("", "relu"):
        raise ValueError("takes only :relu")


HEADS: dict[str, HeadMaker] = {}
ARGUMENTS: dict[str, Rule] = {}
BACKBONES: dict[str, BackboneMaker] = {}


def register_head(name: str, argument: Rule = anything) -> Callable[[MakerT], MakerT]:
    """Make a head known as `name`, the last of a name counting; raises UserError where it is one of ours."""

    def register(maker: MakerT) -> MakerT:
        refuse_ours("head", name, HEADS.get(name), maker)
        HEADS[name], ARGUMENTS[name] = maker, argument
        return maker

    return register


def register_backbone(name: str) -> Callable[[MakerT], MakerT]:
    """Make a backbone known as the kind `name`; as `register_head`."""

    def register(maker: MakerT) -> MakerT:
        refuse_ours("backbone", name, BACKBONES.get(name), maker)
        BACKBONES[name] = maker
        return maker

    return register


def refuse_ours(kind: str, name: str, old: object, new: object) -> None:
    """Ours stay ours; a file of the user's own may be run more than once in a process, and so may two of them."""
    owner = getattr(old, "__module__", "")
    if owner.startswith("gapbench.") and owner != new.__module__:
        raise UserError(f"{kind} {name!r} is gapbench's own: register yours under another name")


def own_code(maker: object) -> str:
    """The source of a backbone that is not ours; empty where it is ours or Python has none, as of a partial."""
    if getattr(maker, "__module__", "").startswith("gapbench."):
        return ""
    try:
        return inspect.getsource(maker)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
