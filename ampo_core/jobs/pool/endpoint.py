"""A teacher behind an OpenAI-compatible server: bounded concurrency, retries, and every finished answer kept at once.

Each answer goes into a journal as soon as it is there, so that a build that is interrupted, or that a server ends,
asks for none of them again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.types import Question

from ampo_core.config.pool_job import PoolEndpoint, PoolTeacher
from ampo_core.distributed.together import by_each, by_first
from ampo_core.jobs.pool.asking import Asking
from ampo_core.jobs.pool.shards import ENDED, Answer, Shard, TeacherShards
from ampo_core.run.disk import writing

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from ampo_core.distributed.ranks import Ranks

SEEDS = 2**31
"""What every server takes as a seed is below this."""
Wanted = tuple[Question, int]


class RequestError(Exception):
    """A request that failed for good; the text says how."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The source of a teacher behind `config.url`; the ranks share the requests and the concurrency."""

    config: PoolEndpoint
    teacher: PoolTeacher
    asking: Asking
    ranks: Ranks
    files: TeacherShards

    def answer(self, shard: Shard) -> list[Answer]:
        """Ask for what no journal has. Raises RunError, once all ranks have done what they could, if a request failed
        for good."""
        wanted = [(question, i) for question in shard.questions for i in range(self.asking.answers)]
        known, session = by_first(self.ranks, lambda: self._known(shard))
        missing = [item for item in wanted if (item[0].uid, item[1]) not in known]
        mine = self.ranks.shard(missing)
        answers: list[Answer] = []
        by_each(self.ranks, lambda: answers.extend(self._ask(mine, shard, session)))
        found = self.ranks.gather(answers, len(missing))
        known.update({(answer.uid, answer.sample): answer for answer in found})
        return [known[question.uid, i] for question, i in wanted]

    def close(self) -> None:
        """Connections are open only while a shard is asked."""

    def _known(self, shard: Shard) -> tuple[dict[tuple[str, int], Answer], int]:
        """What earlier attempts at `shard` have brought, and the number of this one."""
        sessions = [int(path.stem.split("-")[-2]) for path in self.files.journals(shard)]
        return self.files.journaled(shard), max(sessions, default=-1) + 1

    def _ask(self, wanted: Sequence[Wanted], shard: Shard, session: int) -> list[Answer]:
        """The answers to `wanted`. Raises RunError with the first failure, after which no further request was begun."""
        if not wanted:
            return []
        path = self.files.journal(shard, session, self.ranks.rank)
        # Below the concurrency there is nothing to share, and no rank may be left without a request.
        at_once = max(1, self.config.concurrency // self.ranks.world_size)
        with writing(path), path.open("a", encoding="utf-8") as journal:
            return asyncio.run(Requests(self.config, self.teacher, self.asking, journal, at_once).ask(wanted))


@dataclass(slots=True)
class Requests:
    """The requests of one rank for one shard, at most `at_once` at a time; answers go into `journal` as they come."""

    config: PoolEndpoint
    teacher: PoolTeacher
    asking: Asking
    journal: IO[str]
    at_once: int
    failure: str | None = None
    free: asyncio.Semaphore = field(init=False)

    async def ask(self, wanted: Sequence[Wanted]) -> list[Answer]:
        """The answers to all of `wanted`.

        After a failure those under way are waited for and no other is begun; then RunError is raised. OSError where
        the journal cannot be written.
        """
        self.free = asyncio.Semaphore(self.at_once)
        async with self._client() as client:
            found = await asyncio.gather(*(self._one(client, question, sample) for question, sample in wanted))
        answers = [answer for answer in found if answer is not None]
        if self.failure is None:
            return answers
        raise RunError(
            f"{self.failure}\n{len(answers)} of the {len(wanted)} answers that this shard lacked were finished and are "
            "kept; the same command asks for the others"
        )

    def _client(self) -> AsyncOpenAI:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ConfigError("the package openai is not installed: pip install 'ampo-rl[endpoint]'") from error
        client = AsyncOpenAI(
            base_url=self.config.url,
            api_key=self._key() or "none",
            max_retries=self.config.retries,
            timeout=self.config.timeout_s,
        )
        # The client takes these from OPENAI_... variables and would send them to whatever server is asked.
        client.organization = client.project = client.admin_api_key = None
        client._custom_headers = {}
        return client

    def _key(self) -> str:
        return os.environ.get(self.config.key_env, "") if self.config.key_env is not None else ""

    async def _one(self, client: AsyncOpenAI, question: Question, sample: int) -> Answer | None:
        async with self.free:
            if self.failure is not None:
                return None
            try:
                answer = await self._answer(client, question, sample)
            except RequestError as error:
                self.failure = self.failure or str(error)
                return None
            except Exception as error:  # whatever a server sends costs none of the other requests
                text = self._failed(question, f"its answer cannot be read: {_reason(error)}")
                self.failure = self.failure or text
                return None
        line = {name: getattr(answer, name) for name in Answer.__slots__}
        self.journal.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.journal.flush()
        return answer

    async def _answer(self, client: AsyncOpenAI, question: Question, sample: int) -> Answer:
        from openai import APIError

        try:
            raw = await client.chat.completions.with_raw_response.create(**self._request(question, sample))
            completion, tries = raw.parse(), raw.retries_taken + 1
        except APIError as error:
            raise RequestError(self._failed(question, _reason(error))) from error
        except ValueError as error:
            raise RequestError(self._failed(question, f"its answer is no JSON: {error}")) from error
        choice = next(iter(getattr(completion, "choices", None) or ()), None)
        if choice is None or choice.message is None:
            raise RequestError(self._failed(question, "its answer holds no choice"))
        usage = completion.usage
        return Answer(
            uid=question.uid,
            sample=sample,
            text=self._text(choice.message),
            finish_reason=choice.finish_reason or ENDED,
            tokens=usage.completion_tokens if usage else None,
            prompt_tokens=usage.prompt_tokens if usage else None,
            tries=tries,
        )

    def _request(self, question: Question, sample: int) -> dict[str, Any]:
        turns = [{"role": turn.role, "content": turn.content} for turn in self.asking.messages(question)]
        seed = {"seed": self.asking.seed(question, sample) % SEEDS} if self.config.seed else {}
        return {
            "model": self.config.model,
            "messages": turns,
            "temperature": self.teacher.temperature,
            "top_p": self.teacher.top_p,
            self.config.limit_key: self.teacher.max_response_tokens,
            **seed,
            "extra_body": dict(self.config.extra_body),
        }

    def _text(self, message: Any) -> str:
        """The answer, after its reasoning where the server gives that apart."""
        text = _writable(_joined(message.content))
        reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        if self.config.reasoning == "leave_out" or not isinstance(reasoning, str):
            return text
        return f"<think>\n{_writable(reasoning).strip()}\n</think>\n\n{text}"

    def _failed(self, question: Question, reason: str) -> str:
        key = self._key()
        shown = reason.replace(key, "…") if key else reason
        return (
            f"{self.config.url}, model {self.config.model}: a request for question {question.uid[:12]} failed: {shown}"
        )


def _joined(content: Any) -> str:
    """The text of a message's content: a string, nothing, or a list of parts. Raises ValueError for parts of others."""
    parts = [{"text": content}] if isinstance(content, str) else content or []
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    if len(texts) < len(parts):
        raise ValueError("its content holds parts that are no text")
    return "".join(texts)


def _writable(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON may bring and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _reason(error: Exception) -> str:
    """What an error of the client says, with its cause where it names none itself."""
    cause = f" ({error.__cause__})" if error.__cause__ is not None and str(error.__cause__) else ""
    return f"{type(error).__name__}: {error}{cause}"
