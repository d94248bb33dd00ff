"""What an evaluation found: every sample with its grade, and the numbers made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ampo_registry.types import Grade, Question, Rollout

from ampo_core.statistics import average, pass_at_k

MACRO_METRIC = "eval/macro/avg"


@dataclass(frozen=True, slots=True)
class SetResult:
    """What a model did on a set: `rollouts` and `grades` are [questions][samples]."""

    name: str
    questions: tuple[Question, ...]
    rollouts: tuple[tuple[Rollout, ...], ...]
    grades: tuple[tuple[Grade, ...], ...]
    pass_at: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Samples of each question: the K of avg@K."""
        return len(self.grades[0])

    def averages(self) -> list[float]:
        """[questions] share of correct samples; penalties and format play no part."""
        return [average([float(grade.correct) for grade in group]) for group in self.grades]

    def passes(self, k: int) -> list[float]:
        """[questions] the unbiased pass@k."""
        return [pass_at_k(len(group), sum(grade.correct for grade in group), k) for group in self.grades]

    def metrics(self) -> dict[str, float]:
        """The set's numbers by short name. Length is in tokens; `entropy` is the mean of -log p over all sampled
        tokens, an estimate of the sampling distribution's entropy in nats (at the evaluation's temperature)."""
        rollouts = [rollout for group in self.rollouts for rollout in group]
        statuses = [grade.status for group in self.grades for grade in group]
        return {
            f"avg@{self.samples}": average(self.averages()),
            **{f"pass@{k}": average(self.passes(k)) for k in self.pass_at},
            "length_mean": average([len(rollout.token_ids) for rollout in rollouts]),
            "truncated": average([float(rollout.finish_reason == "length") for rollout in rollouts]),
            "entropy": -average([value for rollout in rollouts for value in rollout.logprobs]),
            "timeouts": float(statuses.count("timeout")),
            "errors": float(statuses.count("error")),
        }

    def predictions(self) -> Iterator[dict[str, Any]]:
        """One JSON object a sample."""
        for question, rollouts, grades in zip(self.questions, self.rollouts, self.grades, strict=True):
            for sample, (rollout, grade) in enumerate(zip(rollouts, grades, strict=True)):
                yield {
                    "set": self.name,
                    "uid": question.uid,
                    "source": question.source,
                    "answer": question.answer,
                    "sample": sample,
                    "text": rollout.text,
                    "correct": grade.correct,
                    "formatted": grade.formatted,
                    "status": grade.status,
                    "detail": grade.detail,
                    "tokens": len(rollout.token_ids),
                    "finish_reason": rollout.finish_reason,
                }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on all sets."""

    sets: tuple[SetResult, ...]

    @property
    def macro(self) -> float:
        """The mean over sets of each set's avg@K: every benchmark counts once, whatever its size."""
        return average([average(result.averages()) for result in self.sets])

    def metrics(self) -> dict[str, float]:
        """`eval/SET/NAME` for every set, and `eval/macro/avg`."""
        named = {
            f"eval/{result.name}/{name}": value for result in self.sets for name, value in result.metrics().items()
        }
        return {**named, MACRO_METRIC: self.macro}

    def predictions(self) -> Iterator[dict[str, Any]]:
        """One JSON object a sample, set after set."""
        for result in self.sets:
            yield from result.predictions()
