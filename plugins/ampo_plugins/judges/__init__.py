"""Judges: frozen models that say how likely given tokens are."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.judges.transformers import TransformersJudge


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The judges of this folder."""
    return [TransformersJudge]
