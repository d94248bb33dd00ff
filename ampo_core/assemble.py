"""Everything that a training step uses, built in an order in which bad input is refused before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from ampo_registry.errors import ConfigError
from ampo_registry.protocols import Advantage, BuildContext, RolloutEngine, Selector, Trigger
from ampo_registry.types import Question, SamplingOptions

from ampo_core.config.jobs import TrainJob
from ampo_core.config.tree import GuidanceConfig
from ampo_core.data.order import QuestionStream
from ampo_core.data.questions import LoadedQuestions, load_questions
from ampo_core.environment import Environment
from ampo_core.evaluate import HeldOutSet, evaluate_sets, load_sets, sampling_options, set_graders
from ampo_core.grading import Grader
from ampo_core.guidance import TeacherLibrary
from ampo_core.learner import Learner
from ampo_core.manifest import build_manifest
from ampo_core.objective import Objective
from ampo_core.ranks import Ranks, join_ranks
from ampo_core.reporting import Reporter
from ampo_core.runfolder import RunFolder
from ampo_core.scoring import PolicyScorer
from ampo_core.tokens import PromptTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class GuidanceParts:
    """What rescues a failed group."""

    config: GuidanceConfig
    trigger: Trigger
    library: TeacherLibrary
    selector: Selector
    scorer: PolicyScorer


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Held-out evaluation inside training; without an evaluation block it measures nothing."""

    job: TrainJob
    sets: tuple[HeldOutSet, ...]
    graders: dict[str, Grader]
    engine: RolloutEngine
    options: SamplingOptions | None
    ranks: Ranks

    def at_start(self) -> dict[str, float]:
        """Metrics of the start model, step 0."""
        return self._evaluate(0) if self.job.evaluation is not None and self.job.evaluation.at_start else {}

    def after(self, step: int) -> dict[str, float]:
        """Metrics after `step`, if an evaluation is due: every so many steps, and after the last."""
        evaluation = self.job.evaluation
        if evaluation is None:
            return {}
        due = step == self.job.training.steps or (evaluation.every is not None and step % evaluation.every == 0)
        return self._evaluate(step) if due else {}

    def _evaluate(self, step: int) -> dict[str, float]:
        assert self.options is not None
        result = evaluate_sets(
            self.sets, self.engine, self.graders, self.options, run_seed=self.job.run.seed, step=step, ranks=self.ranks
        )
        return result.metrics()


