"""The config of the `pool` job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ampo_core.config import rules
from ampo_core.config.data_files import SYSTEM_PROMPT, DataFile, DataRead
from ampo_core.config.job import Job, Longest, NamedModel
from ampo_core.config.layouts import ColumnsField, LayoutField, PatternField, layout_findings
from ampo_core.config.nodes import Finding, KeyPath, nearest
from ampo_core.config.tree import Block, ResourcesConfig, Reward, RolloutField, SampledModel

SFT = "sft"
SOURCES = ("model", "endpoint", "recorded")


class PoolEndpoint(Block):
    """An OpenAI-compatible server that is asked for chat completions, one request an answer."""

    url: str = Field(
        pattern=r"^https?://[^/@\s]+(/\S*)?$",
        description="base URL without a user or key, e.g. http://localhost:8000/v1",
    )
    model: str = Field(min_length=1, description="the model's name at the server")
    key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable that holds the key; null = the server wants none",
    )
    concurrency: PositiveInt = Field(default=16, description="requests at once, over all ranks")
    retries: NonNegativeInt = Field(
        default=10,
        description="tries after a first that found a rate limit, a server error, a timeout or no connection; the wait "
        "is the server's Retry-After (at most two minutes), else it grows to 8 s",
    )
    timeout_s: PositiveFloat = Field(default=600.0, description="of one try, in seconds")
    seed: bool = Field(default=True, description="send each answer's own seed; false for a server that refuses it")
    limit_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="what the server calls max_response_tokens"
    )
    reasoning: Literal["join", "leave_out"] = Field(
        default="join",
        description="of a server that gives the reasoning apart: join puts it before the answer as <think> … </think>",
    )
    extra_body: dict[str, Any] = Field(
        default={}, description="further keys of each request, e.g. {top_k: 20} or {chat_template_kwargs: {…}}"
    )


class PoolTeacher(Block):
    """Who writes answers: exactly one of `model`, `endpoint` and `recorded`."""

    name: str = Field(description="the teacher's name in the pool")
    model: SampledModel | None = Field(default=None, description="a model that the rollout samples from")
    endpoint: PoolEndpoint | None = Field(default=None, description="a server that is asked")
    recorded: str | None = Field(
        default=None,
        description="the name under which the rows of `questions` bring its answers (`teacher` for a bare `target`)",
    )
    system_prompt: str = Field(
        default="keep", description="keep, drop, or a text that this teacher gets in place of every row's system prompt"
    )
    temperature: NonNegativeFloat = Field(default=0.6, description="of sampling")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="nucleus of sampling")
    max_response_tokens: PositiveInt = Field(default=8192, description="longest answer, in the teacher's tokens")
    complete_thinking: bool = Field(
        default=True,
        description="where the chat template has already opened the answer with <think>, write that line too",
    )


class PoolDataConfig(Block):
    """Which questions are asked, and the prompt that is written with the answers."""

    max_prompt_tokens: PositiveInt = Field(
        default=1024, description="longest prompt in the student's tokens; longer ones are left out and counted"
    )
    layout: LayoutField = None
    columns: ColumnsField = None
    answer_pattern: PatternField = None
    system_prompt: str = Field(default="keep", description=f"{SYSTEM_PROMPT}, in the written rows too")
    where: dict[str, str | int | float | bool] = Field(default={}, description="column (dots reach inside) = value")
    limit: PositiveInt | None = Field(default=None, description="first so many distinct questions; null = all")


class PoolJob(Job):
    """Builds a Multi-Guidance Pool: several teachers' verified answers to the same questions."""

    job: Literal["pool"] = "pool"
    questions: list[DataFile] = Field(
        min_length=1, description="files of questions (.parquet, .jsonl, .json, .csv), or {hub: NAME, split: train}"
    )
    data: PoolDataConfig = PoolDataConfig()
    student: SampledModel = Field(
        description="whom the pool is for: its tokenizer and chat template measure prompts and answers"
    )
    teachers: list[PoolTeacher] = Field(min_length=1, description="who answers, one after the other")
    answers_per_question: PositiveInt = Field(default=8, description="answers of each teacher to each question")
    keep: Literal["shortest", "longest", "first", "all"] = Field(
        default="shortest",
        description="which correct answer of a teacher to a question stays; shortest and longest by the student's "
        "tokens; all: every different one",
    )
    max_tokens: PositiveInt | None = Field(
        default=8192,
        description="an answer of more student's tokens, end of sequence included, is left out and counted: the "
        "response limit of the training to come; null = any length",
    )
    compositions: dict[str, list[str]] = Field(
        default={}, description="name -> names of teachers: a file each; none = one of all teachers, named train"
    )
    unify: Literal["intersection", "every_teacher"] | None = Field(
        default=None,
        description="intersection: only questions to which every composition has an answer; every_teacher: to which "
        "every teacher has one; null = all, also without an answer",
    )
    record_logprobs: bool = Field(
        default=False, description="write each answer's per-token log-probs, where teacher and student share the tokens"
    )
    shard_questions: PositiveInt = Field(
        default=512, description="questions of a shard: what is lost at most when a build is interrupted"
    )
    rollout: RolloutField = Field(default="vllm", description="what samples the answers of models")  # type: ignore[assignment]
    reward: Reward = Field(default="math_verify", description="what verifies them")  # type: ignore[assignment]
    resources: ResourcesConfig = ResourcesConfig()

    goes_on_changed = True

    def findings(self) -> Iterator[Finding]:
        names = [teacher.name for teacher in self.teachers]
        for i, teacher in enumerate(self.teachers):
            if teacher.name in names[:i]:
                yield Finding(("teachers", i, "name"), f"{teacher.name!r} is taken by an earlier one")
            yield from rules.well_formed(teacher.name, ("teachers", i, "name"))
            yield from self._teacher(teacher, ("teachers", i))
        yield from layout_findings(self.data, ("data",))
        yield from self._compositions(names)
        if self.samples():
            yield from rules.unfit(self.rollout, self.resources)
        yield from self._unread()
        yield from rules.lone_hostfile(self.resources)

    def machines(self) -> ResourcesConfig:
        return self.resources

    def samples(self) -> bool:
        return any(teacher.model is not None for teacher in self.teachers)

    def used_models(self) -> Iterator[NamedModel]:
        yield NamedModel.of(("student",), self.student)
        for i, teacher in enumerate(self.teachers):
            if teacher.model is not None:
                yield NamedModel.of(("teachers", i, "model"), teacher.model)

    def longest(self) -> Iterator[Longest]:
        text = "its longest answer, and a prompt"
        for i, teacher in enumerate(self.teachers):
            if teacher.model is not None:
                path, tokens = ("teachers", i, "max_response_tokens"), teacher.max_response_tokens + 1
                yield Longest(path, teacher.model.path, tokens, text)

    def used_data(self) -> Iterator[DataRead]:
        for i, file in enumerate(self.questions):
            yield DataRead(("questions", i), file, self.data, self.data.where, reward=self.reward)

    def lacks(self) -> Iterator[tuple[KeyPath, str]]:
        """For endpoints: the key in the environment, the client library."""
        for i, teacher in enumerate(self.teachers):
            if teacher.endpoint is None:
                continue
            path: KeyPath = ("teachers", i, "endpoint")
            key = teacher.endpoint.key_env
            if key is not None and not os.environ.get(key):
                text = f"the environment has no variable {key}; export {key}=… with the endpoint's key"
                yield (*path, "key_env"), text
            if find_spec("openai") is None:
                yield path, "the package openai is not installed: pip install 'ampo-rl[endpoint]'"

    def left_behind(self) -> str:
        shards = self.run.folder / "shards"
        return f"finished shards stand in {shards}: run the same command again to go on with the others"

    def _teacher(self, teacher: PoolTeacher, path: KeyPath) -> Iterator[Finding]:
        given = [source for source in SOURCES if getattr(teacher, source) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            yield Finding(path, f"a teacher has exactly one of {', '.join(SOURCES)}; found {found}")
        if teacher.endpoint is not None and any(sign in teacher.endpoint.url for sign in "?#"):
            text = "a base URL ends before any '?' or '#'; a key belongs into the variable that key_env names"
            yield Finding((*path, "endpoint", "url"), text)
        ranks = self.resources.devices * self.resources.nodes
        if teacher.endpoint is not None and teacher.endpoint.concurrency < ranks:
            text = f"found {teacher.endpoint.concurrency}, fewer than the {ranks} ranks that ask at once"
            yield Finding((*path, "endpoint", "concurrency"), text)
        if teacher.recorded is not None:
            for option in ("system_prompt", "temperature", "top_p", "max_response_tokens"):
                if option in teacher.model_fields_set:
                    yield Finding((*path, option), "the answers are recorded already; nothing reads this", "warning")
        if teacher.endpoint is not None and self.record_logprobs:
            text = "an endpoint's answers are recorded without log-probs: its tokens are not known here"
            yield Finding(("record_logprobs",), f"teacher {teacher.name}: {text}", "warning")

    def _compositions(self, names: list[str]) -> Iterator[Finding]:
        for name, members in self.compositions.items():
            path: KeyPath = ("compositions", name)
            yield from rules.well_formed(name, path)
            if name == SFT or name.startswith(f"{SFT}_"):
                yield Finding(path, f"found the name {name!r}; names of SFT files begin so: choose another")
            if not members:
                yield Finding(path, "names no teacher")
            for i, member in enumerate(members):
                if member not in names:
                    yield Finding((*path, i), f"there is no teacher {member!r}{nearest(member, names)}")
                elif member in members[:i]:
                    yield Finding((*path, i), f"{member!r} stands twice")
        used = {member for members in self.compositions.values() for member in members}
        for i, name in enumerate(names):
            if self.compositions and name not in used:
                text = f"no composition names {name!r}: it would answer in vain"
                yield Finding(("teachers", i, "name"), text, "warning")

    def _unread(self) -> Iterator[Finding]:
        own = "the teacher's own options and answers_per_question"
        text = f"a pool job samples each teacher with {own}; nothing reads this"
        options = ("group_size", "temperature", "max_response_tokens", "ahead")
        yield from rules.in_vain(self.rollout, options, ("rollout",), text)
        text = "a pool keeps what verifies as correct, whatever its reward; nothing reads this"
        yield from rules.in_vain(self.reward, rules.REWARD_ONLY, ("reward",), text)
