"""Fixtures that several areas share, which tests are quick, and how two workers share them out.

Nothing here touches the network.
"""

from __future__ import annotations

import gc
import json
import multiprocessing.process
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from tests.forge import JOBS, VLLM, Forge

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
WITH_PROCESSES = {"forge", "vllm_forge"}
"""Fixtures that make a test one of those with processes."""
LONGEST = (
    "run/test_runs.py",
    "distributed/test_ranks.py",
    "jobs/suite/test_suite.py",
    "jobs/test_at_once.py",
    "plugins/vllm",
    "distributed/test_two_hosts.py",
    "loop/test_train",
    "loop/test_methods.py",
    "packaging",
)
"""What takes longest: it comes first, so that no worker is left alone with it."""


TOGETHER = ("tests/loop/test_train", "tests/report/handing_on/", "tests/misbehaving/")
"""Files that share what takes seconds to make."""


class Guard:
    """Fails a test that starts a process and is not marked so: what `make test-quick` runs stays quick by itself."""

    def __init__(self) -> None:
        self._quick = False
        self._watch(subprocess.Popen, "_execute_child")
        self._watch(multiprocessing.process.BaseProcess, "start")

    def _watch(self, owner: type, name: str) -> None:
        start = getattr(owner, name)

        def watched(process: Any, *arguments: Any, **options: Any) -> Any:
            if self._quick:
                pytest.fail(
                    f"this test starts a process ({getattr(process, 'args', type(process).__name__)}): mark it with "
                    "pytest.mark.process, so that `make test-quick` leaves it out"
                )
            return start(process, *arguments, **options)

        setattr(owner, name, watched)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._quick = item.get_closest_marker("process") is None
        try:
            return (yield)
        finally:
            self._quick = False


class Freezer:
    """Takes what is there when a file of tests begins out of sight of the garbage collector. A worker has millions of
    objects that stay, most of them libraries', and a collection goes through all of them again."""

    def __init__(self) -> None:
        self._file: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.path != self._file:
            self._file = item.path
            gc.collect()
            gc.freeze()

    def pytest_sessionfinish(self) -> None:
        gc.unfreeze()  # Hypothesis, which may come now, asks the collector who refers to what


def pytest_configure(config: pytest.Config) -> None:
    platform.platform()  # asks another program, once
    config.pluginmanager.register(Guard())
    config.pluginmanager.register(Freezer())
    # else every grading worker of this process imports them anew, which takes longer than what they grade
    multiprocessing.set_forkserver_preload(
        ["math_verify", "ampo_core.grading.worker", "ampo_plugins.rewards.math_verify"]
    )


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(TESTS).as_posix()
    longest = [place for place, start in enumerate(LONGEST) if path.startswith(start)]
    return longest[0] if longest else len(LONGEST) + (item.get_closest_marker("process") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if WITH_PROCESSES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("process")
    items.sort(key=_place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives a worker one file after the other, and to one worker what shares engines of vLLM or trained policies: they
    are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if "vllm" in path or "rollout-vllm" in nodeid:
                return "vllm"
            return next((start for start in TOGETHER if path.startswith(start)), path)

    config.option.loadscopereorder = False
    return ByFile(config, log)


def _forge(modules: Sequence[str]) -> Iterator[Forge]:
    forge = Forge(modules)
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """Starts `ampo-run` as a process that has the imports of most jobs behind it."""
    yield from _forge(JOBS)


@pytest.fixture(scope="session")
def vllm_forge() -> Iterator[Forge]:
    """The same with vLLM's imports."""
    yield from _forge(VLLM)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """Reads tests/golden/NAME.json: `{what, ...shared inputs, cases: [...]}`."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def golden_tokenizer() -> Any:
    """The tokenizer of the golden files: byte-level, with a Qwen-like chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GOLDEN / "tokenizer")


@pytest.fixture
def busy() -> Iterator[None]:
    """Four other processes for every core of this machine, which end with this one."""
    script = "import os\nwhile os.getppid() == int(os.environ['PARENT']): sum(range(10_000))"
    environment = {**os.environ, "PARENT": str(os.getpid())}
    count = 4 * len(os.sched_getaffinity(0))
    others = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(count)]
    yield
    for other in others:
        other.kill()
        other.wait()


def write_tiny_model(folder: Path, tokenizer: Any, *, tied: bool, seed: int = 0) -> Path:
    """A random two-layer Qwen2 with `tokenizer`, in Hugging Face format."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """Folder of a random Qwen2 with tied embeddings: 2 layers, hidden 32."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tied", golden_tokenizer, tied=True)


@pytest.fixture(scope="session")
def tiny_untied_model(tmp_path_factory: pytest.TempPathFactory, golden_tokenizer: Any) -> Path:
    """The same with a head of its own."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "untied", golden_tokenizer, tied=False)
