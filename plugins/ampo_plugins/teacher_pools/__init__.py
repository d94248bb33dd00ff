"""Teacher pools: where teacher answers come from."""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.teacher_pools.dataset import Dataset


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The teacher pools of this folder."""
    return [Dataset]
