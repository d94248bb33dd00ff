"""Thousands of wrong configs through `ampo-run`: exit 2, file, line and key, never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ampo_registry.discovery import Plugins
from ampo_registry.errors import ConfigError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ampo_core.cli import main as cli
from ampo_core.config.jobs import JOBS
from ampo_core.config.load import load_config
from ampo_core.config.nodes import value_at
from tests.config.test_checks import ERRORS
from tests.config.torture import VALUES, Component, Place, places, typos, wrong_values

pytest.importorskip("jsonschema")
Run = Callable[..., tuple[int, str]]
VALUES_A_PLACE = 3


@pytest.fixture
def run(folder: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`ampo-run c.yaml OVERRIDES… --check` in this process: (exit code, what stderr shows)."""
    monkeypatch.setattr(cli, "discover", lambda files: plugins)
    monkeypatch.setattr(cli, "version", lambda name: "of no interest")  # is read from a file, each time
    monkeypatch.delenv("RANK", raising=False)

    def run_text(text: str | bytes, *overrides: str) -> tuple[int, str]:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        Path("c.yaml").write_bytes(content)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = cli.main(["c.yaml", "--check", *overrides])
        return code, said.getvalue()

    return run_text


def refused(result: tuple[int, str], *starts: str) -> str | None:
    """What is wrong with a refusal one of whose lines must begin with one of `starts`; None if nothing is."""
    code, said = result
    if code != 2 or "Traceback" in said:
        return f"exit {code}: {said[-600:]}"
    if starts and not any(line.startswith(starts) for line in said.splitlines()):
        return f"no line begins with {' or '.join(starts)}: {said[:600]}"
    return None


def of_job(places_: Sequence[Place], job: str) -> Iterator[Place]:
    return (place for place in places_ if place.job == job)


@pytest.fixture(scope="module")
def known(plugins: Plugins) -> list[Place]:
    return list(places(plugins.catalog))


@pytest.mark.parametrize("job", JOBS)
def test_a_value_that_the_schema_refuses_is_named_with_its_line(run: Run, known: list[Place], job: str) -> None:
    faults: list[Any] = []
    for place in of_job(known, job):
        rng = Random(place.key)
        for i, value in enumerate(wrong_values(place, rng, VALUES_A_PLACE)):
            text, line = place.text(value)
            fault = refused(run(text), *(f"c.yaml:{line}: {place.key}{end}" for end in (":", ".")))
            if fault is not None:
                faults.append((place.key, value, fault))
            merged = place.view.component(place.schema) and isinstance(value, dict) and "type" not in value
            if i == 0 and not place.named and not merged:
                text, _ = place.text("x")
                fault = refused(run(text, f"{place.key}={json.dumps(value)}"), f"command line: {place.key}")
                if fault is not None:
                    faults.append((place.key, "override", value, fault))
    assert not faults, "\n".join(map(str, faults))


