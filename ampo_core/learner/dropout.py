"""No dropout in the checkpoint's own layers, nor a router's jitter, which are there in training only.

With them the ratio π_θ/π_old would not be 1 before the first update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Dropout:
    """What the configs of a model said of dropout before it was turned off: (config, option, its value)."""

    options: tuple[tuple[Any, str, float], ...]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A block in which the configs say it again, for what is saved is to keep it."""
        for config, name, value in self.options:
            setattr(config, name, value)
        try:
            yield
        finally:
            for config, name, _ in self.options:
                setattr(config, name, 0.0)


def disable_dropout(model: nn.Module) -> Dropout:
    """Set every dropout of `model` to 0: of modules made for it, of numbers that a module keeps and hands on
    (`self.dropout`, `layerdrop`, `attn_pdrop`, a router's `jitter_noise`, …), and of configs that are read in each
    forward."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in _numbers(module):
            setattr(module, name, 0.0)
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    options = [(config, name, getattr(config, name)) for config in configs.values() for name in _numbers(config)]
    for config, name, _ in options:
        setattr(config, name, 0.0)
    return Dropout(tuple(options))


def _numbers(owner: object) -> list[str]:
    """Its attributes that are a probability of dropping something, or a router's noise."""
    return [
        name
        for name, value in vars(owner).items()
        if ("drop" in name or "jitter" in name) and type(value) is float and value > 0.0
    ]
