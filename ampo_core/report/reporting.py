"""What a run tells the world: its folder, its trackers, observers of plugins, and the progress on the screen.

Only rank 0 has an `Output`; the `Reporter` of every other rank writes nothing and takes its part in checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.protocols import RunContext, Stateful, Tracker
from ampo_registry.types import StepReport

from ampo_core.config.jobs import SftJob, TrainJob
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.distributed.together import by_first
from ampo_core.learner.checkpoint import Checkpoint, Checkpoints, Position
from ampo_core.learner.learner import Learner
from ampo_core.report.budget import total_budget
from ampo_core.report.build import refresh_report
from ampo_core.report.model_card import write_card
from ampo_core.run.checkpoint_store import CheckpointStore, read_state
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder, discard_unfinished
from ampo_core.run.interrupt import Interrupt, Interrupted
from ampo_core.run.lock import held
from ampo_core.run.progress import Progress
from ampo_core.run.resume import Beginning

SAMPLES_PER_STEP = 8
REPORT_EVERY_S = 60.0
"""report.html of a run that goes on is written again with an evaluation or a checkpoint, at most this often."""


@dataclass(frozen=True, slots=True)
class Output:
    """Rank 0's folder, trackers, observers and screen."""

    folder: RunFolder
    environment: Environment
    context: RunContext
    progress: Progress
    trackers: Mapping[str, Tracker]
    stack: ExitStack

    @classmethod
    def open(cls, job: TrainJob | SftJob, environment: Environment, beginning: Beginning, *, steps: int) -> Output:
        """Make the run folder, or put it in order for a run that goes on, and open the trackers.

        If a tracker cannot start, a folder that was made is removed again.
        """
        path, step = beginning.path, beginning.resume_step
        with ExitStack() as stack:
            if step is None:
                folder = RunFolder.create(job.run, environment.yaml, beginning.manifest)
                stack.enter_context(held(path))
            else:
                stack.enter_context(held(path))
                folder = RunFolder.reopen(path, environment.yaml, beginning.manifest, environment.config, step)
                CheckpointStore(folder.checkpoints, job.checkpoint).go_on_from(beginning.checkpoint)
            context = RunContext(job.run.name, path, job.job, job.run.seed, environment.config, resume_step=step)
            progress = Progress(environment.console, job.job, steps, line_every=max(10, steps // 20))
            try:
                trackers = _open_trackers(job, environment, beginning, stack)
            except BaseException:
                if step is None:
                    discard_unfinished(path)
                raise
            return cls(folder, environment, context, progress, trackers, stack.pop_all())

    def tracker_states(self) -> dict[str, Any]:
        """The memory of the trackers that have one."""
        return {name: tracker.state_dict() for name, tracker in self.trackers.items() if isinstance(tracker, Stateful)}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A line of metrics, here and in the trackers."""
        self.folder.log_metrics(step, metrics)
        for tracker in self.trackers.values():
            tracker.log(metrics, step)

    def stepped(self, report: StepReport, evaluation: Mapping[str, float]) -> None:
        """A finished step; `report.metrics` has those of `evaluation` already."""
        self.log(report.step, report.metrics)
        if report.groups:
            self.folder.log_samples(report.step, report.groups, SAMPLES_PER_STEP)
        self.progress.step(report.step, report.metrics)
        if evaluation:
            self.say_evaluation(report.step, evaluation)
        self.environment.plugins.notify("ampo_step_finished", report=report, context=self.context)

    def say_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The averages of an evaluation, as a sentence."""
        shown = [f"{name.removeprefix('eval/')} {value:.3f}" for name, value in metrics.items() if "/avg" in name]
        self.progress.note(f"evaluation after step {step}: " + ", ".join(shown))

    def close(self) -> None:
        """Close the trackers, each of them whatever the others do, and let go of the folder."""
        self.stack.close()


def _open_trackers(
    job: TrainJob | SftJob, environment: Environment, beginning: Beginning, stack: ExitStack
) -> dict[str, Tracker]:
    """The trackers by their place in the config and type; `stack` closes them."""
    context = environment.build_context(run_dir=beginning.path, resume_step=beginning.resume_step)
    kept = read_state(beginning.checkpoint)["trackers"] if beginning.checkpoint is not None else {}
    trackers: dict[str, Tracker] = {}
    for position, spec in enumerate(job.tracking):
        name = f"{position}.{type(spec).__name__}"
        tracker = trackers[name] = spec.build(context)
        stack.callback(tracker.close)
        if isinstance(tracker, Stateful) and name in kept:
            tracker.load_state_dict(kept[name])
    return trackers


class Reporter:
    """What train and sft report through. A context manager that closes the trackers."""

    def __init__(
        self,
        ranks: Ranks,
        output: Output | None,
        checkpoints: Checkpoints,
        tokenizer: PromptTokenizer,
        *,
        steps: int,
        resume_from: Path | None = None,
    ) -> None:
        self._ranks, self._output, self._checkpoints = ranks, output, checkpoints
        self._tokenizer, self._steps = tokenizer, steps
        self.checkpoint = None if resume_from is None else Checkpoint(resume_from, ranks)
        self._stack = ExitStack()
        self._reported_at = time.monotonic()

    @classmethod
    def open(
        cls,
        job: TrainJob | SftJob,
        environment: Environment,
        beginning: Beginning,
        ranks: Ranks,
        tokenizer: PromptTokenizer,
        *,
        steps: int,
    ) -> Self:
        """The reporter of a train or sft job; collective. What rank 0 cannot open is an error on every rank."""
        opened: list[Output] = []
        by_first(ranks, lambda: opened.append(Output.open(job, environment, beginning, steps=steps)))
        store = CheckpointStore(beginning.path / "checkpoints", job.checkpoint)
        output = opened[0] if opened else None
        say = print if output is None else output.progress.note  # rank 0, which has an output, writes the cards
        card = partial(write_card, beginning.path, say)
        checkpoints = Checkpoints(store, ranks, card=card)
        reporter = cls(ranks, output, checkpoints, tokenizer, steps=steps, resume_from=beginning.checkpoint)
        for text in beginning.notes:
            reporter.note(text)
        return reporter

    def __enter__(self) -> Self:
        if self._output is not None:
            self._stack.enter_context(self._output.progress)
            self._stack.callback(self._output.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            refresh_report(self._output.folder.path, self.note)
        self._stack.close()
        if isinstance(error, ConfigError):  # which would say that nothing was started
            raise RunError(str(error)) from error

    def note(self, text: str) -> None:
        """Say a sentence."""
        if self._output is not None:
            self._output.progress.note(text)

    def started(self) -> None:
        """The run begins: observers are told."""
        if self._output is not None:
            self._output.environment.plugins.notify("ampo_run_started", context=self._output.context)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log an evaluation that belongs to no training step: the start model's."""
        if metrics and self._output is not None:
            self._output.log(step, metrics)
            self._output.say_evaluation(step, metrics)

    def stepped(
        self,
        report: StepReport,
        position: Position,
        learner: Learner,
        interrupt: Interrupt,
        components: Stateful | None = None,
        evaluation: Mapping[str, float] | None = None,
    ) -> None:
        """Log a finished step with the evaluation after it, if any, and write a checkpoint where one is due.

        Collective. Raises Interrupted, with a checkpoint written, if a rank was told to stop and steps are left.
        """
        metrics = {**report.metrics, **(evaluation or {})}
        if self._output is not None:
            self._output.stepped(replace(report, metrics=metrics), evaluation or {})
        last = report.step >= self._steps
        stopping = not last and self._ranks.any(interrupt.requested)
        saving = self._checkpoints.due(report.step, metrics, last=last) or stopping
        if saving:
            if self._output is not None:
                self._output.folder.flush_lines()
            trackers = self._output.tracker_states if self._output is not None else dict
            self._checkpoints.save(position, learner, self._tokenizer, components, metrics, trackers)
        if (saving or evaluation) and not (last or stopping):
            self._refresh_report()
        if stopping:
            raise Interrupted.after(report.step, self._checkpoints.path_of(report.step))

    def _refresh_report(self) -> None:
        """Let a run that goes on be looked at."""
        if self._output is not None and time.monotonic() - self._reported_at >= REPORT_EVERY_S:
            refresh_report(self._output.folder.path, self.note, quiet=True)
            self._reported_at = time.monotonic()

    def finished(self) -> Path:
        """Mark the run done; returns the policy folder of its last checkpoint."""
        policy = by_first(self._ranks, self._finish)
        self.note(f"done: {policy}")
        return policy

    def _finish(self) -> Path:
        assert self._output is not None
        latest = self._checkpoints.store.latest()
        policy = self._output.folder.finish(None if latest is None else latest / "policy")
        self.note(f"budget: {total_budget(self._output.folder.path).line()}")
        self._output.environment.plugins.notify("ampo_run_finished", context=self._output.context)
        return policy
