"""A step's context that needs neither model nor run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random

from ampo_registry.components import specs_in
from ampo_registry.errors import PluginError
from ampo_registry.judges import EVERY_JUDGE, POLICY, JudgeRequest
from ampo_registry.samples import Sample
from ampo_registry.specs import ComponentSpec
from ampo_registry.step import GenerationRequest, Scorer, StepContext, checked_metric
from ampo_registry.testing.examples import EOS, FakeScorer
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import Grade, Message, Question, Rollout, SamplingOptions


class FakeJudge:
    """Log-probs that are a function of name, prompt and tokens; `fixed` are those of every token. `asked` holds the
    requests of each call."""

    def __init__(self, name: str = "judge", fixed: float | None = None) -> None:
        self.name, self.fixed = name, fixed
        self.asked: list[list[JudgeRequest]] = []

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float | None = None) -> list[LogProbs]:
        """One for each token of each request."""
        self.asked.append(list(requests))
        return [self._logprobs(request) for request in requests]

    def _logprobs(self, request: JudgeRequest) -> LogProbs:
        if self.fixed is not None:
            return LogProbs([self.fixed] * len(request.token_ids))
        source = Random(f"{self.name}/{tuple(request.prompt_token_ids)}/{tuple(request.token_ids)}")
        return LogProbs([-source.expovariate(1.0) for _ in request.token_ids])


class FakeServices:
    """Generates a few tokens that depend on prompt, position and round only, and calls right what holds the answer.

    `asked`, `graded`, `judges` and `logged` hold what it was called with. `may_ask` are the judges that may be asked,
    as a spec's `judges` names them; any by default.
    """

    def __init__(
        self,
        max_response_tokens: int = 64,
        max_tokens: int = 256,
        answer: str = "42",
        may_ask: Collection[str] = (EVERY_JUDGE,),
    ) -> None:
        self.options = SamplingOptions(1.0, 1.0, max_response_tokens, (EOS,))
        self.max_tokens = max_tokens
        self._answer, self._may_ask = answer, frozenset(may_ask)
        self.asked: list[list[GenerationRequest]] = []
        self.graded: list[tuple[Question, Rollout]] = []
        self.judges: dict[str, FakeJudge] = {}
        self.logged: dict[str, list[float]] = {}

    def generate(self, requests: Sequence[GenerationRequest], options: SamplingOptions | None) -> list[list[Rollout]]:
        """For each request its samples, of which about half are right. Raises PluginError as a run does."""
        self.asked.append(list(requests))
        limits = [request.limit(options or self.options, self.max_tokens) for request in requests]
        return [
            [self._rollout(request, sample, limit) for sample in range(request.samples)]
            for request, limit in zip(requests, limits, strict=True)
        ]

    def _rollout(self, request: GenerationRequest, sample: int, limit: int) -> Rollout:
        source = Random(f"{tuple(request.prompt_token_ids)}/{request.position}/{len(self.asked)}/{sample}")
        ids = [source.randint(1, 50) for _ in range(min(limit, source.randint(2, 8)))]
        right = source.random() < 0.5
        ended = len(ids) < limit
        text = f"so <answer>{self._answer if right else 'no'}</answer>"
        tokens = TokenIds([*ids[:-1], EOS] if ended else ids)
        return Rollout(tokens, LogProbs([-0.5] * len(tokens)), text, "stop" if ended else "length", 0)

    def grade(self, answers: Sequence[tuple[Question, Rollout]]) -> list[Grade]:
        """Right iff the text has the question's answer in tags."""
        self.graded += answers
        found = [f"<answer>{question.answer}</answer>" in rollout.text for question, rollout in answers]
        return [Grade(0.9 * right + 0.1, right, True) for right in found]

    def prompt(self, messages: Sequence[Message]) -> TokenIds:
        """A token for each character."""
        return TokenIds(ord(letter) % 50 + 1 for message in messages for letter in message.content)

    def text(self, token_ids: Sequence[int]) -> str:
        """A word for each token but the stop token."""
        return " ".join(f"w{token}" for token in token_ids if token != EOS)

    def judge(self, name: str) -> FakeJudge:
        """One whose log-probs depend on its name, the prompt and the tokens only. Raises PluginError for one that a run
        would not have loaded: `policy` is always there."""
        if not self._may_ask & {name, EVERY_JUDGE} and name != POLICY:
            raise PluginError(
                f"the judge {name!r}, which the spec's property `judges` does not name, so a run does not load it: it "
                f"names {sorted(self._may_ask) or 'none'} (EVERY_JUDGE is any that is declared)"
            )
        return self.judges.setdefault(name, FakeJudge(name))

    def old_logprobs(self, samples: Sequence[Sample]) -> list[LogProbs]:
        """Those that were recorded; -0.5 for tokens of others."""
        return [sample.logprobs or LogProbs([-0.5] * len(sample.token_ids)) for sample in samples]

    def log(self, name: str, value: float) -> None:
        """Keeps the value. Raises PluginError as a run does."""
        self.logged.setdefault(name, []).append(checked_metric(name, value))


def services_of(spec: ComponentSpec) -> FakeServices:
    """Those that lend what a run lends to `spec` and the components that it holds."""
    return FakeServices(may_ask=frozenset(name for held in specs_in(spec) for name in held.judges))


def example_step(
    step: int = 1,
    steps: int = 10,
    *,
    metrics: Mapping[str, float] | None = None,
    scorer: Scorer | None = None,
    services: FakeServices | None = None,
) -> StepContext:
    """The context of a step with a fake scorer and fake services."""
    return StepContext(step, steps, metrics or {}, scorer or FakeScorer(), services or FakeServices())
