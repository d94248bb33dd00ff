"""The parts of the measurement. Each runs in a process of its own and adds rows to the table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gpu import device, world
from gpu.rows import Rows, Setting, seconds

POLL_S = 0.5


def make_model(setting: Setting, rows: Rows) -> None:
    """The model and the questions that all other parts use."""
    scale = setting.scale
    parameters = world.write_model(setting.folder / "model", scale, setting.device)
    world.write_questions(setting.folder / "questions.jsonl", 4 * scale.questions)
    shape = (
        f"{parameters / 1e6:,.1f} M parameters, random: {scale.layers} layers, hidden {scale.hidden}, {scale.heads} "
        f"heads on {scale.key_heads}, intermediate {scale.intermediate}, vocabulary {scale.vocabulary}, tied"
    )
    rows.add("model", shape)


def train(setting: Setting, rows: Rows) -> None:
    """AMPO steps through `ampo-run`, as a user starts it."""
    scale = setting.scale
    path = setting.folder / "train.yaml"
    # JSON is YAML, too.
    path.write_text(json.dumps(world.train_config(scale, setting.folder, setting.rollout), indent=2), "utf-8")
    metrics = setting.folder / "runs" / "train" / "metrics.jsonl"
    started, steps, running = time.perf_counter(), 0, True
    process = subprocess.Popen([sys.executable, "-m", "ampo_core.cli.main", str(path)], cwd=setting.folder)
    # Step by step, so that what is known stands even if the run does not end in time.
    while running:
        time.sleep(POLL_S)
        running = process.poll() is None
        text = metrics.read_text("utf-8") if metrics.exists() else ""
        for line in text.split("\n")[steps:-1]:
            _add_step(json.loads(line), scale, rows)
            steps += 1
    if process.returncode != 0:
        raise RuntimeError(f"ampo-run ended with exit code {process.returncode} after {steps} steps")
    whole = time.perf_counter() - started
    rows.add(f"… ampo-run from start to end, {steps} steps and a checkpoint", f"{whole:.0f} s")


def _add_step(step: dict[str, Any], scale: world.Scale, rows: Rows) -> None:
    size = f"{scale.questions} × {scale.group} rollouts of up to {scale.response_tokens} tokens"
    hops = seconds(step, "rollout", "reward", "guidance", "update", "sync", "step")
    rows.add(f"AMPO step {step['step']}, {size}: rollout / reward / guidance / update / sync / all", hops)
    rows.add(f"… step {step['step']}: what happened", _told(step))


def _told(step: dict[str, Any]) -> str:
    generated, trained = step["tokens/generated"], step["tokens/trained"]
    gap = step.get("policy/rollout_logprob_gap")
    return (
        f"{generated:,.0f} tokens sampled ({generated / max(step['time/rollout_s'], 1e-9):,.0f}/s), {trained:,.0f} "
        f"trained ({trained / max(step['time/update_s'], 1e-9):,.0f}/s), accuracy {step['reward/accuracy']:.2f}, "
        f"{step['guidance/triggered']:.0%} of the groups guided, {step['guidance/replaced']:.1f} answers replaced a "
        f"group, gradient norm {step['policy/grad_norm'] or float('nan'):.3g}, log-prob gap {gap or float('nan'):.2g}"
    )


def update(setting: Setting, rows: Rows) -> None:
    """The learner alone: seconds, MFU and memory of an update at the size of a training step."""
    import torch

    from gpu.learning import build_update, started_learner

    with started_learner(setting) as (learner, job, environment):
        rows.add("learner alone: memory taken once ZeRO-2 has started", device.gib(device.used()))
        run = build_update(setting.scale, learner, job, environment)
        run.once()  # kernels are chosen and caches filled here
        if setting.cuda:
            torch.cuda.reset_peak_memory_stats()
        took = min(_timed(run.once) for _ in range(2))
        memory = f"{torch.cuda.max_memory_allocated() / device.GIB:.1f} GiB" if setting.cuda else "unknown"
        forward = _timed(run.forward)
    flops, tokens = world.update_flops(setting.scale, run.lengths), sum(map(sum, run.lengths))
    name = torch.cuda.get_device_name() if setting.cuda else "CPU"
    peak = device.peak_flops(name)
    rate = f"{flops / took / 1e12:.4g} TFLOP/s"
    mfu = f"{flops / took / peak:.1%} ({rate} of {peak / 1e12:.0f})" if peak else f"unknown for {name} ({rate})"
    size = f"{len(run.lengths)} sequences, {tokens:,} tokens"
    rows.add(f"update alone, {size}: seconds, tokens/s", f"{took:.2f} s, {tokens / took:,.0f}")
    rows.add("… MFU", mfu)
    rows.add("… log-probs and entropy of the same sequences, forward only", f"{forward:.2f} s, {tokens / forward:,.0f}")
    rows.add("… peak memory of training (allocated)", memory)


def colocated(setting: Setting, rows: Rows) -> None:
    """Learner and rollout engine on one device: parity after a sync, its seconds, what sleep frees."""
    from gpu.colocation import Pair, assembled

    with assembled(setting) as parts:
        pair = Pair(parts, setting.scale.sampled_tokens)
        first = pair.sample(0)
        rows.add("|trainer − rollout log-prob| at the start, mean / max", pair.gap(first))
        memory = pair.sleep_and_wake()
        pair.learn(first)
        rows.add("… after an update, without a sync (what a lost one would show)", pair.gap(first))
        syncs = [_timed(partial(pair.sync, version)) for version in (1, 2, 3)]
        rows.add("… after an update and a sync", pair.gap(pair.sample(1000)))
        rows.add("weight sync, first / second / third", " / ".join(f"{s:.2f}" for s in syncs) + " s")
        rows.add("sleep: memory freed, seconds", f"{device.gib(memory.freed)}, {memory.sleep_s:.2f} s")
        rows.add(
            "sync and wake: memory taken, seconds of the wake", f"{device.gib(memory.taken)}, {memory.wake_s:.2f} s"
        )


def rollout(setting: Setting, rows: Rows) -> None:
    """Tokens per second of the rollout plugin, alone on the device."""
    from gpu.sampling import plugin_speeds

    plugin_speeds(setting, rows)


def bare(setting: Setting, rows: Rows) -> None:
    """Tokens per second of vLLM itself on the same prompts."""
    from gpu.sampling import bare_speeds

    bare_speeds(setting, rows)


def _timed(run: Callable[[], object]) -> float:
    device.settle()
    started = time.perf_counter()
    run()
    device.settle()
    return time.perf_counter() - started


PARTS: dict[str, tuple[Callable[[Setting, Rows], None], int]] = {
    "model": (make_model, 90),
    "train": (train, 260),
    "colocated": (colocated, 150),
    "update": (update, 100),
    "rollout": (rollout, 110),
    "bare": (bare, 140),
}
"""Name -> function and its limit in seconds, in the order in which they run; `model` must come first."""
