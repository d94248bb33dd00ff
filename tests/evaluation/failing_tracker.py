"""A tracker that cannot start."""

from typing import Literal

from ampo_registry import ConfigError, TrackerSpec, hookimpl


class Failing(TrackerSpec):
    """Refuses to start."""

    type: Literal["failing"] = "failing"

    def build(self, context):
        raise ConfigError("tracking: the server does not answer")


@hookimpl
def ampo_specs():
    return [Failing]
