"""What the core lends to the hooks of a step: a second generation, grades, prompts, and a place for metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from ampo_registry.judges import StepJudge
from ampo_registry.protocols import JsonValue
from ampo_registry.samples import Sample
from ampo_registry.step import GenerationRequest, Scorer, StepContext, checked_metric
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import Grade, GradeRequest, Message, Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.config.jobs import TrainJob
from ampo_core.config.positions import positions_of
from ampo_core.data.seeds import derive_seed
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.grading.penalties import penalised
from ampo_core.loop.judges import Judges
from ampo_core.loop.sampling import Sampler


def longest_sample(job: TrainJob) -> int:
    """The most tokens that a prompt and its response may have together: what the config has room for, for no engine
    need take more, at most a micro-batch and the model's positions."""
    room = job.rollout.room()
    longest = job.data.max_prompt_tokens + job.rollout.max_response_tokens if room is None else room[1]
    return min(longest, job.training.tokens_per_microbatch, positions_of(job.model.path) or longest)


def _unrecorded(rollout: Rollout) -> Rollout:
    """`rollout` of another distribution than the trainer's: its log-probs say nothing of that."""
    return replace(rollout, logprobs=LogProbs([math.nan] * len(rollout.token_ids)))


class Services:
    """One for the run: `begin` a step, hand its context to the hooks, and `finish` it with its metrics.

    `max_tokens` is the longest prompt with its response (`longest_sample`). Every call of `generate` and `grade` is
    made by all ranks together.
    """

    def __init__(
        self, sampler: Sampler, tokenizer: PromptTokenizer, judges: Judges, *, steps: int, max_tokens: int
    ) -> None:
        self._sampler, self._tokenizer, self._judges, self._steps = sampler, tokenizer, judges, steps
        self.max_tokens = max_tokens
        self._step = self._round = 0
        self.generated = 0
        """Tokens of second generations in this step, on all ranks."""
        self._metrics: dict[str, float] = {}
        self._logged: defaultdict[str, list[float]] = defaultdict(list)

    @property
    def options(self) -> SamplingOptions:
        """How the run samples."""
        return self._sampler.options

    def begin(self, step: int, scorer: Scorer | None = None) -> StepContext:
        """The context of `step`; what was logged and counted in the step before is dropped."""
        self._step, self._round, self.generated = step, 0, 0
        self._logged.clear()
        self._judges.begin()
        given = {} if scorer is None else {"scorer": scorer}
        return StepContext(step, self._steps, self._metrics, services=self, **given)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Remember the step's `metrics`, those of rank 0 on every rank, for the next one. Times are left out, for they
        are no function of config and seed, and what is not finite, which no checkpoint holds."""
        own = self._sampler.ranks.first(dict(metrics))
        kept = (item for item in own.items() if math.isfinite(item[1]) and not item[0].startswith("time/"))
        self._metrics = dict(kept)

    def logged(self) -> dict[str, float]:
        """What the hooks of this step logged, averaged by name; and the tokens of a second generation."""
        found = {name: fmean(values) for name, values in sorted(self._logged.items())}
        return {**found, **({"guidance/generated": float(self.generated)} if self._round else {})}

    def generate(self, requests: Sequence[GenerationRequest], options: SamplingOptions | None) -> list[list[Rollout]]:
        """`StepContext.generate`. Raises PluginError for a request without room."""
        options = options or self.options
        self._round += 1
        asked = self._rollout_requests(requests, options)
        if not asked:
            return []
        self._judges.sleep()
        rollouts = self._sampler.ranks.map(lambda mine: self._sampler.generate(mine, options), asked)
        if (options.temperature, options.top_p) != (self.options.temperature, self.options.top_p):
            rollouts = [[_unrecorded(rollout) for rollout in group] for group in rollouts]
        rollouts = [
            [replace(rollout, prompt_token_ids=request.prompt_token_ids) for rollout in group]
            for request, group in zip(asked, rollouts, strict=True)
        ]
        self.generated += sum(len(rollout.token_ids) for group in rollouts for rollout in group)
        return rollouts

    def _rollout_requests(
        self, requests: Sequence[GenerationRequest], options: SamplingOptions
    ) -> list[RolloutRequest]:
        """Seeds are numbered within (run seed, step, position, round)."""
        drawn: defaultdict[int, int] = defaultdict(int)
        found = []
        for request in requests:
            first = drawn[request.position]
            drawn[request.position] += request.samples
            place = (self._sampler.seed, self._step, request.position, self._round)
            seeds = tuple(derive_seed("generate", *place, first + i) for i in range(request.samples))
            limit = request.limit(options, self.max_tokens)
            found.append(RolloutRequest(request.prompt_token_ids, seeds, limit))
        return found

    def grade(self, answers: Sequence[tuple[Question, Rollout]]) -> list[Grade]:
        """`StepContext.grade`."""
        requests = [GradeRequest.of(question, rollout.text, rollout.finish_reason) for question, rollout in answers]
        verdicts = self._sampler.ranks.map(self._sampler.grader.grade, requests)
        limit = self.options.max_response_tokens
        return [
            penalised(verdict, rollout, self._sampler.reward, limit)
            for verdict, (_, rollout) in zip(verdicts, answers, strict=True)
        ]

    def prompt(self, messages: Sequence[Message]) -> TokenIds:
        """`StepContext.prompt`."""
        return TokenIds.of(self._tokenizer.prompt_ids(messages))

    def text(self, token_ids: Sequence[int]) -> str:
        """`StepContext.text`."""
        ids = list(token_ids)
        return self._tokenizer.decode(ids[:-1] if ids and ids[-1] in self.options.stop_token_ids else ids)

    def log(self, name: str, value: float) -> None:
        """`StepContext.log`."""
        self._logged[name].append(checked_metric(name, value))

    def judge(self, name: str) -> StepJudge:
        """`StepContext.judge`."""
        return self._judges.judge(name)

    def old_logprobs(self, samples: Sequence[Sample]) -> list[LogProbs]:
        """`StepContext.old_logprobs`."""
        return self._judges.old_logprobs(samples, self._step)

    def state_dict(self) -> dict[str, JsonValue]:
        """The last step's metrics, which schedules may read."""
        return {"metrics": dict[str, JsonValue](self._metrics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._metrics = dict(state["metrics"])
