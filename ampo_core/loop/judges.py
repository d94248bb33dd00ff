"""The judges of a run: the learner's own two, `start` and `policy`, and those that the config declares.

Losses ask for their own rank's tokens (`own`), hooks for tokens of the whole step (`judge`), which the ranks share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from ampo_registry.errors import PluginError
from ampo_registry.judges import POLICY, START, Judge, JudgeRequest
from ampo_registry.protocols import BuildContext
from ampo_registry.samples import Sample
from ampo_registry.text import nearest
from ampo_registry.tokens import LogProbs

from ampo_core.config.jobs import TrainJob
from ampo_core.config.nodes import dotted
from ampo_core.learner.frozen import FrozenModel, LogprobLearner, packed
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.tokens import tensor_of
from ampo_core.loop.sequences import TrainSequence, is_stale


@dataclass(frozen=True, slots=True)
class RunJudge:
    """One judge for the hooks of a step."""

    name: str
    judges: Judges

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float | None = None) -> list[LogProbs]:
        """`StepJudge.logprobs`, shared out over the ranks. Raises PluginError for requests that have no room."""
        judges, most = self.judges, self.judges.max_tokens
        for request in requests:
            if not request.prompt_token_ids or not request.token_ids or len(request) > most:
                raise PluginError(
                    f"judge {self.name}: a request has {len(request.prompt_token_ids)} prompt and "
                    f"{len(request.token_ids)} further tokens; it needs one of each, and at most {most} together"
                )
        # The ranks' shares, every world_size-th of these, then have about as many tokens.
        order = longest_first(requests)
        heat = judges.temperature if temperature is None else temperature
        found = judges.learner.ranks.map(lambda share: judges.own(self.name, share, heat), [requests[i] for i in order])
        answers = dict(zip(order, found, strict=True))
        return [answers[i] for i in range(len(requests))]


class Judges:
    """`built` are the declared judges that something needs, by name; `temperature` is the rollout's. What a hook has
    computed of π_old stays in `known` until the step's end."""

    def __init__(
        self,
        learner: LogprobLearner,
        built: Mapping[str, Judge],
        *,
        declared: Sequence[str],
        temperature: float,
        most: int,
    ) -> None:
        self.learner, self.temperature, self.max_tokens = learner, temperature, most
        self._built, self._declared = dict(built), tuple(declared)
        self.known: dict[tuple[bytes, bytes], LogProbs] = {}

    @classmethod
    def build(
        cls, job: TrainJob, context: BuildContext, learner: LogprobLearner, most: int, stack: ExitStack
    ) -> Judges:
        """Load what `job` needs; at the end of `stack` it is closed. `most` are the tokens of the longest sample."""

        def load_frozen(path: str, dtype: str | None, key: str) -> Judge:
            return FrozenModel(
                path,
                dtype or job.model.dtype,
                learner.ranks.device,
                job.training.tokens_per_microbatch,
                key=key,
                trust_remote_code=context.trust_remote_code,
            )

        built: dict[str, Judge] = {}
        for name in sorted(job.needed_judges() & job.judges.keys()):
            place = f"judges.{name}"
            lent = replace(context, load_frozen=partial(load_frozen, key=dotted(job.judge_key(name))), longest=most)
            built[name] = lent.build(job.judges[name], place)
            if (close := getattr(built[name], "close", None)) is not None:
                stack.callback(close)
        return cls(learner, built, declared=list(job.judges), temperature=job.rollout.temperature, most=most)

    def judge(self, name: str) -> RunJudge:
        """The judge of that name. Raises PluginError for one that is not there or was not asked for in time."""
        has_start = name == START and self.learner.has_reference
        if name == POLICY or has_start or name in self._built:
            return RunJudge(name, self)
        if name == START or name in self._declared:
            raise PluginError(f"the judge {name} is not loaded: whoever asks it must name it in `judges` of its spec")
        known = [START, POLICY, *self._declared]
        near = nearest(name, known)
        hint = f"; did you mean {near!r}?" if near else ""
        raise PluginError(f"there is no judge {name!r}{hint} Declared: {', '.join(known)}")

    def own(self, name: str, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """Log-probs of this rank's `requests`; every rank calls it."""
        if name in (START, POLICY):
            pairs = [TokenPair(request.prompt_token_ids, request.token_ids) for request in requests]
            found = self.learner.logprobs(pairs, temperature=temperature, reference=name == START)
            return [packed(log_probs) for log_probs in found]
        if not requests:
            return []
        order = longest_first(requests)
        answers = self._built[name].logprobs([requests[i] for i in order], temperature)
        return [answers[place] for place in sorted(range(len(order)), key=order.__getitem__)]

    def fill_in(
        self, sequences: Sequence[TrainSequence], name: str, mine: Sequence[int], terms: Sequence[str]
    ) -> list[TrainSequence]:
        """`sequences` with the log-probs of the judge `name` on those among `mine` that one of `terms` trains."""
        filled = list(sequences)
        needed = [i for i in mine if sequences[i].of(*terms)]
        pairs = [sequences[i].pair for i in needed]
        if name == START:
            found = self.learner.logprobs(pairs, temperature=self.temperature, reference=True)
        else:
            requests = [JudgeRequest(pair.prompt_token_ids, pair.response_token_ids) for pair in pairs]
            found = [tensor_of(log_probs) for log_probs in self.own(name, requests, self.temperature)]
        for i, log_probs in zip(needed, found, strict=True):
            filled[i] = filled[i].judged_by(name, log_probs)
        return filled

    def old_logprobs(self, samples: Sequence[Sample], step: int) -> list[LogProbs]:
        """`StepContext.old_logprobs`: of what was sampled ahead the recorded ones, of the rest the policy's own."""
        pairs = [TokenPair(sample.prompt_token_ids, sample.token_ids) for sample in samples]
        keys = [pair.key for pair in pairs]
        stale = [is_stale(sample, step) for sample in samples]
        fresh = {key: pair for key, pair, old in zip(keys, pairs, stale, strict=True) if not old}
        asked = [key for key in fresh if key not in self.known]
        requests = [JudgeRequest(fresh[key].prompt_token_ids, fresh[key].response_token_ids) for key in asked]
        self.known |= dict(zip(asked, RunJudge(POLICY, self).logprobs(requests), strict=True))
        return [
            sample.logprobs if old and sample.logprobs is not None else self.known[key]
            for sample, key, old in zip(samples, keys, stale, strict=True)
        ]

    def begin(self) -> None:
        """A new step: the policy is another one."""
        self.known.clear()

    def sleep(self) -> None:
        """Let the sampler have the memory."""
        for judge in self._built.values():
            if (sleep := getattr(judge, "sleep", None)) is not None:
                sleep()


def longest_first(requests: Sequence[JudgeRequest]) -> list[int]:
    """Indices of `requests`, the longest first."""
    return sorted(range(len(requests)), key=lambda i: -len(requests[i]))
