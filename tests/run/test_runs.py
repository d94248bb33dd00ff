"""Runs that are ended at many moments and go on, against runs that were left alone: the same bits."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.forge import Forge
from tests.plugins.vllm.conftest import needs_vllm, write_model
from tests.run.conftest import Runs

pytestmark = pytest.mark.process

KILLED = -9


@pytest.fixture(scope="module")
def tied_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """A model whose attention heads vLLM's CPU kernels know."""
    return write_model(tmp_path_factory.mktemp("models") / "tied", golden_tokenizer, tied=True)


def of_environment(**variables: str) -> list[psutil.Process]:
    """The processes of this machine that have these in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if variables.items() <= process.environ().items():
                found.append(process)
    return found


def warnings(out: str) -> list[str]:
    """What a run says at its end of itself, each once."""
    said = [line for line in out.partition("budget:")[2].splitlines() if line.startswith("warning: ")]
    assert len(set(said)) == len(said)
    return said


def test_a_train_run_that_dies_everywhere_ends_as_one_that_does_not(runs: Runs) -> None:
    whole = runs("train.yaml", "whole")
    assert whole.code == 0, whole.err

    short = ("train.yaml", "ended", "training.steps=4")
    assert runs(*short, end="kill:1").code == KILLED
    assert (runs.folder("ended") / "metrics.jsonl").read_text().endswith('"reward/me')

    stopped = runs(*short, end="term:1")
    assert stopped.code == 3, stopped.err
    assert "has no checkpoint yet: the run starts over" in stopped.out
    assert "stopped after step 1" in stopped.err
    assert "Run the same command again to go on" in stopped.err
    assert runs.checkpoints("ended") == ["latest", "step-000001"]

    for moment in ("flush:2", "renamed:2", "latest:4"):
        died = runs(*short, end=moment)
        assert died.code == KILLED, (moment, died.err)
    assert runs.checkpoints("ended") == [".latest.partial", "best.json", "latest", "step-000002", "step-000004"]
    assert (runs.folder("ended") / "checkpoints/latest").read_text() == "step-000002\n"

    ended = runs(*short)
    assert ended.code == 0, ended.err
    assert "goes on after step 4 of 4" in ended.out
    again = runs(*short)
    assert (again.code, "is finished already; its output is" in again.out) == (0, True)

    refused = runs("train.yaml", "ended")
    assert refused.code == 2
    assert "holds a finished run, and these have changed since it began:\n  training.steps: 4 -> 5\n" in refused.err
    longer = runs.anew("train.yaml", "ended", "--allow-changes")
    assert longer.code == 0, longer.err
    assert "changed, as allowed:\n  training.steps: 4 -> 5" in longer.out
    assert re.search(r"went on with allowed changes after step 4 \([^)]* UTC\): training\.steps 4 → 5\n", longer.out)
    runs.assert_equal("whole", "ended")
    assert warnings(longer.out) == warnings(whole.out) != []
    history = sorted(path.name for path in (runs.folder("ended") / "history").iterdir())
    assert history == ["changes.jsonl", "config.step-000004.yaml", "manifest.step-000004.json"]
    assert json.loads((runs.folder("whole") / "checkpoints/step-000005/ranks/0.json").read_text())


def test_a_batch_that_was_sampled_ahead_is_trained_on_after_going_on(runs: Runs) -> None:
    ahead = ("rollout.ahead=1", "training.steps=3", "checkpoint.every=1")
    assert runs("train.yaml", "ahead-whole", *ahead).code == 0
    assert runs("train.yaml", "ahead-ended", *ahead, end="state:2").code == KILLED
    waiting = json.loads((runs.folder("ahead-ended") / "checkpoints/step-000001/ranks/0.json").read_text())["ahead"]
    assert {rollout["policy_version"] for group in waiting["rollouts"] for rollout in group} == {0}
    ended = runs("train.yaml", "ahead-ended", *ahead)
    assert ended.code == 0, ended.err
    assert "goes on after step 1 of 3" in ended.out
    runs.assert_equal("ahead-whole", "ahead-ended")


def test_an_sft_run_with_dropout_goes_on_with_the_same_random_numbers(runs: Runs) -> None:
    assert runs("sft.yaml", "sft-whole").code == 0
    assert runs("sft.yaml", "sft-ended", end="term:3").code == 3
    ended = runs("sft.yaml", "sft-ended")
    assert ended.code == 0, ended.err
    assert "goes on after step 3 of" in ended.out
    runs.assert_equal("sft-whole", "sft-ended")


def test_two_ranks_of_which_one_dies_go_on_as_if_it_had_not(runs: Runs) -> None:
    two = ("resources.devices=2", "deepspeed.zero_stage=2", "training.steps=3", "checkpoint.every=1")
    died = runs("train.yaml", "two-ended", *two, end="state:2:1")
    assert died.code == 1, died.err
    assert "ampo-run: the run failed\nrank 1 was ended by SIGKILL" in died.err
    for noise in ("Traceback", "ChildFailedError", "OMP_NUM_THREADS", "torchelastic"):
        assert noise not in died.out + died.err
    assert psutil.wait_procs(of_environment(AMPO_TEST_END="state:2:1"), timeout=30)[1] == []
    ended, whole = runs.in_two_ranks(("train.yaml", "two-ended", *two), ("train.yaml", "two-whole", *two))
    assert "goes on after step 1 of 3" in ended
    runs.assert_equal("two-whole", "two-ended")
    assert warnings(ended) == warnings(whole) != []
    assert [line["step"] for line in runs.metrics("two-whole")] == [0, 1, 2, 3]
    fewer = runs("train.yaml", "two-ended", "deepspeed.zero_stage=2", "training.steps=6", "--allow-changes")
    assert fewer.code == 2
    assert "was written by 2 ranks and this run has 1" in fewer.err


@needs_vllm
@pytest.mark.parametrize(
    ("ranks", "moment", "code"), [(1, "flush:2", KILLED), pytest.param(2, "term:1", 3, marks=pytest.mark.slow)]
)
def test_the_vllm_rollout_goes_on_with_the_same_samples(
    runs: Runs, vllm_forge: Forge, tied_model: Path, ranks: int, moment: str, code: int
) -> None:
    rollout = "rollout={type: vllm, group_size: 4, max_response_tokens: 12, kv_cache_gib: 0.25}"
    vllm = (rollout, f"model.path={tied_model}", "training.steps=3", "checkpoint.every=1", f"resources.devices={ranks}")
    whole = runs("train.yaml", f"vllm-whole-{ranks}", *vllm, forge=vllm_forge)
    assert whole.code == 0, whole.err
    lines = runs.metrics(f"vllm-whole-{ranks}")[1:]
    # the policy moves at every step, and the sampler with it: a sync that had missed something would show
    assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in lines)
    assert any(line["policy/grad_norm"] > 0 for line in lines)
    assert all(line["tokens/generated"] > 0 for line in lines)
    stopped = runs("train.yaml", f"vllm-ended-{ranks}", *vllm, end=moment, forge=vllm_forge)
    assert stopped.code == code, stopped.err
    ended = runs("train.yaml", f"vllm-ended-{ranks}", *vllm, forge=vllm_forge)
    assert ended.code == 0, ended.err
    assert "goes on after step 1 of 3" in ended.out
    runs.assert_equal(f"vllm-whole-{ranks}", f"vllm-ended-{ranks}")
