"""The `sft` job: supervised fine-tuning, full or LoRA. The loss is on the answer only.

Each optimizer step takes `batch` × `accumulation` examples over all ranks; the loss is the mean over all answer
tokens of the step, however they are split into micro-batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ampo_registry.errors import DataError
from ampo_registry.types import Message

from ampo_core.config.jobs import SftDataConfig, SftJob, SftTrainingConfig
from ampo_core.data.order import QuestionStream
from ampo_core.data.questions import load_questions
from ampo_core.data.rows import read_rows
from ampo_core.environment import Environment
from ampo_core.learner import Learner, UpdateReport
from ampo_core.manifest import build_manifest
from ampo_core.packing import TokenPair
from ampo_core.progress import Progress
from ampo_core.ranks import Ranks, join_ranks
from ampo_core.runfolder import RunFolder
from ampo_core.tokens import PromptTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenised (prompt, answer) pairs, and how many were left out because they exceed `max_tokens`."""

    pairs: tuple[TokenPair, ...]
    overlong: int
    notes: tuple[str, ...] = ()


def run(job: SftJob, environment: Environment) -> Path:
    """Train on the examples and return the final `policy/` folder.

    Raises DataError for malformed or empty data.
    """
    ranks = join_ranks(job.resources.threads)
    tokenizer = load_tokenizer(job.model, environment.trust_remote_code)
    examples = load_examples(job.data, tokenizer)
    per_step = job.training.batch * job.training.accumulation
    total_steps = count_steps(len(examples.pairs), job.training)
    manifest = build_manifest(
        job="sft",
        seed=job.run.seed,
        plugins=environment.plugins.distributions,
        data=job.data.train,
        models=[job.model.path],
    )
    folder = RunFolder.create(job.run, environment.yaml, manifest, job.checkpoint)
    torch.manual_seed(job.run.seed)
    learner = Learner(
        job.model,
        job.training,
        job.deepspeed,
        ranks,
        total_steps=total_steps,
        warmup_steps=round(job.training.warmup_ratio * total_steps),
        trust_remote_code=environment.trust_remote_code,
    )
    stream = QuestionStream([len(examples.pairs)], seed=job.run.seed, shuffle=True)
    trackers = [tracker.build(environment.build_context(run_dir=folder.path)) for tracker in job.tracking]
    checkpoint = folder.path
    with Progress(environment.console, "sft", total_steps, line_every=max(total_steps // 10, 1)) as progress:
        for note in describe(examples, total_steps, per_step):
            progress.note(note)
        for step in range(1, total_steps + 1):
            taken = stream.take((step - 1) * per_step, min(per_step, _left(step, per_step, examples, job.training)))
            metrics = train_step(learner, [examples.pairs[index] for index in taken], ranks)
            folder.log_metrics(step, metrics)
            for tracker in trackers:
                tracker.log(metrics, step)
            progress.step(step, metrics)
            if step == total_steps or (job.checkpoint.every and step % job.checkpoint.every == 0):
                checkpoint = folder.save_checkpoint(
                    step, lambda path: learner.save_policy(path / "policy", tokenizer.tokenizer), metrics
                )
    for tracker in trackers:
        tracker.close()
    learner.close()
    return folder.finish(checkpoint / "policy")


def train_step(learner: Learner, batch: Sequence[TokenPair], ranks: Ranks) -> dict[str, float]:
    """One optimizer step on the examples of all ranks; returns its metrics."""
    started = time.monotonic()
    tokens = sum(len(pair.response_token_ids) for pair in batch)
    summed = 0.0

    def loss(indices: list[int], logprobs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        nonlocal summed
        part = -torch.cat(logprobs).sum() / tokens
        summed += float(part.detach())
        return part

    report = learner.update(ranks.shard(batch), loss, temperature=1.0, entropy=False)
    mean = float(ranks.sum(torch.tensor(summed, dtype=torch.float64, device=ranks.device)))
    return _metrics(mean, report, time.monotonic() - started)


def _metrics(loss: float, report: UpdateReport, seconds: float) -> dict[str, float]:
    return {
        "policy/loss": loss,
        "policy/grad_norm": report.grad_norm,
        "policy/learning_rate": report.learning_rate,
        "policy/skipped_updates": float(report.skipped),
        "tokens/trained": float(report.tokens),
        "tokens/padding": float(report.padding),
        "time/step_s": seconds,
    }


def load_examples(data: SftDataConfig, tokenizer: PromptTokenizer) -> Examples:
    """All examples of `data.train`, tokenised once; those longer than `max_tokens` are left out and counted.

    Raises DataError for a missing, empty or malformed file and if no example is left.
    """
    if data.format == "pool":
        notes, conversations = _pool_conversations(data, tokenizer)
    else:
        notes, conversations = (), _message_conversations(data)
    pairs: list[TokenPair] = []
    overlong = 0
    for prompt, answer in conversations:
        prompt_ids = tokenizer.prompt_ids(prompt)
        pair = TokenPair(tuple(prompt_ids), tuple(tokenizer.answer_ids(answer, prompt_ids)))
        if len(pair) > data.max_tokens:
            overlong += 1
        else:
            pairs.append(pair)
    if not pairs:
        found = f"all {overlong} examples exceed data.max_tokens = {data.max_tokens}" if overlong else "no example"
        raise DataError(f"{', '.join(data.train)}: nothing to train on: {found} (format: {data.format})")
    return Examples(tuple(pairs), overlong, notes)


def _pool_conversations(
    data: SftDataConfig, tokenizer: PromptTokenizer
) -> tuple[tuple[str, ...], Iterator[tuple[Sequence[Message], str]]]:
    loaded = load_questions(
        data.train,
        tokenizer,
        max_prompt_tokens=data.max_tokens,
        overlong_prompts="drop",
        system_prompt=data.system_prompt,
        check_truth=lambda answer: None,
    )
    pairs = (
        (question.messages, str(target["content"]))
        for question in loaded.questions
        for target in _targets(question.extra)
    )
    return tuple(loaded.report.lines()), pairs


def _targets(row: object) -> list[dict[str, object]]:
    """The teacher answers of a row of the data contract: `target_lst`, else `target`; both may be null."""
    assert isinstance(row, dict)
    return list(row.get("target_lst") or row.get("target") or [])


def _message_conversations(data: SftDataConfig) -> Iterator[tuple[Sequence[Message], str]]:
    for path in map(Path, data.train):
        number = 0
        for number, row in read_rows(path):
            messages = _conversation(row.get("messages"), f"{path}, row {number}")
            if data.system_prompt != "keep":
                rest = [message for message in messages if message.role != "system"]
                messages = [Message("system", data.system_prompt), *rest]
            yield messages[:-1], messages[-1].content
        if not number:
            raise DataError(f"{path}: the file holds no row")


def _conversation(value: object, place: str) -> list[Message]:
    wanted = "messages must be a list of {role, content} that ends with the assistant's turn"
    if not isinstance(value, list) or len(value) < 2:
        raise DataError(f"{place}: {wanted}; found {str(value)[:120]}")
    for turn in value:
        texts = isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
        if not texts:
            raise DataError(f"{place}: {wanted}; found the turn {str(turn)[:120]}")
    if value[-1]["role"] != "assistant":
        raise DataError(f"{place}: {wanted}; the last turn is of {value[-1]['role']!r}")
    return [Message(turn["role"], turn["content"]) for turn in value]


def count_steps(examples: int, training: SftTrainingConfig) -> int:
    """Optimizer steps: `epochs` over the examples (the last step may be smaller), at most `steps`."""
    per_step = training.batch * training.accumulation
    steps = -(-examples * training.epochs // per_step)
    return steps if training.steps is None else min(steps, training.steps)


def _left(step: int, per_step: int, examples: Examples, training: SftTrainingConfig) -> int:
    return len(examples.pairs) * training.epochs - (step - 1) * per_step


def describe(examples: Examples, total_steps: int, per_step: int) -> list[str]:
    """What is trained on, for a person."""
    answers = sum(len(pair.response_token_ids) for pair in examples.pairs)
    left_out = f", {examples.overlong} left out as longer than data.max_tokens" if examples.overlong else ""
    return [
        *examples.notes,
        f"{len(examples.pairs)} examples, {answers / len(examples.pairs):.0f} answer tokens each{left_out}; "
        f"{total_steps} steps of {per_step}",
    ]
