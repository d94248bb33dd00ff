"""`--sample` of an evaluate job: the job's own responses, and nothing is left behind."""

import json

import pytest

from ampo_core.cli.main import main
from ampo_core.jobs.sample.document import PICTURES


@pytest.mark.process
def test_it_shows_what_the_job_samples(config, capfd):
    before = set(config.iterdir())
    assert main(["evaluate.yaml", "--sample", "9", "--file", "seen.md"]) == 0
    assert set(config.iterdir()) - before == {config / "seen.md"}
    seen = (config / "seen.md").read_text("utf-8")
    assert capfd.readouterr().out == f"{seen}seen.md\n"
    assert main(["evaluate.yaml"]) == 0
    lines = (config / "runs/compared/predictions.jsonl").read_text("utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    assert seen.count("### Question ") == 2 * (3 + 2)
    assert seen.count("\nResponse ") == len(predictions) == 40
    assert all(f"```text\n{one['text'].translate(PICTURES)}\n```" in seen for one in predictions)
    assert "start on odd: every response was cut off; look at" in seen
    assert "Put the answer in <answer> tags." in seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sample", "0"], "--sample: found 0; at least 1"),
        (["--file", "a.md"], "--file says where --sample writes"),
        (["--sample", "1", "--file", "a.txt"], "it writes Markdown and needs a name that ends in .md"),
        (["--sample", "1", "--file", "none/a.md"], "needs a folder that is there"),
        (["--sample", "1", "predictions=[old]"], "grades the texts of old anew"),
        (["--sample", "1", "rollout.max_response_tokens=600"], "has 512 positions; found 601 tokens"),
    ],
)
def test_what_cannot_be_shown_is_refused(config, capsys, arguments, said):
    assert main(["evaluate.yaml", *arguments]) == 2
    assert said in capsys.readouterr().err
