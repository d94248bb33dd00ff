"""Run folders as jobs leave them, and a browser that may not reach any network."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
TEACHERS = ("chain", "<b>terse</b>")
CONFIG: dict[str, Any] = {
    "job": "train",
    "run": {"name": "ampo", "dir": "runs", "seed": 0},
    "model": {"path": "start/model"},
    "data": {"train": ["train.parquet"]},
    "rollout": {"type": "transformers", "group_size": 4},
    "guidance": {
        "threshold": 0.6,
        "trigger": {"type": "adaptive"},
        "selector": {"type": "comprehension", "ties": "shorter"},
        "replacements": 2,
    },
    "training": {"steps": 40, "questions_per_batch": 8, "questions_per_minibatch": 4, "epochs_per_batch": 1},
    "resources": {"devices": 1, "nodes": 1},
}
EVIL = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


def metrics_line(step: int, seed: int, guided: bool) -> dict[str, Any]:
    """A step's metrics as the loop writes them."""
    wave = math.sin(step + seed)
    line: dict[str, Any] = {
        "step": step,
        "reward/mean": step / 50 + 0.05 * wave,
        "reward/accuracy": step / 60,
        "reward/format": 1.0,
        "response/length_mean": 20.0 + step,
        "response/truncated": 0.0,
        "policy/entropy": 1.0 / step,
        "policy/grad_norm": 0.5 + 0.1 * wave if step != 20 else 90.0,
        "policy/loss": 0.1 * wave,
        "policy/rollout_logprob_gap": 1e-7 * (2 + wave),
        "policy/skipped_updates": float(step == 9),
        "groups/sampled": 8.0,
        "tokens/generated": 100.0,
        "tokens/trained": 300.0,
        "tokens/teacher": 30.0 * guided,
        "time/rollout_s": 1.0,
        "time/update_s": 2.0,
        "time/step_s": 3.5,
    }
    if guided:
        line |= {"guidance/triggered": 0.5, "guidance/replaced": 1.0, "guidance/score_mean": 0.7 + 0.1 * wave}
        line |= {f"guidance/teacher/{TEACHERS[0]}": 0.25, f"guidance/teacher/{TEACHERS[1]}": 0.75}
    return line


def sample(step: int, slot: int, guided: bool) -> dict[str, Any]:
    """A line of samples.jsonl; one student answer tries to break out of the page."""
    teacher = TEACHERS[slot % 2] if guided and slot < 2 else None
    return {
        "step": step,
        "uid": f"q{step}.{slot}",
        "dataset": "toy",
        "prompt": f"{step}+{slot}?",
        "answer": str(step + slot),
        "text": EVIL if slot == 3 else f"{step}+{slot} is\n" * 9 + f"<answer>{step + slot}</answer>",
        "reward": 1.0 if teacher or slot == 2 else 0.1,
        "source": "teacher" if teacher else "policy",
        "teacher": teacher,
        "score": 0.5 + 0.01 * slot if teacher else None,
    }


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_run(folder: Path, *, steps: int = 40, seed: int = 0, guided: bool = True, evaluated: bool = True) -> Path:
    """The folder of a finished train run."""
    folder.mkdir(parents=True)
    config = {**CONFIG, "guidance": CONFIG["guidance"] if guided else None}
    config["run"] = {"name": folder.name, "dir": str(folder.parent), "seed": seed}
    describe(folder, config, seed=seed, teachers=list(TEACHERS) if guided else [])
    lines = [metrics_line(step, seed, guided) for step in range(1, steps + 1)]
    if evaluated:
        lines.insert(0, {"step": 0, "eval/easy/avg@8": 0.1, "eval/hard/avg@8": 0.0, "eval/macro/avg": 0.05})
        lines[-1] |= {"eval/easy/avg@8": 0.9, "eval/hard/avg@8": 0.5, "eval/macro/avg": 0.7}
    write_lines(folder / "metrics.jsonl", lines)
    write_lines(folder / "samples.jsonl", [sample(s, i, guided) for s in range(1, steps + 1) for i in range(8)])
    return folder


