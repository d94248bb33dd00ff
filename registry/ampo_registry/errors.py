"""Errors that speak to a person. The command line prints their text and never a traceback."""

from collections.abc import Iterable
from pathlib import Path


class AmpoError(Exception):
    """Base of all errors a user can cause. `exit_code` is the status `ampo-run` ends with."""

    exit_code = 1


class ConfigError(AmpoError):
    """The config, data or arguments are wrong; nothing was started."""

    exit_code = 2


class DataError(ConfigError):
    """A dataset is missing, empty or malformed; the text names file, row and field."""


class PluginError(ConfigError):
    """A plugin is broken, misspelt, duplicated or does not keep the contract; the text names it."""


class RunError(AmpoError):
    """The run failed after it had started."""


def unloadable(what: str, path: str, error: Exception) -> ConfigError:
    """What is said where transformers cannot load `what` (a model, a tokenizer) from `path`, a folder or Hub name."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0]
    if "trust_remote_code" in str(error):
        reason = "it brings code of its own; read that, and if you trust it allow it with --trust-remote-code"
    where = "the folder" if Path(path).is_dir() else "the Hub (no such local folder)"
    return ConfigError(f"model.path: no {what} could be loaded from {where} {path}: {reason}")


def check_whole(path: str, missing: Iterable[str]) -> None:
    """Raise ConfigError if weights are `missing` in the model at `path`: transformers makes random ones up."""
    names = sorted(missing)
    if names:
        raise ConfigError(f"model.path: {path} lacks {len(names)} of the model's weights, first {names[0]}")
