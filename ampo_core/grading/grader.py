"""Grading in worker processes that can be killed: whatever a policy writes, an answer costs at most its deadline.

Responses are sent to the workers one by one: that costs 0.15 ms each where Math-Verify takes about 0.8 ms, and
makes the deadline and a crash exactly one response's own.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from ampo_registry.errors import ConfigError, PluginError, RunError
from ampo_registry.protocols import JsonValue
from ampo_registry.specs import RewardSpec, component_name
from ampo_registry.types import Grade, GradeRequest

from ampo_core.checked.call import Asked
from ampo_core.data.report import TruthCheck
from ampo_core.grading import worker as grading_worker
from ampo_core.grading.pool import GradingPool, Outcome
from ampo_core.grading.returned import canaries_of
from ampo_core.grading.rows import Row, parcels, rows_of

CACHED_GRADES = 65_536
TRUTH_TRIES = 3
"""Tries at a ground truth, and at a canary: what they decide holds for the whole run."""
ANSWER_TRIES = 2
"""Tries at an answer that is graded once for all: those that a pool is chosen from, and a teacher's in training."""
RATE_WINDOW = 1_000
"""`max_error_rate` is judged over at least so many responses, so that one bad answer cannot end a small run."""
KINDS_SAID = 5
"""Kinds of faults of which the first one is said: more would hide the rest of the screen."""
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between faults of one kind: texts in quotes, and numbers."""


@dataclass(frozen=True, slots=True)
class GradeCounts:
    """Responses graded, and how many of them had no verdict in time or none at all."""

    graded: int = 0
    timeouts: int = 0
    errors: int = 0


class Grader:
    """Grades responses with `spec` in worker processes of its own. A context manager; `close` ends the workers.

    `say` gets a line for the first response of each kind of fault that costs a verdict.
    At start-up the workers grade the reward's canaries. Raises ConfigError if the reward cannot start there or
    gets a canary wrong.
    """

    def __init__(self, spec: RewardSpec, say: Callable[[str], None] | None = None) -> None:
        self._spec, self.say = spec, say
        self._said: set[str] = set()
        self._name = component_name(type(spec))
        self._pool = GradingPool(spec)
        self._cache: OrderedDict[bytes, Grade] = OrderedDict()
        self._counts = GradeCounts()
        self._window: deque[tuple[int, int]] = deque()
        try:
            self._try_canaries()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def beside(self) -> Grader:
        """A grader with the same workers and known verdicts, and counts and a `max_error_rate` of its own.

        It lives as long as this one, which ends the workers.
        """
        other = copy(self)
        other._counts, other._window = GradeCounts(), deque()
        return other

    def close(self) -> None:
        """End the workers, whatever they are doing. May be called twice."""
        self._pool.close()

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        """One grade for each request, in order, independent of the workers' number and speed.

        A response that runs into the deadline of `timeout_s` seconds of CPU time, alone too, has status timeout, one
        whose worker died or raised has status error; both earn what a wrong answer earns. With `tries` it is graded
        again before that, so many times in all, with more time each time. Equal requests are graded once, across calls
        too.
        Raises RunError if the share of timeouts and errors exceeds `max_error_rate`, counted over the latest
        calls that together hold `RATE_WINDOW` responses.
        """
        rows = rows_of(requests)
        keys = [_key(request, row) for request, row in zip(requests, rows, strict=True)]
        known = {key: self._cache[key] for key in keys if key in self._cache}
        places = {key: place for place, key in enumerate(keys) if key not in known}
        fresh = [requests[place] for place in places.values()]
        grades = self._graded(fresh, [rows[place] for place in places.values()], tries)
        known |= dict(zip(places, grades, strict=True))
        grades = [known[key] for key in keys]
        self._remember(keys, grades)
        self._tell(grades)
        self._count(grades)
        return grades

    def check_truths(self, answers: Sequence[str]) -> list[TruthCheck]:
        """What the reward says of each ground truth, in order, from all workers at once.

        One on which the verifier gives no verdict, in `TRUTH_TRIES` tries with more time each, is listed and not
        refused: which questions there are must not depend on a slow moment of the machine. Raises PluginError for a
        reward that says neither a reason nor None.
        """
        outcomes = self._pool.run(grading_worker.check_one, answers, TRUTH_TRIES)
        for outcome in outcomes:
            if isinstance(outcome.value, grading_worker.Broken):
                raise PluginError(outcome.value)
        return [
            outcome.value
            if outcome.status == "ok"
            else TruthCheck(listed=f"it could not be checked in {TRUTH_TRIES} tries: {outcome.value}")
            for outcome in outcomes
        ]

    def take_counts(self) -> GradeCounts:
        """What was graded since the last call of this method."""
        counts, self._counts = self._counts, GradeCounts()
        return counts

    def state_dict(self) -> dict[str, JsonValue]:
        """The latest calls that `max_error_rate` is judged over."""
        return {"window": [list[JsonValue](call) for call in self._window]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._window = deque((int(graded), int(failed)) for graded, failed in state["window"])

    def _graded(self, requests: Sequence[GradeRequest], rows: Sequence[Row | None], tries: int) -> list[Grade]:
        with parcels(requests, rows) as sent:
            outcomes = self._pool.run(grading_worker.grade_one, sent, tries)
        grades: list[Grade | None] = [outcome.value if outcome.status == "ok" else None for outcome in outcomes]
        failed = [place for place, grade in enumerate(grades) if grade is None]
        texts = [requests[place].text for place in failed]
        earned = self._pool.run(grading_worker.unverified_one, texts) if texts else []
        for place, found in zip(failed, earned, strict=True):
            grades[place] = _unverified(outcomes[place], found)
        return [grade for grade in grades if grade is not None]

    def _remember(self, keys: Sequence[bytes], grades: Sequence[Grade]) -> None:
        # A timeout may be the machine's doing, so only verdicts are kept.
        for key, grade in zip(keys, grades, strict=True):
            if grade.status == "ok":
                self._cache[key] = grade
                self._cache.move_to_end(key)
        while len(self._cache) > CACHED_GRADES:
            self._cache.popitem(last=False)

    def _tell(self, grades: Sequence[Grade]) -> None:
        for grade in grades:
            kind = f"{grade.status} {_VARYING.sub('', grade.detail)}"
            if self.say is None or grade.status == "ok" or kind in self._said or len(self._said) == KINDS_SAID:
                continue
            self._said.add(kind)
            detail = " ".join(grade.detail.split())
            self.say(
                f"reward {self._name}: a response has no verdict ({grade.status}), said once of its kind: {detail}"
            )

    def _count(self, grades: Sequence[Grade]) -> None:
        timeouts = sum(grade.status == "timeout" for grade in grades)
        errors = sum(grade.status == "error" for grade in grades)
        before = self._counts
        self._counts = GradeCounts(before.graded + len(grades), before.timeouts + timeouts, before.errors + errors)
        self._window.append((len(grades), timeouts + errors))
        while sum(graded for graded, _ in self._window) - self._window[0][0] >= RATE_WINDOW:
            self._window.popleft()
        graded = sum(graded for graded, _ in self._window)
        failed = sum(failed for _, failed in self._window)
        if failed > self._spec.max_error_rate * max(graded, RATE_WINDOW):
            last = next((grade.detail for grade in reversed(grades) if grade.status != "ok"), "")
            raise RunError(
                f"reward {self._name}: {failed} of the last {graded} responses had no verdict, more than the share "
                f"of {max(graded, RATE_WINDOW)} that reward.max_error_rate {self._spec.max_error_rate:g} allows; "
                f"the last one: {last}"
            )

    def _try_canaries(self) -> None:
        (start,) = self._pool.run(grading_worker.ready, [None])
        if start.status != "ok":
            raise ConfigError(f"reward {self._name}: {start.value}")
        for request, correct in canaries_of(Asked.of(self._spec)):
            (grade,) = self._graded([request], rows_of([request]), TRUTH_TRIES)
            if grade.status != "ok" or grade.correct is not correct:
                found = grade.detail or ("correct" if grade.correct else "wrong")
                raise ConfigError(
                    f"reward {self._name}: the verifier is broken here. {request.text!r} with the ground truth "
                    f"{request.answer!r} must be {'correct' if correct else 'wrong'}; found: {found}. "
                    "Check the installed versions of the packages that it verifies with"
                )


def _unverified(outcome: Outcome, found: Outcome) -> Grade:
    """The grade of a response without a verdict, `found` what it earns; nothing, where the reward fails at that too."""
    detail = str(outcome.value)
    if found.status != "ok":
        return Grade(0.0, False, False, outcome.status, f"{detail}; {found.value}")
    grade: Grade = found.value
    return replace(grade, correct=False, status=outcome.status, detail=detail, numbers={})


def _key(request: GradeRequest, row: Row | None) -> bytes:
    """What tells requests apart: all that a verdict may depend on."""
    digest = hashlib.sha256(b"" if row is None else row.digest)
    for part in (request.text, request.answer, request.source, request.uid, request.finish_reason):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