def describe(folder: Path, config: Mapping[str, Any], *, seed: int = 0, teachers: Sequence[str] = ()) -> None:
    """config.yaml, manifest.json and the marker of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    manifest = {"job": config["job"], "seed": seed, "versions": {"python": "3.11.9"}, "teachers": list(teachers)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "done").write_text('{"output": "."}')


def result(value: float, k: int = 8) -> dict[str, Any]:
    """What results.json says of a model on a set."""
    around = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {
        "questions": 16,
        "samples": k,
        "avg": around,
        "pass_at": {"4": {**around, "value": value + 0.1}, "8": {**around, "value": value + 0.2}},
        "length_mean": 12.5,
        "truncated": 0.0,
        "difference": None,
    }


def write_evaluation(folder: Path, models: Mapping[str, float]) -> Path:
    """The folder of a finished evaluate job; the models are as good as said."""
    describe(folder, {"job": "evaluate", "run": {"name": folder.name}})
    found = {name: {"easy": result(v), "hard": result(v / 2), "macro": result(0.75 * v)} for name, v in models.items()}
    found[next(iter(models))]["easy"]["difference"] = {"value": 0.1, "low": 0.05, "high": 0.2}
    readings = ["easy: ampo is ahead of start by 10.0 points."]
    (folder / "results.json").write_text(
        json.dumps({"baseline": next(iter(models)), "models": found, "readings": readings})
    )
    predictions = [
        {"model": m, "set": s, "uid": f"q{i}", "sample": i, "text": f"text {i}", "correct": i % 2 == 0, "answer": "4"}
        for m in models
        for s in ("easy", "hard")
        for i in range(200)
    ]
    write_lines(folder / "predictions.jsonl", predictions)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "ampo")


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline of prepare, two train runs and an evaluation."""
    folder = tmp_path / "quick"
    stages = [{"name": name, "config": f"{name}.yaml"} for name in ("world", "grpo", "ampo", "evaluate")]
    describe(folder, {"job": "pipeline", "run": {"name": "quick"}, "stages": stages})
    describe(folder / "world", {"job": "prepare", "run": {"name": "world"}})
    summary = {"questions": 12, "teachers": {"chain": {"kept": 3, "tokens": 9.5}, "terse": {"kept": 4, "tokens": 2.5}}}
    (folder / "world/summary.json").write_text(json.dumps(summary))
    write_run(folder / "grpo", guided=False)
    write_run(folder / "ampo")
    write_evaluation(folder / "evaluate", {"start": 0.2, "grpo": 0.4, "ampo": 0.7})
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of two runs and two seeds, the second seed of one of them not finished, with evaluations."""
    folder = tmp_path / "paper"
    describe(folder, {"job": "suite", "run": {"name": "paper"}, "runs": {"grpo": "grpo.yaml", "ampo": "ampo.yaml"}})
    for seed in (0, 1):
        for name in ("ampo", "grpo"):
            steps = 25 if (name, seed) == ("grpo", 1) else 40
            write_run(folder / f"seed-{seed}" / name, seed=seed, steps=steps, guided=name == "ampo")
            write_evaluation(folder / f"seed-{seed}/evaluations/sampled" / name, {"this": 0.3 + 0.1 * seed})
    (folder / "seed-1/grpo/done").unlink()
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; skips where there is none. (apt-get install chromium chromium-driver)"""
    if not CHROMIUM.exists() or not DRIVER.exists():
        pytest.skip(f"needs {CHROMIUM} and {DRIVER}: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tmp_path_factory.mktemp("profile")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*QUIET, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def show(browser: Any) -> Callable[..., None]:
    """Opens a page at a width and in a colour scheme, and waits until its script is through."""

    def opened(path: Path, *, width: int = 1280, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.resolve().as_uri())
        until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))

    return opened


def until(true: Callable[[], Any], seconds: float = 120.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
