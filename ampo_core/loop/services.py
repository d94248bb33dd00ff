"""What the core lends to the hooks of a step: a second generation, grades, prompts, and a place for metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ampo_registry.errors import PluginError
from ampo_registry.protocols import JsonValue
from ampo_registry.step import GenerationRequest, Scorer, StepContext
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Grade, GradeRequest, Message, Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.config.metric_names import reserved
from ampo_core.data.seeds import derive_seed
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.grading.penalties import penalised
from ampo_core.loop.sampling import Sampler


class Services:
    """One for the run: `begin` a step, hand its context to the hooks, and `finish` it with its metrics.

    `max_tokens` is the longest prompt with its response that can be trained on. Every call of `generate` and `grade` is
    made by all ranks together.
    """

    def __init__(self, sampler: Sampler, tokenizer: PromptTokenizer, *, steps: int, max_tokens: int) -> None:
        self._sampler, self._tokenizer, self._steps = sampler, tokenizer, steps
        self.max_tokens = max_tokens
        self._step = self._round = self._generated = 0
        self._metrics: dict[str, float] = {}
        self._logged: defaultdict[str, list[float]] = defaultdict(list)

    @property
    def options(self) -> SamplingOptions:
        """How the run samples."""
        return self._sampler.options

    def begin(self, step: int, scorer: Scorer | None = None) -> StepContext:
        """The context of `step`; what was logged and counted in the step before is dropped."""
        self._step, self._round, self._generated = step, 0, 0
        self._logged.clear()
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
        return {**found, **({"guidance/generated": float(self._generated)} if self._round else {})}

    def generate(self, requests: Sequence[GenerationRequest], options: SamplingOptions | None) -> list[list[Rollout]]:
        """`StepContext.generate`. Raises PluginError for a prompt or limit that leaves no room in a sample."""
        options = options or self.options
        for request in requests:
            limit = options.max_response_tokens if request.max_response_tokens is None else request.max_response_tokens
            if not request.prompt_token_ids or not 0 < limit <= options.max_response_tokens or request.samples < 1:
                raise PluginError(
                    f"generate: a request has {len(request.prompt_token_ids)} prompt tokens, {request.samples} samples "
                    f"and the limit {limit}; it needs one of each, and a limit of at most {options.max_response_tokens}"
                )
        self._round += 1
        rollouts = self._sampler.ranks.map(
            lambda mine: self._sampler.generate(mine, options), self._rollout_requests(requests)
        )
        self._generated += sum(len(rollout.token_ids) for group in rollouts for rollout in group)
        return rollouts

    def _rollout_requests(self, requests: Sequence[GenerationRequest]) -> list[RolloutRequest]:
        """Seeds are numbered within (run seed, step, position, round)."""
        drawn: defaultdict[int, int] = defaultdict(int)
        found = []
        for request in requests:
            first = drawn[request.position]
            drawn[request.position] += request.samples
            place = (self._sampler.seed, self._step, request.position, self._round)
            seeds = tuple(derive_seed("generate", *place, first + i) for i in range(request.samples))
            found.append(RolloutRequest(request.prompt_token_ids, seeds, request.max_response_tokens))
        return found

    def grade(self, answers: Sequence[tuple[Question, Rollout]]) -> list[Grade]:
        """`StepContext.grade`."""
        requests = [GradeRequest(rollout.text, question.answer, question.source) for question, rollout in answers]
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
        if reserved(name):
            raise PluginError(f"log: the metric {name!r} is the core's own; choose another name, such as mine/{name}")
        if not math.isfinite(value):
            raise PluginError(f"log: the metric {name!r} is {value}, expected a finite number")
        self._logged[name].append(float(value))

    def state_dict(self) -> dict[str, JsonValue]:
        """The last step's metrics, which schedules may read."""
        return {"metrics": dict[str, JsonValue](self._metrics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._metrics = dict(state["metrics"])
