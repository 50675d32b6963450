"""One process on one core: what is set before JAX is imported, so that numbers do not depend on the machine's load."""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

# glibc keeps a step's memory for the next one: given back, thousands of pages a step are found and cleared anew.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(2**28)}
WORKER_ENV = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")} | {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several workers may share one accelerator
    **KEEP_MEMORY,
}
_claimed: list[Any] = []  # the lock of this process's core, held until the process ends


def xla_flags() -> str:
    """One thread; and of XLA's YNNPACK kernels only those that pay: its convolutions and elementwise loops do not.

    Measured on an AVX2 core, 28 px train step: 47.0 ms with all of them, 42.7 with none, 40.3 with these.
    """
    flags = "--xla_cpu_multi_thread_eigen=false"
    if tuple(map(int, version("jaxlib").split(".")[:2])) >= (0, 12):  # an older XLA ends at a flag it does not know
        flags += " --xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    return flags


def pin_process() -> None:
    """Before JAX is imported: one core of its own and one thread, so that numbers do not depend on the core count."""
    if _claimed:
        return
    _claimed.append(claim_core() if hasattr(os, "sched_setaffinity") else None)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags()}".strip()


def start_worker(parent: int, pin: bool = True) -> None:
    """Once a worker process: it ends with its parent, leaves Ctrl-C to it, and shares compiled programs.

    It is pinned, unless it drives an accelerator: that one's compiler may use every core.
    """
    if _claimed:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed sweep leaves no worker behind
        if os.getppid() != parent:
            os._exit(1)  # the parent was gone before that took effect
    if pin:
        pin_process()
    else:
        _claimed.append(None)
    share_programs()


def share_programs() -> None:
    """Keep compiled programs in the cache, by kind of processor, where other workers and later runs find them."""
    import jax

    from gapbench.data import cache_folder
    from gapbench.records import cpu_model
    from gapbench.spec import digest

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / f"xla-{digest(cpu_model())}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def usable_cores() -> list[int]:
    """Cores this process may use."""
    return sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def claim_core() -> Any:
    """Pin this process to the first core that no other worker holds (its file lock ends with the process).

    Where every core is held, it shares one: it computes on a single core, and the same bits, in any case.
    """
    cores = usable_cores()
    for core in cores:
        file = open(Path(tempfile.gettempdir()) / f"gapbench-{os.getuid()}-core-{core}.lock", "w")  # noqa: SIM115
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.sched_setaffinity(0, {core})
            return file
        file.close()
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
    return None
