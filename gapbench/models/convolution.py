"""The convolution, as each kind of device computes it fastest: equal values up to rounding, whichever way.

Of 3×3 kernels, that is; those of other sizes are XLA's own.
"""

import json
from collections.abc import Callable
from functools import cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

TABLE = Path(__file__).with_name("convolution.json")  # gapbench time --convolutions --write-table makes it
Images = Float[Array, "R B H W C"]
Kernels = Float[Array, "R I I C K"]
Maps = Float[Array, "R B H2 W2 K"]


def convolve(x: Float[Array, "B H W C"], kernel: Float[Array, "I I C K"], padding: str) -> Float[Array, "B H2 W2 K"]:
    """y[b, h, w] = sum over i, j of x[b, h + i, w + j] @ kernel[i, j], stride 1; `padding` as `lax` names it."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def shifts(x: Float[Array, "... H W C"], padding: str) -> list[Float[Array, "... H2 W2 C"]]:
    """The nine shifted images under a 3×3 kernel, row by row."""
    if padding == "SAME":
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    height, width = x.shape[-3] - 2, x.shape[-2] - 2
    return [x[..., i : i + height, j : j + width, :] for i in range(3) for j in range(3)]


def forward(x: Float[Array, "B H W C"], kernel: Float[Array, "I I C K"], padding: str) -> Float[Array, "B H2 W2 K"]:
    """On a CPU, up to three channels become a sum of scaled planes: XLA's loop leaves most of a vector empty there.

    Measured on one AVX2 core: 9 to 12 times as fast for 64×28×28×1, 7 times for 64×32×32×3; for a 5×5 kernel and three
    channels it would be half as fast.
    """
    if kernel.shape[0] != 3 or x.shape[-1] > 3 or jax.default_backend() != "cpu":
        return convolve(x, kernel, padding)
    planes = (shifted[..., c : c + 1] for shifted in shifts(x, padding) for c in range(x.shape[-1]))
    return reduce(add, (p * k for p, k in zip(planes, kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]), strict=True)))


def backward(
    x: Float[Array, "B H W C"], kernel: Float[Array, "I I C K"], dy: Float[Array, "B H2 W2 K"], padding: str
) -> tuple[Float[Array, "B H W C"], Float[Array, "I I C K"]]:
    """Gradients of `convolve` for x and the kernel.

    On a CPU the kernel's gradient begins by transposing x. Behind a barrier that is a plain copy; without one, XLA
    fuses into it what made x, and reads it with strides that leave the cache: a tenth of the whole step.
    """
    if jax.default_backend() == "cpu":
        x, dy = jax.lax.optimization_barrier((x, dy))
    return jax.vjp(partial(convolve, padding=padding), x, kernel)[1](dy)


# One kernel a replica. Every method maps [R, B, H, W, C] and [R, 3, 3, C, K] to [R, B, H2, W2, K].
def grouped(x: Images, kernel: Kernels, padding: str) -> Maps:
    """One convolution with R groups: what `vmap` makes of it."""
    return jax.vmap(partial(convolve, padding=padding))(x, kernel)


def patches(x: Images, kernel: Kernels, padding: str) -> Maps:
    """Of 3×3 kernels: R matrix products over the nine shifted images, which are nine times the input's memory."""
    flat = kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
    return jnp.einsum("rbhwp,rpk->rbhwk", jnp.concatenate(shifts(x, padding), axis=-1), flat)


def scan(x: Images, kernel: Kernels, padding: str) -> Maps:
    """One replica after the other."""
    return jax.lax.map(lambda one: convolve(one[0], one[1], padding), (x, kernel))


METHODS: dict[str, Callable[[Images, Kernels, str], Maps]] = {"grouped": grouped, "patches": patches, "scan": scan}


@cache
def measured() -> dict[str, list[dict[str, Any]]]:
    """By device kind, the rows of the measured table: px, c_in, c_out, replicas, precision, and the fastest method."""
    return json.loads(TABLE.read_text()) if TABLE.is_file() else {}


def choose_method(px: int, c_in: int, c_out: int, replicas: int, precision: str) -> str:
    """The fastest method of the nearest measured shape on this kind of device; `grouped` where none was measured."""

    def distance(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["precision"] != precision, *(
            abs(row[name] / value - 1) for name, value in zip(("replicas", "px", "c_in", "c_out"), shape, strict=True)
        )

    shape = (replicas, px, c_in, c_out)
    rows = measured().get(jax.devices()[0].device_kind, [])
    return str(min(rows, key=distance)["method"]) if rows else "grouped"


def method_for(x: Images, kernel: Kernels) -> Callable[[Images, Kernels, str], Maps]:
    """The method `choose_method` names for these arrays: it knows 3×3 kernels."""
    if kernel.shape[1] != 3:
        return grouped
    c_in, c_out = kernel.shape[-2:]
    return METHODS[choose_method(x.shape[2], c_in, c_out, x.shape[0], str(x.dtype))]


def replicate(replicas: int, batched: list[bool], values: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Every value with a leading replica axis."""
    return [v if has else jnp.broadcast_to(v, (replicas, *v.shape)) for v, has in zip(values, batched, strict=True)]


def by_replica(compute: Callable[..., Any], rule: str) -> Callable[..., Any]:
    """`compute`, whose arrays all begin with the replicas, on the replicas that a device holds.

    Without it XLA gathers the replicas of all devices before a convolution, and computes every one on each device.
    """

    def partition(mesh: Mesh, operands: Any, results: Any) -> tuple[Any, ...]:
        axis = operands[0].sharding.spec[:1]
        split = NamedSharding(mesh, PartitionSpec(*axis))
        return mesh, compute, jax.tree.map(lambda _: split, results), tuple(split for _ in operands)

    part = custom_partitioning(compute)
    part.def_partition(partition=partition, sharding_rule=rule)
    return part


@cache
def square_conv(padding: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`convolve` with this padding, whose derivative and whose `vmap` over replicas are ours."""
    ahead, back = custom_vmap(partial(forward, padding=padding)), custom_vmap(partial(backward, padding=padding))

    def compute(x: Images, kernel: Kernels) -> Maps:
        return method_for(x, kernel)(x, kernel, padding)

    def differentiate(x: Images, kernel: Kernels, dy: Maps) -> Any:
        return jax.vjp(compute, x, kernel)[1](dy)

    convolve_replicas = by_replica(compute, "r b h w c, r i j c k -> r b p q k")
    differentiate_replicas = by_replica(differentiate, "r b h w c, r i j c k, r b p q k -> r b h w c, r i j c k")

    @ahead.def_vmap
    def ahead_of_replicas(replicas: int, batched: list[bool], x: jax.Array, kernel: jax.Array) -> Any:
        return convolve_replicas(*replicate(replicas, batched, (x, kernel))), True

    @back.def_vmap
    def back_of_replicas(replicas: int, batched: list[bool], x: jax.Array, kernel: jax.Array, dy: jax.Array) -> Any:
        return differentiate_replicas(*replicate(replicas, batched, (x, kernel, dy))), (True, True)

    conv = jax.custom_vjp(ahead)
    conv.defvjp(lambda x, kernel: (ahead(x, kernel), (x, kernel)), lambda saved, dy: back(*saved, dy))
    return conv


def conv_general_dilated(x: jax.Array, kernel: jax.Array, strides: Any, padding: str, **unused: Any) -> jax.Array:
    """What `nnx.Conv` calls in place of `lax`'s, for a square kernel with stride 1."""
    return square_conv(padding)(x, kernel)
