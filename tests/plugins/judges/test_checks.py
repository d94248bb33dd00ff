"""What the judges of a model folder look at before anything is loaded."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ampo_plugins.judges import vllm
from ampo_plugins.judges.transformers import TransformersJudge
from ampo_plugins.judges.vllm import VllmJudge
from ampo_registry import BuildContext, ConfigError
from ampo_registry import testing as kit

JUDGES = [TransformersJudge, VllmJudge]


@pytest.mark.parametrize("judge", JUDGES)
def test_a_model_of_the_students_vocabulary_is_taken(judge: Any, teacher: Path, context: BuildContext) -> None:
    judge(path=str(teacher)).check(context)
    judge(path=str(teacher)).check(replace(context, longest=512))
    assert judge(path=str(teacher)).refuses(0.3) is None


@pytest.mark.parametrize("judge", JUDGES)
def test_the_model_that_it_loads_is_known_and_must_be_whole(
    judge: Any, teacher: Path, context: BuildContext, tmp_path: Path
) -> None:
    assert judge(path="some/model").model == "some/model"
    with pytest.raises(ConfigError, match=r"^judges\.far\.path: no model could be loaded from"):
        judge(path=str(tmp_path)).check(context)
    shutil.copy(teacher / "config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"^judges\.far\.path: .* has another vocabulary"):
        judge(path=str(tmp_path)).check(context)


@pytest.mark.parametrize("judge", JUDGES)
def test_another_vocabulary_is_refused_with_the_first_token_that_differs(
    judge: Any, teacher: Path, context: BuildContext, golden_tokenizer: Any
) -> None:
    larger = deepcopy(golden_tokenizer)
    larger.add_tokens(["<new>"])
    text = (
        r"^judges\.far\.path: .* has another vocabulary .*: 1 of .* tokens differ, first '<new>', .* has no such token"
    )
    with pytest.raises(ConfigError, match=text):
        judge(path=str(teacher)).check(replace(context, tokenizer=larger))


def test_a_judge_may_have_tokens_that_the_student_has_not(
    teacher: Path, context: BuildContext, golden_tokenizer: Any, tmp_path: Path
) -> None:
    larger = deepcopy(golden_tokenizer)
    larger.add_tokens(["<new>"])
    shutil.copytree(teacher, tmp_path / "larger")
    larger.save_pretrained(tmp_path / "larger")
    TransformersJudge(path=str(tmp_path / "larger")).check(context)


@pytest.mark.parametrize("judge", JUDGES)
def test_a_model_with_too_few_positions_is_refused(
    judge: Any, teacher: Path, context: BuildContext, tmp_path: Path
) -> None:
    longer = replace(context, longest=513)
    with pytest.raises(ConfigError, match=r"^judges\.far\.path: .* has 512 positions, .* up to 513 tokens"):
        judge(path=str(teacher)).check(longer)
    shutil.copytree(teacher, tmp_path / "stretched")
    config = json.loads((tmp_path / "stretched/config.json").read_text("utf-8"))
    scaling = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 512}
    (tmp_path / "stretched/config.json").write_text(json.dumps({**config, "rope_parameters": scaling}), "utf-8")
    judge(path=str(tmp_path / "stretched")).check(longer)


def test_the_transformers_judge_keeps_the_contract(teacher: Path, context: BuildContext) -> None:
    kit.check_judge(TransformersJudge(path=str(teacher)), context)


def test_an_engine_that_is_made_too_short_is_refused(teacher: Path, context: BuildContext) -> None:
    VllmJudge(path=str(teacher), max_model_len=100).check(context)
    with pytest.raises(ConfigError, match=r"^judges\.far\.max_model_len: found 99; .* up to 100 tokens"):
        VllmJudge(path=str(teacher), max_model_len=99).check(context)


def test_without_vllm_it_says_how_to_get_it(context: BuildContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    spec = VllmJudge(path="model")
    assert "or use the judge transformers" in str(spec.unavailable())
    kit.check_unavailable(spec, spec.build, context)
