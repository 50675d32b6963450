"""Strict by default: no silent promotion, warnings are errors, shapes checked (see pyproject's addopts)."""

import os

# As the sweep's workers do, and before JAX is imported: one thread, so that results do not depend on the core count.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
