"""The first hops: G rollouts of each question, now or one batch ahead, and a grade for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from ampo_registry.errors import RunError
from ampo_registry.protocols import BuildContext, Constant, RolloutEngine
from ampo_registry.specs import RewardSpec
from ampo_registry.step import Schedule, StepContext
from ampo_registry.types import GradeRequest, Question, Rollout, RolloutGroup, RolloutRequest, SamplingOptions

from ampo_core.config.jobs import TrainJob
from ampo_core.config.train_job import ROUNDING, limits_text, threshold_limits
from ampo_core.data.order import QuestionStream
from ampo_core.data.seeds import sample_seed
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.grading.grader import Grader
from ampo_core.grading.penalties import penalised
from ampo_core.loop.ahead import SampleAhead, SampledBatch


@dataclass(frozen=True, slots=True)
class Questions:
    """The training questions in the order in which they come."""

    all: tuple[Question, ...]
    order: QuestionStream

    def take(self, start: int, count: int) -> list[Question]:
        """`count` questions from position `start` of the stream on."""
        return [self.all[i] for i in self.order.take(start, count)]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples `group_size` rollouts a question and grades them; every call is made by all ranks together.

    A rollout with a reward below `threshold`, which may change over the run, is wrong. `known_ids` are the
    tokenizer's, `seed` is the run's.
    """

    engine: RolloutEngine
    options: SamplingOptions
    known_ids: int
    grader: Grader
    reward: RewardSpec
    ranks: Ranks
    ahead: SampleAhead
    group_size: int
    threshold: Schedule
    seed: int

    @classmethod
    def build(
        cls,
        job: TrainJob,
        context: BuildContext,
        engine: RolloutEngine,
        grader: Grader,
        ranks: Ranks,
        tokenizer: PromptTokenizer,
    ) -> Sampler:
        """The sampler of a train job. Without guidance τ has its default, 0.5 + λ, so that "wrong" means the same."""
        return cls(
            engine=engine,
            options=SamplingOptions(
                job.rollout.temperature, 1.0, job.rollout.max_response_tokens, tokenizer.stop_token_ids
            ),
            known_ids=tokenizer.known_ids,
            grader=grader,
            reward=job.reward,
            ranks=ranks,
            ahead=SampleAhead(ranks),
            group_size=job.rollout.group_size,
            threshold=context.build(
                job.guidance.threshold if job.guidance else 0.5 + job.reward.format_weight, "threshold"
            ),
            seed=job.run.seed,
        )

    def sample(self, questions: Sequence[Question], step: int, position: int) -> SampledBatch:
        """G rollouts of each question; those that were sampled ahead, if they are the ones that are asked for."""
        requests = self.requests(questions, step, position)
        waiting = self.ahead.take(questions, requests)
        return waiting or SampledBatch(self.ranks.map(self.generate, requests))

    def sample_ahead(self, questions: Sequence[Question], step: int) -> None:
        """Begin to sample and grade the batch of the later step `step`, with the weights that the sampler has now."""
        share = self.ranks.shard(questions)
        requests = self.ranks.shard(self.requests(questions, step, 0))

        def work() -> SampledBatch:
            rollouts = self.generate(requests)
            verdicts = iter(self.grader.grade(grade_requests(share, rollouts)))
            return SampledBatch(rollouts, [list(islice(verdicts, len(group))) for group in rollouts])

        self.ahead.start(share, requests, work)

    def requests(self, questions: Sequence[Question], step: int, position: int) -> list[RolloutRequest]:
        """What the engine is asked for: each prompt with the seeds of its G samples. A seed is a function of (run seed,
        step, position in the batch, sample)."""
        samples = range(self.group_size)
        return [
            RolloutRequest(
                question.prompt_token_ids, tuple(sample_seed(self.seed, step, position + i, s) for s in samples)
            )
            for i, question in enumerate(questions)
        ]

    def generate(
        self, requests: Sequence[RolloutRequest], options: SamplingOptions | None = None
    ) -> list[list[Rollout]]:
        """This rank's `requests`, sampled, with the engine awake for as long as that takes."""
        self.engine.wake()
        rollouts = self.engine.generate(requests, options or self.options)
        self.engine.sleep()
        return rollouts

    def grade(self, questions: Sequence[Question], batch: SampledBatch, context: StepContext) -> list[RolloutGroup]:
        """Each rollout verified, unless it was graded ahead, penalties included."""
        threshold = self._threshold(context)
        if batch.verdicts is None:
            verdicts = self.ranks.map(self.grader.grade, grade_requests(questions, batch.rollouts))
        else:
            verdicts = [verdict for group in batch.verdicts for verdict in group]
        rollouts = (rollout for group in batch.rollouts for rollout in group)
        grades = iter(
            penalised(verdict, rollout, self.reward, self.options.max_response_tokens)
            for verdict, rollout in zip(verdicts, rollouts, strict=True)
        )
        return [
            RolloutGroup(question, tuple(group), tuple(islice(grades, len(group))), threshold)
            for question, group in zip(questions, batch.rollouts, strict=True)
        ]

    def _threshold(self, context: StepContext) -> float:
        """τ in this step. Raises RunError for one that a schedule took where "wrong" means something else."""
        threshold, limits = context.value(self.threshold), threshold_limits(self.reward)
        if isinstance(self.threshold, Constant) or limits is None or limits[0] < threshold <= limits[1] + ROUNDING:
            return threshold
        text = f"the schedule of guidance.threshold came to {threshold:g}; {limits_text(limits)}"
        raise RunError(f"step {context.step}: {text}")

    def take_counts(self) -> dict[str, float]:
        """Metrics of the verifier's failures on all ranks since the last call."""
        counts = self.ranks.each(self.grader.take_counts())
        return {
            "verifier/timeouts": float(sum(count.timeouts for count in counts)),
            "verifier/errors": float(sum(count.errors for count in counts)),
        }


def grade_requests(questions: Sequence[Question], rollouts: Sequence[Sequence[Rollout]]) -> list[GradeRequest]:
    """What the verifier is asked: each rollout against its question's answer."""
    return [
        GradeRequest.of(question, rollout.text, rollout.finish_reason)
        for question, group in zip(questions, rollouts, strict=True)
        for rollout in group
    ]
