"""The time of each hop of an AMPO step at the quickstart's settings, and what sampling one batch ahead makes of it.

    python benchmarks/step.py                                  # warms the student up first, once
    python benchmarks/step.py --quickstart runs/quickstart --steps 40
    python benchmarks/step.py --set rollout.type=vllm

Runs `configs/quickstart/ampo.yaml` with `rollout.ahead` 0 and 1 through `ampo-run`, in two processes that take turns
step by step, so that whatever else the machine does meets both alike. With `rollout.ahead: 1` the hop `rollout` is
only the time that the learner waits: the sampling itself runs while it updates.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "side_by_side"))

from cases import ROOT, quickstart_world  # noqa: E402
from tables import count_table, hop_table  # noqa: E402
from turns import Worker, take_turns, worker_environment  # noqa: E402


def start(name: str, ahead: int, arguments: argparse.Namespace, work: Path) -> Worker:
    """`ampo-run` on the quickstart's AMPO stage, taking turns."""
    world = arguments.quickstart or quickstart_world(work)
    (model,) = (world / "warmup" / "checkpoints").glob("*/policy")
    command = [
        *(sys.executable, "-m", "ampo_core.cli.main", str(ROOT / "configs/quickstart/ampo.yaml")),
        *("--plugin", str(HERE / "side_by_side" / "ampo_turns.py")),
        f"model.path={model.resolve()}",
        f"data.train=[{(world / 'prepare' / 'out' / 'train.parquet').resolve()}]",
        f"run.dir={work / 'runs'}",
        f"run.name=ahead{ahead}",
        f"rollout.ahead={ahead}",
        f"training.steps={arguments.warmup + arguments.steps}",
        f"resources.threads={arguments.threads}",
        "tracking=[]",
        *arguments.set,
    ]
    return Worker(name, command, worker_environment(arguments.threads), work / f"ahead{ahead}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="steps that count")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them that do not")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "step", help="folder for models and logs")
    parser.add_argument("--quickstart", type=Path, help="a finished run of the quickstart; default: warm up anew")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further keys, for both")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "runs", ignore_errors=True)
    names = {"one after the other": 0, "rollout.ahead: 1": 1}
    workers = [start(name, ahead, arguments, work) for name, ahead in names.items()]
    reports = take_turns(workers, arguments.warmup, arguments.steps)
    medians = [statistics.median(report["hops"]["step"] for report in found) for found in reports.values()]
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{arguments.steps} steps, {arguments.threads} threads", highlight=False)
    console.print(hop_table(reports))
    console.print(count_table(reports))
    console.print(f"ahead takes {medians[1] / medians[0]:.2f} of the time", highlight=False)


if __name__ == "__main__":
    main()
