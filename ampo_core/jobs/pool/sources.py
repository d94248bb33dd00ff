"""Where a teacher's answers come from: a model that the rollout samples, the rows themselves, or an endpoint.

A source is opened by all ranks when its first missing shard is due, and closed before the next teacher's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ampo_registry.errors import ConfigError, DataError, RunError
from ampo_registry.protocols import BuildContext, RolloutEngine
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.checked.build import build
from ampo_core.config.pool_job import PoolJob, PoolTeacher
from ampo_core.data.rows import file_hash, row_file
from ampo_core.data.tokens import THINK, PromptTokenizer
from ampo_core.jobs.pool.asking import Asking, Reader
from ampo_core.jobs.pool.endpoint import Endpoint
from ampo_core.jobs.pool.shards import ENDED, Answer, Shard, TeacherShards
from ampo_core.run.environment import Environment
from ampo_core.run.manifest import hash_model

if TYPE_CHECKING:
    from ampo_core.distributed.ranks import Ranks

NOT_OF_THE_ANSWERS = {"concurrency", "retries", "timeout_s", "key_env"}
"""Options of an endpoint that decide how it is asked, not what it answers."""


class Source(Protocol):
    """An open source of one teacher's answers."""

    def answer(self, shard: Shard) -> list[Answer]:
        """All answers to the questions of `shard`, question by question, on every rank: a collective call."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def open_source(
    job: PoolJob,
    teacher: PoolTeacher,
    reader: Reader | None,
    environment: Environment,
    ranks: Ranks,
    files: TeacherShards,
) -> Source:
    """The source of `teacher`; `reader` is that of a model. A collective call."""
    if teacher.recorded is not None:
        return Recorded(teacher.recorded)
    if teacher.endpoint is not None:
        return Endpoint(teacher.endpoint, teacher, Asking.of(job, teacher), ranks, files)
    assert reader is not None
    return SampledTeacher.start(job, teacher, reader, environment, ranks)


def recipe(job: PoolJob, teacher: PoolTeacher) -> dict[str, Any]:
    """What decides a teacher's answers beside the questions, in JSON types. A model counts by its files' hashes."""
    options = teacher.model_dump(mode="json", exclude_none=True)
    found: dict[str, Any] = {"seed": job.run.seed, "teacher": options}
    if teacher.recorded is not None:
        found["files"] = [file_hash(row_file(said)) for said in job.questions]
        return found
    found["answers_per_question"] = job.answers_per_question
    if teacher.endpoint is not None:
        options["endpoint"] = {k: v for k, v in options["endpoint"].items() if k not in NOT_OF_THE_ANSWERS}
    if teacher.model is not None:
        found["record_logprobs"] = job.record_logprobs
        if (files := hash_model(Path(teacher.model.path))) is not None:
            options["model"]["path"] = files
        if teacher.model.chat_template is not None:
            options["model"]["chat_template"] = file_hash(Path(teacher.model.chat_template))
    return found


@contextmanager
def about(teacher: PoolTeacher) -> Iterator[None]:
    """Have errors name the teacher that they are about."""
    try:
        yield
    except (ConfigError, DataError, RunError) as error:
        text, names = str(error), (f"teacher {teacher.name}:", f"teachers.{teacher.name}.")
        raise type(error)(text if text.startswith(names) else f"{names[0]} {text}") from error


@dataclass(frozen=True, slots=True)
class Recorded:
    """Answers that the rows of the questions bring themselves, under the name `teacher`."""

    teacher: str

    def answer(self, shard: Shard) -> list[Answer]:
        """What the rows say, in their order."""
        return [answer for question in shard.questions for answer in self._of(question)]

    def close(self) -> None:
        """Nothing is held."""

    def _of(self, question: Question) -> list[Answer]:
        texts = [answer.text for answer in question.answers if answer.teacher == self.teacher]
        return [Answer(question.uid, sample, text, ENDED) for sample, text in enumerate(texts)]


@dataclass(frozen=True, slots=True)
class SampledTeacher:
    """A teacher that the rollout samples; each rank answers its share of a shard."""

    engine: RolloutEngine
    tokenizer: PromptTokenizer
    asking: Asking
    options: SamplingOptions
    complete_thinking: bool
    record_logprobs: bool
    ranks: Ranks

    @classmethod
    def start(
        cls,
        job: PoolJob,
        teacher: PoolTeacher,
        reader: Reader,
        environment: Environment,
        ranks: Ranks,
    ) -> SampledTeacher:
        """Load the teacher into an engine that holds its longest prompt."""
        assert teacher.model is not None
        tokenizer = reader.tokenizer
        context = environment.build_context(
            model_path=teacher.model.path,
            dtype=teacher.model.dtype,
            tokenizer=tokenizer.tokenizer,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        engine = build(job.rollout, _sized(context, reader.longest, teacher.max_response_tokens))
        engine.wake()
        options = SamplingOptions(
            temperature=teacher.temperature,
            top_p=teacher.top_p,
            max_response_tokens=teacher.max_response_tokens,
            stop_token_ids=tokenizer.stop_token_ids,
        )
        return cls(
            engine, tokenizer, Asking.of(job, teacher), options, teacher.complete_thinking, job.record_logprobs, ranks
        )

    def answer(self, shard: Shard) -> list[Answer]:
        """Sample this rank's share, and gather all shares."""
        mine = self.ranks.shard(shard.questions)
        prompts = [self.tokenizer.prompt_ids(self.asking.messages(question)) for question in mine]
        requests = [
            RolloutRequest(TokenIds(prompt), tuple(self.asking.seed(question, i) for i in range(self.asking.answers)))
            for question, prompt in zip(mine, prompts, strict=True)
        ]
        groups = self.engine.generate(requests, self.options)
        answers = [
            [self._answer(question, prompt, sample, rollout) for sample, rollout in enumerate(group)]
            for question, prompt, group in zip(mine, prompts, groups, strict=True)
        ]
        return [answer for group in self.ranks.gather(answers, len(shard.questions)) for answer in group]

    def close(self) -> None:
        """Give the engine's memory back."""
        self.engine.close()

    def _answer(self, question: Question, prompt: Sequence[int], sample: int, rollout: Rollout) -> Answer:
        # What the template has written of the answer belongs to it: training drops it where its own template does so.
        opened = self.complete_thinking and self.tokenizer.answer_text(THINK, prompt) != THINK
        recorded = self.record_logprobs and rollout.finish_reason == ENDED
        return Answer(
            uid=question.uid,
            sample=sample,
            text=THINK + rollout.text if opened else rollout.text,
            finish_reason=rollout.finish_reason,
            tokens=len(rollout.token_ids),
            prompt_tokens=len(prompt),
            token_ids=rollout.token_ids if recorded else None,
            logprobs=rollout.logprobs if recorded else None,
        )


def _sized(context: BuildContext, prompt: int, response: int) -> BuildContext:
    """`context` with the lengths that an engine sizes itself by: a teacher's own instead of the student's."""
    config = dict(context.config)
    config["data"] = {**(config.get("data") or {}), "max_prompt_tokens": prompt}
    config["rollout"] = {**(config.get("rollout") or {}), "max_response_tokens": response}
    return replace(context, config=config)
