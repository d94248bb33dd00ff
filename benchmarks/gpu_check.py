"""Measure AMPO on the GPU of this machine; docs/gpu.md says what. Started by gpu_check.sh.

    benchmarks/gpu_check.sh                                      # about eight minutes; writes $OUT/gpu.md
    benchmarks/gpu_check.sh --device cpu                         # a rehearsal with a tiny model, needs vLLM for CPUs
    benchmarks/gpu_check.sh --device cpu --rollout transformers  # the same without vLLM
    benchmarks/gpu_check.sh --only update                        # some parts; the model is always made

Each part runs in a process of its own under a time limit: one that fails is a row that says so, and the rest runs.
Exit code 1 if any part failed, 2 if there is nothing to measure on.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu import device, world
from gpu.parts import PARTS
from gpu.report import TAIL_LINES, Result, page
from gpu.rows import Rows, Setting

LEAST_SECONDS = 20
_ERROR = re.compile(r"^\s*[\w.]+(?:Error|Exception)\b")


def main() -> int:
    arguments = _parser().parse_args()
    cuda = arguments.device == "cuda"
    if arguments.part is not None:
        scale = world.FULL if cuda else world.REHEARSAL
        setting = Setting(scale, cuda, arguments.rollout, arguments.folder)
        PARTS[arguments.part][0](setting, Rows(_rows(arguments.folder, arguments.part)))
        return 0
    import torch

    if cuda and not torch.cuda.is_available():
        print("gpu_check: torch finds no GPU here; --device cpu rehearses with a tiny model", file=sys.stderr)
        return 2
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="gpu-check-", dir=arguments.folder) as folder:
        results = run_parts(arguments, Path(folder))
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = page(device.facts(cuda), date, results)
    arguments.out.write_text(text, "utf-8")
    print(text)
    return 1 if any(result.failure for result in results) else 0


def run_parts(arguments: argparse.Namespace, folder: Path) -> list[Result]:
    """All wanted parts, one after the other, within the budget; without a model none of the others runs."""
    deadline = time.monotonic() + arguments.budget
    results: list[Result] = []
    for name, (_, limit) in PARTS.items():
        if name != "model" and arguments.only and name not in arguments.only:
            continue
        left = deadline - time.monotonic()
        if results and results[0].failure is not None:
            result = Result(name, [], "not run: there is no model")
        elif left < LEAST_SECONDS:
            result = Result(name, [], f"not run: the {arguments.budget} s of the whole measurement were used up")
        else:
            result = run_part(name, min(limit, left), arguments, folder)
        print(f"gpu_check: {name}: {result.failure or 'done'}, {result.took:.0f} s", flush=True)
        results.append(result)
    return results


def run_part(name: str, limit: float, arguments: argparse.Namespace, folder: Path) -> Result:
    """One part in a process of its own, ended with all that it started when its time is up."""
    logs = arguments.out.parent / "gpu-logs"
    logs.mkdir(exist_ok=True)
    log = logs / f"{name}.log"
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder)]
    command += ["--device", arguments.device, "--rollout", arguments.rollout]
    started = time.monotonic()
    with device.watched(arguments.device == "cuda") as peak, log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=_environment(arguments.device), start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    lines = log.read_text("utf-8", errors="replace").splitlines()
    failure = None
    if code is None:
        failure = f"took longer than {limit:.0f} s"
    elif code != 0:
        failure = f"exit code {code}: {_reason(lines)}"
    took = time.monotonic() - started
    return Result(name, Rows.read(_rows(folder, name)), failure, took, peak.mib, lines[-TAIL_LINES:])


def _environment(name: str) -> dict[str, str]:
    own = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    if name == "cpu":
        own |= {"CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return {**os.environ, **own}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that the part leads: whatever it left behind would keep the device's memory."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(lines: Sequence[str]) -> str:
    """What `ampo-run` said last, else the last line of a log that names an error, else its last line."""
    said = [" ".join(lines[i : i + 2]) for i, line in enumerate(lines) if line.startswith("ampo-run: ")]
    errors = [line.strip() for line in lines if _ERROR.match(line)]
    return (said or errors or [line for line in lines if line.strip()] or ["it printed nothing"])[-1]


def _rows(folder: Path, part: str) -> Path:
    return folder / f"{part}.rows.jsonl"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rollout", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--budget", type=int, default=530, help="seconds for all parts together")
    parser.add_argument("--out", type=Path, default=Path("build/gpu.md"), help="where the page goes")
    parser.add_argument("--folder", type=Path, default=None, help="where model and runs go, removed afterwards")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
