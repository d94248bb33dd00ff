"""Tracker `wandb`: Weights & Biases, without a network unless the config asks for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

from ampo_registry import BuildContext, ConfigError, TrackerSpec
from pydantic import Field


class Wandb(TrackerSpec):
    """Log to RUN/wandb; offline runs are uploaded later with `wandb sync`."""

    type: Literal["wandb"] = "wandb"
    project: str = Field(default="ampo", min_length=1, description="project that the run belongs to")
    mode: Literal["offline", "online"] = Field(default="offline", description="online sends metrics and config at once")

    def unavailable(self) -> str | None:
        """A reason if the package is missing, else None."""
        if importlib.util.find_spec("wandb") is None:
            return "the package wandb is not installed: pip install 'ampo[tracking]'"
        return None

    def build(self, context: BuildContext) -> WandbTracker:
        """Start the wandb run. Raises ConfigError outside a run or without the package."""
        reason = self.unavailable()
        if reason is not None:
            raise ConfigError(f"tracker wandb: {reason}")
        if context.run_dir is None:
            raise ConfigError("tracker wandb needs a run folder")
        import wandb

        run = wandb.init(
            project=self.project,
            name=context.run_name,
            dir=str(context.run_dir),
            mode=self.mode,
            config=dict(context.config),
            # Progress bars own the terminal: wandb must neither wrap it nor write its own summary to it.
            settings={"console": "off", "silent": True},
        )
        return WandbTracker(run)


class WandbTracker:
    """A started wandb run (`wandb.Run`; the package has no complete types)."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send all metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run; writes what is pending."""
        self._run.finish()
