"""Seconds of compiled programs, taken fairly: warmed up, interleaved, every sample kept."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from gapbench.memory import is_out_of_memory

WARM_UP_CALLS, WARM_UP_S = 3, 0.2  # both must be reached
SAMPLE_S = 0.002  # shorter calls are averaged up to about this time: the clock and the dispatch are noisy below


@dataclass
class Timed:
    """A compiled program whose call takes what the last one left, as training does."""

    program: Callable[[Any], tuple[Any, Any]]  # carry -> new carry (the old may be donated), output
    carry: Any  # the train state, or the variables of inference
    clock: Callable[[], float] = time.perf_counter
    steps: int = 1  # that one call makes
    text: str = ""  # the compiled program's

    def call(self, n: int = 1) -> float:
        """Mean seconds of n calls dispatched one after another, from the first dispatch to the last result."""
        outputs = []
        start = self.clock()
        for _ in range(n):
            self.carry, output = self.program(self.carry)
            outputs.append(output)
        jax.block_until_ready((self.carry, outputs))
        return (self.clock() - start) / n


def warm_up(timed: Timed) -> float:
    """Call until both minima are reached; the seconds of the fastest call."""
    calls: list[float] = []
    while len(calls) < WARM_UP_CALLS or sum(calls) < WARM_UP_S:
        calls.append(timed.call())
    return min(calls)


def interleave(programs: Sequence[Timed], samples: int) -> tuple[int, tuple[list[float], ...]]:
    """Calls a sample, and every program's seconds a step, sampled A B B A until each has `samples` or one more."""
    calls = max(1, math.ceil(SAMPLE_S / min([warm_up(timed) for timed in programs])))
    seconds: tuple[list[float], ...] = tuple([] for _ in programs)
    there = range(len(programs))
    for which in (*there, *reversed(there)) * math.ceil(samples / 2):
        seconds[which].append(programs[which].call(calls) / programs[which].steps)
    return calls, seconds


def best_s(timed: Timed) -> float:
    """The seconds of the fastest call of two warm-ups, the first of which may compile."""
    return min(warm_up(timed), warm_up(timed))


@contextlib.contextmanager
def no_compile_cache() -> Iterator[None]:
    """Without the persistent cache, which may hold the program of one head and not of the other."""
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX reads the setting once, and again only after a reset
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def out_of_memory(error: Exception) -> str:
    """The error's first line if it says that memory ended; raises it again if it says anything else."""
    if not is_out_of_memory(error):
        raise error
    return str(error).partition("\n")[0] or type(error).__name__
