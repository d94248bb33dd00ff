"""The task with its options."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Literal, Self

from ampo_registry import Message, TaskData, TaskQuestion, TaskSpec
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ampo_plugins.tasks.labelled_arithmetic.problems import LABELS, Problem, draw_distinct, split_by_share
from ampo_plugins.tasks.labelled_arithmetic.teachers import teacher_answers
from ampo_plugins.tasks.labelled_arithmetic.warmup import warmup_conversations

SOURCE = "labelled_arithmetic"
Style = Literal["chain", "verbose", "terse", "bare"]
HARD_STYLES: tuple[Style, ...] = ("bare", "terse")


class LabelledArithmetic(TaskSpec):
    """Apply labelled operations to a two-digit number in label order and keep the last two digits.

    A question's level is the number of its operations. The warm-up conversations show reasoning on the easy levels
    only, so that the student can reason and does not where it counts.
    """

    type: Literal["labelled_arithmetic"] = "labelled_arithmetic"
    questions: PositiveInt = Field(default=2400, description="training questions")
    levels: dict[int, NonNegativeFloat] = Field(
        default={2: 0.25, 4: 0.45, 5: 0.30}, description="level -> share of the training questions"
    )
    heldout_levels: list[int] = Field(default=[2, 3, 4, 5, 6], description="one held-out set each, named levelN")
    heldout_per_level: PositiveInt = 128
    missing: float = Field(default=0.25, ge=0.0, le=1.0, description="share of questions a teacher has no answer for")
    warmup_examples: NonNegativeInt = Field(default=25600, description="conversations for the warm-up by sft")
    warmup_levels: dict[int, NonNegativeFloat] = Field(
        default={1: 0.15, 2: 0.3, 3: 0.3, 4: 0.125, 5: 0.125}, description="level -> share of the conversations"
    )
    warmup_styles: dict[Style, NonNegativeFloat] = Field(
        default={"chain": 0.5, "verbose": 0.15, "terse": 0.15, "bare": 0.2},
        description="style -> share of the answers up to `step_by_step_up_to`; above it terse and bare",
    )
    step_by_step_up_to: NonNegativeInt = 3
    kinds: dict[int, str] = Field(
        default={}, description="level -> word that stands in its rows as extra_info.kind, e.g. the name of a judge"
    )
    head_size: PositiveInt = Field(
        default=24,
        multiple_of=2,
        description="of each of the start model's 4 attention heads; vLLM on a CPU needs 32",
    )
    hard_step_by_step: float = Field(
        default=0.0015,
        ge=0.0,
        le=1.0,
        description="share of the conversations above `step_by_step_up_to` that are solved in the style chain after "
        "all; with 0 the student gives a fourth step a probability near 1e-6, from where no guidance can raise it",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("levels", "warmup_levels", "warmup_styles"):
            if not sum(getattr(self, name).values()) > 0:
                raise ValueError(f"{name}: the shares must add up to more than 0")
        for level in [*self.levels, *self.warmup_levels, *self.heldout_levels, *self.kinds]:
            if not 1 <= level <= len(LABELS):
                raise ValueError(f"level {level}: there are levels 1 to {len(LABELS)}")
        if len(set(self.heldout_levels)) < len(self.heldout_levels):
            raise ValueError("heldout_levels: a level stands there twice")
        hard = any(share > 0 and level > self.step_by_step_up_to for level, share in self.warmup_levels.items())
        if hard and not any(share > 0 and style in HARD_STYLES for style, share in self.warmup_styles.items()):
            raise ValueError("warmup_styles: levels above step_by_step_up_to need a share of terse or bare")
        return self

    def make(self, seed: int) -> TaskData:
        """Held-out questions first, then training questions that are not among them, then the warm-up.

        Raises ValueError if a level has too few distinct questions.
        """
        rng = Random(f"{SOURCE}/questions/{seed}")
        taken: set[str] = set()
        heldout = {
            f"level{level}": draw_distinct(level, self.heldout_per_level, rng, taken) for level in self.heldout_levels
        }
        held_out = frozenset(taken)
        train = [
            problem
            for level, count in split_by_share(self.questions, self.levels).items()
            for problem in draw_distinct(level, count, rng, taken)
        ]
        rng.shuffle(train)
        teachers = Random(f"{SOURCE}/teachers/{seed}")
        warmup = Random(f"{SOURCE}/warmup/{seed}")
        return TaskData(
            train=tuple(self._question(problem, teachers) for problem in train),
            heldout={
                name: tuple(self._question(problem) for problem in problems) for name, problems in heldout.items()
            },
            sft=warmup_conversations(
                split_by_share(self.warmup_examples, self.warmup_levels), self._styles, rng=warmup, held_out=held_out
            ),
        )

    def write_start_model(self, folder: Path, seed: int) -> bool:
        """The student with random weights."""
        from ampo_plugins.tasks.labelled_arithmetic.model import write_start_model

        write_start_model(folder, seed, head_size=self.head_size)
        return True

    def _styles(self, level: int) -> dict[str, float]:
        """The shares of answer styles in the warm-up's conversations of a level."""
        if level <= self.step_by_step_up_to:
            return {str(style): share for style, share in self.warmup_styles.items()}
        short = {style: self.warmup_styles.get(style, 0.0) for style in HARD_STYLES}
        rest = (1.0 - self.hard_step_by_step) / sum(short.values())
        return {"chain": self.hard_step_by_step, **{style: share * rest for style, share in short.items()}}

    def _question(self, problem: Problem, teachers: Random | None = None) -> TaskQuestion:
        return TaskQuestion(
            messages=(Message("user", problem.text),),
            answer=problem.answer,
            source=SOURCE,
            extra={"level": problem.level} | ({"kind": self.kinds.get(problem.level)} if self.kinds else {}),
            teacher_answers=teacher_answers(problem, self.missing, teachers) if teachers else (),
        )
