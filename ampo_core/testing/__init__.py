"""For tests of plugins: real steps of the real loop, on the CPU, in seconds. Start with `steps.py`.

`run_steps` trains a tiny model on a tiny world (`world.py`) with whatever a config says; `fixtures.py` is the pytest
plugin. The conformance kit and its builders are `ampo_registry.testing`. Nothing heavy is imported before it is used,
for pytest loads this room in every session of an environment that has AMPO.
"""

from ampo_core.testing.steps import Steps, run_steps
from ampo_core.testing.world import TinyWorld, tiny_world

__all__ = ["Steps", "TinyWorld", "run_steps", "tiny_world"]
