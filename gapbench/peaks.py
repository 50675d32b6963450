"""What the device itself can do: the roofs of the roofline."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from gapbench.spec import Precision
from gapbench.stopwatch import Timed, best_s
from gapbench.timings import Peaks


def measure_peaks(precisions: Iterable[Precision] = ("float32",), process: int = 0) -> Peaks:
    """A matmul of n×n (2·n³ operations) in every precision, and a copy of 256 MiB, read and written.

    The factors are drawn: of ones or zeros a GPU draws less power, so that it clocks higher than any net would let it.
    """
    n = 1024 if jax.devices()[0].platform == "cpu" else 8192
    matmul = {precision: 2 * n**3 / best_s(product(n, precision)) for precision in dict.fromkeys(precisions)}
    numbers = jnp.ones(2**26)
    # into a donated buffer: into fresh memory, a CPU would time the kernel's page faults instead
    copy = jax.jit(lambda source, target: jnp.copy(source), donate_argnums=1, keep_unused=True)
    copy_s = best_s(Timed(lambda target: (copy(numbers, target), ()), jnp.zeros(2**26)))
    return Peaks(process=process, matmul_flops_per_s=matmul, copy_bytes_per_s=2 * numbers.nbytes / copy_s)


def product(n: int, precision: Precision) -> Timed:
    """Its own square, again and again."""
    square = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(precision))
    multiply = jax.jit(jnp.matmul)
    return Timed(lambda carry: (carry, multiply(square, square)), ())
