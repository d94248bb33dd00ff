"""Judges: frozen models that say how likely given tokens are.

`transformers` is loaded as the policy is. `vllm` is an engine in a process of its own: vllm_process.py is this side of
it, vllm_worker.py the other, frames.py what goes between them. `endpoint` is a server, asked by served.py.
vocabulary.py says which models read the student's tokens as the student does.
"""

from ampo_registry import ComponentSpec, hookimpl

from ampo_plugins.judges.endpoint import EndpointJudge
from ampo_plugins.judges.transformers import TransformersJudge
from ampo_plugins.judges.vllm import VllmJudge


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """The judges of this folder."""
    return [TransformersJudge, VllmJudge, EndpointJudge]
