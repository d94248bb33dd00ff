"""Everything that a training step uses, built in an order in which bad input is refused before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ampo_registry.errors import ConfigError
from ampo_registry.judges import POLICY, START
from ampo_registry.pools import LateTeacherPoolSpec
from ampo_registry.protocols import BuildContext, RolloutEngine
from ampo_registry.specs import TeacherPoolSpec

from ampo_core.checked.call import Asked, PluginFault
from ampo_core.config.jobs import TrainJob
from ampo_core.config.nodes import dotted
from ampo_core.config.positions import positions_of, require_room
from ampo_core.data.layouts import RowReader
from ampo_core.data.order import QuestionStream
from ampo_core.data.overlap import question_notes
from ampo_core.data.prompts import prompt_notes
from ampo_core.data.questions import LoadedQuestions, load_questions
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.distributed.ranks import Ranks, join_ranks
from ampo_core.distributed.together import by_first
from ampo_core.evaluation.evaluate import HeldOutSet, load_sets, require_room_for, sampling_options, set_graders
from ampo_core.grading.grader import Grader
from ampo_core.learner.frozen import FrozenLearner, LogprobLearner
from ampo_core.learner.learner import Learner
from ampo_core.loop.credit import GroupFilter
from ampo_core.loop.evaluator import Evaluator
from ampo_core.loop.guidance import Guide
from ampo_core.loop.judges import Judges
from ampo_core.loop.parts import SamplingParts, TrainParts, UpdateParts
from ampo_core.loop.probe import Probe
from ampo_core.loop.sampling import Questions, Sampler
from ampo_core.loop.scoring import PolicyScorer, scoring_notes
from ampo_core.loop.services import Services, longest_sample
from ampo_core.loop.teachers import TeacherLibrary
from ampo_core.report.reporting import Reporter
from ampo_core.run.environment import Environment
from ampo_core.run.manifest import as_warnings, build_manifest, hash_questions
from ampo_core.run.progress import Reading, say
from ampo_core.run.resume import Beginning, begin


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
    notes: tuple[str, ...]


@contextmanager
def assemble(job: TrainJob, environment: Environment) -> Iterator[TrainParts]:
    """Build the parts of `job`; on leaving, workers, engine and trackers are closed.

    Data, teachers, verifier and evaluation sets come first, then models, and the run folder last, so that a refused
    run leaves nothing behind. Raises ConfigError and DataError for what a person must change.
    """
    with ExitStack() as stack:
        ranks = join_ranks(job.resources.threads)
        inputs = _read_inputs(job, environment, ranks, stack, job.run.folder)
        beginning = _begin(job, environment, ranks, inputs)
        learner = _start_learner(job, environment, ranks)
        stack.callback(learner.close)
        parts = _sampling(job, inputs, learner, stack)
        advantage = inputs.context.build(job.objective.advantage)
        yield TrainParts(
            steps=job.training.steps,
            questions=parts.questions,
            sampler=parts.sampler,
            services=parts.services,
            guide=parts.guide,
            advantage=advantage,
            group_filter=GroupFilter(job.objective.group_filter, job.training.questions_per_batch),
            update=UpdateParts.build(job, inputs.context, learner, parts.judges),
            probe=Probe(parts.sampler, learner, job.rollout.logprob_gap_limit),
            evaluator=_evaluator(job, inputs, parts.sampler.engine, ranks),
            reporter=stack.enter_context(_open_reporter(job, environment, ranks, inputs, beginning)),
            ahead=job.rollout.ahead > 0,
            built=inputs.context.built,
        )


@contextmanager
def assemble_sampling(job: TrainJob, environment: Environment) -> Iterator[SamplingParts]:
    """The parts of `job` that sample, grade and guide, with the start model in the learner's place: nothing is trained,
    DeepSpeed does not start, and the run's folder is neither looked at nor written to. Raises as `assemble`."""
    with ExitStack() as stack:
        ranks = join_ranks(job.resources.threads)
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="ampo-sample-")))
        inputs = _read_inputs(job, environment, ranks, stack, scratch)
        learner = FrozenLearner(job.model, job.training, ranks, trust_remote_code=environment.trust_remote_code)
        yield _sampling(job, inputs, learner, stack)


