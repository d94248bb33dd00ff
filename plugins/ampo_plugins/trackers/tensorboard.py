"""Tracker `tensorboard`: event files in the run folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ampo_registry import BuildContext, ConfigError, TrackerSpec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(TrackerSpec):
    """Write scalars to RUN/tensorboard; look at them with `tensorboard --logdir runs`."""

    type: Literal["tensorboard"] = "tensorboard"

    def unavailable(self) -> str | None:
        """A reason if the package is missing, else None."""
        if importlib.util.find_spec("tensorboard") is None:
            return "the package tensorboard is not installed: pip install tensorboard"
        return None

    def build(self, context: BuildContext) -> TensorBoardTracker:
        """Open the event file. Raises ConfigError outside a run."""
        if context.run_dir is None:
            raise ConfigError("tracker tensorboard needs a run folder")
        from torch.utils.tensorboard import SummaryWriter

        # What a run that goes on does over again, TensorBoard leaves out of the earlier event files.
        done = context.resume_step
        purge = None if done is None else done + 1 if done else 0
        return TensorBoardTracker(SummaryWriter(str(context.run_dir / "tensorboard"), purge_step=purge))


class TensorBoardTracker:
    """An open event file."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one scalar for each metric, to disk at once: an interrupted run keeps its curves."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
