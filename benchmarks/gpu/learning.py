"""The learner of the train config, built without a rollout engine, and updates of a step's size for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import torch
from ampo_registry import OFF_POLICY, ON_POLICY, StepContext, TokenIds
from ampo_registry.discovery import discover

from ampo_core.config.jobs import TrainJob
from ampo_core.config.load import load_config
from ampo_core.distributed.ranks import join_ranks
from ampo_core.jobs.libraries import settle_libraries
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair
from ampo_core.loop.minibatch_loss import MiniBatchLoss
from ampo_core.loop.objective import Objective, ObjectiveParts
from ampo_core.loop.sequences import TrainSequence
from ampo_core.run.environment import Environment
from gpu.rows import Setting
from gpu.world import Scale, train_config


def load_job(setting: Setting, name: str, *overrides: str) -> tuple[TrainJob, Environment]:
    """The train job of this measurement as `ampo-run` would load it, under another name."""
    path = setting.folder / f"{name}.yaml"
    path.write_text(json.dumps(train_config(setting.scale, setting.folder, setting.rollout), indent=2), "utf-8")
    plugins = discover()
    loaded = load_config(path, [f"run.name={name}", *overrides], plugins)
    assert isinstance(loaded.job, TrainJob)
    return loaded.job, Environment.of(loaded, plugins)


@contextmanager
def started_learner(setting: Setting) -> Iterator[tuple[Learner, TrainJob, Environment]]:
    """A learner as the train job builds it, closed at the end."""
    settle_libraries()
    job, environment = load_job(setting, "update")
    ranks = join_ranks(job.resources.threads)
    learner = Learner(job.model, job.training, job.deepspeed, ranks)
    try:
        yield learner, job, environment
    finally:
        learner.close()


@dataclass(frozen=True, slots=True)
class Update:
    """An optimizer step on sequences of random tokens: most by the student, two of a group by teachers."""

    learner: Learner
    objective: Objective
    sequences: tuple[TrainSequence, ...]
    temperature: float

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """(prompt, response) tokens of each sequence."""
        return [(len(s.pair.prompt_token_ids), len(s.pair.response_token_ids)) for s in self.sequences]

    def once(self) -> None:
        """One update; raises RuntimeError if its gradient was not finite, for then no step was taken."""
        loss = MiniBatchLoss(self.objective, self.sequences, range(len(self.sequences)))
        pairs = [sequence.pair for sequence in self.sequences]
        entropy = self.objective.entropy_coefficient > 0
        report = self.learner.update(pairs, loss, temperature=self.temperature, entropy=entropy)
        if report.skipped:
            raise RuntimeError("the gradient of the update was not finite")

    def forward(self) -> None:
        """What a step computes before its first update: log-probs and entropies without gradient."""
        pairs = [sequence.pair for sequence in self.sequences]
        self.learner.logprobs_and_entropies(pairs, temperature=self.temperature)


def build_update(scale: Scale, learner: Learner, job: TrainJob, environment: Environment) -> Update:
    """An update of `scale`'s questions × group sequences, prompts of about 200 tokens, students' responses full."""
    random = Random(1)
    parts = ObjectiveParts(job.objective, environment.build_context(), job.rollout.max_response_tokens)
    objective = parts.at(StepContext(step=1))
    sequences = []
    for group in range(scale.questions):
        prompt = _tokens(random, scale, random.randrange(150, 250))
        for slot in range(scale.group):
            teacher = slot < 2
            length = scale.response_tokens // random.randrange(2, 8) if teacher else scale.response_tokens
            pair = TokenPair(prompt, _tokens(random, scale, length))
            spans = ((OFF_POLICY if teacher else ON_POLICY, 0, length),)
            sequences.append(TrainSequence(pair, group, spans, 1.0 if teacher else -1 / 3))
    old = learner.logprobs([sequence.pair for sequence in sequences], temperature=job.rollout.temperature)
    known = [
        sequence if sequence.of(OFF_POLICY) else replace(sequence, old_log_probs=part)
        for sequence, part in zip(sequences, old, strict=True)
    ]
    assert all(bool(torch.isfinite(part).all()) for part in old)
    return Update(learner, objective, tuple(known), job.rollout.temperature)


def _tokens(random: Random, scale: Scale, count: int) -> TokenIds:
    return TokenIds(random.randrange(3, scale.vocabulary) for _ in range(count))
