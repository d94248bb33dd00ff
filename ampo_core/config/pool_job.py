"""The config of the `pool` job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ampo_core.config.tree import Block, ResourcesConfig, Reward, RolloutField, RunConfig, SampledModel


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
    system_prompt: str = Field(
        default="keep", description="keep, or a text that replaces every row's system prompt, in the written rows too"
    )
    where: dict[str, str | int | float | bool] = Field(default={}, description="column (dots reach inside) = value")
    limit: PositiveInt | None = Field(default=None, description="first so many distinct questions; null = all")


class PoolJob(Block):
    """Builds a Multi-Guidance Pool: several teachers' verified answers to the same questions."""

    job: Literal["pool"] = "pool"
    run: RunConfig = RunConfig()
    questions: list[str] = Field(min_length=1, description="files of questions in the data contract")
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
