"""Parameters, arithmetic and memory in closed form, from a spec alone: no model is built, no JAX imported."""

from collections.abc import Callable
from typing import NamedTuple

from gapbench.spec import Backbone, Recipe, RunSpec, UserError, choose

FLOAT_BYTES = 4  # parameters, moments and activations are float32


class Counts(NamedTuple):
    """Of one part of a net; arithmetic and activations for one image, forward."""

    parameters: int
    flops: int  # a multiply-add counts as two; biases, norms and ReLUs are left out
    activation_bytes: int  # of the layer outputs that training keeps for the backward pass

    def __add__(self, other: object) -> "Counts":
        assert isinstance(other, Counts)
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


def ladder_grid(argument: str, feature_px: int) -> int:
    """g of `ladder:g`; raises ValueError unless 1 <= g <= H'."""
    if argument not in map(str, range(1, feature_px + 1)):
        raise ValueError(f"takes :g with a whole g from 1 to H' = {feature_px}, the side of this feature map")
    return int(argument)


def lowrank_rank(channels: int, feature_px: int, classes: int) -> int:
    """r of `flatten_lowrank`: r·(2H' + C + K) + K is nearest to the (C + 1)·K of gap; at least 1."""
    return max(1, round(channels * classes / (2 * feature_px + channels + classes)))


def mlp_hidden(channels: int, feature_px: int, classes: int) -> int:
    """h of `gap_mlp`: h·(C + 1) + (h + 1)·K is nearest to the (H'·W'·C + 1)·K of flatten; at least 1."""
    return max(1, round(feature_px**2 * channels * classes / (channels + 1 + classes)))


