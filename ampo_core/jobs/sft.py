"""The `sft` job: supervised fine-tuning, full or LoRA. The loss is on the answer only.

Each optimizer step takes `batch` × `accumulation` examples over all ranks; the loss is the mean over all answer
tokens of the step, however they are split into micro-batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from ampo_registry.types import StepReport

from ampo_core.config.positions import positions_of
from ampo_core.config.sft_job import SftJob, SftTrainingConfig
from ampo_core.data.order import QuestionStream
from ampo_core.data.seeds import derive_seed
from ampo_core.data.tokens import load_tokenizer
from ampo_core.distributed.ranks import Ranks, join_ranks
from ampo_core.distributed.together import by_first
from ampo_core.jobs.sft_data import Examples, load_examples
from ampo_core.learner.checkpoint import Position
from ampo_core.learner.learner import Learner, UpdateReport
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.schedule import LearningRate
from ampo_core.report.reporting import Reporter
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import Interrupt
from ampo_core.run.manifest import build_manifest, hash_questions
from ampo_core.run.progress import Reading
from ampo_core.run.resume import begin


def run(job: SftJob, environment: Environment) -> Path:
    """Train on the examples and return the final `policy/` folder.

    Raises DataError for malformed or empty data.
    """
    ranks = join_ranks(job.resources.threads)
    tokenizer = load_tokenizer(job.model, environment.trust_remote_code)
    with Reading(environment.console) as reading:
        examples = load_examples(job.data, tokenizer, positions_of(job.model.path), reading)
    plan = batches(examples.pairs, job.training, job.run.seed)
    beginning = by_first(
        ranks,
        lambda: begin(
            job,
            environment,
            lambda: _manifest(job, environment, examples, tokenizer.notes),
            steps=len(plan),
            world_size=ranks.world_size,
        ),
    )
    torch.manual_seed(job.run.seed)  # LoRA draws its first weights
    learner = Learner(job.model, job.training, job.deepspeed, ranks, trust_remote_code=environment.trust_remote_code)
    part_dropout(job.run.seed, ranks.rank)
    schedule = LearningRate(job.training, len(plan), round(job.training.warmup_ratio * len(plan)))
    with (
        closing(learner),
        Reporter(job, environment, beginning, ranks, tokenizer, steps=len(plan)) as reporter,
        Interrupt() as interrupt,
    ):
        for line in examples.lines():
            reporter.note(line)
        reporter.started()
        done = 0
        if reporter.checkpoint is not None:
            done = reporter.checkpoint.load(learner, None).step
            reporter.checkpoint.restore_rng()
        for step, batch in enumerate(plan[done:], start=done + 1):
            report = StepReport(step, train_step(learner, batch, ranks, schedule.at(step - 1)))
            reporter.stepped(report, Position(step), learner, interrupt)
        return reporter.finished()


def part_dropout(seed: int, rank: int) -> None:
    """Have LoRA's dropout draw other numbers on each rank. The run's `seed` goes on as it is on rank 0."""
    if rank > 0:
        torch.manual_seed(derive_seed("dropout", seed, rank))


def _manifest(job: SftJob, environment: Environment, examples: Examples, notes: Sequence[str]) -> dict[str, Any]:
    manifest = build_manifest(
        job="sft",
        seed=job.run.seed,
        plugins=environment.plugins.distributions,
        code=environment.code(),
        data=job.data.train,
        teachers=list(examples.teachers),
        models=[job.model.path],
        questions={"train": hash_questions(examples.uids())},
        notes=notes,
    )
    return {**manifest, "examples": {"count": len(examples.pairs), "teachers": dict(examples.teachers)}}


def batches(pairs: Sequence[TokenPair], training: SftTrainingConfig, seed: int) -> list[list[TokenPair]]:
    """The examples of each optimizer step: `epochs` shuffled passes, the last step filled as far as they go."""
    per_step, total = training.batch * training.accumulation, len(pairs) * training.epochs
    order = QuestionStream([len(pairs)], seed=seed, shuffle=True).take(0, total)
    taken = [order[start : start + per_step] for start in range(0, total, per_step)]
    return [[pairs[i] for i in batch] for batch in taken[: training.steps]]


def train_step(learner: Learner, batch: Sequence[TokenPair], ranks: Ranks, learning_rate: float) -> dict[str, float]:
    """One optimizer step on the examples of all ranks; returns its metrics."""
    started = time.monotonic()
    tokens = sum(len(pair.response_token_ids) for pair in batch)
    summed = 0.0

    def loss(indices: list[int], logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        nonlocal summed
        part = -torch.cat(logprobs).sum() / tokens
        summed += float(part.detach())
        return part

    report = learner.update(ranks.shard(batch), loss, learning_rate=learning_rate, temperature=1.0, entropy=False)
    mean = float(ranks.sum(torch.tensor(summed, dtype=torch.float64, device=ranks.device)))
    return _metrics(mean, report, learning_rate, tokens, time.monotonic() - started)


def _metrics(
    loss: float, report: UpdateReport, learning_rate: float, answer_tokens: int, seconds: float
) -> dict[str, float]:
    return {
        "policy/loss": loss,
        "policy/grad_norm": report.grad_norm,
        "policy/learning_rate": learning_rate,
        "policy/skipped_updates": float(report.skipped),
        "tokens/trained": float(report.tokens),
        "tokens/padding": float(report.padding),
        "tokens/answers": float(answer_tokens),
        "time/step_s": seconds,
    }
