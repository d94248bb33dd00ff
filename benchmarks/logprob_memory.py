"""Peak memory and time of log-probs and entropies: slices of the vocabulary beside full logits, forward and backward.

    python benchmarks/logprob_memory.py                        # 1k to 16k tokens, vocabulary 151,936, width 896
    python benchmarks/logprob_memory.py --tokens 1024 2048 --repeats 3 --device cuda --dtype bfloat16

Every measurement is a process of its own and both ways take turns. Memory is what comes on top of the head's weight
and the hidden states: on a CPU the high-water mark of resident memory minus that before the first run, on a GPU what
PyTorch allocated. Both include the gradient of the weight. Seconds are CPU time on a CPU (of all threads), so that
other processes count little, and elapsed time on a GPU. What full logits would need beyond `--limit-gib` is not
run: the table shows the bound that follows from three [tokens, vocabulary] tensors alive at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ampo_core.learner.logprobs import token_logprobs

GIB = 2**30
WAYS = ("full", "sliced")


@dataclass(frozen=True)
class Case:
    way: str
    tokens: int
    vocabulary: int
    width: int
    device: str
    dtype: str


def loss_of(case: Case, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if case.way == "full":
        logits = hidden @ weight.T
        logs = logits.float().log_softmax(dim=-1)
        log_probs = logs.gather(-1, targets[:, None])[:, 0]
        entropies = -(logs.exp() * logs).sum(dim=-1)
    else:
        log_probs, entropies = token_logprobs(hidden, targets, weight, None, temperature=1.0, entropy=True)
    return -(log_probs.sum() + 0.01 * entropies.sum()) / len(targets)


def resident(field: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most so far."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def measure(case: Case) -> dict[str, float]:
    """In a process of its own: seconds, bytes above the inputs, and the numbers that show both ways agree."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    weight = torch.empty(case.vocabulary, case.width, dtype=dtype, device=case.device).normal_(std=0.02)
    hidden = torch.randn(case.tokens, case.width, device=case.device).to(dtype)
    targets = torch.randint(0, case.vocabulary, (case.tokens,), device=case.device)
    weight.requires_grad_()
    hidden.requires_grad_()
    loss_of(case, hidden[:8].detach(), weight[:512].detach(), targets[:8] % 512)  # loads the kernels
    cuda = case.device == "cuda"
    before = torch.cuda.memory_allocated() if cuda else resident("VmRSS")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    clock = time.perf_counter if cuda else time.process_time
    started = clock()
    loss = loss_of(case, hidden, weight, targets)
    loss.backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = clock() - started
    peak = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")
    assert hidden.grad is not None
    return {
        "seconds": seconds,
        "bytes": peak - before,
        "loss": float(loss.detach()),
        "gradient": float(hidden.grad.float().norm()),
    }


def child(case: Case) -> dict[str, float]:
    output = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(vars(case))], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found: dict[str, float] = json.loads(output)
    return found


def check_agreement(runs: dict[str, list[dict[str, float]]]) -> None:
    for key in ("loss", "gradient"):
        values = [run[key] for way in WAYS for run in runs[way]]
        if max(values) - min(values) > 1e-2 * abs(max(values)):
            raise SystemExit(f"the two ways differ in {key}: {values}")


def row(tokens: int, runs: dict[str, list[dict[str, float]]], bound: float) -> list[str]:
    best = {way: {key: min(run[key] for run in runs[way]) for key in ("seconds", "bytes")} for way in runs if runs[way]}
    sliced = best["sliced"]
    if "full" not in best:
        full = [f"not run, over {bound / GIB:.1f}", "", f"under {sliced['bytes'] / bound:.2f}", ""]
    else:
        ratios = [sliced[key] / best["full"][key] for key in ("bytes", "seconds")]
        full = [f"{best['full']['bytes'] / GIB:.2f}", f"{best['full']['seconds']:.1f}", *(f"{r:.2f}" for r in ratios)]
    return [
        f"{tokens:,}",
        full[0],
        f"{sliced['bytes'] / GIB:.2f}",
        full[2],
        full[1],
        f"{sliced['seconds']:.1f}",
        full[3],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--limit-gib", type=float, default=24.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Case(**json.loads(options.child)))))
        return
    title = f"vocabulary {options.vocabulary:,}, width {options.width}, {options.dtype} on {options.device}"
    table = Table("tokens", "full GiB", "sliced GiB", "ratio", "full s", "sliced s", "ratio", title=title)
    for tokens in options.tokens:
        bound = 3 * tokens * options.vocabulary * 4
        ways = [way for way in WAYS if way == "sliced" or bound < options.limit_gib * GIB]
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way in ways:
                case = Case(way, tokens, options.vocabulary, options.width, options.device, options.dtype)
                runs[way].append(child(case))
        check_agreement(runs)
        table.add_row(*row(tokens, runs, bound))
        Console().print(table)


if __name__ == "__main__":
    main()