def count_flatten(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """(H·W·C + 1)·K parameters."""
    inputs = feature_px**2 * channels
    return Counts((inputs + 1) * classes, 2 * inputs * classes, FLOAT_BYTES * classes)


def count_gap(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """(C + 1)·K parameters at every input size; the average adds H·W·C numbers."""
    flops = feature_px**2 * channels + 2 * channels * classes
    return Counts((channels + 1) * classes, flops, FLOAT_BYTES * (channels + classes))


def count_ladder(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """(g²·C + 1)·K parameters; bins that share positions cost two products with the g×H' matrix of their shares."""
    grid = ladder_grid(argument, feature_px)
    if grid == feature_px:
        return count_flatten(channels, feature_px, classes, "")
    pool = (
        feature_px**2 * channels if feature_px % grid == 0 else 2 * (feature_px + grid) * grid * feature_px * channels
    )
    bins = grid**2 * channels
    return Counts((bins + 1) * classes, pool + 2 * bins * classes, FLOAT_BYTES * (bins + classes))


def count_gap_conv(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """(C + 1)·K parameters, applied at every position."""
    maps = feature_px**2 * classes
    return Counts((channels + 1) * classes, 2 * channels * maps + maps, FLOAT_BYTES * (maps + classes))


def count_flatten_conv(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """(C + 1)·K parameters, applied at every position, and (H·W·K + 1)·K."""
    maps = feature_px**2 * classes
    parameters = (channels + 1) * classes + (maps + 1) * classes
    return Counts(parameters, 2 * channels * maps + 2 * maps * classes, FLOAT_BYTES * (maps + classes))


def count_flatten_lowrank(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """r·(2H' + C + K) + K parameters: r maps, each summed under its own weights of rows and columns."""
    rank = lowrank_rank(channels, feature_px, classes)
    maps = feature_px**2 * rank
    flops = 2 * channels * maps + 3 * maps + 2 * rank * classes
    parameters = rank * (2 * feature_px + channels + classes) + classes
    return Counts(parameters, flops, FLOAT_BYTES * (maps + rank + classes))


def count_gap_mlp(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """h·(C + 1) + (h + 1)·K parameters."""
    hidden = mlp_hidden(channels, feature_px, classes)
    flops = feature_px**2 * channels + 2 * (channels + classes) * hidden
    parameters = (channels + 1) * hidden + (hidden + 1) * classes
    return Counts(parameters, flops, FLOAT_BYTES * (channels + hidden + classes))


def count_gem(channels: int, feature_px: int, classes: int, argument: str) -> Counts:
    """One parameter more than gap, the exponent; the powers, counted as nothing, are kept."""
    kept = Counts(1, 0, FLOAT_BYTES * feature_px**2 * channels)
    return count_gap(channels, feature_px, classes, "") + kept


# A head of your own that should appear in the parameter table needs its closed form here, under the same name.
HEAD_COUNTS: dict[str, Callable[[int, int, int, str], Counts]] = {
    "flatten": count_flatten,
    "gap": count_gap,
    "gap_conv": count_gap_conv,
    "gmp": count_gap,
    "gem": count_gem,
    "ladder": count_ladder,
    "ladder_tiled": count_ladder,
    "flatten_tiled": count_flatten,
    "flatten_lowrank": count_flatten_lowrank,
    "flatten_conv": count_flatten_conv,
    "gap_mlp": count_gap_mlp,
}
MATCHED = {"flatten_lowrank": "gap", "gap_mlp": "flatten"}  # heads with about as many parameters as another


def count_head(head: str, channels: int, feature_px: int, classes: int) -> Counts:
    """Counts of a head on a C×H'×H' feature map with K classes.

    Raises:
      UserError: a head without closed form, or an argument that does not fit the map.
    """
    name, _, argument = head.partition(":")
    choose("head", name, HEAD_COUNTS)
    try:
        return HEAD_COUNTS[name](channels, feature_px, classes, argument)
    except ValueError as error:
        raise UserError(f"head {head!r}: {name} {error}") from error


def listed_heads(feature_px: int) -> list[str]:
    """Every head with a closed form, a ladder at its second rung."""
    return [f"{head}:{min(2, feature_px)}" if head.startswith("ladder") else head for head in HEAD_COUNTS]


def match_error(head: str, channels: int, feature_px: int, classes: int) -> float:
    """Parameters of a matched head over those of the head that it is matched to, minus 1.

    Raises UserError for a head that is matched to none.
    """
    choose("matched head", head, MATCHED)
    ours, theirs = (count_head(name, channels, feature_px, classes).parameters for name in (head, MATCHED[head]))
    return ours / theirs - 1


class Layer(NamedTuple):
    """One 3×3 convolution."""

    px: int  # side of its input
    c_in: int
    c_out: int


def nin_blocks(width: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The kernel's side and the widths, its own first, of Network in Network's three blocks."""
    return ((5, (width, width * 5 // 6, width // 2)), (5, (width,) * 3), (3, (width,) * 2))


def nin_layers(backbone: Backbone, px: int, image_channels: int) -> list[Layer]:
    """The only 3×3 convolution of a nin backbone."""
    return [Layer(backbone.feature_px(px), backbone.width, backbone.width)]


def plain_layers(backbone: Backbone, px: int, image_channels: int) -> list[Layer]:
    """The convolutions of a plain backbone: two a stage, then a 2×2 pool; channels double at each further stage."""
    layers, c_in = list[Layer](), image_channels
    for stage in range(backbone.stages):
        c_out = backbone.width * 2**stage
        for channels in (c_in, c_out):
            layers.append(Layer(px, channels, c_out))
            px -= 2 if backbone.padding == "valid" else 0
        px, c_in = px // 2, c_out
    return layers


def count_plain(backbone: Backbone, px: int, image_channels: int) -> Counts:
    """Two 3×3 convolutions with bias a stage: (9·C_in + 1)·C_out parameters each, and 2·C where there is a norm."""
    total = Counts(0, 0, 0)
    for i, (px_in, c_in, c_out) in enumerate(plain_layers(backbone, px, image_channels)):
        px = px_in - (2 if backbone.padding == "valid" else 0)
        parameters = (9 * c_in + 1) * c_out + (2 * c_out if backbone.norm != "none" else 0)
        total += Counts(parameters, 2 * 9 * c_in * c_out * px**2, FLOAT_BYTES * c_out * px**2)
        if i % 2:
            total += Counts(0, 0, FLOAT_BYTES * c_out * (px // 2) ** 2)  # the pooled map
    return total


def count_nin(backbone: Backbone, px: int, image_channels: int) -> Counts:
    """(side²·C_in + 1)·C_out parameters a convolution; pools are left out of the arithmetic, as in `plain`."""
    total, c_in = Counts(0, 0, 0), image_channels
    for i, (side, widths) in enumerate(nin_blocks(backbone.width)):
        for j, c_out in enumerate(widths):
            taps = (side**2 if j == 0 else 1) * c_in
            total += Counts((taps + 1) * c_out, 2 * taps * c_out * px**2, FLOAT_BYTES * c_out * px**2)
            c_in = c_out
        if i < 2:
            px //= 2
            total += Counts(0, 0, FLOAT_BYTES * c_in * px**2)  # the pooled map
    return total


# The 3×3 convolutions, which is what `gapbench time --convolutions` times.
LAYERS: dict[str, Callable[[Backbone, int, int], list[Layer]]] = {"plain": plain_layers, "nin": nin_layers}
BACKBONE_COUNTS: dict[str, Callable[[Backbone, int, int], Counts]] = {"plain": count_plain, "nin": count_nin}


def count_backbone(spec: RunSpec, image_channels: int) -> Counts:
    """Counts of a spec's backbone; raises UserError for a backbone without closed form."""
    choose("backbone", spec.backbone.kind, BACKBONE_COUNTS)
    return BACKBONE_COUNTS[spec.backbone.kind](spec.backbone, spec.task.px, image_channels)


def count_spec_head(spec: RunSpec, classes: int) -> Counts:
    """Counts of a spec's head."""
    return count_head(spec.head, spec.backbone.channels, spec.backbone.feature_px(spec.task.px), classes)


def count_net(spec: RunSpec, image_channels: int, classes: int) -> Counts | None:
    """Counts of the whole net; None where a head or backbone of the user's own has no closed form here."""
    if spec.head.partition(":")[0] not in HEAD_COUNTS or spec.backbone.kind not in BACKBONE_COUNTS:
        return None
    return count_backbone(spec, image_channels) + count_spec_head(spec, classes)


def optimizer_bytes(recipe: Recipe, parameters: int) -> int:
    """State beside the parameters: two moments a parameter for AdamW, one momentum for SGD."""
    return FLOAT_BYTES * parameters * {"adamw": 2, "sgd": 1}[recipe.optimizer]
