"""Errors that speak to a person. The command line prints their text and never a traceback."""


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