def _sampling(job: TrainJob, inputs: _Inputs, learner: LogprobLearner, stack: ExitStack) -> SamplingParts:
    """The hops up to the intervention; at the end of `stack` what they have started is closed."""
    context, most = inputs.context, longest_sample(job)
    judges = Judges.build(job, context, learner, most, stack)
    engine = context.build(job.rollout)
    stack.callback(engine.close)
    guide = None
    if job.guidance is not None and inputs.library is not None:
        scorer = PolicyScorer(learner, inputs.tokenizer, job.reward.truth_is_answer)
        guide = Guide.build(job.guidance, inputs.library, scorer, context, job.objective)
    sampler = Sampler.build(job, context, engine, inputs.grader, learner.ranks, inputs.tokenizer)
    stack.callback(sampler.ahead.close)
    return SamplingParts(
        questions=Questions(inputs.loaded.questions, inputs.order),
        tokenizer=inputs.tokenizer,
        judges=judges,
        sampler=sampler,
        services=Services(sampler, inputs.tokenizer, judges, steps=job.training.steps, max_tokens=most),
        guide=guide,
        notes=(*as_warnings(inputs.notes), *inputs.loaded.report.lines()),
    )


def _read_inputs(job: TrainJob, environment: Environment, ranks: Ranks, stack: ExitStack, folder: Path) -> _Inputs:
    """`folder` is where components may write."""
    tokenizer = load_tokenizer(job.model, environment.trust_remote_code)
    context = environment.build_context(
        run_dir=folder,
        model_path=job.model.path,
        dtype=job.model.dtype,
        tokenizer=tokenizer.tokenizer,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    grader = stack.enter_context(Grader(job.reward, partial(say, environment.console)))
    reading = stack.enter_context(Reading(environment.console))
    loaded = load_questions(
        job.data.train,
        tokenizer,
        max_prompt_tokens=job.data.max_prompt_tokens,
        overlong_prompts=job.data.overlong_prompts,
        system_prompt=job.data.system_prompt,
        check_truths=partial(ranks.map, grader.check_truths),
        reader=RowReader.of(job.data),
        watch=reading,
    )
    positions = positions_of(job.model.path)
    longest = max(len(question.prompt_token_ids) for question in loaded.questions)
    require_room(positions, longest, job.rollout.max_response_tokens, "rollout.max_response_tokens")
    order = QuestionStream(
        [file.questions for file in loaded.report.files],
        seed=job.run.seed,
        shuffle=job.data.shuffle,
        weights=job.data.weights,
    )
    library: TeacherLibrary | None = None
    teachers: tuple[str, ...] = ()
    if job.guidance is not None:
        library = _library(job, job.guidance.teacher_pool, context, tokenizer, grader, ranks)
        teachers = library.check(loaded.questions, loaded.place, reading)
        library.notes += scoring_notes(job.guidance, job.reward, loaded.questions)
    graders: dict[str, Grader] = {}
    sets: list[HeldOutSet] = []
    if job.evaluation is not None:
        graders = stack.enter_context(set_graders(job.evaluation, grader))
        sets = load_sets(job.evaluation, job.data, tokenizer, graders, ranks, reading)
        require_room_for(job.evaluation, job.rollout, sets, positions)
    by_first(ranks, lambda: _check_judges(job, context))
    names = [*({START} & job.needed_judges()), POLICY, *job.judges]
    Asked.of(job.objective.advantage).check(loaded.questions, names, teachers)
    notes = _notes(job, tokenizer, loaded, library, sets)
    return _Inputs(tokenizer, context, grader, loaded, order, library, teachers, tuple(sets), graders, notes)


def _notes(
    job: TrainJob,
    tokenizer: PromptTokenizer,
    loaded: LoadedQuestions,
    library: TeacherLibrary | None,
    sets: Sequence[HeldOutSet],
) -> tuple[str, ...]:
    """What a person should know of tokens and questions."""
    notes = [*tokenizer.notes, *(library.notes if library is not None else ())]
    held_out = {item.name: item.questions for item in sets}
    notes += question_notes(loaded.questions, job.training.questions_per_batch, held_out)
    notes += prompt_notes("data.train", loaded.questions, tokenizer, job.reward)
    for item in sets:
        notes += prompt_notes(item.place, item.questions, tokenizer, item.config.reward or job.reward)
    return tuple(notes)


def _library(
    job: TrainJob,
    spec: TeacherPoolSpec,
    context: BuildContext,
    tokenizer: PromptTokenizer,
    grader: Grader,
    ranks: Ranks,
) -> TeacherLibrary:
    recorded = next(map(dotted, job.objective.reading_teachers()), "")
    late = Asked.of(spec).within("names", lambda: tuple(spec.names)) if isinstance(spec, LateTeacherPoolSpec) else None
    at_once = spec.at_once if isinstance(spec, LateTeacherPoolSpec) else 1
    pool, longest = context.build(spec), job.rollout.max_response_tokens
    return TeacherLibrary(pool, tokenizer, grader, ranks, longest, recorded, late, at_once)


def _check_judges(job: TrainJob, context: BuildContext) -> None:
    """Ask each judge that is needed whether it can serve. Raises ConfigError, with its key, for one that cannot."""
    for name in sorted(job.needed_judges() & job.judges.keys()):
        place = f"judges.{name}"
        try:
            Asked.of(job.judges[name], place=place).check(replace(context, place=place, longest=longest_sample(job)))
        except PluginFault:
            raise
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith("judges.") else f"{place}: {text}") from error


