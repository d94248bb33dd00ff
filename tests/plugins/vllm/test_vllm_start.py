"""The `vllm` rollout on a model with a head of its own, and what keeps an engine from starting. Apart from the other
tests, whose engine stays open: a process has one at a time."""

import pytest
import torch
from ampo_plugins.rollouts.vllm.spec import VllmRollout
from ampo_registry import BuildContext, ConfigError, RunError

from tests.plugins.vllm.conftest import needs_vllm
from tests.plugins.vllm.parity import check_parity

pytestmark = [needs_vllm, pytest.mark.process]


def test_parity_with_the_trainer_over_several_syncs_and_no_second_engine(start, untied_model, tied_model):
    engine = start(untied_model)
    try:
        check_parity(engine, untied_model)
        with pytest.raises(RunError, match="another vllm engine"):
            start(tied_model)
    finally:
        engine.close()


def test_what_a_person_must_change_is_a_config_error(tmp_path, golden_tokenizer, tied_model):
    def build(spec, **context):
        return spec.build(BuildContext(tokenizer=golden_tokenizer, **context))

    with pytest.raises(ConfigError, match="model path"):
        VllmRollout().build(BuildContext())
    with pytest.raises(ConfigError, match="cannot load the model"):
        build(VllmRollout(), model_path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"rollout\.tensor_parallel: 2 does not divide the 3 ranks"):
        build(VllmRollout(tensor_parallel=2), model_path=str(tied_model), world_size=3)


@pytest.mark.parametrize("version", ["0.25.1", "0.34.0", "1.2", "0.1.dev7+gabc"])
def test_other_versions_are_refused(version):
    from ampo_plugins.rollouts.vllm.process import refuse_version

    with pytest.raises(ConfigError, match=rf"vLLM {version.replace('+', '.')} is installed; supported: >=0.26,<0.34"):
        refuse_version(version)
    refuse_version("0.26.0+cu130")
    refuse_version("0.33.2rc1")


def test_heads_that_a_cpu_cannot_sample_from_are_refused_before_the_engine_starts(start, tiny_model):
    if torch.cuda.is_available():
        pytest.skip("vLLM's kernels for GPUs take them")
    with pytest.raises(ConfigError, match=r"no attention heads of 8 .*; allowed: 32, .*rollout\.type: transformers"):
        start(tiny_model)
