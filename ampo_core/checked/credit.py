"""Credits and judges: what they say of samples and of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ampo_registry.credit import CreditGroup, numbers_of
from ampo_registry.judges import JudgeRequest
from ampo_registry.samples import Sample
from ampo_registry.step import StepContext
from ampo_registry.tokens import LogProbs

from ampo_core.checked.call import about, shown
from ampo_core.checked.component import Checked
from ampo_core.checked.sampling import wrong_log_prob

if TYPE_CHECKING:
    import torch


class CheckedCredit(Checked):
    """For each group a finite number, or one for each token, for each sample that has a verdict."""

    def credit(
        self, groups: Sequence[CreditGroup], context: StepContext
    ) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
        own = tuple(groups)
        found: Any = self.asked.ask("credit", list(own), context)
        self._counted(found, len(own), "list of advantages for each of the groups")
        for group, values in zip(own, found, strict=True):
            with about(group.question.uid):
                self._counted(values, len(group.samples), "advantage for each of the samples")
                for value, sample in zip(values, group.samples, strict=True):
                    if sample.verified:
                        self._check(value, sample)
        return found  # type: ignore[no-any-return]

    def _counted(self, found: object, wanted: int, what: str) -> None:
        if not isinstance(found, list | tuple):
            raise self.asked.wrong("credit", shown(found), f"a list: one {what}")
        if len(found) != wanted:
            raise self.asked.wrong("credit", f"{len(found)} for {wanted}", f"one {what}")

    def _check(self, value: object, sample: Sample) -> None:
        tokens = len(sample.token_ids)
        expected = f"a finite number, or one for each of the response's {tokens} tokens"
        try:
            numbers = numbers_of(value)
        except (TypeError, ValueError):
            raise self.asked.wrong("credit", shown(value), expected) from None
        if numbers.shape not in ((), (tokens,)):
            raise self.asked.wrong("credit", f"shape {tuple(numbers.shape)}: {shown(value)}", expected)
        if not numbers.isfinite().all():
            raise self.asked.wrong("credit", shown(value), expected)


class CheckedJudge(Checked):
    """One finite log-prob of at most 0 for each token of each request."""

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        own = tuple(requests)
        found: Any = self.asked.ask("logprobs", list(own), temperature)
        if not isinstance(found, list | tuple) or len(found) != len(own):
            many = f"{len(found)} answers" if isinstance(found, list | tuple) else shown(found)
            raise self.asked.wrong("logprobs", f"{many} for {len(own)} requests", "one LogProbs for each")
        return [self._checked(values, len(request.token_ids)) for values, request in zip(found, own, strict=True)]

    def _checked(self, values: Any, tokens: int) -> LogProbs:
        log_probs = self.asked.within("logprobs", lambda: LogProbs.of(values))
        if len(log_probs) != tokens:
            raise self.asked.wrong("logprobs", f"{len(log_probs)} log-probs for {tokens} tokens", "one for each")
        if (wrong := wrong_log_prob(log_probs)) is not None:
            raise self.asked.wrong("logprobs", f"the log-prob {wrong:g}", "finite numbers of at most 0")
        return log_probs
