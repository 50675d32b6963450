"""Joules of the device, where something here reports them: NVML, nvidia-smi, or a CPU's RAPL counters."""

import contextlib
import importlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

RAPL = Path("/sys/class/powercap")
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0")
EVERY_S = 0.05  # between two readings of nvidia-smi, which itself takes about as long
ENERGY_S = 1.0  # of calls over which a program's energy is read: counters and averages of drivers move that slowly

Counter = Callable[[], float]  # Joules since some moment; two readings are subtracted


class SampledPower:
    """Watts read in a thread and summed up to Joules, for a device that has no counter of its own."""

    def __init__(self, watts: Callable[[], float]):
        self.watts, self.joules, self.stop = watts, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def sample(self) -> None:
        """Each interval counts with the mean of the readings at its ends."""
        last_s, last_w = time.perf_counter(), self.watts()
        while not self.stop.wait(EVERY_S):
            watts, now_s = self.watts(), time.perf_counter()
            self.joules += (now_s - last_s) * (watts + last_w) / 2
            last_s, last_w = now_s, watts

    def __call__(self) -> float:
        return self.joules

    def close(self) -> None:
        """End the thread."""
        self.stop.set()
        self.thread.join()


def nvidia_smi_watts() -> float:
    """Power draw of the first GPU; raises OSError or ValueError where there is none, or it does not say."""
    done = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=10)
    return float(done.stdout.splitlines()[0] if done.stdout else "")


@contextlib.contextmanager
def nvml() -> Iterator[Counter | None]:
    """The driver's own counter of the first GPU, through `pynvml` where that is installed."""
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except Exception:  # not installed, no driver, or too old a GPU: pynvml has an error class for each
        yield None
        return
    yield lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000.0  # from mJ


@contextlib.contextmanager
def nvidia_smi() -> Iterator[Counter | None]:
    """The integral of what nvidia-smi reports as power draw."""
    try:
        nvidia_smi_watts()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        yield None
        return
    power = SampledPower(nvidia_smi_watts)
    try:
        yield power
    finally:
        power.close()


@contextlib.contextmanager
def rapl() -> Iterator[Counter | None]:
    """The counters of all CPU packages, whoever computes on them; they wrap, after hours, and are then None."""
    packages = [path / "energy_uj" for path in sorted(RAPL.glob("intel-rapl:[0-9]")) if (path / "energy_uj").is_file()]

    def joules() -> float:
        return sum(float(path.read_text()) for path in packages) / 1e6

    try:
        joules()
    except (OSError, ValueError):  # only the superuser may read them on most systems
        packages = []
    yield joules if packages else None


# By platform, the first that works; a row's energy is that of the whole device, idle power included.
SOURCES = {"gpu": {"nvml": nvml, "nvidia-smi": nvidia_smi}, "cpu": {"rapl": rapl}}


@contextlib.contextmanager
def open_meter(platform: str) -> Iterator[tuple[str, Counter | None]]:
    """What reports the energy of this kind of device, by name; an empty name and None where nothing does."""
    with contextlib.ExitStack() as stack:
        for name, source in SOURCES.get(platform, {}).items():
            if counter := stack.enter_context(source()):
                yield name, counter
                return
        yield "", None


def energy_of(call: Callable[[], object], counter: Counter) -> float | None:
    """Joules of one call, over ENERGY_S of calls after as long a run-up; None where the counter did not move."""
    joules, start, calls = 0.0, time.perf_counter(), 0
    for _ in range(2):  # the first is the run-up
        joules, start, calls = counter(), time.perf_counter(), 0
        while time.perf_counter() - start < ENERGY_S:
            call()
            calls += 1
    spent = counter() - joules
    return spent / calls if spent > 0 else None