def kept(written: Any, read: Any) -> bool:
    """True iff `read`, which may hold more, says the same as `written`."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(value is None or kept(value, read.get(key)) for key, value in written.items())
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(kept, written, read))
    if isinstance(written, str) and isinstance(read, dict):
        return bool(read.get("type") == written)
    if isinstance(read, float) and type(written) is int:
        written = float(written)
    return bool(written == read) and isinstance(written, bool) == isinstance(read, bool)


def test_a_value_that_is_taken_stays_what_it_is(folder: Path, plugins: Plugins, known: list[Place]) -> None:
    faults = []
    taken = 0
    for place in known:
        values = [value for value in VALUES if value is not None and place.admits(value)]
        for value in Random(place.key).sample(values, min(2, len(values))):
            Path("c.yaml").write_text(place.text(value)[0])
            with contextlib.suppress(ConfigError):
                data = load_config("c.yaml", (), plugins).data
                taken += 1
                path = tuple(step for step in place.steps if not isinstance(step, Component))
                if not kept(value, value_at(data, path)):
                    faults.append((place.key, value, value_at(data, path)))
    assert not faults, "\n".join(map(str, faults))
    assert taken > 200


@pytest.mark.parametrize("job", JOBS)
def test_a_typo_at_any_depth_is_named_with_its_line(run: Run, known: list[Place], job: str) -> None:
    faults: list[Any] = []
    for place in of_job(known, job):
        key = place.steps[-1]
        if not isinstance(key, str) or place.named:
            continue
        for typo in typos(key, Random(place.key)):
            if typo == key:
                continue
            text, line = place.misspelt(typo)
            whole = ".".join([*place.key.split(".")[:-1], typo])
            result = run(text)
            fault = refused(result, f"c.yaml:{line}: {whole}: no such key")
            if fault is None and len(key) > 4 and not re.search(rf"did you mean (\S+ or )*\S*{key}\b", result[1]):
                fault = f"no hint at {key}: {result[1][:400]}"
            if fault is not None:
                faults.append((whole, fault))
    assert not faults, "\n".join(map(str, faults))


def test_combinations_that_break_a_rule_are_refused(run: Run) -> None:
    faults = []
    sets = "evaluation={sets: {a: {path: train.parquet, samples: 4}}}"
    for override, said in ERRORS.values():
        overrides = [sets, override] if override.startswith("checkpoint") else [override]
        result = run("extends: base.yaml\n", *overrides)
        fault = refused(result, "command line: ", "c.yaml:", "base.yaml:")
        if fault is not None or said not in result[1]:
            faults.append((override, fault or result[1]))
    assert not faults, "\n".join(map(str, faults))


BASE = "extends: base.yaml\n"
DEEP = 150
TRICKS = {
    "nothing": "",
    "spaces": "  \n \n",
    "comment": "# job: train\n",
    "list": "- job: train\n",
    "text": "train\n",
    "number": "5\n",
    "null": "~\n",
    "two documents": f"{BASE}---\n{BASE}",
    "an end, then more": f"{BASE}...\nx: 1\n",
    "tab": f"{BASE}\trun: {{}}\n",
    "tab inside": f"{BASE}run:\n\tname: x\n",
    "bad indent": f"{BASE}run:\n  name: x\n seed: 1\n",
    "unclosed list": f"{BASE}data: {{train: [a\n",
    "unclosed text": f"{BASE}run: {{name: 'x\n",
    "two colons": f"{BASE}run: name: x\n",
    "duplicate": f"{BASE}run: {{}}\nrun: {{}}\n",
    "duplicate inside": f"{BASE}run: {{seed: 1, seed: 2}}\n",
    "duplicate, written another way": f"{BASE}run: {{seed: 1, 'seed': 2}}\n",
    "merge key": f"x: &x {{seed: 1}}\n{BASE}run: {{<<: *x}}\n",
    "merge list": f"{BASE}run: {{<<: [{{seed: 1}}]}}\n",
    "unknown alias": f"{BASE}run: *nothing\n",
    "alias of itself": f"{BASE}run: &r {{x: *r}}\n",
    "laughs": BASE + "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12)),
    "python tag": f"{BASE}run: !!python/object/apply:os.system ['true']\n",
    "own tag": f"{BASE}run: !env {{name: x}}\n",
    "binary": f"{BASE}run: {{name: !!binary eA==}}\n",
    "set": f"{BASE}run: !!set {{x}}\n",
    "timestamp": f"{BASE}run: {{seed: !!timestamp 2024-01-01}}\n",
    "tagged number": f"{BASE}run: {{seed: !!int x}}\n",
    "directive": f"%YAML 3.0\n---\n{BASE}",
    "unknown handle": f"{BASE}run: !e!x 1\n",
    "yes": f"{BASE}data: {{shuffle: yes}}\n",
    "on": f"{BASE}data: {{shuffle: on}}\n",
    "sexagesimal": f"{BASE}run: {{seed: 1:30}}\n",
    "octal of old": f"{BASE}training: {{steps: 0o}}\n",
    "a number with words": f"{BASE}training: {{steps: 10k}}\n",
    "a huge number": f"{BASE}run: {{seed: {'9' * 4000}}}\n",
    "a number without end": f"{BASE}run: {{seed: {'9' * 9000}}}\n",
    "a huge fraction": f"{BASE}training: {{learning_rate: 1e999}}\n",
    "a huge whole number for a fraction": f"{BASE}training: {{learning_rate: {'9' * 400}}}\n",
    "nan": f"{BASE}training: {{learning_rate: .nan}}\n",
    "inf": f"{BASE}training: {{grad_clip: .inf}}\n",
    "minus inf": f"{BASE}guidance: {{teacher_reward: -.Inf}}\n",
    "nan as text": f"{BASE}training: {{learning_rate: nan}}\n",
    "list as a key": f"{BASE}? [a, b]\n: 1\n",
    "mapping as a key": f"{BASE}{{a: 1}}: 1\n",
    "empty key": f"{BASE}'': 1\n",
    "number as a key": f"{BASE}1: 1\n",
    "null as a key": f"{BASE}null: 1\n",
    "key with a dot": f"{BASE}run.name: x\n",
    "deep list": f"{BASE}x: {'[' * DEEP}{']' * DEEP}\n",
    "deep mapping": f"{BASE}x: {'{a: ' * DEEP}1{'}' * DEEP}\n",
    "deep block": BASE + "".join(f"{' ' * i}x:\n" for i in range(DEEP)),
    "unclosed depth": f"{BASE}x: {'[' * 20_000}",
    "NUL": f"{BASE}run: {{name: a\0b}}\n",
    "escaped NUL": f'{BASE}run: {{dir: "a\\0b"}}\n',
    "bell": f"{BASE}run: {{name: a\x07}}\n",
    "half a pair": f'{BASE}run: {{name: "\\ud800"}}\n',
    "half a pair in a key": f'{BASE}"\\udc00": 1\n',
    "not UTF-8": b"extends: base.yaml\nrun: {name: \xff}\n",
    "UTF-16": BASE.encode("utf-16"),
    "half a pair as bytes": f"{BASE}run: {{name: \ud800}}\n",
    "line of another system": f"{BASE}run:\x85 {{nam: x}}\n",
    "name with a line break": f'{BASE}run: {{name: "x\\n"}}\n',
    "name that leads out": f"{BASE}run: {{name: ../x}}\n",
    "extends nothing": "extends: nowhere.yaml\n",
    "extends itself": "extends: c.yaml\n",
    "extends a folder": "extends: .\n",
    "extends null and no job": "extends: ~\n",
    "extends a list": "extends: [base.yaml]\n",
    "extends NUL": 'extends: "a\\0b"\n',
    "extends a variable": "extends: $HOME/base.yaml\n",
    "extends a long name": f"extends: {'a' * 300}\n",
    "job of another case": "job: Train\n",
    "job as a list": "job: [train]\n",
    "job null": f"{BASE}job: ~\n",
    "job twice": f"{BASE}job: train\njob: sft\n",
    "another job": f"{BASE}job: sft\n",
    "component null": f"{BASE}rollout: ~\n",
    "component without a name": f"{BASE}rollout: {{type: ''}}\n",
    "component with two types": f"{BASE}rollout: {{type: vllm, type: transformers}}\n",
    "component as a list": f"{BASE}rollout: [transformers]\n",
    "a run of a suite that is a suite": "job: suite\nruns: {a: c.yaml}\n",
    "a stage that is its pipeline": "job: pipeline\nstages: [{name: a, config: c.yaml}]\n",
    "a stage without a file": "job: pipeline\nstages: [{name: a, config: nowhere.yaml}]\n",
    "a stage that refers to itself": "job: pipeline\nstages: [{name: a, config: base.yaml, overrides: "
    "{model.path: '${stages.a.out}'}}]\n",
    "a stage's override with a typo": "job: pipeline\nstages: [{name: a, config: base.yaml, overrides: {a..b: 1}}]\n",
    "a stage's override too deep": "job: pipeline\nstages: [{name: a, config: base.yaml, overrides: "
    f"{{{'.'.join('a' * 200)}: 1}}}}]\n",
}


@pytest.mark.parametrize("text", TRICKS.values(), ids=TRICKS.keys())
def test_tricks_of_yaml(run: Run, text: str | bytes) -> None:
    assert refused(run(text), "c.yaml", "ampo-run: error") is None
    assert re.search(r"(?m)^(c\.yaml|base\.yaml)", run(text)[1])


OVERRIDES = (
    *("=", "=1", ".=1", "a.=1", ".a=1", "run..name=x", "run.name", "run.name:x", "run", " =1", "run. name=x"),
    *("run.name=", "run.name=[", "run.name={", "run.name='", 'run.name="', "run.name=a: b: c", "run.name=&a *a"),
    *("run.name=*a", "run.name=!!python/name:os.system", "run.name=\t- x", "run.name=a\0b", "run.name=\udc80"),
    *("run.name=---\n- x\n---\n", "run.seed=1:30", "run.seed=--1", "run.seed=1e3", "run.seed=0x", "run.seed=٣"),
    *("run.seed=" + "9" * 5000, "run.seed=.nan", "run={name: x, name: y}", "run=5", "run=[1]", "run.name.x=1"),
    *("data.train.1=x", "data.train.-1=x", "data.train.x=x", "data.train.0.0=x", "data.train." + "9" * 5000 + "=x"),
    *("data.train=[]", "data.train=x", "data.train.=x", "tracking.0=x", "tracking.0.type=x", "tracking.0.type.x=1"),
    *("rollout.type=", "rollout.type=vlm", "rollout.type.x=1", "rollout=vlm", "rollout.type=[vllm]", "job=x", "job=1"),
    *("job.x=1", "job=[train]", "job={}", "job=sft", "extends=base.yaml", "RUN.NAME=x", "run.NAME=x", "Run.name=x"),
    *("guidance.trigger=ADAPTIVE", "guidance.selector.type=Length", "guidance.selector=", "guidance=x", "guidance.x=1"),
    *("evaluation.sets.a=1", "evaluation.sets..path=x", "evaluation.sets.a.path.x=1", "evaluation.sets=x"),
    *(".".join("a" * 900) + "=1", "a." * 5000 + "a=1", "x=" + "[" * 5000, "x=" + "{a: " * 200, "x" * 5000 + "=1"),
    *("run.dir=$HOME/x", "run.dir=" + "a" * 300, "run.dir=" + "a/" * 3000 + "a", "run.dir=~nobody-at-all/x"),
    *("training.betas=0.9", "training.betas.0=x", "training.betas.2=0.5", "training.betas=[0.9]", "model=x"),
    *("deepspeed.zero_stage=true", "deepspeed.zero_stage=1.0", "deepspeed.zero_stage='1'", "rollout.ahead=true"),
)


def test_tricks_of_overrides(run: Run) -> None:
    faults = []
    for override in OVERRIDES:
        for text in (BASE, BASE + "tracking: [tensorboard]\n"):
            fault = refused(run(text, override), "command line: ", "c.yaml:", "base.yaml:")
            if fault is not None:
                faults.append((override[:60], fault))
    assert not faults, "\n".join(map(str, faults))


WORDS = st.sampled_from(
    (
        *("job", "train", "run", "name", "data", "extends", "base.yaml", "rollout", "type", "vllm", ": ", ":", "- "),
        *("\n", "  ", "{", "}", "[", "]", ", ", "'", '"', "&a", "*a", "!!str ", "!x ", "|", ">", "#", "? ", "~", "<<"),
        *("true", "1", "1e9", ".inf", "0x1", "\t", "---", "...", "%", "\\", "${stages.a.out}", "é", "\x85", "\u2028"),
    )
)
FUZZ = settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(st.lists(WORDS, max_size=12).map("".join) | st.text(max_size=40))
def test_any_text_is_a_config_or_is_refused(run: Run, text: str) -> None:
    code, said = run(BASE + text)
    assert code == 0 or refused((code, said), "c.yaml", "base.yaml", "extends") is None


@FUZZ
@given(
    st.lists(st.sampled_from(["run", "name", "data", "train", "0", "rollout", "type", "x", ""]), max_size=4),
    st.lists(WORDS, max_size=6).map("".join) | st.text(max_size=20),
)
def test_any_override_is_one_or_is_refused(run: Run, keys: list[str], value: str) -> None:
    code, said = run(BASE, f"{'.'.join(keys)}={value}")
    assert code == 0 or refused((code, said), "command line: ", "c.yaml", "base.yaml") is None


def test_there_are_thousands(known: list[Place]) -> None:
    values = sum(len(list(wrong_values(place, Random(place.key), VALUES_A_PLACE))) for place in known)
    keys = sum(not place.named and isinstance(place.steps[-1], str) for place in known)
    assert values + 2 * keys > 1500