def _start_learner(job: TrainJob, environment: Environment, ranks: Ranks) -> Learner:
    torch.manual_seed(job.run.seed)  # LoRA draws its first weights
    return Learner(
        job.model,
        job.training,
        job.deepspeed,
        ranks,
        reference=START in job.needed_judges(),
        trust_remote_code=environment.trust_remote_code,
    )


def _begin(job: TrainJob, environment: Environment, ranks: Ranks, inputs: _Inputs) -> Beginning:
    """Whether the run is new or goes on: what has changed since it began is refused before a model is loaded."""

    def manifest() -> dict[str, Any]:
        evaluated = [] if job.evaluation is None else [item.path for item in job.evaluation.sets.values()]
        return build_manifest(
            job="train",
            seed=job.run.seed,
            plugins=environment.plugins.distributions,
            code=environment.code(),
            data=dict.fromkeys([*job.data.train, *evaluated]),
            teachers=inputs.teachers,
            models=dict.fromkeys([job.model.path, *job.judge_models().values()]),
            questions={"train": hash_questions(question.uid for question in inputs.loaded.questions)}
            | {f"evaluation.{item.name}": hash_questions(q.uid for q in item.questions) for item in inputs.sets},
            notes=inputs.notes,
        )

    steps, world_size = job.training.steps, ranks.world_size
    return by_first(ranks, lambda: begin(job, environment, manifest, steps=steps, world_size=world_size))


def _open_reporter(
    job: TrainJob, environment: Environment, ranks: Ranks, inputs: _Inputs, beginning: Beginning
) -> Reporter:
    tokenizer, steps = inputs.tokenizer, job.training.steps
    reporter = Reporter(job, environment, beginning, ranks, tokenizer, steps=steps)
    for report in (inputs.loaded.report, *(item.report for item in inputs.sets)):
        for line in report.lines():
            reporter.note(line)
    return reporter


def _evaluator(job: TrainJob, inputs: _Inputs, engine: RolloutEngine, ranks: Ranks) -> Evaluator:
    options = None if job.evaluation is None else sampling_options(job.evaluation, job.rollout, inputs.tokenizer)
    return Evaluator(
        config=job.evaluation,
        sets=inputs.sets,
        graders=inputs.set_graders,
        engine=engine,
        options=options,
        ranks=ranks,
        seed=job.run.seed,
        steps=job.training.steps,
    )
