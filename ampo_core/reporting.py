"""What a run tells the world: its folder, its trackers, observers of plugins, and the progress on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.protocols import RunContext, Tracker
from ampo_registry.types import StepReport

from ampo_core.config.jobs import SftJob, TrainJob
from ampo_core.environment import Environment
from ampo_core.learner import Learner
from ampo_core.progress import Progress
from ampo_core.runfolder import RunFolder, discard_unfinished

SAMPLES_PER_STEP = 8


class Reporter:
    """What train and sft report through. A context manager that closes the trackers."""

    def __init__(
        self,
        folder: RunFolder,
        environment: Environment,
        context: RunContext,
        trackers: Sequence[Tracker],
        tokenizer: Any,
        *,
        title: str,
        steps: int,
    ) -> None:
        self._folder, self._context, self._tokenizer, self._steps = folder, context, tokenizer, steps
        self._plugins = environment.plugins
        self._trackers = list(trackers)
        self._progress = Progress(environment.console, title, steps, line_every=max(10, steps // 20))
        self._stack = ExitStack()

    @classmethod
    def open(
        cls, folder: RunFolder, environment: Environment, job: TrainJob | SftJob, tokenizer: Any, *, steps: int
    ) -> Self:
        """The reporter of a train or sft job. If a tracker cannot start, the new folder is removed again."""
        context = RunContext(job.run.name, folder.path, job.job, job.run.seed, environment.config)
        try:
            trackers = [spec.build(environment.build_context(run_dir=folder.path)) for spec in job.tracking]
        except BaseException:
            discard_unfinished(folder.path)
            raise
        return cls(folder, environment, context, trackers, tokenizer, title=job.job, steps=steps)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._progress)
        for tracker in self._trackers:
            self._stack.callback(tracker.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if isinstance(error, ConfigError):  # which would say that nothing was started
            raise RunError(str(error)) from error

    def note(self, text: str) -> None:
        """Say a sentence."""
        self._progress.note(text)

    def started(self) -> None:
        """The run begins: observers are told."""
        self._plugins.notify("ampo_run_started", context=self._context)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log an evaluation that belongs to no training step: the start model's."""
        if metrics:
            self._log(step, metrics)
            self._say_evaluation(step, metrics)

    def stepped(self, report: StepReport, learner: Learner, evaluation: Mapping[str, float] | None = None) -> None:
        """Log a finished step with the evaluation after it, if any, and keep a checkpoint where one is due."""
        evaluation = evaluation or {}
        metrics = {**report.metrics, **evaluation}
        self._log(report.step, metrics)
        if report.groups:
            self._folder.log_samples(report.step, report.groups, SAMPLES_PER_STEP)
        self._progress.step(report.step, metrics)
        if evaluation:
            self._say_evaluation(report.step, evaluation)
        self._plugins.notify("ampo_step_finished", report=replace(report, metrics=metrics), context=self._context)
        every = self._folder.checkpoint.every
        due = report.step == self._steps or (every is not None and report.step % every == 0)
        if due or self._folder.is_best(metrics):
            self._folder.save_checkpoint(
                report.step, lambda path: learner.save_policy(path / "policy", self._tokenizer), metrics
            )

    def finished(self) -> Path:
        """Mark the run done; returns the policy folder of its last checkpoint."""
        latest = self._folder.latest()
        policy = self._folder.finish(None if latest is None else latest / "policy")
        self._plugins.notify("ampo_run_finished", context=self._context)
        self.note(f"done: {policy}")
        return policy

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._folder.log_metrics(step, metrics)
        for tracker in self._trackers:
            tracker.log(metrics, step)

    def _say_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = [f"{name.removeprefix('eval/')} {value:.3f}" for name, value in metrics.items() if "/avg" in name]
        self.note(f"evaluation after step {step}: " + ", ".join(shown))
