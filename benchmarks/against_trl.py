"""GRPO in AMPO beside GRPO in TRL: one machine, the same student, questions, reward and settings, step by step in turn.

    python benchmarks/against_trl.py                                    # both cases; makes TRL's environment first
    python benchmarks/against_trl.py --case quickstart --quickstart runs/quickstart
    python benchmarks/against_trl.py --case fixed --steps 30 --threads 1

Case `quickstart`: the quickstart's task after its warm-up, answers of very different lengths. Case `fixed`: random
weights, every completion exactly 64 tokens. Both: 16 questions × 8 completions and one optimizer step at a time,
no KL, fp32. Each trainer is a process of its own that sleeps while another one does its step, so that whatever else
the machine does meets all of them alike; the first steps do not count. Peak memory is the trainer's own resident set,
without the processes that grade.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "side_by_side"))

from cases import ROOT, Case, ampo_config, fixed_case, quickstart_case, trl_case  # noqa: E402
from tables import count_table, hop_table, medians  # noqa: E402
from turns import Reports, Worker, take_turns, worker_environment  # noqa: E402

ROLLOUTS = ("transformers", "vllm")


def trl_python(folder: Path) -> Path:
    """The Python of TRL's virtual environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    import torch
    import transformers

    print(f"making TRL's environment in {folder} ...", flush=True)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}"], check=True)
    trl = ["trl>=1.16,<2", f"transformers=={transformers.__version__}"]
    reward = ["math-verify", "pebble", "psutil", "pluggy", "pydantic", "pyyaml", "rich", "entrypoints"]
    subprocess.run([*pip, *trl, *reward], check=True)
    subprocess.run([*pip, "--no-deps", "-e", str(ROOT)], check=True)
    return python


def missing(rollout: str) -> str | None:
    """Why AMPO's `rollout` cannot run here, if so."""
    return "not installed" if rollout == "vllm" and not importlib.util.find_spec("vllm") else None


def start_workers(case: Case, arguments: argparse.Namespace, work: Path) -> list[Worker]:
    """One process for each trainer that runs here, TRL last."""
    steps = arguments.warmup + arguments.steps
    environment = worker_environment(arguments.threads)
    shutil.rmtree(work / "runs", ignore_errors=True)
    workers = []
    for rollout in arguments.rollouts:
        if reason := missing(rollout):
            print(f"AMPO with the {rollout} rollout: {reason}")
            continue
        config = ampo_config(case, rollout, work, steps=steps, threads=arguments.threads)
        plugin = str(HERE / "side_by_side" / "ampo_turns.py")
        command = [sys.executable, "-m", "ampo_core.cli.main", str(config), "--plugin", plugin]
        workers.append(Worker(f"AMPO, {rollout}", command, environment, work / f"{case.name}-{rollout}.log"))
    settings = trl_case(case, work, steps=steps, threads=arguments.threads)
    command = [str(trl_python(arguments.trl_venv)), str(HERE / "side_by_side" / "trl_worker.py"), str(settings)]
    workers.append(Worker("TRL", command, environment, work / f"{case.name}-trl.log"))
    return workers


def verdicts(case: Case, reports: Reports) -> list[str]:
    """The ratio of each of AMPO's medians to TRL's, and where a missed target was lost."""
    rows = medians(reports)
    rival = rows.pop("TRL")
    lines = []
    for name, hops in rows.items():
        ratio = hops["step"] / rival["step"]
        met = ratio <= case.target
        lines.append(f"{name}: {ratio:.2f} of TRL's time, target {case.target}: {'met' if met else 'MISSED'}")
        if not met:
            allowed = case.target * rival["step"]
            parts = sorted(((value, hop) for hop, value in hops.items() if hop != "step"), reverse=True)
            shown = ", ".join(f"{hop} {value:.3f} s ({value / hops['step']:.0%})" for value, hop in parts)
            lines.append(f"  allowed {allowed:.3f} s, took {hops['step']:.3f} s: {shown}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("quickstart", "fixed", "both"), default="both")
    parser.add_argument("--rollouts", nargs="+", choices=ROLLOUTS, default=ROLLOUTS, help="AMPO's; default: both")
    parser.add_argument("--steps", type=int, default=20, help="steps that count")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them that do not")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "against_trl", help="folder for models and logs")
    parser.add_argument("--trl-venv", type=Path, default=ROOT / "runs" / "trl-venv", help="made if it is not there")
    parser.add_argument("--quickstart", type=Path, help="a finished run of the quickstart; default: warm up anew")
    parser.add_argument("--ampo-microbatch", type=int, help="AMPO's tokens_per_microbatch")
    parser.add_argument("--trl-microbatch", type=int, help="TRL's per_device_train_batch_size; divides 128")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 140)
    names = ("quickstart", "fixed") if arguments.case == "both" else (arguments.case,)
    for name in names:
        case = fixed_case(arguments.work) if name == "fixed" else quickstart_case(arguments.work, arguments.quickstart)
        case = replace(
            case,
            ampo_microbatch=arguments.ampo_microbatch or case.ampo_microbatch,
            trl_microbatch=arguments.trl_microbatch or case.trl_microbatch,
        )
        workers = start_workers(case, arguments, arguments.work.resolve())
        reports = take_turns(workers, arguments.warmup, arguments.steps)
        console.print(f"\ncase {name}: {arguments.steps} steps, {arguments.threads} threads", highlight=False)
        console.print(hop_table(reports))
        console.print(count_table(reports))
        console.print("\n".join(verdicts(case, reports)), highlight=False)


if __name__ == "__main__":
    main()
