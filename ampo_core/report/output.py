"""What rank 0 of a run writes and says: its folder, trackers, observers of plugins, and the screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ampo_registry.protocols import RunContext
from ampo_registry.sources import PluginSource
from ampo_registry.types import StepReport
from ampo_registry.warning import RunWarning

from ampo_core.checked.trackers import Trackers
from ampo_core.config.jobs import EvaluateJob, SftJob, TrainJob
from ampo_core.report.marks import patches
from ampo_core.report.spent import read_spent
from ampo_core.report.watch import Watch
from ampo_core.run.checkpoint_store import CheckpointStore, read_state
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder, Shown, discard_unfinished
from ampo_core.run.lock import held
from ampo_core.run.progress import Progress
from ampo_core.run.resume import Beginning, check_still

SAMPLES_PER_STEP = 8


@dataclass(frozen=True, slots=True)
class Output:
    """The run's folder, held; its trackers; the progress on the screen; and what watches whether it learns."""

    folder: RunFolder
    environment: Environment
    context: RunContext
    progress: Progress
    watch: Watch
    trackers: Trackers
    stack: ExitStack

    @classmethod
    def open(
        cls,
        job: TrainJob | SftJob | EvaluateJob,
        environment: Environment,
        beginning: Beginning,
        *,
        steps: int,
        checkpoints: CheckpointStore | None = None,
    ) -> Output:
        """Make the run folder, or put it and its `checkpoints` in order for a run that goes on, and open the trackers.

        If a tracker cannot start, a folder that was made is removed again.
        """
        path, step = beginning.path, beginning.resume_step
        with ExitStack() as stack:
            stack.enter_context(held(path))
            if step is None:
                folder = RunFolder.create(job.run, environment.yaml, beginning.manifest)
            else:
                if checkpoints is not None:
                    check_still(beginning, checkpoints)
                    checkpoints.sweep()  # first of all: on a full disk nothing else has room
                anew = checkpoints is not None and step == 0
                folder = RunFolder.reopen(
                    path, environment.yaml, beginning.manifest, environment.config, step, anew=anew
                )
                if checkpoints is not None:
                    checkpoints.go_on_from(beginning.checkpoint)
            context = RunContext(job.run.name, path, job.job, job.run.seed, environment.config, resume_step=step)
            progress = Progress(environment.console, job.job, steps, line_every=max(10, steps // 20))
            stack.enter_context(progress)
            trackers = Trackers(progress.note)
            stack.callback(trackers.close)
            tracking = environment.build_context(run_dir=path, resume_step=step)
            kept = read_state(beginning.checkpoint)["trackers"] if beginning.checkpoint is not None else {}
            try:
                trackers.open(job.tracking, tracking, kept)
            except BaseException:
                if step is None:
                    discard_unfinished(path)
                raise
            watch = Watch.over(job.job, environment.config, path)
            return cls(folder, environment, context, progress, watch, trackers, stack.pop_all())

    def started(self) -> None:
        """Tell the observers that the run begins; one that goes on says what was to be said of it before."""
        self._warn(self.watch.warnings(finished=False))
        self._tell("ampo_run_started", context=self.context)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log an evaluation that belongs to no training step."""
        self.log(step, metrics)
        self._say_evaluation(step, metrics)

    def stepped(self, report: StepReport, evaluation: Mapping[str, float], shown: Shown) -> dict[str, float]:
        """A finished step; `report.metrics` has those of `evaluation` already. Returns them with the observers'.
        `shown` gives the text of a prompt."""
        metrics = {**report.metrics, **self._observed(report)}
        self.log(report.step, metrics)
        if report.groups:
            self.folder.log_samples(report.step, report.groups, SAMPLES_PER_STEP, shown)
        self.progress.step(report.step, metrics)
        if evaluation:
            self._say_evaluation(report.step, evaluation)
        return metrics

    def _observed(self, report: StepReport) -> dict[str, float]:
        """What observers measure of a finished step. What may not be a metric is reported once and left out."""
        log, hook = self.context.step_log, "ampo_step_finished"
        log.begin(report.metrics.keys())
        seen = replace(report, metrics=MappingProxyType(dict(report.metrics)))
        for source, given in self._tell(hook, report=seen, context=self.context):
            for name, fault in log.take(given):
                self.environment.plugins.blame(source, hook, source.broken(fault), about=name or "what it returns")
        return log.end()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a line of metrics, here and in the trackers, and warn of what begins with it."""
        self.folder.log_metrics(step, metrics)
        self.trackers.log(metrics, step)
        self._warn(self.watch.see(step, metrics))

    def finished(self, policy: Path | None) -> Path:
        """Mark the run done, with the folder `policy` as its output, say what it spent and tell the observers."""
        output = self.folder.finish(policy)
        own, *before = read_spent(self.folder.path).lines()
        changes = (f"went on with allowed changes {patch}" for patch in patches(self.folder.path))
        for line in (f"budget: {own}", *before, *changes):
            self.progress.note(line)
        self.concluded()
        return output

    def concluded(self) -> None:
        """Say what shows that the run learnt nothing, and tell the observers that it is done."""
        warnings = self.watch.warnings(finished=True)
        self._warn(warnings)
        self._tell("ampo_run_finished", context=self.context, warnings=warnings)

    def _tell(self, hook: str, **arguments: object) -> list[tuple[PluginSource, object]]:
        """Call a hook of the observers that the config leaves on."""
        off = [name for name, on in self.environment.config["observers"].items() if not on]
        return self.environment.plugins.notify(hook, off=off, **arguments)

    def close(self) -> None:
        """Close the trackers, and let go of screen and folder."""
        self.stack.close()

    def _warn(self, warnings: Iterable[RunWarning]) -> None:
        for warning in warnings:
            self.progress.note(f"warning: {warning}")

    def _say_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        shown = [f"{name.removeprefix('eval/')} {value:.3f}" for name, value in metrics.items() if "/avg" in name]
        self.progress.note(f"evaluation after step {step}: " + ", ".join(shown))
