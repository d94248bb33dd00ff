"""Trackers: where metrics go besides the run folder."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.trackers.tensorboard import TensorBoard
from ampo_plugins.trackers.wandb import Wandb


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The trackers of this folder."""
    return [TensorBoard, Wandb]
