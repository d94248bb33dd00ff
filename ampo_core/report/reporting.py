"""What a train or sft run tells the world, and when it writes checkpoints: one `Reporter` on every rank.

Only that of rank 0 has an `Output`; the others write nothing and take their part in checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from ampo_registry.errors import ConfigError, RunError
from ampo_registry.protocols import Stateful
from ampo_registry.types import StepReport

from ampo_core.config.jobs import SftJob, TrainJob
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.distributed.together import by_first
from ampo_core.learner.checkpoint import Checkpoint, Checkpoints, Position
from ampo_core.learner.learner import Learner
from ampo_core.report.build import refresh_report
from ampo_core.report.model_card import write_card
from ampo_core.report.output import Output
from ampo_core.run.checkpoint_store import CheckpointStore
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import Interrupt, Interrupted
from ampo_core.run.manifest import as_warnings
from ampo_core.run.resume import Beginning

REPORT_EVERY_S = 60.0
"""report.html of a run that goes on is written again with an evaluation or a checkpoint, at most this often."""


class Reporter:
    """What train and sft report through. A context manager that closes what it has opened.

    `checkpoint` is the one that the run goes on from, None at a start. To make a Reporter is collective: what rank 0
    cannot open is an error on every rank.
    """

    def __init__(
        self,
        job: TrainJob | SftJob,
        environment: Environment,
        beginning: Beginning,
        ranks: Ranks,
        tokenizer: PromptTokenizer,
        *,
        steps: int,
    ) -> None:
        self._ranks, self._tokenizer, self._steps = ranks, tokenizer, steps
        self._said: set[str] = set()
        opened: list[Output] = []
        store = CheckpointStore(beginning.path / "checkpoints", job.checkpoint)
        opening = partial(Output.open, job, environment, beginning, steps=steps, checkpoints=store)
        by_first(ranks, lambda: opened.append(opening()))
        self._output = opened[0] if opened else None
        self._run, self._reported_at = beginning.path, time.monotonic()
        self.checkpoint = None if beginning.checkpoint is None else Checkpoint(beginning.checkpoint, ranks)
        self._checkpoints = Checkpoints(store, ranks, card=partial(write_card, self._run, self.note))
        for text in (*beginning.notes, *as_warnings(beginning.manifest.get("notes", ()))):
            self.note(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            refresh_report(self._run, self.note)
            self._output.close()
        if isinstance(error, ConfigError):  # which would say that nothing was started
            raise RunError(str(error)) from error

    def note(self, text: str, once: str = "") -> None:
        """Say a sentence; of those that have the same `once` only the first."""
        if self._output is not None and once not in self._said:
            self._said |= {once} if once else set()
            self._output.progress.note(text)

    def started(self) -> None:
        """The run begins: observers are told."""
        if self._output is not None:
            self._output.started()

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log an evaluation that belongs to no training step: the start model's."""
        if metrics and self._output is not None:
            self._output.evaluated(step, metrics)

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
            seen = replace(report, metrics=metrics)
            metrics = self._output.stepped(seen, evaluation or {}, self._tokenizer.shown)
        if count := metrics.get("response/unknown_tokens"):
            self.note(
                f"step {report.step}: {count:g} sampled tokens are none of the tokenizer's: the model's head has rows "
                "beyond its vocabulary. They decode to nothing and are trained on; response/unknown_tokens counts them",
                once="unknown tokens",
            )
        last = report.step >= self._steps
        stopping = not last and self._ranks.any(interrupt.requested)
        saving = self._checkpoints.due(report.step, metrics, last=last) or stopping
        if saving:
            if self._output is not None:
                self._output.folder.flush_lines()
            trackers = dict if self._output is None else self._output.trackers.states
            self._checkpoints.save(position, learner, self._tokenizer, components, metrics, trackers)
        if (saving or evaluation) and not (last or stopping):
            self._refresh_report()
        if stopping:
            raise Interrupted.after(report.step, self._checkpoints.path_of(report.step))

    def _refresh_report(self) -> None:
        """Let a run that goes on be looked at."""
        if self._output is not None and time.monotonic() - self._reported_at >= REPORT_EVERY_S:
            refresh_report(self._run, self.note, quiet=True)
            self._reported_at = time.monotonic()

    def finished(self) -> Path:
        """Mark the run done; returns the policy folder of its last checkpoint."""

        def finish() -> Path:
            assert self._output is not None
            latest = self._checkpoints.store.latest()
            return self._output.finished(None if latest is None else latest / "policy")

        policy = by_first(self._ranks, finish)
        self.note(f"done: {policy}")
        return policy
