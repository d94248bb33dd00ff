"""Tracker `wandb`: Weights & Biases, without a network unless the config asks for it."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ampo_registry import BuildContext, ConfigError, TrackerSpec
from pydantic import Field

ID_FILE = "wandb-run-id"


class Wandb(TrackerSpec):
    """Log to RUN/wandb; offline runs are uploaded later with `wandb sync`. A run that goes on keeps its wandb run."""

    type: Literal["wandb"] = "wandb"
    project: str = Field(default="ampo", min_length=1, description="project that the run belongs to")
    mode: Literal["offline", "online"] = Field(default="offline", description="online sends metrics and config at once")

    def unavailable(self) -> str | None:
        """A reason if the package is missing, else None."""
        if importlib.util.find_spec("wandb") is None:
            return "the package wandb is not installed: pip install 'ampo-rl[tracking]'"
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
            id=_run_id(context.run_dir, over=not context.resume_step),
            resume="allow" if context.resume_step else None,
            config=dict(context.config),
            # Progress bars own the terminal: wandb must neither wrap it nor write its own summary to it.
            settings={"console": "off", "silent": True},
        )
        return WandbTracker(run)


def _run_id(folder: Path, over: bool) -> str:
    """The id of the wandb run that belongs to the run in `folder`; a new one if the run is new or starts over."""
    path = folder / ID_FILE
    if over or not path.exists():
        path.write_text(secrets.token_hex(4) + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


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
