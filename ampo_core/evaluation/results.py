"""What an evaluation found: every sample with its grade, and the numbers made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ampo_registry.types import FinishReason, Grade, Question, Rollout

from ampo_core.config.metric_names import MACRO
from ampo_core.evaluation.statistics import average, pass_at_k
from ampo_core.grading.numbers import mean_numbers


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled response and its grade.

    `tokens` are counted with the stop token; `logprob` is the sum of their log-probs in nats under the distribution
    that was sampled from, None where there was none (temperature 0) or where it is not known. `text` is "" once it
    has been written down.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    logprob: float | None
    grade: Grade

    @classmethod
    def of(cls, rollout: Rollout, grade: Grade, *, greedy: bool) -> Answer:
        """The answer that `rollout` is; a greedy one has no log-prob."""
        logprob = None if greedy else sum(rollout.logprobs)
        return cls(rollout.text, len(rollout.token_ids), rollout.finish_reason, logprob, grade)


@dataclass(frozen=True, slots=True)
class SetResult:
    """What a model did on a set: `answers` are [questions][samples]; `pass_at` are the k of its pass@k."""

    name: str
    questions: tuple[Question, ...]
    answers: tuple[tuple[Answer, ...], ...]
    pass_at: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Samples of each question: the K of avg@K."""
        return len(self.answers[0])

    def averages(self) -> list[float]:
        """[questions] share of correct samples; penalties and format play no part."""
        return [average([float(answer.grade.correct) for answer in group]) for group in self.answers]

    def by_question(self) -> dict[str, float]:
        """uid -> what `averages` has for it."""
        return {question.uid: value for question, value in zip(self.questions, self.averages(), strict=True)}

    def passes(self, k: int) -> list[float]:
        """[questions] the unbiased pass@k."""
        return [pass_at_k(len(group), sum(answer.grade.correct for answer in group), k) for group in self.answers]

    def metrics(self) -> dict[str, float]:
        """The set's numbers by short name. Length is in tokens; `entropy` is the mean of -log p over all sampled
        tokens, an estimate of the sampling distribution's entropy in nats (at the evaluation's temperature). It is
        left out where the log-probs are not known, and of greedy answers, which are no samples. Numbers of the reward
        keep their names."""
        answers = [answer for group in self.answers for answer in group]
        statuses = [answer.grade.status for answer in answers]
        logprobs = [answer.logprob for answer in answers if answer.logprob is not None]
        tokens = sum(answer.tokens for answer in answers)
        entropy = {"entropy": -sum(logprobs) / tokens} if len(logprobs) == len(answers) and tokens else {}
        return {
            f"avg@{self.samples}": average(self.averages()),
            **{f"pass@{k}": average(self.passes(k)) for k in self.pass_at},
            "length_mean": average([answer.tokens for answer in answers]),
            "truncated": average([float(answer.finish_reason == "length") for answer in answers]),
            "format": average([float(answer.grade.formatted) for answer in answers]),
            **entropy,
            **mean_numbers(answer.grade for answer in answers),
            "timeouts": float(statuses.count("timeout")),
            "errors": float(statuses.count("error")),
        }

    def predictions(self, read: Callable[[Question], str | None]) -> Iterator[dict[str, Any]]:
        """One JSON object a sample, as predictions.jsonl holds it after the model's name. `read` gives the whole of
        what a model reads of a question, None where that is not known."""
        for question, answers in zip(self.questions, self.answers, strict=True):
            text = read(question)
            known = {} if text is None else {"read": text}
            for sample, answer in enumerate(answers):
                yield {
                    "set": self.name,
                    "uid": question.uid,
                    "source": question.source,
                    "prompt": question.messages[-1].content if question.messages else None,
                    **known,
                    "answer": question.answer,
                    "sample": sample,
                    "text": answer.text,
                    "reward": answer.grade.reward,
                    "correct": answer.grade.correct,
                    "formatted": answer.grade.formatted,
                    "status": answer.grade.status,
                    "detail": answer.grade.detail,
                    "numbers": dict(answer.grade.numbers),
                    "tokens": answer.tokens,
                    "finish_reason": answer.finish_reason,
                    "logprob": answer.logprob,
                }

    def without_texts(self) -> SetResult:
        """The same numbers without the texts, of which many models on many sets have gigabytes."""
        answers = (tuple(replace(answer, text="") for answer in group) for group in self.answers)
        return replace(self, answers=tuple(answers))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on all sets; `groups` name some of them each."""

    sets: tuple[SetResult, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def macro(self) -> float:
        """The mean over sets of each set's avg@K: every benchmark counts once, whatever its size."""
        return self.mean([result.name for result in self.sets])

    def mean(self, names: Sequence[str]) -> float:
        """The mean over the sets of these names of each one's avg@K."""
        found = {result.name: result for result in self.sets}
        return average([average(found[name].averages()) for name in names])

    def metrics(self) -> dict[str, float]:
        """`eval/SET/NAME` for every set, `eval/GROUP/avg` for every group, and `eval/macro/avg`."""
        named = {
            f"eval/{result.name}/{name}": value for result in self.sets for name, value in result.metrics().items()
        }
        means = {f"eval/{group}/avg": self.mean(names) for group, names in self.groups.items()}
        return {**named, **means, MACRO: self.macro}
