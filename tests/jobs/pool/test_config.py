"""What a pool's config is refused for, warned of, and kept from running by; without torch."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ampo_registry import ConfigError

from ampo_core.config.load import load_config

ENDPOINT = {"url": "http://localhost:8000/v1", "model": "m"}


@pytest.fixture
def load(world: dict[str, Any], plugins: Any, tmp_path: Path) -> Any:
    def read(*overrides: str, **keys: Any) -> Any:
        path = tmp_path / "pool.yaml"
        path.write_text(yaml.safe_dump({**copy.deepcopy(world), **keys}))
        return load_config(path, overrides, plugins)

    return read


def teacher(**keys: Any) -> list[dict[str, Any]]:
    return [{"name": "t", **keys}]


WRONG = {
    "no source": ({"teachers": teacher()}, "exactly one of model, endpoint, recorded; found none of them"),
    "two sources": (
        {"teachers": teacher(recorded="book", endpoint=ENDPOINT), "compositions": {}},
        "teachers.0: a teacher has exactly one of model, endpoint, recorded; found endpoint and recorded",
    ),
    "a name twice": (
        {"teachers": [*teacher(recorded="book"), *teacher(recorded="book")]},
        "teachers.1.name: 't' is taken by an earlier one",
    ),
    "a name that is no file's": ({"teachers": [{"name": "a/b", "recorded": "book"}]}, "found the name 'a/b'"),
    "an unknown teacher": (
        {"compositions": {"c": ["tyed"]}},
        "compositions.c.0: there is no teacher 'tyed'; did you mean tied?",
    ),
    "an empty composition": ({"compositions": {"c": []}}, "compositions.c: names no teacher"),
    "a member twice": ({"compositions": {"c": ["book", "book"]}}, "compositions.c.1: 'book' stands twice"),
    "a composition like an SFT file": ({"compositions": {"sft_c": ["book"]}}, "names of SFT files begin so"),
    "a key in the URL": (
        {"teachers": teacher(endpoint={**ENDPOINT, "url": "https://me:secret@host/v1"})},
        "teachers.0.endpoint.url",
    ),
    "a key in the URL's query": (
        {"teachers": teacher(endpoint={**ENDPOINT, "url": "https://host/v1?key=secret"}), "compositions": {}},
        "teachers.0.endpoint.url: a base URL ends before any '?' or '#'; a key belongs into the variable",
    ),
    "a key in the config": ({"teachers": teacher(endpoint={**ENDPOINT, "api_key": "sk-1"})}, "api_key"),
    "fewer requests than ranks": (
        {"teachers": teacher(endpoint={**ENDPOINT, "concurrency": 1}), "compositions": {}, "resources": {"devices": 2}},
        "endpoint.concurrency: found 1, fewer than the 2 ranks",
    ),
    "no student": ({"student": None}, "student"),
}


@pytest.mark.parametrize(("keys", "said"), WRONG.values(), ids=WRONG.keys())
def test_refused(load: Any, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**keys)
    assert said in str(caught.value)


def test_warned_of(load: Any) -> None:
    found = load(
        "teachers.1.temperature=0.1",
        "rollout.group_size=4",
        "reward.format_weight=0.2",
        compositions={"c": ["book", "tied"]},
    )
    for said in (
        "teachers.1.temperature",
        "rollout.group_size",
        "reward.format_weight",
        "no composition names 'untied'",
    ):
        assert [said in text for text in found.warnings].count(True) == 1, said
    assert found.blockers == ()


def test_what_is_not_here_keeps_it_from_running(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POOL_KEY", raising=False)
    endpoint = {**ENDPOINT, "key_env": "POOL_KEY"}
    found = load(
        questions=["no.parquet"], teachers=teacher(endpoint=endpoint), compositions={}, rollout={"type": "vllm"}
    )
    assert len(found.blockers) == 2  # the rollout is not needed, so that vLLM may be missing
    assert "teachers.0.endpoint.key_env: the environment has no variable POOL_KEY" in found.blockers[0]
    assert "questions.0: there is no no.parquet" in found.blockers[1]
    monkeypatch.setenv("POOL_KEY", "sk-secret")
    found = load(teachers=teacher(endpoint=endpoint), compositions={})
    assert found.blockers == ()
    assert "sk-secret" not in found.yaml
    monkeypatch.setattr("ampo_core.config.pool_job.find_spec", lambda name: None)
    (blocker,) = load(teachers=teacher(endpoint=endpoint), compositions={}).blockers
    assert "pip install 'ampo-rl[endpoint]'" in blocker


def test_missing_models_are_named(load: Any) -> None:
    blockers = load("student.path=./nobody", "teachers.2.model.path=./nowhere").blockers
    assert ["student.path" in blockers[0], "teachers.2.model.path" in blockers[1]] == [True, True]


@pytest.mark.process
def test_checking_imports_no_torch(world: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump({**world, "reward": "math_verify"}))
    code = (
        "import sys; from ampo_core.cli.main import main; code = main([sys.argv[1], '--check']); "
        "heavy = [name for name in ('torch', 'transformers', 'openai', 'vllm') if name in sys.modules]; "
        "print(heavy, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
