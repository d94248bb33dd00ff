"""What a teacher is asked, and whether its model has room for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ampo_registry.errors import unloadable
from ampo_registry.types import Message, Question

from ampo_core.config.pool_job import PoolJob, PoolTeacher
from ampo_core.config.positions import positions_in, require_room
from ampo_core.data.conversations import with_system_prompt
from ampo_core.data.seeds import derive_seed
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class Asking:
    """What a teacher is asked: the messages of a question, and the seed of each answer."""

    run_seed: int
    teacher: str
    system_prompt: str
    answers: int

    @classmethod
    def of(cls, job: PoolJob, teacher: PoolTeacher) -> Asking:
        """What `teacher` is asked in `job`."""
        return cls(job.run.seed, teacher.name, teacher.system_prompt, job.answers_per_question)

    def messages(self, question: Question) -> tuple[Message, ...]:
        """The question's messages with the teacher's system prompt."""
        return with_system_prompt(question.messages, self.system_prompt)

    def seed(self, question: Question, sample: int) -> int:
        """Depends on (run seed, teacher, question, sample) alone: shards, ranks and other questions change nothing."""
        return derive_seed("pool", self.run_seed, self.teacher, question.uid, sample)


@dataclass(frozen=True, slots=True)
class Reader:
    """A model teacher's tokenizer, and the longest prompt, in its tokens, that it will be asked."""

    tokenizer: PromptTokenizer
    longest: int

    @classmethod
    def of(cls, job: PoolJob, teacher: PoolTeacher, questions: Sequence[Question], trust_remote_code: bool) -> Reader:
        """Read all of `questions` as `teacher` will, before anything is sampled.

        Raises ConfigError if there is no such tokenizer, if its chat template refuses the messages, or if the model
        has fewer positions than prompt and answer may need.
        """
        from transformers import AutoConfig

        assert teacher.model is not None
        tokenizer, asking = load_tokenizer(teacher.model, trust_remote_code), Asking.of(job, teacher)
        longest = max(len(tokenizer.prompt_ids(asking.messages(question))) for question in questions)
        try:
            config = AutoConfig.from_pretrained(teacher.model.path, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise unloadable("model", teacher.model.path, error) from error
        key = f"teachers.{teacher.name}.max_response_tokens"
        require_room(positions_in(config.to_dict()), longest, teacher.max_response_tokens, key)
        return cls(tokenizer, longest)
