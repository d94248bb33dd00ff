"""Judge `endpoint`: a server that returns the log-probs of a prompt's tokens.

What is asked is what vLLM and SGLang both answer, and lm-eval's `local-completions` asks too: POST /v1/completions with
token ids as the prompt, `echo: true` and `logprobs: 1`. The answer's `token_logprobs` hold the log-prob of each given
token itself, likely or not. TGI takes no token ids.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal

from ampo_registry import BuildContext, ConfigError, Judge, JudgeSpec, RunError
from ampo_registry.text import nearest
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ampo_plugins.judges.vocabulary import TO_READ, check_vocabulary, first_misread
from ampo_plugins.rollouts.vllm.spec import Url

if TYPE_CHECKING:
    from ampo_plugins.judges.served import ServedModel

SAME = 1e-6
PROBE = 8


class EndpointJudge(JudgeSpec):
    """A model behind a server with OpenAI's /v1/completions that echoes a prompt's log-probs: vLLM, SGLang."""

    type: Literal["endpoint"] = "endpoint"
    url: Url = Field(description="base URL without a user or key, e.g. http://localhost:8000")
    served_model: str | None = Field(
        default=None, min_length=1, description="its name at the server; null: the only one there"
    )
    key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable that holds the key; null = the server wants none",
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="folder of the server's tokenizer, whose whole vocabulary is compared with the student's; null: "
        "the server's /detokenize is asked about each token",
    )
    applies_temperature: bool = Field(
        default=False,
        description="the server divides a prompt's logits by the request's temperature; vLLM and SGLang do not",
    )
    concurrency: PositiveInt = Field(default=32, description="requests at once, over all ranks")
    timeout_s: PositiveFloat = Field(default=300.0, description="of one try, in seconds")
    retries: NonNegativeInt = Field(
        default=5, description="tries after a first that found a rate limit, a server error, a timeout or no connection"
    )

    def refuses(self, temperature: float) -> str | None:
        """That the server gives log-probs at temperature 1 only, if so."""
        if temperature == 1.0 or self.applies_temperature:
            return None
        return (
            "servers give a prompt's log-probs at temperature 1, vLLM and SGLang too; use rollout.temperature: 1, the "
            "judge vllm or transformers, or applies_temperature for a server that does"
        )

    def check(self, context: BuildContext) -> None:
        """Raises ConfigError for a server that does not answer or gives no log-probs, another model, too little room,
        and another vocabulary than the student's."""
        served = self._served(context, retries=min(1, self.retries))
        room = served.room
        if room is not None and context.longest is not None and room <= context.longest:
            raise ConfigError(
                f"{context.place}.url: {self.url} takes {room} tokens; the run's sequences have up to "
                f"{context.longest}, and it needs room for one more (vLLM: --max-model-len)"
            )
        if self.tokenizer is not None:
            check_vocabulary(self.tokenizer, context, "tokenizer")
        else:
            self._check_tokens(served, context)
        ids = sorted(context.tokenizer.get_vocab().values())[:PROBE]
        try:
            plain = served.logprobs_of(ids, 1, 1.0)
            warm = served.logprobs_of(ids, 1, 2.0) if self.applies_temperature else None
        except RunError as error:
            raise ConfigError(f"{context.place}.url: {error}") from error
        if warm is not None and all(math.isclose(a, b, abs_tol=SAME) for a, b in zip(plain, warm, strict=True)):
            raise ConfigError(
                f"{context.place}.applies_temperature: found true; {self.url} gave the same log-probs at temperature 1 "
                "and 2"
            )

    def build(self, context: BuildContext) -> Judge:
        """Raises ConfigError for a server that does not answer, and for another model."""
        return self._served(context, self.retries)

    def _served(self, context: BuildContext, retries: int) -> ServedModel:
        from ampo_plugins.judges.served import ServedModel
        from ampo_plugins.server import HttpServer

        place = context.place
        key = "" if self.key_env is None else os.environ.get(self.key_env, "")
        if self.key_env is not None and not key:
            raise ConfigError(f"{place}.key_env: the environment variable {self.key_env} is not set")
        root = self.url.rstrip("/").removesuffix("/v1")
        server = HttpServer(root, self.timeout_s, retries, asked_by=f"judge {place.rpartition('.')[2]}", key=key)
        try:
            models = server.get("v1/models")["data"]
            known: dict[str, Any] = {model["id"]: model for model in models}
        except RunError as error:
            raise ConfigError(f"{place}.url: {error}") from error
        except (TypeError, KeyError) as error:
            raise ConfigError(f"{place}.url: {root}/v1/models does not list models") from error
        name = self.served_model or (next(iter(known)) if len(known) == 1 else None)
        if name not in known:
            near = nearest(name, known) if name is not None else None
            found = f"found {name!r}, which {root} does not serve" if name else "which model is meant?"
            hint = f"; did you mean {near!r}?" if near else ""
            raise ConfigError(f"{place}.served_model: {found}{hint}\nserved: {', '.join(known) or 'none'}")
        at_once = max(1, self.concurrency // context.world_size)
        return ServedModel(server, name, known[name].get("max_model_len"), at_once, warms=self.applies_temperature)

    def _check_tokens(self, served: ServedModel, context: BuildContext) -> None:
        own: Any = context.tokenizer
        try:
            found = first_misread(sorted(own.get_vocab().values()), own.decode, served.detokenize)
            text = "" if found is None else served.detokenize([found])
        except RunError as error:
            raise ConfigError(
                f"{context.place}.url: whether it reads the student's tokens cannot be asked: {error}. Name a folder "
                f"with its tokenizer in {context.place}.tokenizer"
            ) from error
        if found is not None:
            raise ConfigError(
                f"{context.place}.url: {self.url} has another vocabulary than the student: token {found} is "
                f"{own.decode([found])!r} to the student; to the server it is {text!r}. {TO_READ}"
            )