@dataclass(frozen=True, slots=True)
class TrainParts:
    """A train job, built."""

    job: TrainJob
    ranks: Ranks
    questions: tuple[Question, ...]
    order: QuestionStream
    grader: Grader
    guidance: GuidanceParts | None
    advantage: Advantage
    objective: Objective
    learner: Learner
    engine: RolloutEngine
    sampling: SamplingOptions
    evaluator: Evaluator
    reporter: Reporter

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.job.run.seed

    @property
    def threshold(self) -> float:
        """τ; without guidance its default, 0.5 + λ, so that "wrong" means the same."""
        return self.job.guidance.threshold if self.job.guidance else 0.5 + self.job.reward.format_weight

    @property
    def resample(self) -> bool:
        """True if groups that the filter drops are to be made up for."""
        group_filter = self.job.objective.group_filter
        return group_filter is not None and group_filter.resample

    def take(self, start: int, count: int) -> list[Question]:
        """`count` questions from position `start` of the stream on."""
        return [self.questions[i] for i in self.order.take(start, count)]

    def counted(self) -> dict[str, float]:
        """What was counted since the last call: verifier failures, and teacher answers that could not be used."""
        counts = self.grader.take_counts()
        verifier = {"verifier/timeouts": float(counts.timeouts), "verifier/errors": float(counts.errors)}
        if self.guidance is None:
            return verifier
        left_out = self.guidance.library.take_counts()
        return {
            **verifier,
            "guidance/left_out_incorrect": float(left_out.incorrect),
            "guidance/left_out_overlong": float(left_out.overlong),
            "guidance/left_out_ungraded": float(left_out.ungraded),
            "guidance/unscorable": float(self.guidance.scorer.take_unscorable()),
        }


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is read and checked before any model is loaded."""

    tokenizer: PromptTokenizer
    context: BuildContext
    grader: Grader
    loaded: LoadedQuestions
    order: QuestionStream
    library: TeacherLibrary | None
    teachers: tuple[str, ...]
    sets: tuple[HeldOutSet, ...]
    set_graders: dict[str, Grader]


@contextmanager
def assemble(job: TrainJob, environment: Environment) -> Iterator[TrainParts]:
    """Build the parts of `job`; on leaving, workers, engine and trackers are closed.

    Data, teachers, verifier and evaluation sets come first, then models, and the run folder last, so that a refused
    run leaves nothing behind. Raises ConfigError and DataError for what a person must change.
    """
    with ExitStack() as stack:
        ranks = join_ranks(job.resources.threads)
        inputs = _read_inputs(job, environment, ranks, stack)
        learner = _start_learner(job, environment, ranks)
        stack.callback(learner.close)
        engine = job.rollout.build(inputs.context)
        stack.callback(engine.close)
        guidance = _guidance(job, inputs, learner)
        advantage = job.objective.advantage.build(inputs.context)
        objective = Objective(job.objective, inputs.context, job.rollout.max_response_tokens)
        yield TrainParts(
            job=job,
            ranks=ranks,
            questions=inputs.loaded.questions,
            order=inputs.order,
            grader=inputs.grader,
            guidance=guidance,
            advantage=advantage,
            objective=objective,
            learner=learner,
            engine=engine,
            sampling=SamplingOptions(
                job.rollout.temperature, 1.0, job.rollout.max_response_tokens, inputs.tokenizer.stop_token_ids
            ),
            evaluator=_evaluator(job, inputs, engine, ranks),
            reporter=stack.enter_context(_open_reporter(job, environment, inputs)),
        )


def _read_inputs(job: TrainJob, environment: Environment, ranks: Ranks, stack: ExitStack) -> _Inputs:
    if job.model.lora is not None and job.model.lora.dropout > 0:
        raise ConfigError("model.lora.dropout: must be 0 in a train job, for π_old is computed without dropout")
    tokenizer = load_tokenizer(job.model, environment.trust_remote_code)
    context = environment.build_context(
        run_dir=Path(job.run.dir) / job.run.name,
        model_path=job.model.path,
        tokenizer=tokenizer.tokenizer,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    grader = stack.enter_context(Grader(job.reward))
    loaded = load_questions(
        job.data.train,
        tokenizer,
        max_prompt_tokens=job.data.max_prompt_tokens,
        overlong_prompts=job.data.overlong_prompts,
        system_prompt=job.data.system_prompt,
        check_truths=grader.check_truths,
    )
    order = QuestionStream(
        [file.questions for file in loaded.report.files],
        seed=job.run.seed,
        shuffle=job.data.shuffle,
        weights=job.data.weights,
    )
    library: TeacherLibrary | None = None
    teachers: tuple[str, ...] = ()
    if job.guidance is not None:
        pool = job.guidance.teacher_pool.build(context)
        recorded = job.objective.off_policy.behaviour == "recorded"
        library = TeacherLibrary(pool, tokenizer, grader, ranks, job.rollout.max_response_tokens, recorded)
        teachers = library.check(loaded.questions)
    graders: dict[str, Grader] = {}
    sets: list[HeldOutSet] = []
    if job.evaluation is not None:
        graders = stack.enter_context(set_graders(job.evaluation, grader))
        sets = load_sets(job.evaluation, job.data, tokenizer, graders)
    return _Inputs(tokenizer, context, grader, loaded, order, library, teachers, tuple(sets), graders)


def _start_learner(job: TrainJob, environment: Environment, ranks: Ranks) -> Learner:
    training = job.training
    updates = training.questions_per_batch // training.questions_per_minibatch * training.epochs_per_batch
    torch.manual_seed(job.run.seed)  # LoRA draws its first weights
    return Learner(
        job.model,
        training,
        job.deepspeed,
        ranks,
        total_steps=training.steps * updates,
        warmup_steps=training.warmup_steps,
        reference=job.objective.kl is not None,
        trust_remote_code=environment.trust_remote_code,
    )


def _open_reporter(job: TrainJob, environment: Environment, inputs: _Inputs) -> Reporter:
    evaluated = [] if job.evaluation is None else [item.path for item in job.evaluation.sets.values()]
    manifest = build_manifest(
        job="train",
        seed=job.run.seed,
        plugins=environment.plugins.distributions,
        data=dict.fromkeys([*job.data.train, *evaluated]),
        teachers=inputs.teachers,
        models=[job.model.path],
    )
    folder = RunFolder.create(job.run, environment.yaml, manifest, job.checkpoint)
    reporter = Reporter.open(folder, environment, job, inputs.tokenizer.tokenizer, steps=job.training.steps)
    for report in (inputs.loaded.report, *(item.report for item in inputs.sets)):
        for line in report.lines():
            reporter.note(line)
    return reporter


def _guidance(job: TrainJob, inputs: _Inputs, learner: Learner) -> GuidanceParts | None:
    if job.guidance is None or inputs.library is None:
        return None
    return GuidanceParts(
        config=job.guidance,
        trigger=job.guidance.trigger.build(inputs.context),
        library=inputs.library,
        selector=job.guidance.selector.build(inputs.context),
        scorer=PolicyScorer(learner, inputs.tokenizer),
    )


def _evaluator(job: TrainJob, inputs: _Inputs, engine: RolloutEngine, ranks: Ranks) -> Evaluator:
    options = None if job.evaluation is None else sampling_options(job.evaluation, job.rollout, inputs.tokenizer)
    return Evaluator(job, inputs.sets, inputs.set_graders, engine, options, ranks)
