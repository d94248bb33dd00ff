"""What a plugin may hold or wrap, without a model: a pool of teachers, and an engine that samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from ampo_registry.testing.examples import EOS
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import Question, Rollout, RolloutRequest, SamplingOptions, TeacherAnswer

if TYPE_CHECKING:
    import torch

TOKENS = 10
"""An engine's vocabulary: the stop token and nine others."""


class FakePool:
    """Gives the answers that it is told, by the uid of a question, and those in the question's own data to others.

    `asked` holds the questions in the order in which they came.
    """

    def __init__(self, answers: Mapping[str, Sequence[TeacherAnswer]] | None = None) -> None:
        self.known = dict(answers or {})
        self.asked: list[Question] = []

    def answers(self, question: Question) -> Sequence[TeacherAnswer]:
        """Those of the question."""
        self.asked.append(question)
        return self.known.get(question.uid, question.answers)

    def check_questions(self, questions: Sequence[Question]) -> None:
        """It can serve all."""


class FakeEngine:
    """Samples tokens that prompt and seed decide, at temperature 0 the prompt alone; every second text or so is right.

    `asked` holds the requests of each call, `version` that of the weights that were loaded last.
    """

    def __init__(self, answer: str = "42") -> None:
        self.answer, self.version = answer, 0
        self.asked: list[list[RolloutRequest]] = []

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        """For each request one rollout for each of its seeds."""
        self.asked.append(list(requests))
        return [[self._rollout(request, seed, options) for seed in request.seeds] for request in requests]

    def _rollout(self, request: RolloutRequest, seed: int, options: SamplingOptions) -> Rollout:
        luck = Random(f"{tuple(request.prompt_token_ids)}/{seed if options.temperature else ''}")
        right = luck.random() < 0.5
        ids = [luck.randrange(TOKENS)]
        while ids[-1] not in options.stop_token_ids and len(ids) < options.limit_of(request):
            ids.append(luck.randrange(TOKENS))
        stopped = ids[-1] in options.stop_token_ids
        text = f"so <answer>{self.answer if right else EOS}</answer>"
        logprobs = LogProbs([-2.3] * len(ids))
        return Rollout(TokenIds(ids), logprobs, text, "stop" if stopped else "length", self.version)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], policy_version: int) -> None:
        """Read them all, and take note of the version."""
        for _ in weights:
            self.version = policy_version

    def sleep(self) -> None:
        """Nothing to do."""

    def wake(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
